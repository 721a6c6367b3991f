/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * budget - see budget.h
 *
 *      timer --> what was sent since, is there more --pool--> slot written, all read, share --loop--> mirror_set_limit
 *        ^                                                                                                |
 *        '----------------- PERIOD_MS, while an operation lives; then the slot is given back -------------'
 *
 * Who has all it wants leaves the rest to the others: a mirror that sends less than it might wants what it sends and a half; one
 * that sends all it may, and has more, wants everything, or what its own file allows.  A slot is locked as long as its process
 * has it, so it goes with that.  A slot that is read while it is written may show a mixture: that is a wrong share for a quarter
 * of a second.
 *
 * Can fail: the file.  Then this mirror has no limit, which is in the log, once.
 */
#include "vdi/budget.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/size.h"
#include "vdi/vdi-private.h"

#define PERIOD_MS 250u
#define STALE_NS (2 * NS_PER_S)
#define LIMIT_MAX_BYTES 64u   /* of the file's text */
#define SPARE_BYTES 1048576u  /* what one that sends little may want at once */

struct slot {
	uint64_t at_ns;        /* CLOCK_MONOTONIC, as every process of this host has it; 0: nobody's */
	uint64_t demand_bytes;
	uint64_t pid;          /* for people */
	uint64_t reserved;
};

/* --- in the pool */

static char *path_of(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static bool read_limit_in(const char *dir, uint64_t *bytes)
{
	CLEANUP_FREE char *path = path_of(dir, BUDGET_FILE);
	CLEANUP_FREE char *text = NULL;
	struct error e;

	text = path ? proc_read_own_file(path, LIMIT_MAX_BYTES, NULL, &e) : NULL;
	if (!text)
		return false;
	text[strcspn(text, " \t\r\n")] = '\0';
	if (!size_parse(text, bytes)) {
		log_warn("%s says %s, which is no number of bytes: there is no limit", path, text);
		*bytes = 0;
	}
	return true;
}

static uint64_t read_limit(void)
{
	uint64_t bytes = 0;

	if (!read_limit_in(proc_run_dir(), &bytes))
		read_limit_in(proc_state_dir(), &bytes);
	return bytes;
}

static int open_slot(struct budget *b)
{
	CLEANUP_FREE char *path = path_of(proc_run_dir(), BUDGET_SHARES_FILE);

	if (b->fd >= 0)
		return 0;
	b->fd = path ? open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600) : -1;
	for (b->slot = 0; b->fd >= 0 && b->slot < BUDGET_MIRRORS_MAX; b->slot++) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)(b->slot * sizeof(struct slot)),
				      .l_len = sizeof(struct slot) };

		if (fcntl(b->fd, F_OFD_SETLK, &lock) == 0)
			return 0;
	}
	log_warn("%s: no share can be taken there, and this mirror has no limit: %s", path ? path : "", strerror(errno));
	if (b->fd >= 0)
		close(b->fd);
	b->fd = -1;
	return -1;
}

static void write_slot(const struct budget *b, const struct slot *slot)
{
	if (pwrite(b->fd, slot, sizeof(*slot), (off_t)(b->slot * sizeof(*slot))) != sizeof(*slot))
		log_debug("the share could not be written: %s", strerror(errno));
}

static void close_slot(struct budget *b)
{
	if (b->fd < 0)
		return;
	write_slot(b, &(struct slot){ 0 });
	close(b->fd);
	b->fd = -1;
}

static uint64_t find_share(const struct budget *b, uint64_t limit)
{
	struct slot slots[BUDGET_MIRRORS_MAX];
	uint64_t demand[BUDGET_MIRRORS_MAX], now_ns = loop_now_ns();
	size_t count = 1, there;
	ssize_t n = pread(b->fd, slots, sizeof(slots), 0);

	demand[0] = b->demand_bytes;
	there = n > 0 ? (size_t)n / sizeof(*slots) : 0;
	for (size_t i = 0; i < there; i++)
		if (i != b->slot && slots[i].at_ns && slots[i].at_ns <= now_ns && now_ns - slots[i].at_ns < STALE_NS)
			demand[count++] = slots[i].demand_bytes;
	return budget_share(limit, demand, count);
}

