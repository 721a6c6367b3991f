/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * verify-plan - see verify-plan.h
 *
 *      ranges wanted:     [====================================]
 *      asked, 1 GiB:      [--------------]
 *      zero on both       |   [====]     |       skipped
 *      the rest           [==]      [====]       pieces: read on both sides, compared chunk by chunk
 *                            equal:   done
 *                            unequal: a group of suspects, to be read again
 *
 * The sides are not read in the same instant, and a guest may be writing: one unequal reading says nothing.  The suspects of one
 * piece are a group; a group is read again after a pause, and each of its chunks
 *
 *      suspect --equal-------------------------------------------------------> done
 *         |  ^ '--the same two contents as before, CONFIRMATIONS times running,
 *         |  |    and nobody was changing it in any of these readings --------> different
 *         |  '--- anything else: its contents are remembered anew
 *         '------ too often -----------------------------------------------> unsettled
 *
 * What is remembered of a content is its hash.  Unsettled is neither equal nor different: who wants to be certain stops the guest
 * or asks again.
 *
 * Bounds: GROUPS_MAX groups, allocated once; while none is free nothing new is read.  The rate is a bucket that may be in debt:
 * a piece is taken when there is anything in it, and pays in full.
 * Invariant: every wanted byte is not yet asked for, asked and not yet read, in a piece, a suspect, or done.
 */
#include "mirror/verify-plan.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "block/digest.h"

#define CONFIRMATIONS 2u
#define GROUPS_MAX 1024u
#define ASK_BYTES (UINT64_C(1) << 30)
#define SKIP_MIN_BYTES (UINT64_C(64) << 10) /* less is read with its neighbours: a request costs more than that */
#define BURST_MS 10u
#define RATE_MAX_BYTES UINT64_C(1000000000000) /* a second: as good as none */
#define TRIES 12u
#define PAUSE_MS 100u
#define PAUSE_MAX_MS 2000u

struct seen {
	uint64_t here[2], there[2];
	unsigned confirmed;
};

struct verify_group {
	struct range range;
	uint64_t suspects;    /* bits of range's chunks */
	unsigned tries;
	uint64_t due_ns;
	struct seen seen[VERIFY_PIECE_CHUNKS];
	TAILQ_ENTRY(verify_group) link; /* free, or due */
};
TAILQ_HEAD(group_list, verify_group);

struct verify_plan {
	struct verify_plan_spec spec;
	uint32_t piece_bytes;       /* the next pieces: at most spec's */
	struct extents wanted;      /* owned */
	size_t item;                /* of wanted */
	uint64_t at;                /* in it: nothing from here on was given out */
	bool is_asking;
	struct range asked;         /* being asked for; then: at may go on to its end */
	struct extents skip;        /* owned: of asked, what need not be read */
	size_t skip_item;

	struct verify_piece piece[VERIFY_PIECES_MAX];
	unsigned busy, fresh;       /* pieces under way; of them read for the first time */
	struct verify_group *groups; /* owned */
	struct group_list free, due; /* due: by due_ns */
	unsigned groups_free;

	int64_t bucket_bytes;
	uint64_t filled_ns;
	struct verify_result result;
};

/* --- birth and death */

static int want(struct verify_plan *p, struct range r)
{
	const struct extents *x = &p->wanted;

	r.end = MIN(range_widen(r, VERIFY_CHUNK_BYTES).end, p->spec.size_bytes);
	r.start = range_widen(r, VERIFY_CHUNK_BYTES).start;
	if (x->count)
		r.start = MAX(r.start, x->item[x->count - 1].range.end);
	if (range_is_empty(r))
		return 0;
	p->result.total_bytes += range_length(r);
	return extents_add(&p->wanted, r, 0);
}

static int want_all(struct verify_plan *p)
{
	const struct extents *only = p->spec.only;

	p->spec.only = NULL;
	if (!only)
		return want(p, (struct range){ 0, p->spec.size_bytes });
	for (size_t i = 0; i < only->count; i++)
		if (want(p, only->item[i].range) != 0)
			return -1;
	return 0;
}

