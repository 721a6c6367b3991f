/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * slots - a small text in a file of its own, which is changed often and must be durable soon
 *
 * Where a file that is replaced (proc_replace_file) takes two commits of the file system's journal for each change, this one
 * takes a flush: it is written in place, in one of two slots, the one that is older.
 */
#ifndef SXM_BASE_SLOTS_H
#define SXM_BASE_SLOTS_H

#include <stddef.h>

#include "base/error.h"

#define SLOTS_FILE_BYTES 8192u
#define SLOTS_TEXT_MAX 3968u

/* Durable; on error it is the old text or the new one, as with a file that is replaced. The file is made where there is none, or
 * one that is none of these. One writer at a time. -1 + e: EFBIG, the text is longer than SLOTS_TEXT_MAX. */
int slots_write(const char *path, const char *text, size_t bytes, unsigned mode, struct error *e);
/* What was written last, NUL after it; heap. A file that is none of these is the text itself. NULL + e: EBADMSG where it is
 * damaged. */
char *slots_read(const char *path, size_t *bytes, struct error *e);
/* The same, and it is on the medium, whatever became of its writer: who acts on it needs that. */
char *slots_read_durable(const char *path, size_t *bytes, struct error *e);
/* Pure. What is read of a file with those bytes: in it, *bytes of it; NULL: it is damaged. */
const char *slots_find(const char *file, size_t *bytes);

#endif
