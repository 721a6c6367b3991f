/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qcow2-header - what the head of a qcow2 image says, and whether we let anybody open it. Pure.
 *
 * The image may have been written by anybody. What is accepted: version 2 or 3, no encryption, no file beside it for its data,
 * not marked corrupt, no feature that is not known here, and as its backing file nothing but the plain name of another qcow2
 * image of the same directory, NAME.base.qcow2.
 */
#ifndef SXM_QCOW2_QCOW2_HEADER_H
#define SXM_QCOW2_QCOW2_HEADER_H

#include "base/error.h"

#define QCOW2_SUFFIX ".qcow2"
#define QCOW2_BASE_SUFFIX ".base.qcow2"
#define QCOW2_NAME_MAX 255u
#define QCOW2_HEAD_BYTES (64 * KiB) /* so much of a file holds all that is read here */

struct qcow2_header {
	unsigned version;
	uint64_t size_bytes;     /* of the disk: a multiple of 512 */
	unsigned cluster_bits;
	uint64_t l1_offset;      /* the table that says where everything else is: l1_count entries of 8 bytes */
	uint32_t l1_count;
	bool is_dirty;           /* its reference counts are repaired when it is opened for writing */
	char backing[QCOW2_NAME_MAX + 1]; /* "": it has none */
};

/* data: the beginning of the file, QCOW2_HEAD_BYTES of it or all there is. -1 + e: EINVAL, it is none or damaged; EOPNOTSUPP, it
 * is one of a kind that is not accepted; EPERM, it wants a file opened that is none of its own. */
int qcow2_header_parse(const void *data, size_t bytes, struct qcow2_header *out, struct error *e);

/* NAME.base.qcow2, of A-Z a-z 0-9 . _ -, no leading dot. */
bool qcow2_is_base_name(const char *name);
/* PATH.qcow2 */
bool qcow2_is_named(const char *path);

#endif