static void set_defaults(struct verify_plan_spec *s)
{
	s->piece_bytes = s->piece_bytes ? s->piece_bytes : VERIFY_PIECE_BYTES;
	s->tries = s->tries ? s->tries : TRIES;
	s->pause_ms = s->pause_ms ? s->pause_ms : PAUSE_MS;
	s->pause_max_ms = s->pause_max_ms ? s->pause_max_ms : PAUSE_MAX_MS;
	s->rate_bytes = MIN(s->rate_bytes, RATE_MAX_BYTES);
	assert(s->piece_bytes <= VERIFY_PIECE_BYTES && s->piece_bytes % VERIFY_CHUNK_BYTES == 0);
}

struct verify_plan *verify_plan_new(const struct verify_plan_spec *spec)
{
	struct verify_plan *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->spec = *spec;
	set_defaults(&p->spec);
	p->piece_bytes = p->spec.piece_bytes;
	TAILQ_INIT(&p->free);
	TAILQ_INIT(&p->due);
	p->result.different.max = VERIFY_DIFFERENT_MAX;
	p->result.unsettled.max = VERIFY_UNSETTLED_MAX;
	p->groups = calloc(GROUPS_MAX, sizeof(*p->groups));
	if (!p->groups || want_all(p) != 0) {
		verify_plan_free(p);
		return NULL;
	}
	for (unsigned i = 0; i < GROUPS_MAX; i++)
		TAILQ_INSERT_TAIL(&p->free, &p->groups[i], link);
	p->groups_free = GROUPS_MAX;
	p->at = p->wanted.count ? p->wanted.item[0].range.start : 0;
	p->asked = (struct range){ p->at, p->at };
	p->bucket_bytes = 1;
	return p;
}

void verify_plan_free(struct verify_plan *p)
{
	if (!p)
		return;
	extents_fini(&p->wanted);
	extents_fini(&p->skip);
	free(p->groups);
	free(p);
}

void verify_plan_limit(struct verify_plan *p, uint32_t piece_bytes)
{
	assert(piece_bytes >= VERIFY_CHUNK_BYTES);
	p->piece_bytes = MIN(p->spec.piece_bytes, piece_bytes / VERIFY_CHUNK_BYTES * VERIFY_CHUNK_BYTES);
}

const struct verify_result *verify_plan_result(const struct verify_plan *p)
{
	return &p->result;
}

/* --- the rate */

static void fill_bucket(struct verify_plan *p, uint64_t now_ns)
{
	uint64_t rate = p->spec.rate_bytes, passed_us = (now_ns - p->filled_ns) / 1000, came;
	int64_t full = MAX((int64_t)(rate * BURST_MS / 1000), 1);

	came = rate * MIN(passed_us, UINT64_C(1000000)) / 1000000;
	if (came == 0)
		return; /* less than a byte: it goes on counting */
	p->bucket_bytes += (int64_t)came;
	p->filled_ns = now_ns;
	p->bucket_bytes = MIN(p->bucket_bytes, full);
}

/* How long until something may be read; 0: now. */
static uint64_t wait_for_rate(struct verify_plan *p, uint64_t now_ns)
{
	if (!p->spec.rate_bytes)
		return 0;
	fill_bucket(p, now_ns);
	if (p->bucket_bytes > 0)
		return 0;
	return (uint64_t)(1 - p->bucket_bytes) * 1000000 / p->spec.rate_bytes * 1000 + 1000;
}

/* --- what is next */

static bool has_more(const struct verify_plan *p)
{
	return p->item < p->wanted.count;
}

/* The position moves on, over what is skipped and from one wanted range to the next. */
static void move_to(struct verify_plan *p, uint64_t at)
{
	p->at = at;
	if (at < p->wanted.item[p->item].range.end)
		return;
	p->item++;
	if (has_more(p))
		p->at = p->wanted.item[p->item].range.start;
	p->asked = (struct range){ p->at, p->at };
}

/* At `at` nothing is skipped; up to where? */
static uint64_t end_of_piece(const struct verify_plan *p)
{
	uint64_t end = MIN(p->asked.end, p->at + p->piece_bytes);

	return p->skip_item < p->skip.count ? MIN(end, p->skip.item[p->skip_item].range.start) : end;
}

