/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * iobuf - see iobuf.h
 *
 *      classes: 4K 8K 16K 32K 64K 128K 256K 512K 1M   (powers of two; larger ones are mapped for the occasion)
 *
 * A buffer that comes back goes to its class' cache.  A page that the system takes and gives again is cleared and faulted in:
 * where a mirror is received that was a third of the processor's time.  So a pool that is trimmed keeps all that its ceiling has
 * room for, used or not, and what lay there from one trimming to the next goes; CACHE_BYTES stay.  One that nobody trims keeps
 * no more than these, and gives the rest to the system at once, so that a burst of large requests does not stay resident.
 */
#include "base/iobuf.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CLASS_MIN_SHIFT 12
#define CLASS_COUNT 9
#define CACHE_BYTES (1 * MiB)

SLIST_HEAD(iobuf_cache, iobuf);
TAILQ_HEAD(iobuf_queue, iobuf_waiter);

struct iobuf_pool {
	size_t ceiling_bytes;
	size_t used_bytes;   /* charged: handed out and not returned */
	size_t live;         /* buffers with references */
	size_t cached_bytes;
	size_t idle_bytes;   /* the least of it since it was trimmed */
	struct iobuf_cache cache[CLASS_COUNT];
	iobuf_excess_fn *on_excess; /* NULL: nobody trims it */
	void *arg;
	bool is_told;        /* on_excess was called: it will be trimmed */
	struct iobuf_queue waiters;
};

struct iobuf_pool *iobuf_pool_new(size_t ceiling_bytes)
{
	struct iobuf_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->ceiling_bytes = ceiling_bytes;
	for (size_t i = 0; i < CLASS_COUNT; i++)
		SLIST_INIT(&p->cache[i]);
	TAILQ_INIT(&p->waiters);
	return p;
}

/* CLASS_COUNT: larger than the largest class. */
static unsigned class_of(size_t bytes)
{
	unsigned class = 0;

	while (class < CLASS_COUNT && (UINT64_C(1) << (CLASS_MIN_SHIFT + class)) < bytes)
		class++;
	return class;
}

static void release_memory(struct iobuf *b)
{
	if (class_of(b->capacity) == CLASS_COUNT)
		munmap(b->data, b->capacity);
	else
		free(b->data);
	free(b);
}

void iobuf_pool_free(struct iobuf_pool *p)
{
	struct iobuf *b;

	if (!p)
		return;
	assert(p->live == 0 && p->used_bytes == 0 && TAILQ_EMPTY(&p->waiters));
	for (size_t i = 0; i < CLASS_COUNT; i++)
		while ((b = SLIST_FIRST(&p->cache[i]))) {
			SLIST_REMOVE_HEAD(&p->cache[i], link);
			release_memory(b);
		}
	free(p);
}

size_t iobuf_pool_used(const struct iobuf_pool *p)
{
	return p->used_bytes;
}

size_t iobuf_pool_cached(const struct iobuf_pool *p)
{
	return p->cached_bytes;
}

void iobuf_pool_on_excess(struct iobuf_pool *p, iobuf_excess_fn *fn, void *arg)
{
	p->on_excess = fn;
	p->arg = arg;
}

/* Classes are powers of two, and CACHE_BYTES is one: while there is a surplus, the smallest that is there fits into it. */
bool iobuf_pool_trim(struct iobuf_pool *p)
{
	size_t surplus = p->cached_bytes > CACHE_BYTES ? MIN(p->idle_bytes, p->cached_bytes - CACHE_BYTES) : 0;
	struct iobuf *b;

	for (size_t i = CLASS_COUNT; i-- > 0;)
		while ((b = SLIST_FIRST(&p->cache[i])) && b->capacity <= surplus) {
			SLIST_REMOVE_HEAD(&p->cache[i], link);
			surplus -= b->capacity;
			p->cached_bytes -= b->capacity;
			release_memory(b);
		}
	p->idle_bytes = p->cached_bytes;
	p->is_told = p->cached_bytes > CACHE_BYTES;
	return p->is_told;
}

static void *map(size_t bytes)
{
	void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return data == MAP_FAILED ? NULL : data;
}

/* Where it fits, in huge pages: what is one piece of memory is one piece for the device. If there are none, in small ones. */
static void *map_large(size_t bytes)
{
	uint8_t *data, *start;
	size_t before;

	if (bytes % IOBUF_HUGE_BYTES != 0)
		return map(bytes);
	data = map(bytes + IOBUF_HUGE_BYTES);
	if (!data)
		return NULL;
	before = -(uintptr_t)data % IOBUF_HUGE_BYTES;
	start = data + before;
	if (before)
		munmap(data, before);
	munmap(start + bytes, IOBUF_HUGE_BYTES - before);
	madvise(start, bytes, MADV_HUGEPAGE);
	return start;
}

