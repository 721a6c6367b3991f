/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qcow2-chain - an image and the images it stands on, all of one directory
 *
 *      LEAF.qcow2 -> A.base.qcow2 -> B.base.qcow2 -> nothing
 *
 * Every file is a regular one, opened by its plain name below the directory's descriptor; symbolic links are not followed. What
 * is opened later is opened by these descriptors, never by name again. Blocks as long as open() and read() do.
 */
#ifndef SXM_QCOW2_QCOW2_CHAIN_H
#define SXM_QCOW2_QCOW2_CHAIN_H

#include <sys/types.h>

#include "qcow2/qcow2-header.h"

#define QCOW2_CHAIN_MAX 64u /* files, the leaf among them */

struct qcow2_base {
	char name[QCOW2_NAME_MAX + 1];
	int fd;                /* owned: read only */
	dev_t dev;
	ino_t ino;
	struct qcow2_header header;
};

struct qcow2_chain {
	struct qcow2_header leaf;
	size_t count;          /* of bases */
	struct qcow2_base base[QCOW2_CHAIN_MAX - 1]; /* the leaf's own first */
};

/* Opens dir/name, O_CLOEXEC: a regular file and no link. flags: O_RDONLY or O_RDWR. -1 + e. */
int qcow2_open(int dir, const char *name, int flags, struct error *e);
/* Parses the head of the image that is open as fd. name: for the sentence. */
int qcow2_read_header(int fd, const char *name, struct qcow2_header *out, struct error *e);

/* From the image that is open as fd (it stays the caller's) down to the one that has no backing file. -1 + e: ELOOP, a circle;
 * EMLINK, too many; ENOENT and qcow2_header_parse()'s, with the name of the file it is about. */
int qcow2_chain_open(struct qcow2_chain *c, int dir, int fd, const char *name, struct error *e);
void qcow2_chain_close(struct qcow2_chain *c); /* of a zeroed one, too */

/* Whether nothing was ever written to it, so that it reads as its backing file does. Reads its first table. */
int qcow2_is_blank(int fd, const struct qcow2_header *h, bool *is_blank, struct error *e);

#endif