static void skip(struct verify_plan *p)
{
	while (has_more(p) && p->skip_item < p->skip.count && p->skip.item[p->skip_item].range.start == p->at) {
		struct range r = p->skip.item[p->skip_item++].range;

		p->result.skipped_bytes += range_length(r);
		p->result.done_bytes += range_length(r);
		move_to(p, r.end);
	}
}

static struct verify_piece *take_piece(struct verify_plan *p, struct range r, struct verify_group *g)
{
	struct verify_piece *piece = p->piece;

	while (piece->is_busy)
		piece++;
	*piece = (struct verify_piece){ .range = r, .group = g, .suspects = g ? g->suspects : 0, .is_busy = true };
	p->busy++;
	p->fresh += !g;
	p->bucket_bytes -= p->spec.rate_bytes ? (int64_t)range_length(r) : 0;
	p->result.read_bytes += range_length(r);
	return piece;
}

static void next_fresh(struct verify_plan *p, struct verify_step *out)
{
	uint64_t end;

	if (p->at == p->asked.end) {
		p->is_asking = true;
		p->asked.start = p->at;
		p->asked.end = MIN(p->wanted.item[p->item].range.end, p->at + ASK_BYTES);
		p->skip.count = p->skip_item = 0;
		*out = (struct verify_step){ .want = VERIFY_ASK, .range = p->asked };
		return;
	}
	end = end_of_piece(p);
	*out = (struct verify_step){ .want = VERIFY_READ, .piece = take_piece(p, (struct range){ p->at, end }, NULL) };
	move_to(p, end);
	skip(p);
}

void verify_plan_next(struct verify_plan *p, uint64_t now_ns, unsigned pieces_max, struct verify_step *out)
{
	struct verify_group *g = TAILQ_FIRST(&p->due);
	bool is_due = g && g->due_ns <= now_ns, may_go_on = has_more(p) && !p->is_asking && p->fresh < p->groups_free;
	uint64_t wait_ns;

	assert(pieces_max && pieces_max <= VERIFY_PIECES_MAX);
	*out = (struct verify_step){ .want = VERIFY_WAIT, .wait_ns = UINT64_MAX };
	if (!has_more(p) && !p->busy && !g) {
		out->want = VERIFY_OVER;
		return;
	}
	if (p->busy >= pieces_max || p->is_asking)
		return;
	if (!is_due && !may_go_on) {
		out->wait_ns = g ? g->due_ns - now_ns : UINT64_MAX;
		return;
	}
	wait_ns = wait_for_rate(p, now_ns);
	if (wait_ns) {
		out->wait_ns = wait_ns;
	} else if (is_due) {
		TAILQ_REMOVE(&p->due, g, link);
		*out = (struct verify_step){ .want = VERIFY_READ, .piece = take_piece(p, g->range, g) };
	} else {
		next_fresh(p, out);
	}
}

/* --- what both sides say of it */

static uint64_t end_of(const struct extents *x, uint64_t otherwise)
{
	return x ? (x->count ? x->item[x->count - 1].range.end : 0) : otherwise;
}

static void keep_skip(struct verify_plan *p, struct range r)
{
	bool is_last = r.end == p->spec.size_bytes;
	struct range chunks = range_shrink(r, VERIFY_CHUNK_BYTES);

	if (is_last)
		chunks.end = r.end;
	chunks = range_clip(chunks, p->asked);
	if (chunks.start < chunks.end && range_length(chunks) >= SKIP_MIN_BYTES)
		extents_add(&p->skip, chunks, EXTENT_ZERO); /* one that cannot be kept is read */
}

static void find_skips(struct verify_plan *p, const struct extents *a, const struct extents *b)
{
	for (size_t i = 0, j = 0; i < a->count && j < b->count;) {
		struct range both = range_clip(a->item[i].range, b->item[j].range);

		if ((a->item[i].type & EXTENT_ZERO) && (b->item[j].type & EXTENT_ZERO) && !range_is_empty(both))
			keep_skip(p, both);
		if (a->item[i].range.end < b->item[j].range.end)
			i++;
		else
			j++;
	}
}

