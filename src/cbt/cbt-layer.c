/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-layer - see cbt-layer.h
 *
 *      waiting: w w w        what waits for a mark, in arrival order
 *      a round (pool):       pages with new marks, and up to 64 dirty ones while a checkpoint runs; pwrite, one fdatasync
 *
 * One round at a time; what comes meanwhile goes together in the next. The first marks of a while are of one region each; the
 * more rounds a checkpoint's period has seen, the larger the pieces that are marked at once, so that a guest that writes all over
 * a large disk waits some hundred times, not for each region. What that costs is a coarser answer after the host has crashed.
 *
 * A checkpoint, a minute after the first change: all dirty pages; then the marks of regions in which nothing was new since the
 * last one began are forgotten (and go from the file with the next page that is written).
 *
 * Invariant: a request that is below has its bits set, and each of those is in the file, or its region's mark is.
 */
#include "cbt/cbt-layer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "loop/offload.h"

#define CHECKPOINT_MS 60000u
#define CHECKPOINT_PAGES 64u
#define ROUNDS_A_SIZE 8u      /* then the pieces double */
#define REGION_BLOCKS (CBT_REGION_BYTES / CBT_BLOCK_BYTES)

struct cbt {
	struct layer layer;
	struct loop *loop;           /* borrowed */
	char *path;                  /* owned: the log's, whatever is under way */
	struct cbt_live *log, *next, *old; /* owned; next: prepared; old: cut off, not sealed yet */
	char *sealed;                /* owned: where the old one goes */
	bool is_lost;
	struct req_list waiting;
	struct loop_hook hook;
	struct loop_timer *timer;    /* owned; NULL: no checkpoints */
	bool is_timer_set, is_due;
	unsigned rounds;             /* since the last checkpoint */

	/* the round under way */
	struct offload offload;
	bool is_busy;
	uint64_t *going;             /* owned: regions that are being marked; as long as log->marks */
	uint64_t *pending;           /* owned: pages this checkpoint has yet to write */
	bool is_checkpoint;          /* one runs */
	struct cbt_page *page;       /* owned */
	size_t pages;
	int err;
	struct error error;

	bool is_resting;
	void (*rested)(void *arg);
	void *rested_arg;
	struct loop_task rest;
};

static struct cbt *cbt_of(const struct layer *l)
{
	return container_of((struct layer *)(uintptr_t)l, struct cbt, layer);
}

static size_t words_of(uint64_t bits)
{
	return (size_t)(bits / 64 + 1);
}

static bool has_bit(const uint64_t *words, uint64_t bit)
{
	return words[bit / 64] >> bit % 64 & 1;
}

static void set_bit(uint64_t *words, uint64_t bit)
{
	words[bit / 64] |= UINT64_C(1) << bit % 64;
}

static void clear_bit(uint64_t *words, uint64_t bit)
{
	words[bit / 64] &= ~(UINT64_C(1) << bit % 64);
}

static bool is_any(const uint64_t *words, uint64_t bits)
{
	for (size_t w = 0; w < words_of(bits); w++)
		if (words[w])
			return true;
	return false;
}

/* --- a write */

/* The first region of r that has a block without a bit, and no mark; past the last: none has. */
static uint64_t next_unmarked(const struct cbt_live *log, struct range r, uint64_t from)
{
	uint64_t first = r.start / CBT_BLOCK_BYTES, end = cbt_blocks(r.end), last = (end - 1) / REGION_BLOCKS;

	for (uint64_t region = MAX(from, first / REGION_BLOCKS); region <= last; region++)
		if (!has_bit(log->marks, region) &&
		    !cbt_bits_test_all(log->bits, MAX(first, region * REGION_BLOCKS), MIN(end, (region + 1) * REGION_BLOCKS)))
			return region;
	return last + 1;
}

static bool may_go(const struct cbt_live *log, struct range r)
{
	return next_unmarked(log, r, 0) > (r.end - 1) / CBT_REGION_BYTES;
}

