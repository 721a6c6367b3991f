/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * verify - see verify.h
 *
 *                        plan: what next?
 *           ASK |                                | READ
 *       +-------+--------+               +-------+-------+         two buffers a piece, made once:
 *       | EXTENTS  block |               | READ   READ   |         4 MiB at most are under way
 *       |  here   status |               | here   there  |
 *       +-------+--------+               +-------+-------+
 *               v both answered                  v both arrived
 *        verify_plan_asked()              verify_plan_read() -> what next?
 *
 * This side is read through the top of the stack, as a guest would: a held gate holds it, a switchover ends it, a reopening of
 * the image below it goes unnoticed.  Each read asks for the medium, not the page cache (REQ_UNCACHED).  The far side answers
 * from what it has: another sxm reads with O_DIRECT, another server as it likes.
 *
 * What a guest writes while a piece is being read would make the sides look different.  A watch on the top of the stack says of
 * each chunk whether a write was under way before the reading or began during it; whether what it sent is still on its way to the
 * far side, the mirror says (is_settled).  Both are asked before and after.
 *
 * Guests come first.  While other requests than ours are in flight one small piece is under way at a time, else several.
 *
 * Can fail: either side's reads, the link.  Any of it ends the verification with a sentence; nothing is concluded from it.
 * Invariant: a buffer is in the plan's hands or in those of two reads; on_over() comes when neither side has any of them.
 */
#include "mirror/verify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/watch.h"
#include "mirror/remote.h"

#define EXTENTS_MAX 4096u
#define POLITE_BYTES (64u << 10) /* a piece while a guest is at work: a request of its own waits behind no more than that */
#define GUEST_NS (50 * NS_PER_MS) /* a guest that was seen so long ago is still there */

/* A piece and its two buffers. */
struct slot {
	struct verify *v;
	struct verify_piece *piece; /* the plan's; NULL: free */
	struct iobuf *here;         /* owned */
	uint8_t *there;             /* owned */
	struct remote_op far;
	uint64_t quiet;             /* suspects that were settled before the reading */
	uint64_t stamp[VERIFY_PIECE_CHUNKS]; /* of these, by the watch */
	unsigned waiting;           /* for so many answers */
	int here_err, there_err;
};

/* The question what is zero, to both sides. */
struct asking {
	struct range range;
	struct extents here, there; /* owned */
	struct remote_op far;
	unsigned waiting;
	int here_err, there_err;
	bool is_here_silent, is_there_silent; /* that side did not tell once: not asked again */
};

struct verify {
	struct verify_spec spec;    /* uri: ours; only: the plan has it */
	char *uri;                  /* owned */
	enum verify_state state;
	struct verify_plan *plan;   /* owned */
	struct remote *remote;      /* owned, until its close is done */
	bool is_closing, is_told;
	struct iobuf_pool *pool;    /* owned */
	struct slot slot[VERIFY_PIECES_MAX];
	struct asking asking;
	struct watch *watch;        /* owned, from start to end */
	uint32_t far_max_bytes;     /* longest read there */
	unsigned reads_here;        /* requests of ours in flight on this side */
	uint64_t guest_ns;          /* when others were seen */
	struct loop_timer *timer;   /* owned */
	struct loop_task over;
	struct error why;
	uint64_t started_ns, running_ns, ended_ns;
};

static void pump(struct verify *v);

const char *verify_state_name(enum verify_state s)
{
	static const char *const name[] = {
		[VERIFY_CONNECTING] = "connecting", [VERIFY_RUNNING] = "running", [VERIFY_COMPLETE] = "complete",
		[VERIFY_FAILED] = "failed", [VERIFY_CANCELLED] = "cancelled",
	};

	return name[s];
}

static bool is_over(const struct verify *v)
{
	return v->state >= VERIFY_COMPLETE;
}

/* --- the end */

static bool is_quiet(const struct verify *v)
{
	for (unsigned i = 0; i < VERIFY_PIECES_MAX; i++)
		if (v->slot[i].waiting)
			return false;
	return !v->asking.waiting && !v->remote;
}

static void tell_over(struct loop_task *t)
{
	struct verify *v = container_of(t, struct verify, over);

	if (v->is_told || !is_quiet(v))
		return;
	v->is_told = true;
	v->spec.on_over(v->spec.arg);
}

static void check_over(struct verify *v)
{
	if (is_over(v) && is_quiet(v))
		loop_defer(v->spec.loop, &v->over);
}

static void on_closed(void *arg)
{
	struct verify *v = arg;

	v->remote = NULL;
	check_over(v);
}

