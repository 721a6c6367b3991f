/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-probe - see remote-probe.h
 *
 * Zeroes need not be sent to where zeroes are.  What the far side's block status (base:allocation) calls zero is believed:
 * nobody else writes there.  Where the source has a hole and the far side is not known to read as zero, it is made to, before
 * the copy begins: this is quick where the storage can do it, and where it cannot the copy will find those chunks dirty and
 * send zeroes in its own time.
 *
 *      source's holes   [=======]      [==========]    [====]
 *      known zero             [=========]
 *      zeroed now       [====]             [=======]   [====]        in requests that grow while they are answered quickly
 *
 * Both halves have a budget of time, because whoever asked for the mirror waits for the link.  What is not learnt in time is
 * simply not known.  An error in an answer ends that half and is no failure; a dead link is.
 */
#include "mirror/remote-probe.h"

#include <errno.h>
#include <libnbd.h>
#include <string.h>

#include "base/log.h"

#define BUDGET_NS (10 * NS_PER_S)
#define STATUS_BYTES (UINT64_C(2) << 30) /* per question; NBD's length has 32 bits */
#define EXTENTS_MAX (UINT32_C(1) << 20)
#define ZERO_FIRST_BYTES (UINT64_C(32) << 20)
#define ZERO_LAST_BYTES (UINT64_C(1) << 30)
#define ZERO_QUICK_NS (100 * NS_PER_MS)
#define ZEROES_IN_FLIGHT 4
#define CHUNK_BYTES UINT64_C(4096) /* less than a chunk is of no use to the mirror */

/* --- what block status says */

struct sweep {
	struct extents *zero; /* borrowed */
	uint64_t at;          /* the next byte to ask about */
	uint64_t end;
	bool is_full;
};

static int on_extents(void *arg, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
	struct sweep *s = arg;

	(void)error;
	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || offset != s->at)
		return 0;
	for (size_t i = 0; i + 1 < count && s->at < s->end; i += 2) {
		struct range r = { s->at, MIN(s->at + entries[i], s->end) };

		if ((entries[i + 1] & LIBNBD_STATE_ZERO) && extents_add(s->zero, r, EXTENT_ZERO) != 0)
			s->is_full = true;
		s->at = r.end;
	}
	return 0;
}

/* One question. 1: answered and further; 0: no more to be learnt; -1 + e. */
static int ask_status(struct remote_connect *c, struct sweep *s, struct error *e)
{
	nbd_extent_callback callback = { .callback = on_extents, .user_data = s };
	uint64_t from = s->at, bytes = MIN(s->end - from, STATUS_BYTES);
	int64_t cookie;
	int err;

	if (bytes == REMOTE_QUESTION_BYTES)
		bytes--;
	cookie = nbd_aio_block_status(c->nbd, bytes, from, callback, NBD_NULL_COMPLETION, 0);
	if (cookie == -1)
		return 0;
	if (remote_connect_await(c, cookie, loop_now_ns() + c->handshake_ms * NS_PER_MS, &err, e) == -1)
		return error_prefix(e, "while asking what is allocated");
	if (err)
		log_debug("the far side does not say what is allocated at %ju: %s", (uintmax_t)from, error_name(err));
	return !err && s->at > from;
}