void verify_plan_asked(struct verify_plan *p, const struct extents *here, const struct extents *there)
{
	uint64_t end = MIN(end_of(here, p->asked.end), end_of(there, p->asked.end));

	assert(p->is_asking);
	p->is_asking = false;
	/* An answer that does not get as far as one piece is not worth asking for again: the piece is read. */
	end = end < p->asked.end ? end & ~(uint64_t)(VERIFY_CHUNK_BYTES - 1) : p->asked.end;
	p->asked.end = MIN(p->asked.end, MAX(end, p->asked.start + p->piece_bytes));
	if (here && there)
		find_skips(p, here, there);
	skip(p);
}

/* --- what was read */

/* Bits of the chunks that are not the same. */
static uint64_t compare(const struct verify_piece *piece, const uint8_t *here, const uint8_t *there)
{
	uint64_t bytes = range_length(piece->range), unequal = 0;

	if (!piece->suspects && memcmp(here, there, bytes) == 0)
		return 0;
	for (unsigned i = 0; i * VERIFY_CHUNK_BYTES < bytes; i++) {
		uint64_t at = i * VERIFY_CHUNK_BYTES;

		if (memcmp(here + at, there + at, MIN(bytes - at, VERIFY_CHUNK_BYTES)) != 0)
			unequal |= UINT64_C(1) << i;
	}
	return piece->suspects ? unequal & piece->suspects : unequal;
}

static struct range chunk_of(struct range r, unsigned i)
{
	uint64_t start = r.start + i * VERIFY_CHUNK_BYTES;

	return (struct range){ start, MIN(r.end, start + VERIFY_CHUNK_BYTES) };
}

static uint64_t bytes_of(struct range r, uint64_t chunks)
{
	uint64_t bytes = 0;

	for (; chunks; chunks &= chunks - 1)
		bytes += range_length(chunk_of(r, (unsigned)__builtin_ctzll(chunks)));
	return bytes;
}

/* The first ones are kept, whatever the order in which they come. */
static void list_add(struct verify_list *l, struct range r)
{
	size_t i = 0, last;

	while (i < l->count && l->item[i].end < r.start)
		i++;
	for (last = i; last < l->count && l->item[last].start <= r.end; last++)
		r = (struct range){ MIN(r.start, l->item[last].start), MAX(r.end, l->item[last].end) };
	if (last == i && l->count == l->max) {
		l->is_cut = true;
		if (i == l->count)
			return;
		l->count--;
	}
	memmove(&l->item[i + 1], &l->item[last], (l->count - MIN(last, l->count)) * sizeof(l->item[0]));
	l->count = l->count + 1 - (last - i);
	l->item[i] = r;
}

static void conclude(struct verify_plan *p, struct range piece, uint64_t chunks, uint64_t *bytes, struct verify_list *l)
{
	uint64_t n = bytes_of(piece, chunks);

	p->result.done_bytes += n;
	if (!bytes)
		return;
	*bytes += n;
	for (; chunks; chunks &= chunks - 1)
		list_add(l, chunk_of(piece, (unsigned)__builtin_ctzll(chunks)));
}

static void hash(uint64_t out[2], struct range r, const uint8_t *bytes)
{
	struct digest d;

	digest_reset(&d);
	digest_add(&d, DIGEST_WRITE, r.start, range_length(r), bytes);
	out[0] = d.high;
	out[1] = d.low;
}

/* True: its contents have been the same often enough. */
static bool look_again(struct seen *seen, struct range r, const uint8_t *here, const uint8_t *there, bool is_quiet)
{
	struct seen now = { 0 };

	hash(now.here, r, here);
	hash(now.there, r, there);
	if (is_quiet && memcmp(seen->here, now.here, sizeof(now.here)) == 0 &&
	    memcmp(seen->there, now.there, sizeof(now.there)) == 0)
		now.confirmed = seen->confirmed + 1;
	*seen = now;
	return now.confirmed >= CONFIRMATIONS;
}

