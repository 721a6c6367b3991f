/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tls-none - in place of tls and tls-keys where sxm is built without GnuTLS: keys are never to be had, so nothing else is called
 */
#include <errno.h>
#include <stdlib.h>

#include "nbdsrv/tls.h"

struct nbdsrv_keys *nbdsrv_keys_load(const struct nbdsrv_tls *spec UNUSED, struct error *e)
{
	error_set(e, ENOTSUP, "this sxm was built without GnuTLS: it has no TLS");
	return NULL;
}

struct nbdsrv_keys *nbdsrv_keys_ref(struct nbdsrv_keys *k)
{
	assert(!k);
	return k;
}

void nbdsrv_keys_unref(struct nbdsrv_keys *k UNUSED)
{
	assert(!k);
}

const struct nbdsrv_tls *nbdsrv_keys_spec(const struct nbdsrv_keys *k UNUSED)
{
	abort();
}

struct tls *tls_new(int fd UNUSED, struct nbdsrv_keys *keys UNUSED)
{
	return NULL;
}

void tls_bye_free(struct tls *t UNUSED)
{
	abort();
}

ssize_t tls_receive(struct tls *t UNUSED, const struct iovec *iov UNUSED, size_t count UNUSED)
{
	abort();
}

ssize_t tls_send(struct tls *t UNUSED, const struct iovec *iov UNUSED, size_t count UNUSED)
{
	abort();
}

bool tls_is_holding(const struct tls *t UNUSED)
{
	abort();
}

bool tls_is_unsent(const struct tls *t UNUSED)
{
	abort();
}

bool tls_is_full(const struct tls *t UNUSED)
{
	abort();
}

bool tls_is_up(const struct tls *t UNUSED)
{
	abort();
}

const char *tls_why(const struct tls *t UNUSED)
{
	abort();
}
