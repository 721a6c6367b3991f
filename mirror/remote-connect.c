/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-connect - see remote-connect.h
 *
 *      of certificates: by which the far side is known is there --no--> a sentence
 *         |
 *      connect --refused, not there--> wait 10, 20, 40 ... 200 ms, again, for connect_wait_ms in all
 *         |
 *      greeting and options, within handshake_ms
 *         |
 *      x-sxm there?  HELLO: nothing may be written before                            --STALE, NOT_YOURS--> a sentence
 *         |
 *      does it fit?  writable, large enough, its smallest block within ours   --no--> a sentence with both numbers
 *         |
 *      remote-probe: what reads as zero there
 *
 * libnbd would do most of this in one blocking call, without a deadline: a relay that accepts and never speaks would keep the
 * thread for ever.  So the connection is made with libnbd's asynchronous calls and poll() in short slices.
 */
#include "mirror/remote-connect.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "mirror/remote-private.h"
#include "mirror/remote-probe.h"
#include "mirror/remote-uri.h"

#define SLICE_MS 100u
#define FIRST_PAUSE_MS 10
#define LONGEST_PAUSE_MS 200
/* NBD's advice for a server that states no sizes: sectors of 512 bytes, requests of 32 MiB. */
#define DEFAULT_MIN_BLOCK_BYTES 512u
#define DEFAULT_MAX_BYTES (32u << 20)
#define CHUNK_BYTES 4096u /* the mirror's; a far side with larger blocks would need reads around each write */

bool remote_connect_is_cancelled(const struct remote_connect *c)
{
	return atomic_load_explicit(&c->is_cancelled, memory_order_relaxed);
}

static int tell_libnbd(struct error *e, const char *what)
{
	const char *text = nbd_get_error();
	int err = nbd_get_errno();

	return error_set(e, err ? err : EIO, "%s: %s", what, text ? text : "no reason given");
}

/* libnbd passes on what GnuTLS says, which says nothing to whoever has to find the mistake. */
static int explain_tls(struct error *e)
{
	static const struct {
		const char *said, *means;
	} row[] = {
		{ "server refused TLS", "the far side has no TLS, which is demanded here" },
		{ "certificate verification", "the far side's certificate is not accepted: it is not signed by our ca-cert.pem, "
		  "is for another host name, or its time is over" },
		{ "unable to load PSK", "our key cannot be read" },
		{ "gnutls_psk_set_client_credentials_file", "our key cannot be read, or there is none for that user" },
		{ "gnutls_handshake", "no TLS with the far side: another key or user name, or it does not accept "
		  "our certificate" },
		{ "gnutls_record_recv", "the far side has ended TLS: it does not accept our certificate, or the link "
		  "was broken" },
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++)
		if (strstr(e->text, row[i].said))
			return error_prefix(e, "%s", row[i].means);
	return -1;
}

/* One slice of libnbd's work. -1 + e: the link is over, or this was cancelled, or the deadline has come. */
static int work_a_slice(struct remote_connect *c, uint64_t deadline_ns, struct error *e)
{
	uint64_t now_ns = loop_now_ns();

	if (remote_connect_is_cancelled(c))
		return error_set(e, ECANCELED, "given up while connecting");
	if (nbd_aio_is_dead(c->nbd) || nbd_aio_is_closed(c->nbd))
		return error_set(e, ENOTCONN, "the far side closed the connection");
	if (now_ns >= deadline_ns)
		return error_set(e, ETIMEDOUT, "the far side does not answer");
	if (nbd_poll(c->nbd, (int)MIN((deadline_ns - now_ns) / NS_PER_MS + 1, SLICE_MS)) == -1)
		return tell_libnbd(e, "the link to the far side failed");
	return 0;
}

int remote_connect_await(struct remote_connect *c, int64_t cookie, uint64_t deadline_ns, int *err, struct error *e)
{
	for (;;) {
		int answer = nbd_aio_command_completed(c->nbd, cookie);

		*err = answer == -1 ? nbd_get_errno() : 0;
		if (answer == -1 && *err == 0)
			*err = EIO;
		/* A command that failed because the link died is the link's failure. */
		if (answer != 0 && !nbd_aio_is_dead(c->nbd) && !nbd_aio_is_closed(c->nbd))
			return 0;
		if (work_a_slice(c, deadline_ns, e) == -1)
			return -1;
	}
}