/* What a request of so many bytes costs: its class, or whole pages. */
static size_t capacity_of(size_t bytes, unsigned class)
{
	return class < CLASS_COUNT ? (size_t)1 << (CLASS_MIN_SHIFT + class)
				   : (bytes + IOBUF_ALIGN - 1) & ~(size_t)(IOBUF_ALIGN - 1);
}

static struct iobuf *make_buffer(size_t bytes, unsigned class)
{
	struct iobuf *b = calloc(1, sizeof(*b));
	size_t capacity = capacity_of(bytes, class);

	if (!b)
		return NULL;
	b->data = class < CLASS_COUNT ? aligned_alloc(IOBUF_ALIGN, capacity) : map_large(capacity);
	if (!b->data) {
		free(b);
		return NULL;
	}
	b->capacity = (uint32_t)capacity;
	return b;
}

static struct iobuf *take_cached(struct iobuf_pool *p, unsigned class)
{
	struct iobuf *b = class < CLASS_COUNT ? SLIST_FIRST(&p->cache[class]) : NULL;

	if (b) {
		SLIST_REMOVE_HEAD(&p->cache[class], link);
		p->cached_bytes -= b->capacity;
		p->idle_bytes = MIN(p->idle_bytes, p->cached_bytes);
	}
	return b;
}

struct iobuf *iobuf_get(struct iobuf_pool *p, size_t bytes)
{
	unsigned class = class_of(bytes);
	struct iobuf *b;

	assert(bytes <= UINT32_MAX - IOBUF_ALIGN);
	if (p->used_bytes != 0 && p->used_bytes + capacity_of(bytes, class) > p->ceiling_bytes)
		return NULL;
	b = take_cached(p, class);
	if (!b)
		b = make_buffer(bytes, class);
	if (!b)
		return NULL;
	b->pool = p;
	b->refs = 1;
	b->charged = b->capacity;
	p->used_bytes += b->charged;
	p->live++;
	return b;
}

struct iobuf *iobuf_ref(struct iobuf *b)
{
	assert(b->refs > 0);
	b->refs++;
	return b;
}

static bool has_place(const struct iobuf_pool *p, const struct iobuf *b)
{
	size_t most = p->on_excess && p->used_bytes < p->ceiling_bytes ? p->ceiling_bytes - p->used_bytes : 0;

	return class_of(b->capacity) < CLASS_COUNT && p->cached_bytes + b->capacity <= MAX(most, CACHE_BYTES);
}

void iobuf_unref(struct iobuf *b)
{
	struct iobuf_pool *p;

	if (!b)
		return;
	assert(b->refs > 0);
	if (--b->refs)
		return;
	p = b->pool;
	assert(b->charged == 0);
	p->live--;
	if (!has_place(p, b)) {
		release_memory(b);
		return;
	}
	SLIST_INSERT_HEAD(&p->cache[class_of(b->capacity)], b, link);
	p->cached_bytes += b->capacity;
	if (p->cached_bytes > CACHE_BYTES && !p->is_told) {
		p->is_told = true;
		p->on_excess(p->arg);
	}
}

/* Waiters are woken in order, each once; a woken one that finds no room queues again, behind the others. */
static void wake_waiters(struct iobuf_pool *p)
{
	struct iobuf_waiter *w, *last = TAILQ_LAST(&p->waiters, iobuf_queue);

	while (last && (w = TAILQ_FIRST(&p->waiters))) {
		TAILQ_REMOVE(&p->waiters, w, link);
		w->is_waiting = false;
		if (w == last)
			last = NULL;
		w->on_room(w);
	}
}

void iobuf_return(struct iobuf *b)
{
	struct iobuf_pool *p;

	if (!b)
		return;
	p = b->pool;
	assert(p->used_bytes >= b->charged);
	p->used_bytes -= b->charged;
	b->charged = 0;
	iobuf_unref(b);
	if (!TAILQ_EMPTY(&p->waiters))
		wake_waiters(p);
}

void iobuf_wait(struct iobuf_pool *p, struct iobuf_waiter *w)
{
	if (w->is_waiting)
		return;
	w->is_waiting = true;
	TAILQ_INSERT_TAIL(&p->waiters, w, link);
}

void iobuf_wait_cancel(struct iobuf_pool *p, struct iobuf_waiter *w)
{
	if (!w->is_waiting)
		return;
	TAILQ_REMOVE(&p->waiters, w, link);
	w->is_waiting = false;
}

bool iobuf_is_zero(const void *data, size_t bytes)
{
	const uint8_t *p = data;
	size_t head = MIN(bytes, (size_t)16);

	/* Most buffers that are not zero show it at once; then memcmp against itself, 16 bytes on, runs at memory speed. */
	for (size_t i = 0; i < head; i++)
		if (p[i])
			return false;
	return bytes <= 16 || memcmp(p, p + 16, bytes - 16) == 0;
}