static void log_end(const struct verify *v)
{
	const struct verify_result *r = verify_plan_result(v->plan);
	double seconds = (double)(v->ended_ns - v->started_ns) / (double)NS_PER_S;

	if (v->state == VERIFY_FAILED)
		log_warn("verification against %s failed after %.1f s: %s", v->uri, seconds, v->why.text);
	else
		log_info("verification against %s %s after %.1f s: %ju of %ju bytes looked at, %ju of these not read as both "
		         "sides say zero, %ju differ, %ju unsettled", v->uri, verify_state_name(v->state), seconds,
		         (uintmax_t)r->done_bytes, (uintmax_t)r->total_bytes, (uintmax_t)r->skipped_bytes,
		         (uintmax_t)r->different_bytes, (uintmax_t)r->unsettled_bytes);
}

static void set_state(struct verify *v, enum verify_state state)
{
	static const bool is_drawn[5][5] = {
		[VERIFY_CONNECTING] = { [VERIFY_RUNNING] = true, [VERIFY_FAILED] = true, [VERIFY_CANCELLED] = true },
		[VERIFY_RUNNING] = { [VERIFY_COMPLETE] = true, [VERIFY_FAILED] = true, [VERIFY_CANCELLED] = true },
	};

	assert(is_drawn[v->state][state]);
	v->state = state;
	if (v->spec.on_change)
		v->spec.on_change(v->spec.arg);
}

static void end(struct verify *v, enum verify_state state)
{
	loop_timer_clear(v->timer);
	watch_free(v->watch, true);
	v->watch = NULL;
	v->ended_ns = loop_now_ns();
	set_state(v, state);
	log_end(v);
	if (v->remote && !v->is_closing) {
		v->is_closing = true;
		v->remote->ops->close(v->remote, state == VERIFY_COMPLETE, on_closed, v);
	}
	check_over(v);
}

void verify_cancel(struct verify *v, const struct error *why)
{
	if (is_over(v))
		return;
	if (why)
		v->why = *why;
	end(v, why ? VERIFY_FAILED : VERIFY_CANCELLED);
}

static void fail_here(struct verify *v, int err, uint64_t at)
{
	if (err == ESHUTDOWN)
		error_set(&v->why, err, "the disk was closed or handed over while it was being verified");
	else
		error_errno(&v->why, err, "this disk could not be read at %ju", (uintmax_t)at);
	end(v, VERIFY_FAILED);
}

static void fail_there(struct verify *v, int err, uint64_t at)
{
	if (err == ESHUTDOWN)
		return; /* the link's end: on_down() says why */
	error_errno(&v->why, err, "the far side could not be read at %ju", (uintmax_t)at);
	end(v, VERIFY_FAILED);
}

/* --- a piece */

static struct range chunk_of(const struct verify_piece *piece, unsigned i)
{
	uint64_t at = piece->range.start + i * VERIFY_CHUNK_BYTES;

	return range_clip((struct range){ at, at + VERIFY_CHUNK_BYTES }, piece->range);
}

static bool is_settled(const struct verify *v, struct range r)
{
	return watch_is_quiet(v->watch, r) && (!v->spec.is_settled || v->spec.is_settled(v->spec.arg, r));
}

/* Of the suspects in `left`, those nobody is changing now. */
static uint64_t find_settled(const struct verify *v, const struct verify_piece *piece, uint64_t left)
{
	uint64_t settled = 0;

	if (!left || is_settled(v, piece->range))
		return left;
	for (; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);

		if (is_settled(v, chunk_of(piece, i)))
			settled |= UINT64_C(1) << i;
	}
	return settled;
}

static void begin_quiet(struct slot *s)
{
	s->quiet = find_settled(s->v, s->piece, s->piece->suspects);
	for (uint64_t left = s->quiet; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);

		s->stamp[i] = watch_stamp(s->v->watch, chunk_of(s->piece, i));
	}
}

/* Those that were and are settled, and in which nothing has begun in between. */
static uint64_t end_quiet(const struct slot *s)
{
	uint64_t quiet = find_settled(s->v, s->piece, s->quiet);

	for (uint64_t left = quiet; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);

		if (s->stamp[i] != watch_stamp(s->v->watch, chunk_of(s->piece, i)))
			quiet &= ~(UINT64_C(1) << i);
	}
	return quiet;
}

static void arrived(struct slot *s)
{
	struct verify *v = s->v;
	uint64_t at = s->piece->range.start;

	if (--s->waiting)
		return;
	if (!is_over(v) && s->here_err)
		fail_here(v, s->here_err, at);
	else if (!is_over(v) && s->there_err)
		fail_there(v, s->there_err, at);
	else if (!is_over(v))
		verify_plan_read(v->plan, s->piece, s->here->data, s->there, end_quiet(s), loop_now_ns());
	s->piece = s->there_err == ESHUTDOWN ? s->piece : NULL; /* not read: nothing is to be said of it */
	check_over(v);
	pump(v);
}

static void on_here(struct req *r)
{
	struct slot *s = r->arg;

	s->here_err = r->err;
	s->v->reads_here--;
	req_put(r);
	arrived(s);
}

