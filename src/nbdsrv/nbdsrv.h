/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * nbdsrv - the NBD server: sockets in, struct req out
 *
 * One server per set of clients that come and go together: a VDI's domain has its own, with its own socket, so that one
 * domain's clients can be cut off without the others.  All servers of a VDI stand on the same top layer, which makes their
 * connections coherent with each other.
 */
#ifndef SXM_NBDSRV_NBDSRV_H
#define SXM_NBDSRV_NBDSRV_H

#include "base/error.h"
#include "base/histogram.h"
#include "base/iobuf.h"
#include "block/layer.h"
#include "loop/loop.h"
#include "nbdsrv/link.h"

struct nbdsrv_spec {
	struct loop *loop;       /* borrowed */
	struct layer *top;       /* borrowed; what requests are submitted to */
	struct iobuf_pool *pool; /* borrowed */
	const char *export_name; /* copied. LIST tells it; EXPORT_NAME and GO accept any (tapdisk sends its own) */
	bool is_read_only;
	unsigned max_clients;    /* 0: 64 */
	const struct nbdsrv_link_ops *links; /* borrowed; NULL: x-sxm is not offered */
	void *links_arg;
	unsigned xsxm_newest;    /* for tests: the version to be spoken; 0: XSXM_NEWEST */
};

/* --- TLS: by what a listener knows itself and its clients */
struct nbdsrv_tls {
	char *psk_username, *psk_file; /* a file of lines USERNAME:HEX, of which this user's counts... */
	char *certificates;            /* ...or a directory: server-cert.pem, server-key.pem, ca-cert.pem */
	bool verifies_peer;            /* with certificates: clients show one that is signed by ca-cert.pem */
	bool has_verifies_peer;        /* false: it was not said, and is so */
};
struct nbdsrv_keys;
/* Reads files: for a thread that may block. NULL + e: among them, that there is no TLS in this build (ENOTSUP). */
struct nbdsrv_keys *nbdsrv_keys_load(const struct nbdsrv_tls *spec, struct error *e);
struct nbdsrv_keys *nbdsrv_keys_ref(struct nbdsrv_keys *k); /* NULL allowed */
void nbdsrv_keys_unref(struct nbdsrv_keys *k);              /* likewise */
const struct nbdsrv_tls *nbdsrv_keys_spec(const struct nbdsrv_keys *k); /* what it was loaded from */

struct nbdsrv;
struct nbdsrv *nbdsrv_new(const struct nbdsrv_spec *spec, struct error *e);

/* Several may be open. The unix path is replaced if a dead socket is in the way, mode 0600; removed by shutdown. */
int nbdsrv_listen_unix(struct nbdsrv *s, const char *path, struct error *e);
/* host: numeric address. port 0: any; *bound gets it. keys: referred to; who connects there must make it TLS with
 * NBD_OPT_STARTTLS, and gets nothing before; NULL: plain. */
int nbdsrv_listen_tcp(struct nbdsrv *s, const char *host, uint16_t port, struct nbdsrv_keys *keys, uint16_t *bound,
		      struct error *e);
/* Who comes to such a listener from now on is met with the other keys; who is there stays. */
void nbdsrv_replace_keys(struct nbdsrv *s, const struct nbdsrv_keys *old, struct nbdsrv_keys *keys);
/* A connected stream socket, taken (closed on failure too). No handshake timeout: whoever passed it may take minutes.
 * begins_again: NBD_CMD_DISC does not close it; what was asked for is answered, then it is greeted anew. */
int nbdsrv_adopt(struct nbdsrv *s, int fd, bool begins_again, struct error *e);
/* A unix socket as before, over which such sockets are passed, which begin again: one message, of any text, with one descriptor
 * (SCM_RIGHTS). */
int nbdsrv_receive_unix(struct nbdsrv *s, const char *path, struct error *e);

/* Stops listening and reading; requests in flight end and are answered; sockets close; then done() from the deferred queue.
 * A client that does not take its answers is cut after 1 s. */
void nbdsrv_shutdown(struct nbdsrv *s, void (*done)(void *arg), void *arg);
/* After shutdown's done() only. */
void nbdsrv_free(struct nbdsrv *s);

struct nbdsrv_stats {
	unsigned clients;
	uint64_t reads, writes, flushes, trims, zeroes;
	uint64_t bytes_read, bytes_written;
	uint64_t read_ns, write_ns; /* what READs and WRITEs took below, since nbdsrv_time() */
	struct histogram writes_us; /* likewise: how long each WRITE took */
	unsigned in_flight;         /* requests */
};
void nbdsrv_stats(const struct nbdsrv *s, struct nbdsrv_stats *out);
/* From now on it is measured how long requests take, which costs two readings of the clock each. */
void nbdsrv_time(struct nbdsrv *s);

#endif