static void set_bits(struct cbt *c, struct range r)
{
	struct cbt_live *log = c->log;
	uint64_t first = r.start / CBT_BLOCK_BYTES, end = cbt_blocks(r.end);

	for (uint64_t region = first / REGION_BLOCKS; region * REGION_BLOCKS < end; region++) {
		uint64_t a = MAX(first, region * REGION_BLOCKS), b = MIN(end, (region + 1) * REGION_BLOCKS);

		if (cbt_bits_test_all(log->bits, a, b))
			continue;
		cbt_bits_set(log->bits, a, b);
		set_bit(log->touched, region);
		set_bit(log->dirty, region / CBT_PAGE_REGIONS);
	}
	if (c->timer && !c->is_timer_set && !c->is_checkpoint && !c->is_due) {
		c->is_timer_set = true;
		loop_timer_set(c->timer, CHECKPOINT_MS);
	}
}

static void submit(struct layer *l, struct req *r)
{
	struct cbt *c = cbt_of(l);
	bool is_write = r->op == REQ_WRITE || r->op == REQ_ZERO || r->op == REQ_TRIM;

	if (is_write && !c->is_lost) {
		uint64_t first = r->range.start / CBT_BLOCK_BYTES, end = cbt_blocks(r->range.end);

		if (!cbt_bits_test_all(c->log->bits, first, end)) {
			if (!may_go(c->log, r->range)) {
				TAILQ_INSERT_TAIL(&c->waiting, r, link);
				return;
			}
			set_bits(c, r->range);
		}
	}
	layer_forward(l->below, r);
}

/* Those that need not wait any more. err: they fail. */
static void let_go(struct cbt *c, int err)
{
	struct req *r, *next;

	for (r = TAILQ_FIRST(&c->waiting); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (!err && !c->is_lost && !may_go(c->log, r->range))
			continue;
		TAILQ_REMOVE(&c->waiting, r, link);
		if (err) {
			req_complete(r, err);
			continue;
		}
		if (!c->is_lost)
			set_bits(c, r->range);
		layer_forward(c->layer.below, r);
	}
}

/* --- a round */

static void work_on_round(struct offload *o)
{
	struct cbt *c = container_of(o, struct cbt, offload);

	c->err = cbt_live_write(c->log->fd, c->page, c->pages);
}

static void work_on_void(struct offload *o)
{
	struct cbt *c = container_of(o, struct cbt, offload);

	error_clear(&c->error);
	cbt_live_void(c->path, &c->error);
}

static void look_rested(struct cbt *c)
{
	if (c->is_resting && c->rested && !c->is_busy)
		loop_defer(c->loop, &c->rest);
}

static void on_void(struct offload *o)
{
	struct cbt *c = container_of(o, struct cbt, offload);

	c->is_busy = false;
	if (!c->error.err) {
		cbt_lose(&c->layer);
	} else {
		log_error("%s: a write fails, as it could neither be noted nor the log put away", c->error.text);
		let_go(c, EIO);
	}
	look_rested(c);
}

static void start_voiding(struct cbt *c, int err)
{
	log_error("%s: %s: changes of the disk are not tracked any more", c->path, strerror(err));
	c->is_busy = true;
	c->offload = (struct offload){ .work = work_on_void, .done = on_void };
	if (offload_submit(c->loop, &c->offload) == -1) {
		work_on_void(&c->offload); /* it blocks, once, where there is no memory for a small struct */
		on_void(&c->offload);
	}
}

/* What nothing was new in since the checkpoint before this one began is in the file. */
static void end_checkpoint(struct cbt *c)
{
	struct cbt_live *log = c->log;

	c->is_checkpoint = false;
	c->rounds = 0;
	for (size_t w = 0; w < words_of(log->regions); w++) {
		uint64_t gone = log->marks[w] & ~log->before[w] & ~log->touched[w];

		for (uint64_t r = w * 64; gone && r < MIN((w + 1) * 64, log->regions); r++)
			if (has_bit(&gone, r % 64))
				set_bit(log->dirty, r / CBT_PAGE_REGIONS);
		log->marks[w] &= ~gone;
	}
	if (c->timer && is_any(log->touched, log->regions)) {
		c->is_timer_set = true;
		loop_timer_set(c->timer, CHECKPOINT_MS);
	}
}

