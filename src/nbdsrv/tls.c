/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tls - GnuTLS between a client's socket and its conn
 *
 *      socket --recv--> in ==pull==> session --record--> the conn's own buffers          tls_receive()
 *      socket <--send-- out <==push== session <--record-- stage <-- replies              tls_send()
 *
 * The session never sees the socket.  It takes its input from `in`, which one recv() fills with many records, and leaves its
 * output in `out`, of which one send() takes many: left to itself it makes two calls to read a record and one to write it.  So
 * it never waits in the middle of writing, and there is no such thing as a read that wants to write: whatever it has to say
 * while it reads (the handshake, an answer to new keys, an alert) is in `out`, and leaves with what else is there.
 * Small replies of one turn are put together in `stage`: one record for all of them.
 *
 *      handshake: each tls_receive() goes on with it;  is_up;  then records
 *
 * Can fail: the handshake, a record that was changed, a client that asks to renegotiate: EPROTO, and `why` says it in words.
 * A socket that ends without TLS's own end is an end like another: NBD says by itself when a client is done.
 * Invariant: a record is begun only where `out` has room for it.
 */
#include "nbdsrv/tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"

#define RECORD_BYTES 16384u
#define RECORD_ROOM (RECORD_BYTES + 512u) /* as it is on the wire, and a message about new keys before it */
#define IN_BYTES (8 * RECORD_ROOM)
#define OUT_BYTES (8 * RECORD_ROOM)
#define WARNINGS_MAX 8u

enum end { NOT_ENDED, ENDED, BROKEN };

struct tls {
	gnutls_session_t session;
	struct nbdsrv_keys *keys; /* a reference */
	int fd;                   /* borrowed */
	bool is_up;               /* the handshake is over */
	bool is_holding;
	bool is_dry;              /* the socket had no more, in this call */
	enum end end;             /* what the next tls_receive() says */
	int err;                  /* of BROKEN */
	int pull_err;
	uint8_t *in, *out, *stage; /* owned */
	size_t in_start, in_end, out_start, out_end;
	size_t record_bytes;      /* what a record may have in it... */
	bool is_measured;         /* ...as one that was full has shown */
	char why[240];
};

/* --- the session's two ends */