static void on_there(struct remote_op *op, int err)
{
	struct slot *s = container_of(op, struct slot, far);

	s->there_err = err;
	arrived(s);
}

static void submit_here(struct verify *v, struct req *r)
{
	v->reads_here++;
	layer_submit(v->spec.top, r);
}

static struct slot *free_slot(struct verify *v)
{
	struct slot *s = v->slot;

	while (s->piece)
		s++;
	assert(s < v->slot + VERIFY_PIECES_MAX);
	return s;
}

static void read_piece(struct verify *v, struct verify_piece *piece)
{
	struct slot *s = free_slot(v);
	struct req *r = req_get();

	if (!r) {
		error_set(&v->why, ENOMEM, "out of memory");
		end(v, VERIFY_FAILED);
		return;
	}
	s->piece = piece;
	s->waiting = 2;
	s->here_err = s->there_err = 0;
	begin_quiet(s);
	*r = (struct req){
		.op = REQ_READ, .flags = REQ_UNCACHED, .range = piece->range, .data = s->here, .done = on_here, .arg = s,
	};
	s->far = (struct remote_op){ .opcode = REMOTE_READ, .range = piece->range, .buffer = s->there, .done = on_there };
	submit_here(v, r);
	v->remote->ops->submit(v->remote, &s->far);
}

/* --- the question */

static void answered(struct verify *v)
{
	struct asking *a = &v->asking;

	if (--a->waiting)
		return;
	if (!is_over(v) && a->here_err == ESHUTDOWN) {
		fail_here(v, a->here_err, a->range.start);
	} else if (!is_over(v) && a->there_err != ESHUTDOWN) {
		a->is_here_silent |= a->here_err != 0;
		a->is_there_silent |= a->there_err != 0;
		verify_plan_asked(v->plan, a->is_here_silent ? NULL : &a->here, a->is_there_silent ? NULL : &a->there);
	}
	check_over(v);
	pump(v);
}

static void on_extents_here(struct req *r)
{
	struct verify *v = r->arg;

	v->asking.here_err = r->err;
	v->reads_here--;
	req_put(r);
	answered(v);
}

static void on_extents_there(struct remote_op *op, int err)
{
	struct verify *v = container_of(op, struct verify, asking.far);

	v->asking.there_err = err;
	answered(v);
}

/* Where one side does not tell, the other need not be asked. */
static void ask(struct verify *v, struct range range)
{
	struct asking *a = &v->asking;
	struct req *r = a->is_here_silent || a->is_there_silent ? NULL : req_get();

	if (!r) {
		verify_plan_asked(v->plan, NULL, NULL);
		return;
	}
	a->range = range;
	a->here.count = a->there.count = 0;
	a->here_err = a->there_err = 0;
	a->waiting = 2;
	*r = (struct req){ .op = REQ_EXTENTS, .range = range, .extents = &a->here, .done = on_extents_here, .arg = v };
	a->far = (struct remote_op){
		.opcode = REMOTE_EXTENTS, .range = range, .extents = &a->there, .done = on_extents_there,
	};
	submit_here(v, r);
	v->remote->ops->submit(v->remote, &a->far);
}

/* --- what next */

/* How many pieces at a time, and how long. */
static unsigned choose_window(struct verify *v)
{
	uint64_t now_ns = loop_now_ns();
	bool is_polite;

	if (v->spec.top->in_flight > v->reads_here)
		v->guest_ns = now_ns;
	is_polite = v->guest_ns && now_ns - v->guest_ns < GUEST_NS;
	verify_plan_limit(v->plan, MIN(v->far_max_bytes, is_polite ? POLITE_BYTES : VERIFY_PIECE_BYTES));
	return is_polite ? 1 : VERIFY_PIECES_MAX;
}

static void pump(struct verify *v)
{
	struct verify_step step;

	while (v->state == VERIFY_RUNNING) {
		verify_plan_next(v->plan, loop_now_ns(), choose_window(v), &step);
		switch (step.want) {
		case VERIFY_ASK:
			ask(v, step.range);
			break;
		case VERIFY_READ:
			read_piece(v, step.piece);
			break;
		case VERIFY_WAIT:
			if (step.wait_ns != UINT64_MAX)
				loop_timer_set(v->timer, (step.wait_ns + NS_PER_MS - 1) / NS_PER_MS);
			return;
		case VERIFY_OVER:
			end(v, VERIFY_COMPLETE);
			return;
		}
	}
}

static void on_timer(void *arg)
{
	pump(arg);
}

/* --- the link */

static void on_up(void *arg, const struct remote_info *info)
{
	struct verify *v = arg;

	if (is_over(v))
		return;
	v->far_max_bytes = info->max_bytes;
	v->running_ns = loop_now_ns();
	set_state(v, VERIFY_RUNNING);
	pump(v);
}

