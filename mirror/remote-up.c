/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-up - how a link to a far side that speaks NBD comes up
 *
 *      remote_nbd_new -> pool: remote_connect -> watched -> on_up -> pool: a further one, where there may be several -> ...
 *                                     '--> on_failed
 *
 * The first connection carries the link; the others are made after on_up, one at a time (a pool thread each, and the disk may
 * need the pool), with a short deadline, and whoever does not greet is left out: behind a relay that takes one client there is
 * nobody.  On a unix socket there is one: several would share the same processors, and a server's threads and buffers for each
 * of them cost more than they gain.  How many is nobody's to choose: 1, 4 and 8 made no difference over TCP to a disk, nor 1 and
 * 4 over TLS in memory, beyond that among runs of the same.
 * Where x-sxm is spoken, each of them said HELLO before it is taken in, in the pool as well.
 */
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "mirror/remote-private.h"
#include "mirror/remote-uri.h"

#define FURTHER_HANDSHAKE_MS 2000
#define SEND_BUFFER_BYTES (1 << 20)
#define IDLE_MS 5000
#define DEAD_SXM_MS 5000u /* where the link can be made anew */

static void work(struct offload *o)
{
	struct remote_nbd *r = container_of(o, struct remote_nbd, offload);

	remote_connect(&r->connect, &r->connect_error);
}

static bool is_unix(int fd)
{
	int domain = 0;
	socklen_t length = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX;
}

/* A unix socket: one copy's message fits at once, and leaves with one call instead of three and their wake-ups. Beyond wmem_max
 * only root may go; whoever may not keeps what the system gives. TCP sizes its own buffer better than anybody who fixes it. */
static void widen_socket(int fd)
{
	int bytes = SEND_BUFFER_BYTES;

	if (is_unix(fd) && setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) == -1)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* Takes the handle. -1: out of memory or descriptors, and it is closed. */
static int adopt(struct remote_nbd *r, struct nbd_handle *nbd)
{
	struct conn *c = &r->conn[r->connections];

	*c = (struct conn){ .owner = r, .nbd = nbd, .is_touched = true };
	TAILQ_INIT(&c->ops);
	c->fd = fcntl(nbd_aio_get_fd(nbd), F_DUPFD_CLOEXEC, 0);
	widen_socket(c->fd);
	c->watch = c->fd >= 0 ? loop_watch_new(r->spec.loop, c->fd, LOOP_IN, remote_nbd_on_ready, c) : NULL;
	if (!c->watch) {
		remote_nbd_close_conn(c);
		return -1;
	}
	r->connections++;
	return 0;
}

static void start_connecting(struct remote_nbd *r);

static void on_further(struct remote_nbd *r, struct nbd_handle *nbd)
{
	if (!nbd) {
		log_debug("%s: going on with %u connection(s): %s", r->spec.uri, r->connections, r->connect_error.text);
		return;
	}
	if (r->state != UP || adopt(r, nbd) == -1) {
		if (r->state != UP)
			nbd_close(nbd);
		return;
	}
	log_debug("%s: %u connections", r->spec.uri, r->connections);
	start_connecting(r);
}

static void fail(struct remote_nbd *r)
{
	remote_nbd_set_state(r, DOWN);
	error_prefix(&r->connect_error, "%s", r->spec.uri);
	r->spec.on_failed(r->spec.arg, &r->connect_error);
}

static void on_first(struct remote_nbd *r, struct nbd_handle *nbd)
{
	struct remote_info info = r->connect.info;

	r->connect.info = (struct remote_info){ 0 };
	if (r->connect.has_heard && r->spec.on_heard)
		r->spec.on_heard(r->spec.arg, r->connect.status, r->connect.state, r->connect.epoch);
	if (nbd && adopt(r, nbd) == -1)
		error_errno(&r->connect_error, ENOMEM, "cannot watch the link");
	if (!r->connections) {
		fail(r);
	} else {
		remote_nbd_set_state(r, UP);
		r->is_sxm = info.is_sxm;
		r->spec.volume = info.volume ? info.volume : r->spec.volume;
		if (r->is_sxm)
			r->spec.dead_ms = MIN(r->spec.dead_ms, DEAD_SXM_MS);
		r->digest = r->connect.digest;
		r->is_digest_void = r->connect.is_digest_void;
		r->look_bytes = info.min_block_bytes;
		r->progress_ns = loop_now_ns();
		loop_timer_set(r->idle, r->spec.idle_ms);
		r->spec.on_up(r->spec.arg, &info);
		if (info.can_multi_conn && !r->spec.is_reader && r->state == UP && !r->on_closed && !is_unix(r->conn[0].fd))
			start_connecting(r);
	}
	extents_fini(&info.zero);
}

