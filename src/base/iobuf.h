/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * iobuf - the bytes of requests: aligned, reference-counted, from a pool with a ceiling
 *
 * The ceiling is where back-pressure lives: a frontend that cannot have a buffer stops reading its client.
 *
 *      frontend: iobuf_get() ---- submit ---- done() ---- iobuf_return()     charge given back here
 *      mirror:               \--- iobuf_ref() ..... iobuf_unref()            counted in the mirror's own lag budget
 *
 * Law I5: bytes do not change between submit and completion.  done() returns the submitter's reference and the charge;
 * whoever holds another reference keeps the bytes alive without holding up the frontends.
 * One thread (the loop's) uses a pool and its buffers.
 */
#ifndef SXM_BASE_IOBUF_H
#define SXM_BASE_IOBUF_H

#include <sys/queue.h>

#include "base/compiler.h"

#define IOBUF_ALIGN 4096u /* bytes; what O_DIRECT asks at most */
#define IOBUF_HUGE_BYTES (2 * MiB) /* a buffer of a multiple of it lies in huge pages, if the system gives any */

struct iobuf_pool;

struct iobuf {
	uint8_t *data;     /* owned; IOBUF_ALIGN aligned */
	uint32_t capacity; /* bytes at data */
	uint32_t refs;
	uint32_t charged;  /* bytes counted against the ceiling; 0 after iobuf_return */
	struct iobuf_pool *pool;
	SLIST_ENTRY(iobuf) link; /* in the pool's cache */
};

/* Somebody who waits for room. Owned by the caller; removed from the queue before on_room is called (once, from whoever
 * returned a buffer: post to the loop there if work is needed). */
struct iobuf_waiter {
	void (*on_room)(struct iobuf_waiter *w);
	bool is_waiting;
	TAILQ_ENTRY(iobuf_waiter) link;
};

/* ceiling: bytes handed out and not returned, at most; one buffer larger than that is given when nothing else is out.
 * NULL when out of memory. */
struct iobuf_pool *iobuf_pool_new(size_t ceiling_bytes);
/* Every buffer must be back. */
void iobuf_pool_free(struct iobuf_pool *p);
size_t iobuf_pool_used(const struct iobuf_pool *p);
/* What it keeps of what came back. */
size_t iobuf_pool_cached(const struct iobuf_pool *p);

/* From then on it keeps more. fn is called, from whoever returns a buffer, when that is so: the pool is to be trimmed, some
 * seconds later. To be said before the first buffer is taken. */
typedef void iobuf_excess_fn(void *arg);
void iobuf_pool_on_excess(struct iobuf_pool *p, iobuf_excess_fn *fn, void *arg);
/* Gives back what nobody needed since the last call.  True: again, later; fn is not called before that was false. */
bool iobuf_pool_trim(struct iobuf_pool *p);

/* A buffer with at least `bytes`, one reference, contents undefined. NULL: over the ceiling or out of memory; wait then. */
struct iobuf *iobuf_get(struct iobuf_pool *p, size_t bytes) MUST_CHECK;
void iobuf_wait(struct iobuf_pool *p, struct iobuf_waiter *w);
void iobuf_wait_cancel(struct iobuf_pool *p, struct iobuf_waiter *w);

struct iobuf *iobuf_ref(struct iobuf *b);
void iobuf_unref(struct iobuf *b); /* NULL is allowed */
/* The submitter's way out: gives the charge back, drops his reference. NULL is allowed. */
void iobuf_return(struct iobuf *b);

/* True when all bytes are zero. */
bool iobuf_is_zero(const void *data, size_t bytes);

#endif
