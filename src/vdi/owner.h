/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * owner - the file beside an image that says whose the disk is (mirror/commit.h decides what it says)
 *
 * <image>.owner (base/beside.h), one small JSON record in slots (base/slots.h).  None: a disk without a past.
 */
#ifndef SXM_VDI_OWNER_H
#define SXM_VDI_OWNER_H

#include "base/error.h"
#include "mirror/commit.h"

#define OWNER_SUFFIX ".owner"

struct owner {
	char *file;                  /* owned; NULL: not loaded */
	struct commit_record record;
	int64_t written_s;           /* when the file was; 0: there is none */
};

/* Blocks. Only with the image's lock held: another process could be changing it. -1 + e: there is one and it says nothing
 * sensible; whose the disk is is not guessed. */
int owner_load(const char *image, struct owner *o, struct error *e);
void owner_clear(struct owner *o);
char *owner_encode(const struct commit_record *r); /* heap; NULL: out of memory */

#endif