/* libnbd takes whoever the system trusts where there is no ca-cert.pem; and who can write to it says who is trusted. */
static int check_certificates(const char *uri, struct error *e)
{
	CLEANUP_FREE char *dir = remote_uri_certificates(uri);
	CLEANUP_FREE char *path = NULL;
	struct stat st;

	if (!dir)
		return 0;
	if (asprintf(&path, "%s/ca-cert.pem", dir) == -1) {
		path = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (stat(path, &st) == -1)
		return error_set(e, EINVAL, "%s is not to be had (%s): without it whoever the system trusts would be taken for "
				 "the far side", path, strerror(errno));
	if (st.st_mode & S_IWOTH)
		return error_set(e, EPERM, "%s can be written by everybody on this host: chmod o-w it", path);
	return 0;
}

/* One try. The peer has handshake_ms for all of it. */
static int try_to_connect(struct remote_connect *c, struct error *e)
{
	uint64_t deadline_ns = loop_now_ns() + c->handshake_ms * NS_PER_MS;

	if (check_certificates(c->uri, e) == -1)
		return -1;
	c->nbd = nbd_create();
	if (!c->nbd)
		return tell_libnbd(e, "cannot make an NBD client");
	/* Certificates and keys of nbds:// are named in the URI, which comes from the host's own toolstack. */
	if (nbd_set_uri_allow_local_file(c->nbd, true) == -1 ||
	    nbd_add_meta_context(c->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1)
		return tell_libnbd(e, "cannot prepare an NBD client");
	for (char *const *name = c->contexts; name && *name; name++)
		if (nbd_add_meta_context(c->nbd, *name) == -1)
			return tell_libnbd(e, "cannot prepare an NBD client");
	if (nbd_aio_connect_uri(c->nbd, c->uri) == -1) {
		tell_libnbd(e, "cannot connect");
		return explain_tls(e);
	}
	while (!nbd_aio_is_ready(c->nbd))
		if (work_a_slice(c, deadline_ns, e) == -1) {
			explain_tls(e);
			return error_prefix(e, nbd_aio_is_connecting(c->nbd) ? "no connection" : "no NBD session");
		}
	return 0;
}

static void drop(struct remote_connect *c)
{
	nbd_close(c->nbd);
	c->nbd = NULL;
}

/* False: cancelled. */
static bool pause_for(struct remote_connect *c, unsigned ms)
{
	for (unsigned slept_ms = 0; slept_ms < ms; slept_ms += SLICE_MS) {
		if (remote_connect_is_cancelled(c))
			return false;
		poll(NULL, 0, (int)MIN(ms - slept_ms, SLICE_MS));
	}
	return true;
}

/* xapi's relay binds its socket some time after it has handed out its name. */
static int connect_patiently(struct remote_connect *c, struct error *e)
{
	uint64_t deadline_ns = loop_now_ns() + c->connect_wait_ms * NS_PER_MS;
	unsigned pause_ms = FIRST_PAUSE_MS;

	while (try_to_connect(c, e) == -1) {
		drop(c);
		if (e->err != ENOENT && e->err != ECONNREFUSED)
			return -1;
		if (loop_now_ns() + pause_ms * NS_PER_MS > deadline_ns)
			return -1;
		if (!pause_for(c, pause_ms))
			return error_set(e, ECANCELED, "given up while connecting");
		pause_ms = MIN(2 * pause_ms, (unsigned)LONGEST_PAUSE_MS);
	}
	return 0;
}

static int learn_size(struct remote_connect *c, struct error *e)
{
	int64_t size = nbd_get_size(c->nbd);

	if (size == -1)
		return tell_libnbd(e, "the far side does not tell its size");
	c->info.size_bytes = (uint64_t)size;
	if (c->info.size_bytes < c->min_size_bytes)
		return error_set(e, ENOSPC, "the far side is too small: it has %ju bytes, this disk has %ju",
		                 (uintmax_t)c->info.size_bytes, (uintmax_t)c->min_size_bytes);
	return 0;
}

static int learn_blocks(struct remote_connect *c, struct error *e)
{
	int64_t min = nbd_get_block_size(c->nbd, LIBNBD_SIZE_MINIMUM), max = nbd_get_block_size(c->nbd, LIBNBD_SIZE_MAXIMUM);

	if (min == -1 || max == -1)
		return tell_libnbd(e, "the far side's block sizes are not to be had");
	if (min == 0)
		min = c->min_size_bytes % DEFAULT_MIN_BLOCK_BYTES == 0 ? DEFAULT_MIN_BLOCK_BYTES : 1;
	if (max == 0 || max > DEFAULT_MAX_BYTES)
		max = DEFAULT_MAX_BYTES;
	if (min > CHUNK_BYTES)
		return error_set(e, EINVAL, "the far side takes blocks of %jd bytes at least, this mirror's are %u",
		                 (intmax_t)min, CHUNK_BYTES);
	if ((min & (min - 1)) != 0)
		return error_set(e, EINVAL, "the far side's smallest block of %jd bytes is not a power of two", (intmax_t)min);
	if (c->min_size_bytes % (uint64_t)min != 0)
		return error_set(e, EINVAL, "this disk of %ju bytes is no multiple of the far side's blocks of %jd bytes",
		                 (uintmax_t)c->min_size_bytes, (intmax_t)min);
	if (max < CHUNK_BYTES)
		return error_set(e, EINVAL, "the far side takes requests of %jd bytes at most, this mirror's smallest are %u",
		                 (intmax_t)max, CHUNK_BYTES);
	c->info.min_block_bytes = (uint32_t)min;
	c->info.max_bytes = (uint32_t)max & ~(CHUNK_BYTES - 1);
	return 0;
}

/* The version that the far side chose; 0: none. */
static unsigned chosen_version(const struct remote_connect *c)
{
	for (unsigned i = 0; c->contexts && c->contexts[i]; i++)
		if (nbd_can_meta_context(c->nbd, c->contexts[i]) == 1)
			return REMOTE_VERSION_NEWEST - i;
	return 0;
}

/* A question is no range of the disk: 511 bytes at an offset of a few; and the logs of changes are written past its end. */
static int greet(struct remote_connect *c, struct error *e)
{
	uint32_t strict;

	c->info.version = chosen_version(c);
	if (!c->info.version)
		return c->contexts && c->is_further ? error_set(e, EPROTO, "no x-sxm on a further connection") : 0;
	strict = nbd_get_strict_mode(c->nbd) & ~(uint32_t)(LIBNBD_STRICT_ALIGN | LIBNBD_STRICT_BOUNDS);
	if (nbd_set_strict_mode(c->nbd, strict) == -1)
		return tell_libnbd(e, "cannot prepare an NBD client");
	return remote_ask_hello(c, e);
}

/* What the far side is, and whether it will do. */
static int learn(struct remote_connect *c, struct error *e)
{
	if (!c->is_reader && nbd_is_read_only(c->nbd) != 0)
		return error_set(e, EROFS, "the far side is read-only");
	if (learn_size(c, e) == -1 || learn_blocks(c, e) == -1)
		return -1;
	c->info.can_zero = nbd_can_zero(c->nbd) == 1;
	c->info.can_flush = nbd_can_flush(c->nbd) == 1;
	c->info.can_multi_conn = nbd_can_multi_conn(c->nbd) == 1;
	c->info.connections = 1;
	return 0;
}

int remote_connect(struct remote_connect *c, struct error *e)
{
	assert(!c->nbd && e);
	if (connect_patiently(c, e) == -1)
		return -1;
	if (greet(c, e) == -1 || learn(c, e) == -1 ||
	    (!c->is_further && !c->is_reader && remote_probe_zeroes(c, e) == -1)) {
		drop(c);
		return -1;
	}
	return 0;
}
