/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ssh2-channel - one relay's bytes: between a stream here and a channel of a link
 *
 *      OPENING --> STARTING --> RUNNING --> CLOSING --> OVER        FORWARD has nothing to start
 *         '-----------'------------'------------'---------^         refused, or the link is lost
 *
 *      stream --read--> out --> libssh2 --> the link's socket       stops while the link has enough, or the host's window is shut
 *      stream <-write-- in  <-- libssh2 <-- the link's socket       libssh2 opens our window again as `in` is emptied
 *
 * The stream's end of input becomes the channel's; the channel's becomes the stream's.  When the host has closed the channel,
 * how the relay ended is told, and all is closed.
 * Invariant: what was taken from the stream is sent before its end is.
 */
#include "migrate/carrier-ssh2-private.h"

#include <errno.h>
#include <libssh2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUT_BYTES (256u * 1024)
#define IN_BYTES (256u * 1024)
#define WINDOW_BYTES (16u * 1024 * 1024) /* for what the host sends: 16 MiB in a round trip */
#define PACKET_BYTES 32768u
#define STEP_BYTES (2u * 1024 * 1024)    /* then another channel's turn */

static bool is_lost(struct ssh2_channel *c, ssize_t rc)
{
	if (rc >= 0 || rc == LIBSSH2_ERROR_EAGAIN)
		return c->link->is_lost;
	if (rc == LIBSSH2_ERROR_CHANNEL_CLOSED || rc == LIBSSH2_ERROR_CHANNEL_EOF_SENT)
		return false;
	ssh2_link_lose(c->link,
		       rc == LIBSSH2_ERROR_SOCKET_SEND ? "nothing can be sent any more" : "what comes is no SSH any more");
	return true;
}

/* --- its beginning */

static bool refuse(struct ssh2_channel *c, int err, const char *what)
{
	ssh2_error(c->link, err, &c->why, what);
	c->state = SSH2_OVER;
	return true;
}

static bool open_it(struct ssh2_channel *c)
{
	LIBSSH2_SESSION *s = c->link->session;
	int rc;

	if (c->request.verb == SSH2_FORWARD)
		c->channel = libssh2_channel_direct_tcpip_ex(s, c->request.host, (int)c->request.port, "127.0.0.1", 22);
	else
		c->channel = libssh2_channel_open_ex(s, "session", sizeof("session") - 1, WINDOW_BYTES, PACKET_BYTES, NULL, 0);
	if (c->channel) {
		c->state = c->request.verb == SSH2_FORWARD ? SSH2_RUNNING : SSH2_STARTING;
		return true;
	}
	rc = libssh2_session_last_errno(s);
	if (rc == LIBSSH2_ERROR_EAGAIN || is_lost(c, rc == LIBSSH2_ERROR_CHANNEL_FAILURE ? 0 : rc))
		return false;
	c->link->is_full = c->request.verb == SSH2_CHANNEL;
	return refuse(c, ECONNREFUSED, c->request.verb == SSH2_FORWARD ? "the host does not connect us further" :
									 "the host allows no further session");
}

static bool start_it(struct ssh2_channel *c)
{
	int rc = libssh2_channel_exec(c->channel, SSH2_COMMAND);

	if (rc == LIBSSH2_ERROR_EAGAIN)
		return false;
	if (rc == 0)
		c->state = SSH2_RUNNING;
	else if (rc == LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED)
		return refuse(c, EACCES, "the host does not let us run `" SSH2_COMMAND "`");
	else
		return is_lost(c, rc);
	return true;
}

/* --- its bytes */

