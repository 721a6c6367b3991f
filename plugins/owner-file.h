/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * owner-file - whose a disk is, as the record says that its process left (mirror/commit.h; vdi/owner writes it)
 *
 * For who may not wait for a process, or has none: of a disk that a process serves that one knows more.
 */
#ifndef SXM_PLUGINS_OWNER_FILE_H
#define SXM_PLUGINS_OWNER_FILE_H

#include "base/error.h"
#include "base/jsonspec.h"

struct owner_file {
	char *state;                  /* owned; never NULL after owner_file_read() */
	char *role, *mirror, *epoch;  /* owned; NULL: not said */
	bool written, acknowledged, unverified, told, raised, ended, taken;
};
extern const struct jsonspec owner_file_spec; /* also of what a process' status says of it, where each may be missing */

/* image: a path of it. No record: it is owned, and was never mirrored. -1 + e: it cannot be known; there is nothing to clear. */
int owner_file_read(const char *image, struct owner_file *o, struct error *e);
void owner_file_clear(struct owner_file *o);
bool owner_file_is(const struct owner_file *o, const char *state);
/* The record's path, heap; NULL: out of memory. */
char *owner_file_path(const char *image);

#endif
