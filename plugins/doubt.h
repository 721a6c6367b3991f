/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * doubt - what this host knows better than a volume's record: its content_id, where that could not be changed (volume-writer)
 */
#ifndef SXM_PLUGINS_DOUBT_H
#define SXM_PLUGINS_DOUBT_H

#include "base/compiler.h"
#include "base/error.h"

/* image: canonical. Durable. */
int doubt_begin(const char *image, const char *content_id, struct error *e);
void doubt_end(const char *image);
bool doubt_is_there(const char *image);
/* The one that holds, heap; NULL: what its record says. */
char *doubt_content_id(const char *dir, const char *key);
/* Its record was written, which was read with that one, and says it or another new one. */
void doubt_settle(const char *dir, const char *key);

#endif