static ssize_t fill(struct tls *t)
{
	ssize_t got;

	if (t->is_dry) {
		errno = EAGAIN;
		return -1;
	}
	do
		got = recv(t->fd, t->in, IN_BYTES, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	t->is_dry = got < (ssize_t)IN_BYTES;
	t->in_start = 0;
	t->in_end = got > 0 ? (size_t)got : 0;
	return got;
}

static ssize_t pull(gnutls_transport_ptr_t arg, void *data, size_t bytes)
{
	struct tls *t = arg;
	ssize_t got = t->in_start < t->in_end ? 1 : fill(t);

	if (got <= 0) {
		t->pull_err = errno;
		gnutls_transport_set_errno(t->session, errno);
		return got;
	}
	bytes = MIN(bytes, t->in_end - t->in_start);
	memcpy(data, t->in + t->in_start, bytes);
	t->in_start += bytes;
	return (ssize_t)bytes;
}

/* It is asked only whether there is something. */
static int pull_timeout(gnutls_transport_ptr_t arg, unsigned ms UNUSED)
{
	const struct tls *t = arg;

	return t->in_start < t->in_end;
}

static void compact(struct tls *t)
{
	if (!t->out_start)
		return;
	memmove(t->out, t->out + t->out_start, t->out_end - t->out_start);
	t->out_end -= t->out_start;
	t->out_start = 0;
}

static ssize_t push(gnutls_transport_ptr_t arg, const giovec_t *iov, int count)
{
	struct tls *t = arg;
	size_t bytes = 0;

	for (int i = 0; i < count; i++)
		bytes += iov[i].iov_len;
	compact(t);
	if (bytes > OUT_BYTES - t->out_end) {
		gnutls_transport_set_errno(t->session, EAGAIN);
		return -1;
	}
	for (int i = 0; i < count; i++) {
		memcpy(t->out + t->out_end, iov[i].iov_base, iov[i].iov_len);
		t->out_end += iov[i].iov_len;
	}
	return (ssize_t)bytes;
}

/* -1 + errno: EAGAIN, and there is something left; or the socket is broken. */
static int flush(struct tls *t)
{
	while (t->out_start < t->out_end) {
		ssize_t sent = send(t->fd, t->out + t->out_start, t->out_end - t->out_start, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -1;
		t->out_start += (size_t)sent;
	}
	t->out_start = t->out_end = 0;
	return 0;
}

/* --- its life */

struct tls *tls_new(int fd, struct nbdsrv_keys *keys)
{
	struct tls *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	*t = (struct tls){ .fd = fd, .in = malloc(IN_BYTES), .out = malloc(OUT_BYTES), .stage = malloc(RECORD_BYTES),
			 .record_bytes = RECORD_BYTES };
	if (!t->in || !t->out || !t->stage ||
	    gnutls_init(&t->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS) != 0)
		goto fail;
	if (tls_keys_apply(keys, t->session) != 0) {
		gnutls_deinit(t->session);
		goto fail;
	}
	t->keys = nbdsrv_keys_ref(keys);
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_pull_function(t->session, pull);
	gnutls_transport_set_pull_timeout_function(t->session, pull_timeout);
	gnutls_transport_set_vec_push_function(t->session, push);
	return t;
fail:
	free(t->in);
	free(t->out);
	free(t->stage);
	free(t);
	return NULL;
}

void tls_bye_free(struct tls *t)
{
	if (t->is_up && t->end != BROKEN)
		gnutls_bye(t->session, GNUTLS_SHUT_WR);
	flush(t);
	gnutls_deinit(t->session);
	nbdsrv_keys_unref(t->keys);
	free(t->in);
	free(t->out);
	free(t->stage);
	free(t);
}

/* --- how it goes wrong */

static ssize_t tell_end(struct tls *t)
{
	if (t->end == ENDED)
		return 0;
	errno = t->err;
	return -1;
}

static void say_why(struct tls *t, int code)
{
	gnutls_datum_t status = { NULL, 0 };

	if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
	    gnutls_certificate_verification_status_print(gnutls_session_get_verify_cert_status(t->session),
							 gnutls_certificate_type_get(t->session), &status, 0) == 0)
		snprintf(t->why, sizeof(t->why), "its certificate is not accepted: %s", (const char *)status.data);
	else if (code == GNUTLS_E_NO_CERTIFICATE_FOUND || code == GNUTLS_E_CERTIFICATE_REQUIRED)
		snprintf(t->why, sizeof(t->why), "it has shown no certificate, and one is demanded");
	else if (code == GNUTLS_E_FATAL_ALERT_RECEIVED)
		snprintf(t->why, sizeof(t->why), "it gave up: %s", gnutls_alert_get_name(gnutls_alert_get(t->session)));
	else if (code == GNUTLS_E_REHANDSHAKE)
		snprintf(t->why, sizeof(t->why), "it asked to renegotiate, which is not done here");
	else if (!t->is_up && tls_keys_are_shared(t->keys))
		snprintf(t->why, sizeof(t->why), "no handshake (another key, or another user name?): %s", gnutls_strerror(code));
	else
		snprintf(t->why, sizeof(t->why), "%s: %s", t->is_up ? "a broken record" : "no handshake", gnutls_strerror(code));
	gnutls_free(status.data);
}

/* What the session said is the end. The alert, if there is one for it, is tried to be sent. */
static void note_end(struct tls *t, int code)
{
	t->end = BROKEN;
	t->err = EPROTO;
	if (code == 0 || code == GNUTLS_E_PREMATURE_TERMINATION) {
		t->end = ENDED;
	} else if (code == GNUTLS_E_PULL_ERROR || code == GNUTLS_E_PUSH_ERROR) {
		t->err = t->pull_err ? t->pull_err : EIO;
	} else {
		say_why(t, code);
		gnutls_alert_send_appropriate(t->session, code);
	}
}

/* --- reading */

/* 0: it is up. -1: not yet, or the end was noted. */
static int shake_hands(struct tls *t)
{
	int code = GNUTLS_E_AGAIN;

	for (unsigned i = 0; i < WARNINGS_MAX; i++) {
		code = gnutls_handshake(t->session);
		if (code == 0 || code == GNUTLS_E_AGAIN || gnutls_error_is_fatal(code))
			break;
	}
	if (code == GNUTLS_E_AGAIN) {
		errno = EAGAIN;
		return -1;
	}
	if (code != 0) {
		note_end(t, code);
		return -1;
	}
	t->is_up = true;
	return 0;
}

/* One record, or what fits of it. 0: no more now; or the end was noted. */
static size_t take_record(struct tls *t, void *at, size_t room)
{
	ssize_t n;

	do
		n = gnutls_record_recv(t->session, at, room);
	while (n == GNUTLS_E_INTERRUPTED);
	if (n > 0)
		return (size_t)n;
	if (n == GNUTLS_E_AGAIN)
		errno = EAGAIN;
	else
		note_end(t, (int)n);
	return 0;
}

bool tls_is_full(const struct tls *t)
{
	return t->out_end - t->out_start > OUT_BYTES - RECORD_ROOM;
}

/* What came is not all handed out: the socket will not tell. */
static void look_for_held(struct tls *t)
{
	t->is_holding = t->end != NOT_ENDED || t->in_start < t->in_end || gnutls_record_check_pending(t->session) > 0;
}

/* What is held is handed out before the socket is asked again, which others' sockets are in between. */
ssize_t tls_receive(struct tls *t, const struct iovec *iov, size_t count)
{
	size_t total = 0;
	bool is_more = true;

	t->is_dry = t->is_holding;
	if (t->end == NOT_ENDED && !t->is_up)
		is_more = shake_hands(t) == 0;
	for (size_t i = 0; is_more && i < count; i++)
		for (size_t filled = 0, got; is_more && filled < iov[i].iov_len; filled += got, total += got) {
			/* Whoever makes us answer and does not read is not listened to. */
			got = tls_is_full(t) || t->end != NOT_ENDED ? 0 :
			      take_record(t, (uint8_t *)iov[i].iov_base + filled, iov[i].iov_len - filled);
			is_more = got > 0;
		}
	look_for_held(t);
	if (total)
		return (ssize_t)total;
	if (t->end != NOT_ENDED)
		return tell_end(t);
	errno = EAGAIN;
	return -1;
}

bool tls_is_holding(const struct tls *t)
{
	return t->is_holding;
}

/* --- writing */

struct cursor {
	const struct iovec *iov;
	size_t count, skip;
};

/* The next record's bytes: where they are, or gathered in the stage. 0: there are no more. */
static size_t next_record(struct tls *t, struct cursor *at, const uint8_t **data)
{
	size_t bytes = 0;

	*data = t->stage;
	while (at->count && bytes < t->record_bytes) {
		const uint8_t *from = (const uint8_t *)at->iov->iov_base + at->skip;
		size_t left = at->iov->iov_len - at->skip, taken = MIN(left, t->record_bytes - bytes);

		if (taken == t->record_bytes)
			*data = from;
		else
			memcpy(t->stage + bytes, from, taken);
		bytes += taken;
		at->skip += taken;
		if (at->skip == at->iov->iov_len)
			*at = (struct cursor){ at->iov + 1, at->count - 1, 0 };
	}
	return bytes;
}

/* A client may have said that it takes only small ones (RFC 8449). The session does not tell: it sends a part. */
static int send_record(struct tls *t, const uint8_t *data, size_t bytes)
{
	t->is_measured |= bytes == t->record_bytes;
	while (bytes) {
		ssize_t n = gnutls_record_send(t->session, data, bytes);

		if (n <= 0) {
			note_end(t, n < 0 ? (int)n : GNUTLS_E_INTERNAL_ERROR);
			return -1;
		}
		if ((size_t)n < bytes)
			t->record_bytes = (size_t)n;
		data += n;
		bytes -= (size_t)n;
	}
	return 0;
}

/* Where one may become many small ones it takes a third more. */
static bool has_room(const struct tls *t)
{
	return OUT_BYTES - t->out_end >= (t->is_measured ? 1 : 2) * RECORD_ROOM;
}

ssize_t tls_send(struct tls *t, const struct iovec *iov, size_t count)
{
	struct cursor at = { iov, count, 0 };
	const uint8_t *data;
	size_t taken = 0, bytes;

	if (flush(t) == -1)
		return -1;
	if (t->end == BROKEN)
		return tell_end(t);
	while (has_room(t) && (bytes = next_record(t, &at, &data)) > 0) {
		if (send_record(t, data, bytes) == -1)
			return tell_end(t);
		taken += bytes;
	}
	return flush(t) == -1 && errno != EAGAIN ? -1 : (ssize_t)taken;
}

bool tls_is_unsent(const struct tls *t)
{
	return t->out_start < t->out_end;
}

bool tls_is_up(const struct tls *t)
{
	return t->is_up;
}

const char *tls_why(const struct tls *t)
{
	return *t->why ? t->why : NULL;
}