static void on_round(struct offload *o)
{
	struct cbt *c = container_of(o, struct cbt, offload);
	struct cbt_live *log = c->log;

	c->is_busy = false;
	for (size_t i = 0; c->err && i < c->pages; i++)
		set_bit(log->dirty, c->page[i].n);
	free(take_ptr(&c->page));
	for (size_t w = 0; w < words_of(log->regions); w++) {
		if (!c->err)
			log->marks[w] |= c->going[w];
		c->going[w] = 0;
	}
	if (c->err && !c->is_lost) {
		c->is_checkpoint = false;
		start_voiding(c, c->err);
		return;
	}
	if (c->is_checkpoint && !is_any(c->pending, log->pages))
		end_checkpoint(c);
	let_go(c, 0);
	look_rested(c);
}

/* The piece around a region: the larger, the more rounds there were. */
static void want(struct cbt *c, uint64_t region)
{
	struct cbt_live *log = c->log;
	unsigned shift = MIN(c->rounds / ROUNDS_A_SIZE, 20u);
	uint64_t first = region >> shift << shift, end = MIN(first + (UINT64_C(1) << shift), log->regions);

	for (uint64_t r = first; r < end; r++)
		if (!has_bit(log->marks, r))
			set_bit(c->going, r);
}

static bool has_going(const struct cbt *c, uint64_t page)
{
	for (uint64_t r = page * CBT_PAGE_REGIONS; r < MIN((page + 1) * CBT_PAGE_REGIONS, c->log->regions); r++)
		if (has_bit(c->going, r))
			return true;
	return false;
}

/* Those with new marks, and some of the checkpoint's. False: no memory. */
static bool pick_pages(struct cbt *c)
{
	struct cbt_live *log = c->log;
	CLEANUP_FREE uint64_t *marks = malloc(words_of(log->regions) * sizeof(*marks));
	size_t room = 0, left = CHECKPOINT_PAGES;

	c->pages = 0;
	for (size_t w = 0; marks && w < words_of(log->regions); w++)
		marks[w] = log->marks[w] | c->going[w];
	for (uint64_t n = 0; marks && n < log->pages; n++) {
		bool is_of_checkpoint = c->is_checkpoint && left && has_bit(c->pending, n);

		if (!is_of_checkpoint && !has_going(c, n))
			continue;
		if (c->pages == room) {
			struct cbt_page *more = realloc(c->page, (room = room * 2 + 4) * sizeof(*more));

			if (!more)
				return false;
			c->page = more;
		}
		left -= is_of_checkpoint;
		clear_bit(c->pending, n);
		clear_bit(log->dirty, n);
		c->page[c->pages].n = n;
		cbt_page_encode(log->bits, marks, log->regions, n, c->page[c->pages++].bytes);
	}
	return marks != NULL;
}

static void begin_checkpoint(struct cbt *c)
{
	struct cbt_live *log = c->log;

	c->is_due = false;
	c->is_checkpoint = true;
	memcpy(log->before, log->touched, words_of(log->regions) * sizeof(*log->before));
	memset(log->touched, 0, words_of(log->regions) * sizeof(*log->touched));
	memcpy(c->pending, log->dirty, words_of(log->pages) * sizeof(*c->pending));
}

static void start_round(struct cbt *c)
{
	struct req *r;

	TAILQ_FOREACH(r, &c->waiting, link) {
		uint64_t last = (r->range.end - 1) / CBT_REGION_BYTES;

		for (uint64_t n = next_unmarked(c->log, r->range, 0); n <= last; n = next_unmarked(c->log, r->range, n + 1))
			if (!has_bit(c->going, n))
				want(c, n);
	}
	c->rounds += !TAILQ_EMPTY(&c->waiting);
	c->err = pick_pages(c) ? 0 : ENOMEM;
	c->is_busy = true;
	c->offload = (struct offload){ .work = work_on_round, .done = on_round };
	if (c->err || offload_submit(c->loop, &c->offload) == -1) {
		c->err = ENOMEM;
		on_round(&c->offload);
	}
}

