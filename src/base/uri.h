/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * uri - paths as URIs: file:///srv/sr names an SR's directory, sxm:///srv/sr/KEY.raw a volume's image
 */
#ifndef SXM_BASE_URI_H
#define SXM_BASE_URI_H

#include "base/error.h"

/* "SCHEME://" and the absolute path with everything percent-encoded but / and A-Z a-z 0-9 - . _ ~; heap; NULL: out of memory.
 * The same path always gives the same text. */
char *uri_of_path(const char *scheme, const char *path);

/* The absolute path in a URI of that scheme (compared without regard to case), heap.
 * NULL + e: another scheme, a host, a query, a broken escape, a NUL, a path that is not absolute. */
char *uri_path(const char *uri, const char *scheme, struct error *e);

/* One name per place: the directory part resolved (symbolic links, . and ..), the last part as it is, so that it also names
 * what is not there yet, or no longer.  NULL + e: the directory part cannot be resolved, or the last part is . or .. */
char *uri_canonical(const char *path, struct error *e);

/* Whether a URI, in whatever spelling, names the place of that canonical path: 1; 0: it does not, or is none of that scheme, or
 * leads nowhere; -1 + e: it cannot be told now. Asks the file system, and blocks as that does, only where both end in the same
 * name and lead there differently. */
int uri_names(const char *uri, const char *scheme, const char *canonical, struct error *e);

#endif