static void take_share(struct budget *b, uint64_t limit)
{
	const struct slot own = { .at_ns = loop_now_ns(), .demand_bytes = b->demand_bytes, .pid = (uint64_t)getpid() };

	if (open_slot(b) == -1)
		return;
	write_slot(b, &own);
	b->share_bytes = find_share(b, limit);
}

static void on_work(struct offload *o)
{
	struct budget *b = container_of(o, struct budget, offload);
	const struct vdi *v = container_of(b, struct vdi, budget);
	uint64_t limit = b->is_leaving ? 0 : read_limit(), own = 0;

	if (!b->is_leaving && read_limit_in(v->run_dir, &own) && own)
		b->demand_bytes = MIN(b->demand_bytes, own);
	b->share_bytes = 0;
	if (limit)
		take_share(b, limit);
	else
		close_slot(b);
	if (own)
		b->share_bytes = b->share_bytes ? MIN(b->share_bytes, own) : own;
}

/* --- on the loop */

static void ask(struct vdi *v, bool is_leaving);

static bool is_running(const struct vdi *v)
{
	return v->op && v->op->mirror && !v->op->is_ended && !v->op->is_remembered && !v->is_stopping;
}

static void stop(struct budget *b)
{
	loop_timer_free(take_ptr(&b->timer));
	b->limit_bytes = b->at_ns = 0;
}

static void on_done(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, budget.offload);
	struct budget *b = &v->budget;

	b->is_asking = false;
	if (!b->is_leaving && is_running(v)) {
		b->limit_bytes = b->share_bytes;
		mirror_set_limit(v->op->mirror, b->share_bytes);
		loop_timer_set(b->timer, PERIOD_MS);
	} else if (b->fd >= 0) {
		ask(v, true);
		return;
	} else {
		stop(b);
	}
	if (b->is_waited_for) {
		b->is_waited_for = false;
		stack_step_end(v);
	} else if (!v->is_stopping && vdi_is_empty(v) && v->on_empty) {
		v->on_empty(v->arg);
	}
}

static void ask(struct vdi *v, bool is_leaving)
{
	struct budget *b = &v->budget;

	b->is_asking = true;
	b->is_leaving = is_leaving;
	b->offload.work = on_work;
	b->offload.done = on_done;
	if (offload_submit(v->loop, &b->offload) == 0)
		return;
	if (is_leaving) /* out of memory: here and now, then */
		on_work(&b->offload);
	on_done(&b->offload);
}

/* What it wants: all there is while it sends all it may, else some more than it sends. */
static uint64_t demand_of(struct budget *b, const struct mirror_status *s)
{
	uint64_t now_ns = loop_now_ns(), us = b->at_ns ? MAX((now_ns - b->at_ns) / 1000, UINT64_C(1)) : 0, rate = 0;
	uint64_t sent = s->core.sent_bytes - MIN(b->sent_bytes, s->core.sent_bytes);

	if (us)
		rate = (uint64_t)((double)sent * 1e6 / (double)us);
	b->sent_bytes = s->core.sent_bytes;
	b->at_ns = now_ns;
	if (s->core.dirty_bytes && s->is_up && (!us || !b->limit_bytes || rate >= b->limit_bytes / 4 * 3))
		return BUDGET_ALL;
	return rate + rate / 2 + (s->core.dirty_bytes && s->is_up ? SPARE_BYTES : 0);
}

static void on_timer(void *arg)
{
	struct vdi *v = arg;
	struct budget *b = &v->budget;
	struct mirror_status s;

	if (b->is_asking)
		return;
	if (!is_running(v)) {
		ask(v, true);
		return;
	}
	mirror_status(v->op->mirror, &s);
	b->demand_bytes = demand_of(b, &s);
	ask(v, false);
}

void budget_init(struct vdi *v)
{
	v->budget = (struct budget){ .fd = -1 };
}

void budget_begin(struct vdi *v)
{
	if (!v->budget.timer)
		v->budget.timer = loop_timer_new(v->loop, on_timer, v);
	if (v->budget.timer)
		on_timer(v);
}

void budget_end(struct vdi *v, step_fn *next)
{
	stack_step_begin(v, next);
	v->budget.is_waited_for = true;
	if (!v->budget.is_asking)
		on_done(&v->budget.offload); /* is_stopping: it leaves, if it has anything */
}

void budget_fini(struct vdi *v)
{
	assert(!v->budget.is_asking);
	stop(&v->budget);
	if (v->budget.fd >= 0)
		close(v->budget.fd);
}
