/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * content - by which name the content of a volume is known to other hosts
 *
 * Its content_id, or, where it was imported and not written to since, the name it had in the stream: a key of its own that says
 * both. A stream may say anything, so it never becomes a content_id: by that one takes two disks for the same.
 */
#ifndef SXM_CMD_CONTENT_H
#define SXM_CMD_CONTENT_H

#include "plugins/meta.h"
#include "qcow2/qcow2-stream.h"

#define CONTENT_KEY "sxm_imported" /* of a volume's keys: NAME CONTENT_ID */

/* "": it has none that can be said. -1 + e: as meta_volume_read(). */
int content_name(const char *dir, const char *key, char name[static QCOW2_STREAM_ID_MAX], struct error *e);
/* Does that volume have that one, and its data? */
bool content_is(const char *dir, const char *key, const char *name);
/* The value of that key, heap; NULL: out of memory. */
char *content_mark(const char *name, const char *content_id);

#endif