static void on_failed(void *arg, const struct error *e)
{
	struct verify *v = arg;

	if (is_over(v))
		return;
	if (e->err == ETIMEDOUT)
		error_set(&v->why, e->err, "a connection of its own is needed, and nobody answers: does the far side take "
		          "another client? (%s)", e->text);
	else
		v->why = *e;
	end(v, VERIFY_FAILED);
}

static void on_down(void *arg, int err)
{
	struct verify *v = arg;

	if (is_over(v))
		return;
	if (err == ETIMEDOUT)
		error_set(&v->why, err, "the far side made no progress for %u ms", v->spec.dead_ms);
	else
		error_set(&v->why, err, "the link to the far side was lost: it closed the connection");
	end(v, VERIFY_FAILED);
}

void verify_start(struct verify *v)
{
	const struct remote_spec spec = {
		.loop = v->spec.loop,
		.uri = v->uri,
		.min_size_bytes = v->spec.top->geometry.size_bytes,
		.is_reader = true,
		.connect_wait_ms = v->spec.connect_wait_ms,
		.handshake_ms = v->spec.handshake_ms,
		.dead_ms = v->spec.dead_ms,
		.on_up = on_up,
		.on_failed = on_failed,
		.on_down = on_down,
		.arg = v,
	};

	v->started_ns = loop_now_ns();
	v->watch = watch_new(v->spec.top);
	if (v->watch)
		v->remote = remote_nbd_new(&spec, &v->why);
	else
		error_set(&v->why, ENOMEM, "out of memory");
	if (!v->remote)
		end(v, VERIFY_FAILED);
}

/* --- birth and death */

static int make_slots(struct verify *v)
{
	v->pool = iobuf_pool_new(VERIFY_PIECES_MAX * VERIFY_PIECE_BYTES);
	if (!v->pool)
		return -1;
	for (unsigned i = 0; i < VERIFY_PIECES_MAX; i++) {
		struct slot *s = &v->slot[i];

		s->v = v;
		s->here = iobuf_get(v->pool, VERIFY_PIECE_BYTES);
		s->there = malloc(VERIFY_PIECE_BYTES);
		if (!s->here || !s->there)
			return -1;
	}
	return 0;
}

struct verify *verify_new(const struct verify_spec *spec, struct error *e)
{
	const struct verify_plan_spec plan = {
		.size_bytes = spec->top->geometry.size_bytes,
		.only = spec->only,
		.rate_bytes = spec->rate_bytes,
		.tries = spec->tries,
		.pause_ms = spec->pause_ms,
	};
	struct verify *v;

	if (remote_nbd_check_uri(spec->uri, e) == -1)
		return NULL;
	v = calloc(1, sizeof(*v));
	if (!v) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	v->spec = *spec;
	v->spec.only = NULL;
	v->spec.connect_wait_ms = spec->connect_wait_ms ? spec->connect_wait_ms : 1000;
	v->spec.handshake_ms = spec->handshake_ms ? spec->handshake_ms : 20000;
	v->spec.dead_ms = spec->dead_ms ? spec->dead_ms : 30000;
	v->over.run = tell_over;
	extents_init(&v->asking.here, EXTENTS_MAX);
	extents_init(&v->asking.there, EXTENTS_MAX);
	v->spec.uri = v->uri = strdup(spec->uri);
	v->plan = verify_plan_new(&plan);
	v->timer = loop_timer_new(spec->loop, on_timer, v);
	if (v->uri && v->plan && v->timer && make_slots(v) == 0)
		return v;
	error_set(e, ENOMEM, "out of memory");
	verify_free(v);
	return NULL;
}

void verify_free(struct verify *v)
{
	assert(is_quiet(v));
	loop_defer_cancel(v->spec.loop, &v->over);
	loop_timer_free(v->timer);
	for (unsigned i = 0; i < VERIFY_PIECES_MAX; i++) {
		iobuf_return(v->slot[i].here);
		free(v->slot[i].there);
	}
	if (v->pool)
		iobuf_pool_free(v->pool);
	extents_fini(&v->asking.here);
	extents_fini(&v->asking.there);
	verify_plan_free(v->plan);
	free(v->uri);
	free(v);
}

void verify_status(const struct verify *v, struct verify_status *out)
{
	const struct verify_result *r = verify_plan_result(v->plan);

	*out = (struct verify_status){
		.state = v->state, .why = v->why,
		.started_ns = v->started_ns, .running_ns = v->running_ns, .ended_ns = v->ended_ns,
		.result = *r,
		.is_verified = v->state == VERIFY_COMPLETE && !r->different_bytes && !r->unsettled_bytes,
	};
	snprintf(out->remote, sizeof(out->remote), "%s", v->uri);
}
