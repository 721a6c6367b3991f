/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-nbd-link - libnbd on the loop, and what happens when the server goes away
 *
 *      UP --lost--> WAITING --wait_ms--> GONE          WAITING, GONE --reached again--> UP
 *
 * While the link is not UP the server is tried again, from the thread pool (disk-nbd-open.c), after 10 ms, 20 ms ... 1 s; a link
 * that lived for less than SETTLED_NS does not begin the pauses anew.  Whoever comes back with another size or with larger
 * blocks is another disk, and is not taken.  A live link is never cut for being slow: a disk that hangs, hangs.
 *
 * What libnbd waits for may change with every call: it is asked before the loop sleeps, in turns in which it was used, and so
 * is whether the connection has died.  The loop watches a duplicate of the descriptor, as libnbd closes its own at any time.
 * After nbd_close() nothing of a command in flight is touched any more, and no callback of it comes.
 */
#include "disk/disk-nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "disk/disk-qcow2.h"
#include "loop/offload.h"

#define WAIT_MS UINT64_C(30000)
#define FIRST_PAUSE_MS UINT64_C(10)
#define LAST_PAUSE_MS UINT64_C(1000)
#define SETTLED_NS (2 * NS_PER_S)

/* One try to reach the server again. Outlives a link that ends meanwhile. */
struct disk_nbd_attempt {
	struct offload offload;
	struct disk_nbd_reach reach;
	struct error error;
	struct disk_nbd_link *link; /* borrowed; NULL: nobody waits for it any more */
	/* reach.server: owned */
	char *uri;                  /* owned */
};

bool disk_nbd_link_is_dead(const struct disk_nbd_link *k)
{
	return nbd_aio_is_dead(k->export->nbd) || nbd_aio_is_closed(k->export->nbd);
}

static void on_ready(void *arg, int events)
{
	struct disk_nbd_link *k = arg;
	unsigned direction = nbd_aio_get_direction(k->export->nbd);
	bool can_read = (direction & LIBNBD_AIO_DIRECTION_READ) && (events & (LOOP_IN | LOOP_HUP));

	k->is_touched = true;
	if (can_read)
		nbd_aio_notify_read(k->export->nbd);
	else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (events & LOOP_OUT))
		nbd_aio_notify_write(k->export->nbd);
	else if (events & LOOP_HUP)
		disk_nbd_link_lose(k, "the server hung up");
}

static void before_sleep(struct loop_hook *h)
{
	struct disk_nbd_link *k = container_of(h, struct disk_nbd_link, hook);
	unsigned direction;

	if (!k->is_touched || k->state != DISK_NBD_UP)
		return;
	k->is_touched = false;
	if (disk_nbd_link_is_dead(k)) {
		disk_nbd_link_lose(k, "the connection ended");
		return;
	}
	direction = nbd_aio_get_direction(k->export->nbd);
	loop_watch_set(k->watch, (direction & LIBNBD_AIO_DIRECTION_READ ? LOOP_IN : 0) |
				 (direction & LIBNBD_AIO_DIRECTION_WRITE ? LOOP_OUT : 0));
}

static void drop(struct disk_nbd_link *k)
{
	loop_watch_free(take_ptr(&k->watch));
	if (k->fd >= 0)
		close(take_fd(&k->fd));
}

/* -1: out of memory or descriptors. */
static int watch(struct disk_nbd_link *k)
{
	k->fd = fcntl(nbd_aio_get_fd(k->export->nbd), F_DUPFD_CLOEXEC, 0);
	if (k->fd >= 0)
		k->watch = loop_watch_new(k->loop, k->fd, LOOP_IN, on_ready, k);
	if (!k->watch) {
		drop(k);
		return -1;
	}
	k->is_touched = true;
	k->up_ns = loop_now_ns();
	return 0;
}

static void try_again_later(struct disk_nbd_link *k)
{
	k->pause_ms = MIN(MAX(2 * k->pause_ms, FIRST_PAUSE_MS), LAST_PAUSE_MS);
	loop_timer_set(k->retry, k->pause_ms);
}

void disk_nbd_link_lose(struct disk_nbd_link *k, const char *why)
{
	static struct log_limit limit = LOG_LIMIT(5);

	assert(k->state == DISK_NBD_UP);
	k->state = DISK_NBD_WAITING;
	drop(k);
	nbd_close(take_ptr(&k->export->nbd));
	if (log_allowed(&limit))
		log_warn("%s: %s: requests wait for it, for %ju ms at most", k->export->uri, why, (uintmax_t)k->wait_ms);
	if (loop_now_ns() - k->up_ns >= SETTLED_NS)
		k->pause_ms = 0;
	try_again_later(k);
	loop_timer_set(k->patience, k->wait_ms);
	k->on_lost(k);
}