static void run_hook(struct loop_hook *h)
{
	struct cbt *c = container_of(h, struct cbt, hook);

	if (c->is_busy || c->is_lost)
		return;
	if (c->is_due && !c->is_resting)
		begin_checkpoint(c);
	if (!TAILQ_EMPTY(&c->waiting) || (c->is_checkpoint && !c->is_resting))
		start_round(c);
}

static void on_timer(void *arg)
{
	struct cbt *c = arg;

	c->is_timer_set = false;
	c->is_due = true;
}

void cbt_checkpoint(struct layer *l)
{
	cbt_of(l)->is_due = true;
}

/* --- rest */

static void run_rest(struct loop_task *t)
{
	struct cbt *c = container_of(t, struct cbt, rest);
	void (*rested)(void *arg) = take_ptr(&c->rested);

	if (rested)
		rested(c->rested_arg);
}

void cbt_rest(struct layer *l, void (*done)(void *arg), void *arg)
{
	struct cbt *c = cbt_of(l);

	assert(!c->rested);
	c->is_resting = true;
	c->rested = done;
	c->rested_arg = arg;
	look_rested(c);
}

void cbt_go_on(struct layer *l)
{
	cbt_of(l)->is_resting = false;
}

bool cbt_is_lost(const struct layer *l)
{
	return cbt_of(l)->is_lost;
}

const char *cbt_path(const struct layer *l)
{
	return cbt_of(l)->path;
}

/* --- a snapshot */

int cbt_prepare(struct layer *l, const char *key, struct error *e)
{
	struct cbt *c = cbt_of(l);
	CLEANUP_FREE char *dir = strndup(c->path, (size_t)(strrchr(c->path, '/') - c->path));
	CLEANUP_FREE uint64_t *marks = calloc(words_of(c->log->regions), sizeof(*marks));
	CLEANUP_FREE char *path = NULL;

	assert(!c->next && !c->old);
	if (asprintf(&path, "%s.next", c->path) < 0)
		path = NULL;
	free(c->sealed);
	c->sealed = dir ? cbt_log_path(dir, key, CBT_SUFFIX) : NULL;
	if (!dir || !marks || !path || !c->sealed)
		return error_set(e, ENOMEM, "out of memory");
	/* Where guests write now they will write next: a hint, read while the loop may be writing it. */
	for (size_t w = 0; w < words_of(c->log->regions); w++)
		marks[w] = c->log->touched[w] | c->log->before[w];
	c->next = cbt_live_make(path, c->log->run_dir, c->log->header.size_bytes, key, marks, e);
	return c->next ? 0 : -1;
}

void cbt_unprepare(struct layer *l)
{
	struct cbt *c = cbt_of(l);

	if (!c->next)
		return;
	unlink(c->next->path);
	cbt_live_drop_map(c->next);
	cbt_live_free(take_ptr(&c->next));
}

void cbt_cut(struct layer *l)
{
	struct cbt *c = cbt_of(l);

	assert(TAILQ_EMPTY(&c->waiting) && !c->is_busy && c->next);
	c->old = c->log;
	c->log = take_ptr(&c->next);
	c->is_checkpoint = c->is_due = false;
	c->rounds = 0;
}

/* Only `old`, and names: the loop goes on with the new log meanwhile. */
int cbt_seal_cut(struct layer *l, struct error *e)
{
	struct cbt *c = cbt_of(l);

	if (cbt_live_copy(c->old, c->sealed, c->log->header.parent, e) == -1)
		return -1;
	if (rename(c->log->path, c->path) == -1)
		return error_errno(e, errno, "replace %s", c->path);
	free(c->log->path);
	c->log->path = take_ptr(&c->old->path);
	cbt_live_drop_map(c->old);
	cbt_live_free(take_ptr(&c->old));
	return proc_sync_dir(c->path, e);
}

