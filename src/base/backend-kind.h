/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * backend-kind - of which kind Xen guests' devices are on this host: a directory's name in xenstore
 *
 *      SXM_RUN_DIR/backend-kind, else SXM_STATE_DIR/backend-kind      made, changed and removed by whoever likes
 */
#ifndef SXM_BASE_BACKEND_KIND_H
#define SXM_BASE_BACKEND_KIND_H

#include "base/compiler.h"

#define BACKEND_KIND_FILE "backend-kind"
#define BACKEND_KIND_DEFAULT "qdisk"
#define BACKEND_KIND_MAX 33 /* bytes with the NUL */

bool backend_kind_is_one(const char *text);
/* The file's first word; the default where there is no file, or its word is none, which is in the log. */
void backend_kind(char out[static BACKEND_KIND_MAX]);

#endif
