/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-uri - what people and xapi call a far side, made into what libnbd takes
 *
 * Pure: no file, no socket, no name is looked up.  Taken:
 *
 *      nbd://HOST[:PORT]/EXPORT               nbds://[USER@]... TCP, TLS
 *      nbd+unix:///EXPORT?socket=PATH         nbds+unix://...
 *      nbd+vsock://CID[:PORT]/EXPORT          nbds+vsock://...
 *      ...?tls-psk-file=PATH, ?tls-certificates=DIR             with nbds:// alone, absolute; and no other parameters
 *      nbd:unix:PATH:exportname=NAME          xapi's, which becomes nbd+unix:///NAME?socket=PATH
 */
#ifndef SXM_MIRROR_REMOTE_URI_H
#define SXM_MIRROR_REMOTE_URI_H

#include "base/error.h"

#define REMOTE_URI_MAX_BYTES 8192u        /* longer ones are refused unread */
#define REMOTE_URI_SOCKET_MAX_BYTES 107u  /* what sun_path holds, less its NUL */
#define REMOTE_URI_EXPORT_MAX_BYTES 4096u /* NBD's limit of a string */

/* The URI for libnbd, heap. NULL + e: not one that could work. */
char *remote_uri_normalize(const char *uri, struct error *e);

/* The directory that tls-certificates names in such a URI, heap. NULL: it names none, or out of memory. */
char *remote_uri_certificates(const char *normal);

#endif
