/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror-link - the far side's coming and going
 *
 *      mirror_link_start -> number of the link made durable -> connecting --on_up--> up --on_down--> closing -> closed
 *                               ^                                  '--on_failed--.                                |
 *                               '---- back-off, jittered ------------------------+-------- lost ------------------'
 *
 * A link is made anew where the far side is an sxm (it shuts out the older generation) and the core still wants one (BROKEN).  A
 * foreign far side is asked once, by whichever process: there the end of the link is the end of the operation.  Each link has its
 * number, durable before it is made (I12); an attempt that comes to nothing uses up its number.
 *
 * Where it is told to remember (spec.can_remember), a link that is lost for good leaves the core in BROKEN, which records what is
 * written; it is tried once when that is asked for.
 *
 * Whether the far side may have lost what it acknowledged is told by its answer to HELLO: another boot of its host (or another
 * life of the process that caches) than at the last link.
 *
 * One that is given up for good, and not by its link, says END before it closes, so that nobody there waits for it.
 *
 * Can fail: all of it.  What no attempt can mend (a newer generation, a volume that is somebody's, one that is too small) ends
 * the operation at once, the rest when give_up_ms have passed without a link.  One line of log when it is lost, one when it
 * is back or given up; attempts are told at debug.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "mirror/mirror-private.h"

#define WINDOW_OPS 128
#define HANDSHAKE_AGAIN_MS 5000u  /* of a far side that has greeted before: a barrier may be waiting */
#define END_MS 1000u              /* how long END may take: whoever cancels waits for it */
#define RETRY_FIRST_MS 100u
#define RETRY_LAST_MS 1200u
#define GIVE_UP_MS 120000u       /* without a link */
#define GIVE_UP_SOCKET_MS 10000u /* a unix socket: whoever made it is on this host, and will not come back */
#define GIVE_UP_BARRIER_MS 3000u /* ... nobody listens there, and a guest is held until this is over; a keeper takes less */

static void connect_anew(struct mirror *m);
static void close_link(struct mirror *m, bool is_polite);

/* After the barrier the commit goes over it, and what comes of it. */
static bool is_kept(const struct mirror *m)
{
	return m->state == CORE_FINISHED && m->is_sxm && STAILQ_EMPTY(&m->aborts);
}

static bool is_wanted(const struct mirror *m)
{
	if (m->is_remembering)
		return false;
	return m->state == CORE_BROKEN || m->state == CORE_CONNECTING || is_kept(m);
}

/* No later attempt would do better. */
static bool is_final(const struct mirror *m, int err)
{
	return !m->was_up || err == ESTALE || err == EBUSY || err == EPROTO || err == EINVAL || err == ENOSPC;
}

/* An sxm that refuses us says that the volume is somebody else's. */
static bool can_remember(const struct mirror *m)
{
	return m->spec.can_remember && m->was_up && (m->state == CORE_BROKEN || m->state == CORE_CONNECTING) &&
	       !(m->is_sxm && is_final(m, m->cause.err));
}

/* A barrier does not wait for what is not tried. */
static void remember(struct mirror *m)
{
	m->is_remembering = true;
	m->is_resuming = false;
	m->why = m->cause;
	log_error("mirror to %s failed: %s; what it owes is remembered", m->uri, m->why.text);
	mirror_step(m, (struct core_event){ .type = CORE_UNBARRIER });
	mirror_end_check(m);
	mirror_end_news(m);
}

/* Without a link it is over; but for the commit, which may be asked for again. */
static void give_up(struct mirror *m)
{
	if (can_remember(m)) {
		remember(m);
		return;
	}
	if (is_kept(m)) {
		log_warn("mirror to %s: %s", m->uri, m->cause.text);
		mirror_end_news(m);
		return;
	}
	mirror_step(m, (struct core_event){ .type = CORE_LINK_DOWN, .err = m->cause.err ? m->cause.err : ENOTCONN });
}

/* To give up is always safe: the barrier raises, and the disk stays here, whole.  What the wait is for is a far side of this host
 * that its keeper starts again; xapi's relay, which takes one connection, never listens a second time.  After the barrier, when
 * the commit may have been heard there, no link is given up so soon. */
static bool is_held_for_nobody(const struct mirror *m)
{
	return m->on_finished && (m->cause.err == ENOENT || m->cause.err == ECONNREFUSED);
}

static unsigned give_up_ms(const struct mirror *m)
{
	if (m->spec.give_up_ms)
		return m->spec.give_up_ms;
	if (!strstr(m->uri, "unix"))
		return GIVE_UP_MS;
	return is_held_for_nobody(m) ? GIVE_UP_BARRIER_MS : GIVE_UP_SOCKET_MS;
}

/* Doubled each time, and spread: many disks lose their links in one moment. */
static unsigned retry_ms(struct mirror *m)
{
	unsigned base = m->attempts < 10 ? RETRY_FIRST_MS << m->attempts : RETRY_LAST_MS;

	base = MIN(base, RETRY_LAST_MS);
	m->attempts++;
	m->dice = m->dice * UINT64_C(6364136223846793005) + loop_now_ns();
	return base / 2 + (unsigned)(m->dice >> 33) % base;
}

void mirror_link_retry(void *arg)
{
	struct mirror *m = arg;

	m->is_waiting = false;
	if (m->is_ending)
		close_link(m, false); /* it takes too long to answer */
	else if (is_wanted(m))
		connect_anew(m);
	mirror_end_check(m);
}

static void try_again(struct mirror *m)
{
	if (m->is_resuming) {
		give_up(m);
		return;
	}
	if (loop_now_ns() - m->lost_ns >= give_up_ms(m) * NS_PER_MS) {
		error_prefix(&m->cause, "the far side could not be reached again for %u s", give_up_ms(m) / 1000);
		give_up(m);
		return;
	}
	m->is_waiting = true;
	loop_timer_set(m->retry, retry_ms(m));
}

/* --- closing */

static void on_closed(void *arg)
{
	struct mirror *m = arg;

	m->remote = NULL;
	m->is_closing = false;
	if (m->is_cut)
		mirror_step(m, (struct core_event){ .type = CORE_LINK_DOWN, .err = ESHUTDOWN, .generation = m->peer.generation });
	if (is_wanted(m) && !m->is_waiting)
		try_again(m);
	mirror_end_check(m);
}

static void close_link(struct mirror *m, bool is_polite)
{
	if (!m->remote || m->is_closing)
		return;
	m->is_closing = true;
	m->is_cut = !is_polite && m->is_up;
	m->is_up = false;
	m->remote->ops->close(m->remote, is_polite, on_closed, m);
}

static void on_end_heard(struct remote_ask *a, int err)
{
	struct mirror *m = container_of(a, struct mirror, end);
	struct error e = { 0 };

	m->is_ending = false;
	loop_timer_clear(m->retry);
	if (remote_ask_check(a, err, &e) == -1)
		log_info("mirror to %s: the far side was not told that this is the end: %s", m->uri, e.text);
	close_link(m, false);
}

/* It is given up: the far side is to know that nobody comes back, unless somebody does. */
static bool says_end(struct mirror *m)
{
	if (m->is_ending)
		return true;
	if ((m->wants_files && m->keeps_files) || !m->is_sxm || !m->is_up || m->is_closing || !m->remote->ops->ask)
		return false;
	m->is_ending = true;
	m->end = (struct remote_ask){ .question = REMOTE_ASK_END, .done = on_end_heard };
	loop_timer_set(m->retry, END_MS);
	m->remote->ops->ask(m->remote, &m->end);
	return true;
}

void mirror_link_drop(struct mirror *m, int err)
{
	if (m->is_waiting) {
		m->is_waiting = false;
		loop_timer_clear(m->retry);
	}
	if (err && says_end(m))
		return;
	close_link(m, err == 0);
}

/* --- coming up */

static void note_peer(struct mirror *m, const struct remote_info *info)
{
	uint64_t volume = info->volume ? info->volume : m->peer.far_volume;

	if (m->peer.far_boot == info->boot && m->peer.far_process == info->process && m->peer.far_since == info->since &&
	    m->peer.far_volume == volume && m->peer.is_foreign != info->is_sxm)
		return;
	m->peer.far_volume = volume;
	m->peer.far_boot = info->boot;
	m->peer.far_process = info->process;
	m->peer.far_since = info->since;
	m->peer.is_foreign = !info->is_sxm;
	if (m->spec.save_peer)
		m->spec.save_peer(m->spec.arg, &m->peer, NULL, NULL); /* unknown is taken for lost: nobody waits */
}

static bool may_have_lost(const struct mirror *m, const struct remote_info *info)
{
	if (!m->was_up)
		return false; /* nothing was ever sent */
	if (!info->is_sxm || info->boot != m->peer.far_boot)
		return true;
	return info->is_caching && info->process != m->peer.far_process;
}

/* The far volume received something else in between: nothing that was ever acknowledged is there. */
static bool has_forgotten(const struct mirror *m, const struct remote_info *info)
{
	if (!m->was_up || !info->is_sxm || !info->since)
		return false;
	return info->since >= m->peer.generation || (m->peer.far_since && info->since != m->peer.far_since);
}

/* Of a far side that is no sxm nobody knows what of the last link is still on its way to it: who asks for the next one answers
 * for that (I12). */
static bool is_another(struct mirror *m, const struct remote_info *info)
{
	bool was_sxm = m->is_sxm || m->peer.far_boot;

	if (!m->was_up || (info->is_sxm ? !m->peer.is_foreign : m->is_resuming && !was_sxm))
		return false;
	if (was_sxm || m->peer.is_foreign)
		error_set(&m->cause, ENOTSUP, "the far side is another one: it was %s sxm, and is %s", was_sxm ? "an" : "no",
			  info->is_sxm ? "one" : "none");
	else
		error_set(&m->cause, ENOTSUP, "the far side is no sxm: a link to it is made anew only when that is asked for");
	return true;
}

static void tell_up(struct mirror *m, const struct remote_info *info)
{
	if (!m->was_up)
		log_info("mirror: connected to %s, %ju bytes to copy, %u bytes at most in a write, zeroes %s, flush %s%s", m->uri,
		         (uintmax_t)m->allocated_bytes, info->max_bytes, info->can_zero ? "yes" : "no",
		         info->can_flush ? "yes" : "no", info->is_sxm ? "" : ", no sxm: a lost link is not made anew");
	else
		log_info("mirror: connected to %s again, link %ju", m->uri, (uintmax_t)m->peer.generation);
}

static void on_up(void *arg, const struct remote_info *info)
{
	struct mirror *m = arg;
	struct core_event ev = {
		.type = CORE_LINK_UP,
		.far = {
			.generation = m->peer.generation,
			.min_block_bytes = info->min_block_bytes,
			.max_bytes = info->max_bytes,
			.can_zero = info->can_zero,
			.can_flush = info->can_flush,
			.flushes_last = info->is_sxm,
			.window_ops = WINDOW_OPS,
			.can_reconnect = info->is_sxm || m->spec.can_remember,
			.may_have_lost = may_have_lost(m, info),
		},
	};

	if (mirror_is_over(m) && !is_kept(m))
		return; /* its close is under way */
	if (is_another(m, info)) {
		give_up(m);
		close_link(m, false);
		return;
	}
	m->is_resuming = false;
	if (has_forgotten(m, info)) {
		error_set(&m->cause, EIO, "the far volume received another mirror in between: start this one anew");
		give_up(m);
		close_link(m, false);
		return;
	}
	if (!m->was_up)
		mirror_sweep_meet(m, &info->zero);
	tell_up(m, info);
	m->is_connected = m->is_up = m->was_up = true;
	m->is_sxm = info->is_sxm;
	m->version = info->version;
	m->attempts = 0;
	m->has_lost_since = ev.far.may_have_lost && m->state == CORE_FINISHED;
	m->up = ev;
	if (m->state != CORE_FINISHED)
		mirror_step(m, ev);
	/* Once what it may have lost is in the map, as who takes this up compares. Until GO_ON the core does not hear. */
	if (!m->has_lost_since)
		note_peer(m, info);
	mirror_end_news(m);
}

static void on_heard(void *arg, uint32_t status, uint32_t state, uint64_t epoch)
{
	struct mirror *m = arg;

	if (m->spec.on_heard)
		m->spec.on_heard(m->spec.arg, status, state, epoch);
}

static void on_failed(void *arg, const struct error *e)
{
	struct mirror *m = arg;

	m->cause = *e;
	log_debug("mirror to %s: link %ju: %s", m->uri, (uintmax_t)m->peer.generation, e->text);
	if (is_final(m, e->err))
		give_up(m);
	close_link(m, false);
}

static void on_down(void *arg, int err)
{
	struct mirror *m = arg;

	if (err == ETIMEDOUT)
		error_set(&m->cause, err, "the far side made no progress for so long that the link was cut");
	else
		error_set(&m->cause, err, "the link to the far side was lost: it closed the connection");
	m->lost_ns = loop_now_ns();
	m->links_lost++;
	m->is_up = false;
	mirror_step(m, (struct core_event){ .type = CORE_LINK_DOWN, .err = err, .generation = m->peer.generation });
	if (m->state == CORE_BROKEN && !m->is_sxm)
		remember(m);
	else if (m->state == CORE_BROKEN)
		log_warn("mirror to %s: %s; the guest goes on alone, the link is made anew", m->uri, m->cause.text);
	close_link(m, false);
	mirror_end_news(m);
}

static void open_link(struct mirror *m)
{
	struct remote_spec spec = {
		.loop = m->spec.loop,
		.uri = m->uri,
		.min_size_bytes = m->layer.geometry.size_bytes,
		.holes = m->was_up ? NULL : &m->holes,
		.connect_wait_ms = m->was_up ? 0 : m->spec.connect_wait_ms,
		.handshake_ms = m->was_up ? MIN(m->spec.handshake_ms, HANDSHAKE_AGAIN_MS) : m->spec.handshake_ms,
		.dead_ms = m->spec.dead_ms,
		.mirror_id = m->mirror_id,
		.epoch = m->spec.epoch,
		.generation = m->peer.generation,
		.volume = m->peer.far_volume,
		.on_heard = on_heard,
		.on_up = on_up,
		.on_failed = on_failed,
		.on_down = on_down,
		.arg = m,
	};

	m->remote = remote_nbd_new(&spec, &m->cause);
	if (m->remote)
		return;
	if (m->was_up)
		try_again(m);
	else
		give_up(m);
}

static void on_numbered(void *arg, int err)
{
	struct mirror *m = arg;

	m->is_numbering = false;
	if (!is_wanted(m)) {
		mirror_end_check(m);
		return;
	}
	if (!err) {
		open_link(m);
		return;
	}
	error_errno(&m->cause, err, "the number of the next link could not be written down");
	if (m->was_up)
		try_again(m);
	else
		give_up(m);
}

static void connect_anew(struct mirror *m)
{
	m->peer.generation++;
	if (!m->spec.save_peer) {
		open_link(m);
		return;
	}
	m->is_numbering = true;
	m->spec.save_peer(m->spec.arg, &m->peer, on_numbered, m);
}

void mirror_link_start(struct mirror *m)
{
	if (mirror_is_over(m) || m->is_remembering) {
		mirror_end_check(m);
		return;
	}
	m->lost_ns = loop_now_ns();
	connect_anew(m);
}

/* --- while it is up */

void mirror_link_submit(struct mirror *m, struct remote_op *op)
{
	assert(m->remote && !m->is_closing);
	m->remote->ops->submit(m->remote, op);
}

static void on_far_flushed(struct remote_op *op, int err)
{
	struct mirror *m = container_of(op, struct mirror, flush);

	if (err && err != ESHUTDOWN)
		error_errno(&m->cause, err, "the far side failed a flush");
	mirror_step(m, (struct core_event){ .type = CORE_FLUSHED, .err = err, .generation = m->peer.generation });
}

void mirror_link_flush(struct mirror *m)
{
	m->flush = (struct remote_op){ .opcode = REMOTE_FLUSH, .done = on_far_flushed };
	mirror_link_submit(m, &m->flush);
}

/* --- the commit */

bool mirror_ask(struct layer *l, struct remote_ask *a)
{
	struct mirror *m = mirror_of(l);

	if (!m->is_up || m->is_closing || m->is_ending || !m->remote->ops->ask)
		return false;
	m->remote->ops->ask(m->remote, a);
	return true;
}

bool mirror_digest(const struct layer *l, struct digest *out)
{
	const struct mirror *m = mirror_of(l);

	return m->is_up && !m->is_closing && m->remote->ops->digest && m->remote->ops->digest(m->remote, out);
}

static bool is_reaching(const struct mirror *m)
{
	return !m->is_up && (m->remote || m->is_waiting || m->is_numbering);
}

void mirror_reach(struct layer *l)
{
	struct mirror *m = mirror_of(l);

	if (m->is_up || is_reaching(m) || !is_kept(m))
		return;
	m->lost_ns = loop_now_ns();
	m->attempts = 0;
	connect_anew(m);
}

void mirror_go_on(struct layer *l, uint64_t epoch)
{
	struct mirror *m = mirror_of(l);

	assert(m->state == CORE_FINISHED);
	m->spec.epoch = epoch;
	mirror_step(m, (struct core_event){ .type = CORE_GO_ON });
	if (m->state != CORE_BROKEN)
		return;
	m->lost_ns = loop_now_ns();
	if (m->is_up) {
		m->has_lost_since = false;
		mirror_step(m, m->up); /* made after the barrier: news to the core */
	} else if (!is_reaching(m)) {
		connect_anew(m);
	}
}

void mirror_link_status(const struct mirror *m, struct mirror_status *out)
{
	out->links_lost = m->links_lost;
	out->is_sxm = m->is_sxm;
	out->can_flush = m->up.far.can_flush;
	out->version = m->version;
	out->is_up = m->is_up && !m->is_closing && !m->is_ending;
	out->is_reaching = is_reaching(m);
	out->is_remembering = m->is_remembering;
	out->has_lost = m->has_lost_since;
}

void mirror_start(struct layer *l)
{
	struct mirror *m = mirror_of(l);

	assert(!m->started_ns);
	m->started_ns = loop_now_ns();
	if (mirror_is_over(m))
		return;
	if (!m->is_restored)
		mirror_sweep_start(m);
	else if (m->keeps_files)
		mirror_link_start(m);
}

void mirror_resume(struct layer *l)
{
	struct mirror *m = mirror_of(l);

	assert(m->is_remembering && !mirror_is_over(m));
	m->is_remembering = false;
	m->is_resuming = true;
	error_clear(&m->why);
	m->attempts = 0;
	m->lost_ns = loop_now_ns();
	if (!is_reaching(m))
		connect_anew(m);
}

void mirror_sweep_ended(struct mirror *m)
{
	mirror_map_start(m);
}

bool mirror_link_is_gone(const struct mirror *m)
{
	return !m->remote && !m->sweep && !m->is_waiting && !m->is_numbering && mirror_map_is_quiet(m);
}

void mirror_link_fini(struct mirror *m)
{
	loop_timer_free(m->retry);
	extents_fini(&m->batch);
	extents_fini(&m->only);
	extents_fini(&m->holes);
}
