/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * stream - see stream.h.  Plain is the case that costs nothing: one system call, straight from and to the caller's buffers
 */
#include "nbdsrv/stream.h"

#include <sys/socket.h>
#include <unistd.h>

#include "nbdsrv/tls.h"

ssize_t stream_receive(struct stream *s, struct iovec *iov, size_t count)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };

	return s->tls ? tls_receive(s->tls, iov, count) : recvmsg(s->fd, &msg, MSG_DONTWAIT);
}

ssize_t stream_send(struct stream *s, struct iovec *iov, size_t count)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };

	return s->tls ? tls_send(s->tls, iov, count) : sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool stream_is_holding(const struct stream *s)
{
	return s->tls && tls_is_holding(s->tls);
}

bool stream_is_unsent(const struct stream *s)
{
	return s->tls && tls_is_unsent(s->tls);
}

bool stream_is_full(const struct stream *s)
{
	return s->tls && tls_is_full(s->tls);
}

int stream_secure(struct stream *s, struct nbdsrv_keys *keys)
{
	s->tls = tls_new(s->fd, keys);
	return s->tls ? 0 : -1;
}

bool stream_is_secure(const struct stream *s)
{
	return s->tls && tls_is_up(s->tls);
}

const char *stream_why(const struct stream *s)
{
	return s->tls ? tls_why(s->tls) : NULL;
}

/* A TCP socket closed with bytes unread resets the connection and loses what was just sent. */
void stream_close(struct stream *s)
{
	static char waste[4096];

	if (s->tls)
		tls_bye_free(s->tls);
	s->tls = NULL;
	shutdown(s->fd, SHUT_WR);
	for (int i = 0; i < 64; i++)
		if (recv(s->fd, waste, sizeof(waste), MSG_DONTWAIT) <= 0)
			break;
	close(s->fd);
	s->fd = -1;
}