static void insert_due(struct verify_plan *p, struct verify_group *g, uint64_t now_ns)
{
	unsigned doubled = MIN(g->tries, 16u);
	uint64_t pause_ms = (uint64_t)p->spec.pause_ms << doubled;
	struct verify_group *before;

	g->due_ns = now_ns + MIN(pause_ms, (uint64_t)p->spec.pause_max_ms) * NS_PER_MS;
	TAILQ_FOREACH_REVERSE(before, &p->due, group_list, link)
		if (before->due_ns <= g->due_ns)
			break;
	if (before)
		TAILQ_INSERT_AFTER(&p->due, before, g, link);
	else
		TAILQ_INSERT_HEAD(&p->due, g, link);
}

static void drop_group(struct verify_plan *p, struct verify_group *g)
{
	TAILQ_INSERT_HEAD(&p->free, g, link);
	p->groups_free++;
}

/* The piece shrinks to what is still in doubt: less is read, and both sides nearer to the same instant. */
static void shrink_group(struct verify_group *g)
{
	unsigned first = (unsigned)__builtin_ctzll(g->suspects), last = 63u - (unsigned)__builtin_clzll(g->suspects);
	struct range r = { chunk_of(g->range, first).start, chunk_of(g->range, last).end };

	memmove(g->seen, g->seen + first, (last - first + 1) * sizeof(g->seen[0]));
	g->suspects >>= first;
	g->range = r;
}

static void start_group(struct verify_plan *p, struct range r, uint64_t unequal, const uint8_t *here, const uint8_t *there,
			uint64_t now_ns)
{
	struct verify_group *g = TAILQ_FIRST(&p->free);

	assert(g);
	TAILQ_REMOVE(&p->free, g, link);
	p->groups_free--;
	g->range = r;
	g->suspects = unequal;
	g->tries = 0;
	memset(g->seen, 0, sizeof(g->seen));
	for (; unequal; unequal &= unequal - 1) {
		unsigned i = (unsigned)__builtin_ctzll(unequal);
		uint64_t at = i * VERIFY_CHUNK_BYTES;

		look_again(&g->seen[i], chunk_of(r, i), here + at, there + at, false);
	}
	p->result.suspect_bytes += bytes_of(r, g->suspects);
	shrink_group(g);
	insert_due(p, g, now_ns);
}

static void go_on(struct verify_plan *p, struct verify_group *g, uint64_t unequal, const uint8_t *here, const uint8_t *there,
		  uint64_t quiet, uint64_t now_ns)
{
	uint64_t equal = g->suspects & ~unequal, different = 0;

	for (uint64_t left = unequal; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);
		uint64_t at = i * VERIFY_CHUNK_BYTES;

		if (look_again(&g->seen[i], chunk_of(g->range, i), here + at, there + at, quiet >> i & 1))
			different |= UINT64_C(1) << i;
	}
	conclude(p, g->range, equal, NULL, NULL);
	conclude(p, g->range, different, &p->result.different_bytes, &p->result.different);
	p->result.suspect_bytes -= bytes_of(g->range, equal | different);
	g->suspects = unequal & ~different;
	g->tries++;
	if (g->suspects && g->tries >= p->spec.tries) {
		conclude(p, g->range, g->suspects, &p->result.unsettled_bytes, &p->result.unsettled);
		p->result.suspect_bytes -= bytes_of(g->range, g->suspects);
		g->suspects = 0;
	}
	if (!g->suspects) {
		drop_group(p, g);
		return;
	}
	shrink_group(g);
	insert_due(p, g, now_ns);
}

void verify_plan_read(struct verify_plan *p, struct verify_piece *piece, const uint8_t *here, const uint8_t *there,
		      uint64_t quiet, uint64_t now_ns)
{
	uint64_t unequal = compare(piece, here, there);

	assert(piece->is_busy);
	piece->is_busy = false;
	p->busy--;
	p->fresh -= !piece->group;
	if (piece->group) {
		go_on(p, piece->group, unequal, here, there, quiet, now_ns);
		return;
	}
	p->result.done_bytes += range_length(piece->range) - bytes_of(piece->range, unequal);
	if (unequal)
		start_group(p, piece->range, unequal, here, there, now_ns);
}