static void on_connected(struct offload *o)
{
	struct remote_nbd *r = container_of(o, struct remote_nbd, offload);
	struct nbd_handle *nbd = r->connect.nbd;

	r->connect.nbd = NULL;
	r->is_connecting = false;
	if (r->on_closed) {
		nbd_close(nbd);
		extents_fini(&r->connect.info.zero);
		loop_defer(r->spec.loop, &r->task);
	} else if (r->connect.is_further) {
		on_further(r, nbd);
	} else {
		on_first(r, nbd);
	}
}

static void start_connecting(struct remote_nbd *r)
{
	bool is_further = r->connections > 0;

	if (r->connections == CONNECTIONS_MAX)
		return;
	error_clear(&r->connect_error);
	r->connect = (struct remote_connect){
		.uri = r->uri,
		.min_size_bytes = r->spec.min_size_bytes,
		.holes = &r->holes,
		.connect_wait_ms = is_further ? 0 : r->spec.connect_wait_ms,
		.handshake_ms = is_further ? FURTHER_HANDSHAKE_MS : r->spec.handshake_ms,
		.is_further = is_further,
		.is_reader = r->spec.is_reader,
		.contexts = !r->context[0] || (is_further && !r->is_sxm) ? NULL : r->context,
		.volume = r->spec.volume,
	};
	r->offload = (struct offload){ .work = work, .done = on_connected };
	r->is_connecting = offload_submit(r->spec.loop, &r->offload) == 0;
}

static const struct remote_ops ops = {
	.submit = remote_nbd_submit,
	.ask = remote_ask_submit,
	.digest = remote_ask_digest,
	.close = remote_nbd_close,
};

static int copy_spec(struct remote_nbd *r, struct error *e)
{
	r->uri = remote_uri_normalize(r->spec.uri, e);
	if (!r->uri)
		return -1;
	r->spec.uri = r->uri;
	for (unsigned i = 0; r->spec.mirror_id && i < REMOTE_VERSIONS; i++) {
		r->context[i] = remote_ask_context(&r->spec, REMOTE_VERSION_NEWEST - i, e);
		if (!r->context[i])
			return -1;
	}
	r->spec.mirror_id = NULL;
	if (!r->spec.idle_ms)
		r->spec.idle_ms = IDLE_MS;
	for (size_t i = 0; r->spec.holes && i < r->spec.holes->count; i++) {
		const struct extent *hole = &r->spec.holes->item[i];

		if ((hole->type & EXTENT_ZERO) && extents_add(&r->holes, hole->range, EXTENT_ZERO) != 0)
			return error_errno(e, ENOMEM, "cannot keep the list of holes");
	}
	r->spec.holes = NULL;
	return 0;
}

struct remote *remote_nbd_new(const struct remote_spec *spec, struct error *e)
{
	struct remote_nbd *r = calloc(1, sizeof(*r));

	assert(spec->dead_ms && spec->handshake_ms);
	if (!r) {
		error_errno(e, ENOMEM, "cannot make a link");
		return NULL;
	}
	*r = (struct remote_nbd){ .base = { .ops = &ops }, .spec = *spec };
	remote_nbd_init(r);
	r->timer = loop_timer_new(spec->loop, remote_nbd_on_timer, r);
	r->idle = loop_timer_new(spec->loop, remote_ask_idly, r);
	if (!r->timer || !r->idle)
		error_errno(e, ENOMEM, "cannot make a link");
	if (!r->timer || !r->idle || copy_spec(r, e) == -1)
		goto fail;
	start_connecting(r);
	if (!r->is_connecting) {
		error_errno(e, ENOMEM, "cannot make a link");
		goto fail;
	}
	return &r->base;
fail:
	remote_nbd_free(r);
	return NULL;
}