/* False: there are none now. */
static bool take_from_stream(struct ssh2_channel *c)
{
	ssize_t n = c->stream < 0 ? 0 : recv(c->stream, c->out, OUT_BYTES, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	c->has_local_ended = n <= 0;
	c->out_used = n > 0 ? (size_t)n : 0;
	c->out_sent = 0;
	return n > 0;
}

static bool send_out(struct ssh2_channel *c)
{
	size_t moved = 0;
	ssize_t n;

	while (moved < STEP_BYTES && ssh2_link_pending(c->link) < SSH2_OUT_HIGH) {
		if (c->out_sent == c->out_used && (c->has_local_ended || !take_from_stream(c)))
			break;
		n = libssh2_channel_write(c->channel, c->out + c->out_sent, c->out_used - c->out_sent);
		if (n == LIBSSH2_ERROR_EAGAIN || n == 0 || is_lost(c, n))
			break;
		if (n < 0) { /* the host closed it: nobody wants this any more */
			c->out_sent = c->out_used;
			c->has_local_ended = c->has_sent_eof = true;
			break;
		}
		c->out_sent += (size_t)n;
		moved += (size_t)n;
	}
	if (c->has_local_ended && c->out_sent == c->out_used && !c->has_sent_eof && !c->link->is_lost) {
		int rc = libssh2_channel_send_eof(c->channel);

		c->has_sent_eof = rc != LIBSSH2_ERROR_EAGAIN;
		moved += c->has_sent_eof;
	}
	return moved > 0;
}

/* False: the stream takes no more now. */
static bool give_to_stream(struct ssh2_channel *c)
{
	ssize_t n = send(c->stream, c->in + c->in_sent, c->in_used - c->in_sent, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0) { /* nobody reads it any more: the relay is to end */
		close(c->stream);
		c->stream = -1;
		c->has_local_ended = true;
		c->out_sent = c->out_used;
		c->in_sent = c->in_used;
		c->state = SSH2_CLOSING;
		return false;
	}
	c->in_sent += (size_t)n;
	return true;
}

static bool receive_in(struct ssh2_channel *c)
{
	size_t moved = 0;
	ssize_t n;

	while (moved < STEP_BYTES) {
		if (c->in_sent < c->in_used && (c->stream < 0 || !give_to_stream(c)))
			break;
		if (c->in_sent < c->in_used)
			continue;
		n = libssh2_channel_read(c->channel, c->in, IN_BYTES);
		if (n <= 0) {
			is_lost(c, n);
			break;
		}
		c->in_used = (size_t)n;
		c->in_sent = 0;
		moved += (size_t)n;
	}
	return moved > 0;
}

static void receive_lines(struct ssh2_channel *c)
{
	char text[1024];
	ssize_t n;

	while ((n = libssh2_channel_read_stderr(c->channel, text, sizeof(text))) > 0)
		carrier_lines_add(&c->lines, text, (size_t)n);
}

/* --- its end */

static void judge(struct ssh2_channel *c)
{
	char *name = NULL;
	size_t bytes = 0;

	c->end = CARRIER_END_EXIT;
	c->status = libssh2_channel_get_exit_status(c->channel);
	if (libssh2_channel_get_exit_signal(c->channel, &name, &bytes, NULL, NULL, NULL, NULL) == 0 && name) {
		c->end = CARRIER_END_SIGNAL;
		libssh2_free(c->link->session, name);
	}
}

/* True: the host has closed it, too. */
static bool close_it(struct ssh2_channel *c)
{
	int rc;

	if (c->state == SSH2_CLOSING || c->request.verb == SSH2_FORWARD)
		rc = libssh2_channel_close(c->channel);
	else
		rc = libssh2_channel_wait_closed(c->channel);
	if (rc == LIBSSH2_ERROR_EAGAIN || is_lost(c, rc))
		return false;
	judge(c);
	c->state = SSH2_OVER;
	return true;
}

static bool end_it(struct ssh2_channel *c)
{
	bool was_ended = c->has_far_ended;

	if (!was_ended && libssh2_channel_eof(c->channel) == 1)
		c->has_far_ended = true;
	if (c->has_far_ended && c->in_sent == c->in_used && !c->has_shut && c->stream >= 0) {
		shutdown(c->stream, SHUT_WR);
		c->has_shut = true;
	}
	if (c->state == SSH2_CLOSING || (c->has_shut && (c->request.verb == SSH2_CHANNEL || c->has_sent_eof)))
		return close_it(c);
	return c->has_far_ended != was_ended;
}

bool ssh2_channel_step(struct ssh2_channel *c)
{
	bool moved = false;

	if (c->link->is_lost || c->state == SSH2_OVER)
		return false;
	if (c->state == SSH2_OPENING)
		moved = open_it(c);
	if (c->state == SSH2_STARTING)
		moved = start_it(c) || moved;
	if (c->state == SSH2_RUNNING) {
		moved = send_out(c) || moved;
		moved = receive_in(c) || moved;
		receive_lines(c);
	}
	if ((c->state == SSH2_RUNNING || c->state == SSH2_CLOSING) && !c->link->is_lost)
		moved = end_it(c) || moved;
	return moved;
}

short ssh2_channel_events(const struct ssh2_channel *c)
{
	bool can_take = !c->has_local_ended && c->out_sent == c->out_used && ssh2_link_pending(c->link) < SSH2_OUT_HIGH;

	if (c->state != SSH2_RUNNING || c->stream < 0)
		return 0;
	return (short)((can_take ? POLLIN : 0) | (c->in_sent < c->in_used ? POLLOUT : 0));
}

/* --- memory */

struct ssh2_channel *ssh2_channel_new(struct ssh2_link *l, const struct ssh2_request *r, int stream, int tell)
{
	struct ssh2_channel *c = calloc(1, sizeof(*c));

	if (!c || !(c->out = malloc(OUT_BYTES)) || !(c->in = malloc(IN_BYTES))) {
		if (c)
			free(c->out);
		free(c);
		close(stream);
		close(tell);
		return NULL;
	}
	c->link = l;
	l->channels++;
	c->request = *r;
	c->stream = stream;
	c->tell = tell;
	c->lines.name = l->way->name;
	return c;
}

void ssh2_channel_free(struct ssh2_channel *c)
{
	struct ssh2_link *l = c->link;
	struct carrier_said said = { .end = CARRIER_END_LOST };

	if (c->state == SSH2_OVER)
		said = (struct carrier_said){ .end = (int32_t)c->end, .status = c->status };
	carrier_lines_end(&c->lines);
	snprintf(said.line, sizeof(said.line), "%s", said.end == CARRIER_END_LOST ? l->goodbye : c->lines.last);
	if (said.end && c->tell >= 0)
		(void)!write(c->tell, &said, sizeof(said));
	if (c->channel)
		libssh2_channel_free(c->channel); /* closed: at once; of a lost link: with its session */
	l->channels--;
	l->is_full = false;
	if (c->stream >= 0)
		close(c->stream);
	if (c->tell >= 0)
		close(c->tell);
	free(c->out);
	free(c->in);
	free(c);
}