/* --- the rest */

int cbt_save(struct layer *l, const char *path, struct error *e)
{
	return cbt_live_copy(cbt_of(l)->log, path, "", e);
}

int cbt_copy(const struct layer *l, struct cbt_log *copy, struct error *e)
{
	const struct cbt_live *log = cbt_of(l)->log;

	if (cbt_log_init(copy, log->header.size_bytes, e) == -1)
		return -1;
	copy->header = log->header;
	copy->header.session = 0;
	memcpy(copy->bits, log->bits, log->regions * CBT_REGION_WORDS * sizeof(*log->bits));
	return 0;
}

int cbt_seal(struct layer *l, struct error *e)
{
	return cbt_of(l)->is_lost ? 0 : cbt_live_seal(cbt_of(l)->log, e);
}

static int resize_arrays(struct cbt *c, const struct cbt_live *log)
{
	uint64_t *going = calloc(words_of(log->regions), sizeof(*going));
	uint64_t *pending = calloc(words_of(log->pages), sizeof(*pending));

	if (!going || !pending) {
		free(going);
		free(pending);
		return -1;
	}
	free(c->going);
	free(c->pending);
	c->going = going;
	c->pending = pending;
	return 0;
}

int cbt_grow(struct layer *l, uint64_t size_bytes, struct error *e)
{
	struct cbt *c = cbt_of(l);

	if (c->is_lost)
		return 0;
	if (cbt_live_grow(c->log, size_bytes, e) == -1)
		return -1;
	if (resize_arrays(c, c->log) == -1)
		return error_set(e, ENOMEM, "out of memory");
	c->is_due |= c->is_checkpoint;
	c->is_checkpoint = false;
	return 0;
}

void cbt_lose(struct layer *l)
{
	struct cbt *c = cbt_of(l);

	c->is_lost = true;
	c->is_checkpoint = c->is_due = false;
	if (c->old)
		cbt_live_drop_map(c->old);
	cbt_live_drop_map(c->log);
	let_go(c, 0);
}

static void close_cbt(struct layer *l)
{
	struct cbt *c = cbt_of(l);

	assert(TAILQ_EMPTY(&c->waiting) && !c->is_busy && !c->next);
	loop_defer_cancel(c->loop, &c->rest);
	loop_hook_remove(c->loop, &c->hook);
	loop_timer_free(c->timer);
	cbt_live_free(c->log);
	cbt_live_free(c->old);
	free(c->going);
	free(c->pending);
	free(c->sealed);
	free(c->path);
	free(c);
}

static const struct layer_ops ops = { .name = "cbt", .submit = submit, .close = close_cbt };

struct layer *cbt_new(struct loop *loop, struct layer *below, struct cbt_live *log)
{
	struct cbt *c = calloc(1, sizeof(*c));

	if (!c || !(c->path = strdup(log->path)) || resize_arrays(c, log) == -1) {
		if (c)
			free(c->path);
		free(c);
		cbt_live_free(log);
		return NULL;
	}
	layer_init(&c->layer, &ops, below, &below->geometry);
	c->loop = loop;
	c->log = log;
	c->hook.run = run_hook;
	c->rest.run = run_rest;
	TAILQ_INIT(&c->waiting);
	loop_hook_add(loop, &c->hook);
	c->timer = loop_timer_new(loop, on_timer, c);
	return &c->layer;
}

uint64_t cbt_id(const struct layer *l)
{
	const struct cbt *c = cbt_of(l);

	return c->is_lost ? 0 : c->log->header.id;
}

int cbt_changed(const struct layer *l, uint64_t id, struct extents *out)
{
	const struct cbt *c = cbt_of(l);

	return c->is_lost || c->log->header.id != id ? -1 : cbt_live_changed(c->log, l->geometry.size_bytes, out);
}