static int sweep_status(struct remote_connect *c, struct extents *zero, struct error *e)
{
	struct sweep s = { .zero = zero, .end = c->min_size_bytes };
	uint64_t deadline_ns = loop_now_ns() + BUDGET_NS;

	if (nbd_can_meta_context(c->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1)
		return 0;
	while (s.at < s.end && !s.is_full && loop_now_ns() < deadline_ns) {
		int answer = ask_status(c, &s, e);

		if (answer <= 0)
			return answer;
	}
	return 0;
}

/* --- what is zeroed now */

struct zeroing {
	struct remote_connect *c;
	const struct extents *known; /* borrowed */
	size_t hole, zero;           /* the next of c->holes, of known, to look at */
	uint64_t at;                 /* everything before was looked at */
	uint64_t step_bytes;
	uint64_t deadline_ns;
	bool is_over;
	struct flight {
		int64_t cookie;
		struct range range;
		uint64_t since_ns;
	} flight[ZEROES_IN_FLIGHT];  /* a ring */
	unsigned first, count;
};

/* Whole chunks; the last, odd one of the disk counts as whole. */
static struct range only_chunks(struct range r, uint64_t size_bytes)
{
	struct range inner = { (r.start + CHUNK_BYTES - 1) & ~(CHUNK_BYTES - 1), r.end };

	if (r.end != size_bytes)
		inner.end &= ~(CHUNK_BYTES - 1);
	return inner.start < inner.end ? inner : (struct range){ r.start, r.start };
}

/* The first part, from z->at on, of a hole that is not known to be zero. False: none is left. */
static bool find_unknown(struct zeroing *z, struct range *r)
{
	const struct extents *holes = z->c->holes;

	for (; z->hole < holes->count; z->hole++) {
		const struct extent *h = &holes->item[z->hole];

		if (!(h->type & EXTENT_ZERO))
			continue;
		z->at = MAX(z->at, h->range.start);
		while (z->at < h->range.end) {
			const struct extent *k;

			while (z->zero < z->known->count && z->known->item[z->zero].range.end <= z->at)
				z->zero++;
			k = z->zero < z->known->count ? &z->known->item[z->zero] : NULL;
			if (k && k->range.start <= z->at) {
				z->at = k->range.end;
				continue;
			}
			*r = only_chunks((struct range){ z->at, k ? MIN(h->range.end, k->range.start) : h->range.end },
			                 z->c->min_size_bytes);
			if (!range_is_empty(*r))
				return true;
			z->at = k ? MIN(h->range.end, k->range.start) : h->range.end;
		}
	}
	return false;
}

static void launch(struct zeroing *z)
{
	while (!z->is_over && z->count < ZEROES_IN_FLIGHT) {
		struct flight *f = &z->flight[(z->first + z->count) % ZEROES_IN_FLIGHT];
		struct range r;

		if (loop_now_ns() > z->deadline_ns || !find_unknown(z, &r)) {
			z->is_over = true;
			return;
		}
		r.end = MIN(r.end, r.start + z->step_bytes);
		*f = (struct flight){ .range = r, .since_ns = loop_now_ns() };
		f->cookie = nbd_aio_zero(z->c->nbd, range_length(r), r.start, NBD_NULL_COMPLETION, 0);
		if (f->cookie == -1) {
			z->is_over = true;
			return;
		}
		z->at = r.end;
		z->count++;
	}
}

/* Waits for the oldest. */
static int land(struct zeroing *z, struct extents *zeroed, struct error *e)
{
	struct flight *f = &z->flight[z->first];
	uint64_t now_ns;
	int err;

	if (remote_connect_await(z->c, f->cookie, loop_now_ns() + z->c->handshake_ms * NS_PER_MS, &err, e) == -1)
		return error_prefix(e, "while zeroing what is not allocated here");
	z->first = (z->first + 1) % ZEROES_IN_FLIGHT;
	z->count--;
	if (err) {
		z->c->is_digest_void = true;
		log_debug("the far side does not zero at %ju: %s", (uintmax_t)f->range.start, error_name(err));
		z->is_over = true;
		return 0;
	}
	digest_add(&z->c->digest, DIGEST_ZERO, f->range.start, range_length(f->range), NULL);
	if (extents_add(zeroed, f->range, EXTENT_ZERO) != 0)
		z->is_over = true;
	now_ns = loop_now_ns();
	if (now_ns - f->since_ns < ZERO_QUICK_NS)
		z->step_bytes = MIN(2 * z->step_bytes, ZERO_LAST_BYTES);
	else
		z->step_bytes = MAX(z->step_bytes / 2, ZERO_FIRST_BYTES);
	return 0;
}

static int zero_holes(struct remote_connect *c, const struct extents *known, struct extents *zeroed, struct error *e)
{
	struct zeroing z = { .c = c, .known = known, .step_bytes = ZERO_FIRST_BYTES, .deadline_ns = loop_now_ns() + BUDGET_NS };

	if (!c->holes || !c->info.can_zero || (c->info.is_sxm && c->info.state != REMOTE_IS_RECEIVING))
		return 0;
	for (launch(&z); z.count; launch(&z))
		if (land(&z, zeroed, e) == -1)
			return -1;
	return 0;
}

/* Two lists in order, which do not overlap, become one. What does not fit is left out: not known. */
static void merge(struct extents *out, const struct extents *a, const struct extents *b)
{
	size_t i = 0, j = 0;

	while (i < a->count || j < b->count) {
		bool is_a = j == b->count || (i < a->count && a->item[i].range.start < b->item[j].range.start);
		const struct extent *next = is_a ? &a->item[i++] : &b->item[j++];

		if (extents_add(out, next->range, EXTENT_ZERO) != 0)
			return;
	}
}

int remote_probe_zeroes(struct remote_connect *c, struct error *e)
{
	struct extents known, zeroed;
	int result;

	extents_init(&known, EXTENTS_MAX);
	extents_init(&zeroed, EXTENTS_MAX);
	extents_init(&c->info.zero, 0);
	result = sweep_status(c, &known, e);
	if (result == 0)
		result = zero_holes(c, &known, &zeroed, e);
	if (result == 0)
		merge(&c->info.zero, &known, &zeroed);
	extents_fini(&known);
	extents_fini(&zeroed);
	return result;
}
