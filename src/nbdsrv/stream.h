/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * stream - the bytes of one client: a socket, plain, or with TLS on it from some moment on
 *
 * Nothing here blocks.  With TLS a call may take more from the socket than it hands out, and put less on it than it was given:
 *      stream_is_holding()   there may be input although the socket has none: ask again before you wait for the socket
 *      stream_is_unsent()    stream_send() once more when the socket can be written to, also with nothing to add
 * Reading never waits for writing, nor the reverse: what TLS itself has to say (handshake, new keys, alerts) is put with what is
 * unsent.
 */
#ifndef SXM_NBDSRV_STREAM_H
#define SXM_NBDSRV_STREAM_H

#include <sys/types.h>
#include <sys/uio.h>

#include "base/compiler.h"

struct nbdsrv_keys;
struct tls;

struct stream {
	int fd;          /* owned; -1: closed */
	struct tls *tls; /* owned; NULL: plain */
};

/* > 0: so many bytes; 0: the client has ended it; -1 + errno: EAGAIN, or it is broken. EPROTO: stream_why(). */
ssize_t stream_receive(struct stream *s, struct iovec *iov, size_t count);
/* The bytes that were taken. -1 + errno: likewise. */
ssize_t stream_send(struct stream *s, struct iovec *iov, size_t count);
bool stream_is_holding(const struct stream *s);
bool stream_is_unsent(const struct stream *s);
/* So much is unsent that nothing is taken before it left: do not wait for input. */
bool stream_is_full(const struct stream *s);

/* From the next byte on there is TLS, and we are the server; the handshake is made by stream_receive(). -1: out of memory. */
int stream_secure(struct stream *s, struct nbdsrv_keys *keys);
/* The handshake is over. */
bool stream_is_secure(const struct stream *s);
/* Why TLS is broken, in words; NULL: it is not. */
const char *stream_why(const struct stream *s);
/* Says good-bye as far as that goes at once. */
void stream_close(struct stream *s);

#endif
