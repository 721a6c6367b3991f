/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tls - TLS on one client's socket, as stream.h wants it; and the keys of those who listen (nbdsrv.h)
 *
 * Where sxm is built without GnuTLS there are never any keys, and none of the rest is called (tls-none.c).
 */
#ifndef SXM_NBDSRV_TLS_H
#define SXM_NBDSRV_TLS_H

#include <sys/types.h>
#include <sys/uio.h>

#include "nbdsrv/nbdsrv.h"

struct tls;

/* fd is borrowed, keys are referred to. NULL: out of memory. */
struct tls *tls_new(int fd, struct nbdsrv_keys *keys);
/* Says good-bye where it can be said at once. */
void tls_bye_free(struct tls *t);

ssize_t tls_receive(struct tls *t, const struct iovec *iov, size_t count);
ssize_t tls_send(struct tls *t, const struct iovec *iov, size_t count);
bool tls_is_holding(const struct tls *t);
bool tls_is_unsent(const struct tls *t);
bool tls_is_full(const struct tls *t);
bool tls_is_up(const struct tls *t);
const char *tls_why(const struct tls *t);

/* --- tls-keys.c, for tls.c */
struct gnutls_session_int;
/* What the session offers and demands. A GnuTLS code. */
int tls_keys_apply(const struct nbdsrv_keys *k, struct gnutls_session_int *session);
bool tls_keys_are_shared(const struct nbdsrv_keys *k); /* PSK */

#endif
