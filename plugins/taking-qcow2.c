/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * taking-qcow2 - how a qcow2 image is taken (taking.h; image-qcow2.c draws what becomes of its files)
 *
 *      never written, and nobody has it open?   the new leaf stands on what it stands on; its lock is kept, shared, to the end
 *      else                                     its leaf is branched off (branch.h) while it is held (hold.h)
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "plugins/branch.h"
#include "plugins/chain.h"
#include "plugins/datapath.h"
#include "plugins/lock.h"
#include "plugins/qemu-img.h"
#include "plugins/taking.h"

struct state {
	struct image_taking *t; /* borrowed */
	char *leaf, *to;        /* owned */
	bool is_begun;
	int lock;               /* owned: of a leaf that was never written; -1 */
	bool has_branch;
	struct branch branch;
	bool is_finished;
	uint64_t held_us;
};

static int make_on(const char *path, const struct qcow2_header *h, struct error *e)
{
	return *h->backing ? qemu_img_overlay(path, h->backing, (int64_t)h->size_bytes, e)
			   : qemu_img_make(path, (int64_t)h->size_bytes, e);
}

/* With the leaf's lock. What a process has open it goes on noting in the log it has; such a snapshot gets none. */
static int cut_log(const struct image_taking *t, struct error *e)
{
	return t->is_snapshot ? chain_cut(t->from.dir, t->from.key, t->to.key, e) : 0;
}

/* 1: it was written to, or is being. */
static int prepare_blank(struct state *s, struct error *e)
{
	CLEANUP_LOCK int fd = lock_try_shared(s->leaf, e);
	struct qcow2_header h;
	bool is_blank;

	if (fd < 0)
		return e->err == EBUSY ? 1 : -1;
	if (datapath_has_writer(s->leaf))
		return 1; /* closed for a moment only */
	if (qcow2_read_header(fd, s->leaf, &h, e) == -1 || qcow2_is_blank(fd, &h, &is_blank, e) == -1)
		return -1;
	if (!is_blank)
		return 1;
	if (make_on(s->to, &h, e) == -1 || cut_log(s->t, e) == -1)
		return -1;
	s->lock = take_fd(&fd);
	return 0;
}

static int prepare_written(struct state *s, struct error *e)
{
	struct branch *b = &s->branch;

	s->has_branch = true;
	if (branch_init(b, s->t->from.dir, s->leaf, e) == -1 || branch_make(b, e) == -1)
		return -1;
	if (qemu_img_overlay(s->to, b->base_name, (int64_t)b->header.size_bytes, e) == -1)
		return -1;
	return branch_link(b, e);
}

static int prepare(void *state, struct image_taking *t, struct error *e)
{
	struct state *s = state;
	int r;

	*s = (struct state) { .t = t, .leaf = image_path(&t->from), .to = image_passing_path(&t->to), .lock = -1 };
	s->is_begun = true;
	if (!s->leaf || !s->to)
		return error_set(e, ENOMEM, "out of memory");
	if (datapath_check_whole(s->leaf, e) == -1)
		return -1;
	r = prepare_blank(s, e);
	return r == 1 ? prepare_written(s, e) : r;
}

static void ask(void *state, unsigned wait_ms)
{
	struct state *s = state;

	if (s->has_branch)
		hold_begin(&s->branch.hold, s->leaf, wait_ms);
}

static int wait_held(void *state, struct error *e)
{
	struct state *s = state;

	if (!s->has_branch)
		return 0;
	if (hold_wait(&s->branch.hold, s->leaf, e) == -1)
		return -1;
	s->t->was_written |= s->branch.hold.was_open;
	return 0;
}

/* Its process closed the log with the image. */
static int cut(void *state, struct error *e)
{
	struct state *s = state;

	if (!s->has_branch)
		return 0;
	return cut_log(s->t, e) == 0 ? branch_swap(&s->branch, e) : -1;
}

static void back(void *state)
{
	struct state *s = state;

	if (s->has_branch)
		branch_swap_back(&s->branch);
}

static void go(void *state, bool is_wanted UNUSED)
{
	struct state *s = state;

	if (s->has_branch)
		hold_go(&s->branch.hold);
	if (s->lock >= 0)
		close(take_fd(&s->lock));
}

/* Guests who are not served again yet are no reason to have nothing taken: their process goes on trying. */
static int finish(void *state, struct error *e UNUSED)
{
	struct state *s = state;
	struct error why;

	if (s->has_branch) {
		hold_end(&s->branch.hold, &why);
		s->held_us = s->branch.hold.lasted_us;
	}
	s->is_finished = true;
	return 0;
}

static void end(void *state)
{
	struct state *s = state;
	struct error why;

	if (!s->is_begun)
		return;
	if (s->has_branch)
		hold_end(&s->branch.hold, &why);
	if (s->lock >= 0)
		close(s->lock);
	if (!s->is_finished && s->to)
		unlink(s->to);
	if (!s->is_finished && s->has_branch)
		branch_undo(&s->branch);
	if (s->has_branch)
		branch_fini(&s->branch);
	free(s->leaf);
	free(s->to);
}

static uint64_t held_us(const void *state)
{
	return ((const struct state *)state)->held_us;
}

const struct taking_steps taking_qcow2 = {
	.bytes = sizeof(struct state),
	.prepare = prepare,
	.ask = ask,
	.wait = wait_held,
	.cut = cut,
	.back = back,
	.go = go,
	.finish = finish,
	.end = end,
	.held_us = held_us,
};