static void on_patience(void *arg)
{
	struct disk_nbd_link *k = arg;

	k->state = DISK_NBD_GONE;
	log_error("%s: not back after %ju ms: requests fail until it is", k->export->uri, (uintmax_t)k->wait_ms);
	k->on_gone(k);
}

/* --- reaching it again */

static void free_attempt(struct disk_nbd_attempt *a)
{
	nbd_close(a->reach.nbd);
	disk_qcow2_free(a->reach.server);
	free(a->uri);
	free(a);
}

static void on_work(struct offload *o)
{
	struct disk_nbd_attempt *a = container_of(o, struct disk_nbd_attempt, offload);

	disk_nbd_reach(&a->reach, &a->error);
}

static bool is_same_disk(const struct disk_nbd_facts *was, const struct disk_nbd_facts *is)
{
	static struct log_limit limit = LOG_LIMIT(1);

	if (is->size_bytes == was->size_bytes && is->min_block_bytes <= was->min_block_bytes)
		return true;
	if (log_allowed(&limit))
		log_error("the server that came back has another disk: %ju bytes in blocks of %u, not %ju in blocks of %u",
			  (uintmax_t)is->size_bytes, is->min_block_bytes, (uintmax_t)was->size_bytes, was->min_block_bytes);
	return false;
}

static void resume(struct disk_nbd_link *k)
{
	static struct log_limit limit = LOG_LIMIT(5);

	loop_timer_clear(k->patience);
	k->state = DISK_NBD_UP;
	if (log_allowed(&limit))
		log_info("%s: reached again", k->export->uri);
	k->on_back(k);
}

static void take_over(struct disk_nbd_link *k, struct disk_nbd_reach *reached)
{
	struct disk_nbd_facts *facts = &k->export->facts;

	reached->facts.min_block_bytes = facts->min_block_bytes; /* what the layer above was told */
	*facts = reached->facts;
	k->export->nbd = take_ptr(&reached->nbd);
	if (watch(k) == 0)
		resume(k);
	else
		nbd_close(take_ptr(&k->export->nbd));
}

static void on_attempted(struct offload *o)
{
	struct disk_nbd_attempt *a = container_of(o, struct disk_nbd_attempt, offload);
	struct disk_nbd_link *k = a->link;

	if (k) {
		k->attempt = NULL;
		if (a->reach.nbd && is_same_disk(&k->export->facts, &a->reach.facts))
			take_over(k, &a->reach);
		else
			log_debug("not reached: %s", a->error.text);
		if (k->state != DISK_NBD_UP)
			try_again_later(k);
	}
	free_attempt(a);
}

static void on_retry(void *arg)
{
	struct disk_nbd_link *k = arg;
	struct disk_nbd_attempt *a = calloc(1, sizeof(*a));

	if (a) {
		a->offload = (struct offload){ .work = on_work, .done = on_attempted };
		a->link = k;
		a->uri = strdup(k->export->uri);
		a->reach.uri = a->uri;
		a->reach.is_read_only = k->export->is_read_only;
		a->reach.was_lost = k->export->was_lost;
		a->reach.server = k->export->server ? disk_qcow2_copy(k->export->server) : NULL;
		if (a->uri && (a->reach.server || !k->export->server) && offload_submit(k->loop, &a->offload) == 0) {
			k->attempt = a;
			return;
		}
		free_attempt(a);
	}
	try_again_later(k);
}


/* --- life */

static uint64_t ask_patience(void)
{
	const char *text = getenv("SXM_NBD_WAIT_MS");
	char *rest;
	unsigned long ms = text ? strtoul(text, &rest, 10) : 0;

	return text && rest != text && *rest == '\0' && ms <= 24ul * 60 * 60 * 1000 ? ms : WAIT_MS;
}

int disk_nbd_link_init(struct disk_nbd_link *k, struct error *e)
{
	k->wait_ms = ask_patience();
	k->fd = -1;
	k->hook.run = before_sleep;
	loop_hook_add(k->loop, &k->hook);
	k->retry = loop_timer_new(k->loop, on_retry, k);
	k->patience = loop_timer_new(k->loop, on_patience, k);
	if (!k->retry || !k->patience || watch(k) == -1)
		return error_set(e, ENOMEM, "out of memory or descriptors for the link to %s", k->export->uri);
	return 0;
}

void disk_nbd_link_fini(struct disk_nbd_link *k)
{
	if (k->attempt) {
		atomic_store(&k->attempt->reach.is_cancelled, true);
		k->attempt->link = NULL;
	}
	loop_hook_remove(k->loop, &k->hook);
	loop_timer_free(k->retry);
	loop_timer_free(k->patience);
	drop(k);
	disk_nbd_close(k->export);
}
