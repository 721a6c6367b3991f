/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * claim - who may touch which bytes now
 *
 * Each claim counts the earlier live claims it overlaps; at none left it is granted. A pair must be counted once, and found
 * without looking at claims elsewhere, so claims hang in hashed cells of 256 KiB. One that lies in two cells hangs in both, by
 * a link of each kind:
 *
 *      cells        |    4    |    5    |    6    |
 *      claim A          [---]                          first[4]
 *      claim B             [-----]                     first[4], second[5]
 *      claim C        [------------------]             wide: the list of its own
 *
 * Two narrow claims that overlap share a cell; the pair belongs to the later of their first cells, where it is met once: the
 * walk over a range visits the `first` list of every cell it covers, and the `second` list of its first cell only.
 *
 * Can fail:    never; the caller owns the memory of the claims.
 * Invariants:  blockers = earlier live claims that overlap; no two granted claims overlap; arrival order is `sequence`.
 */
#include "mirror/claim.h"

#include <stdlib.h>

#define BUCKETS 512u /* a power of two */

TAILQ_HEAD(claim_list, claim);

struct claims {
	uint64_t next_sequence;
	unsigned count;
	struct claim_list wide;
	struct claim_list first[BUCKETS];
	struct claim_list second[BUCKETS];
};

struct claims *claims_new(void)
{
	struct claims *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	TAILQ_INIT(&t->wide);
	for (unsigned i = 0; i < BUCKETS; i++) {
		TAILQ_INIT(&t->first[i]);
		TAILQ_INIT(&t->second[i]);
	}
	return t;
}

void claims_free(struct claims *t)
{
	if (!t)
		return;

	free(t);
}

unsigned claims_count(const struct claims *t)
{
	return t->count;
}

static uint64_t first_cell(const struct claim *c)
{
	return c->range.start / CLAIM_CELL_BYTES;
}

static uint64_t last_cell(const struct claim *c)
{
	return (c->range.end - 1) / CLAIM_CELL_BYTES;
}

static bool is_wide(const struct claim *c)
{
	return last_cell(c) - first_cell(c) > 1;
}

static struct claim_list *bucket(struct claim_list *lists, uint64_t cell)
{
	return &lists[cell & (BUCKETS - 1)];
}

static void count_blocker(struct claim *c, const struct claim *other)
{
	if (other->sequence < c->sequence)
		c->blockers++;
}

/* Lists are met cell by cell, each in arrival order: most insertions are at the end. */
static void insert_by_arrival(struct claim_wake *wake, struct claim *c)
{
	struct claim *before;

	TAILQ_FOREACH_REVERSE(before, wake, claim_wake, wake)
		if (before->sequence < c->sequence)
			break;
	if (before)
		TAILQ_INSERT_AFTER(wake, before, c, wake);
	else
		TAILQ_INSERT_HEAD(wake, c, wake);
}

static void let_go(const struct claim *c, struct claim *other, struct claim_wake *wake)
{
	if (other->sequence < c->sequence)
		return;
	assert(other->blockers > 0);
	if (--other->blockers == 0)
		insert_by_arrival(wake, other);
}

/* c is the newcomer, which counts who is before it, or (with a wake list) the leaver, who lets those after it go. */
static void meet(struct claim *c, struct claim *other, struct claim_wake *wake)
{
	if (other == c || !range_overlaps(c->range, other->range))
		return;
	if (wake)
		let_go(c, other, wake);
	else
		count_blocker(c, other);
}

/* Longer than the table: every bucket once; each narrow claim hangs in exactly one `first` list. */
static void meet_all(struct claims *t, struct claim *c, struct claim_wake *wake)
{
	struct claim *other;

	for (unsigned i = 0; i < BUCKETS; i++)
		TAILQ_FOREACH(other, &t->first[i], first)
			meet(c, other, wake);
}

static void meet_cells(struct claims *t, struct claim *c, struct claim_wake *wake)
{
	struct claim *other;

	TAILQ_FOREACH(other, bucket(t->second, first_cell(c)), second)
		if (last_cell(other) == first_cell(c))
			meet(c, other, wake);
	for (uint64_t cell = first_cell(c); cell <= last_cell(c); cell++)
		TAILQ_FOREACH(other, bucket(t->first, cell), first)
			if (first_cell(other) == cell)
				meet(c, other, wake);
}

/* Meets every live claim that overlaps c, once. */
static void meet_overlapping(struct claims *t, struct claim *c, struct claim_wake *wake)
{
	struct claim *other;

	TAILQ_FOREACH(other, &t->wide, first)
		meet(c, other, wake);
	if (last_cell(c) - first_cell(c) >= BUCKETS)
		meet_all(t, c, wake);
	else
		meet_cells(t, c, wake);
}

bool claim_take(struct claims *t, struct claim *c, struct range r, void *owner)
{
	assert(!range_is_empty(r));
	*c = (struct claim){ .range = r, .sequence = t->next_sequence++, .is_live = true, .owner = owner };
	meet_overlapping(t, c, NULL);

	t->count++;
	if (is_wide(c)) {
		TAILQ_INSERT_TAIL(&t->wide, c, first);
		return c->blockers == 0;
	}
	TAILQ_INSERT_TAIL(bucket(t->first, first_cell(c)), c, first);
	if (last_cell(c) != first_cell(c))
		TAILQ_INSERT_TAIL(bucket(t->second, last_cell(c)), c, second);
	return c->blockers == 0;
}

void claim_drop(struct claims *t, struct claim *c, struct claim_wake *wake)
{
	struct claim_wake woken = TAILQ_HEAD_INITIALIZER(woken);

	assert(c->is_live);
	c->is_live = false;
	t->count--;
	if (is_wide(c)) {
		TAILQ_REMOVE(&t->wide, c, first);
	} else {
		TAILQ_REMOVE(bucket(t->first, first_cell(c)), c, first);
		if (last_cell(c) != first_cell(c))
			TAILQ_REMOVE(bucket(t->second, last_cell(c)), c, second);
	}
	meet_overlapping(t, c, &woken);
	TAILQ_CONCAT(wake, &woken, wake);
}

typedef bool counts_fn(const struct claim *c);

static bool is_met(const struct claim *c, struct range r, counts_fn *counts)
{
	return range_overlaps(c->range, r) && (!counts || counts(c));
}

static bool is_met_in_cell(const struct claims *t, uint64_t cell, struct range r, counts_fn *counts)
{
	const struct claim *c;

	TAILQ_FOREACH(c, &t->first[cell & (BUCKETS - 1)], first)
		if (is_met(c, r, counts))
			return true;
	TAILQ_FOREACH(c, &t->second[cell & (BUCKETS - 1)], second)
		if (is_met(c, r, counts))
			return true;
	return false;
}

/* Buckets are shared by cells far apart: whoever is met is compared. */
bool claims_overlap(const struct claims *t, struct range r, counts_fn *counts)
{
	uint64_t first = r.start / CLAIM_CELL_BYTES, last = (r.end - 1) / CLAIM_CELL_BYTES;
	const struct claim *c;

	if (t->count == 0)
		return false;
	TAILQ_FOREACH(c, &t->wide, first)
		if (is_met(c, r, counts))
			return true;
	for (uint64_t cell = first; cell <= MIN(last, first + BUCKETS - 1); cell++)
		if (is_met_in_cell(t, cell, r, counts))
			return true;
	return false;
}
