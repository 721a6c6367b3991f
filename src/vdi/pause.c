/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pause - the image is let go for a moment, while guests and a mirror have it: for what is done to its files meanwhile
 *
 *      JOB_PAUSE   hold, drain -> [a gate under the mirror, held] -> flush -> close -> the server below ended -> answer
 *                  ... vdi_unpause(), PAUSE_MS, or a process that is to stop ...
 *                  -> open what stands at the path now -> [the mirror's gate away] -> wake -> answer
 *
 *      guests -> gate (held) -> mirror -> lower (held) -> nothing, once [cbt ->] disk is closed
 *
 * Guests wait at the gate, the mirror's own reads and flushes at the lower one; neither notices more than a slow disk.
 * Everything acknowledged was flushed before the disk is closed, so a server that is exchanged loses nothing.
 *
 * What is opened may have another size: guests' servers say it to whoever connects from then on.  A mirror's map and far side
 * have the old one: it fails then (who means to change the size says so, and is refused while there is one).
 *
 * Can fail: flushing, then nothing has changed; opening anew.  Who asked hears the first error, and it is tried again, while
 * guests wait, for as long as they would wait for a server that is gone (SXM_NBD_WAIT_MS).  Then the process ends as if it were
 * killed: guests are cut off, nothing that they were told is lost, as all of it was flushed, and a successor tries on (life.c)
 * and answers verbs, which wait behind a pause.  A process that is told to stop gives up: requests end with ESHUTDOWN, and its
 * successor opens the disk.
 * Invariant: while v->lower is there the gate is held or refuses.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/gate.h"
#include "vdi/vdi-private.h"

#define PAUSE_MS 10000u
#define AGAIN_MS 200u
#define CLOSED_MS 30000u

struct pause {
	bool will_resize;
	bool is_over;             /* it is not wanted any more, or has been answered */
	bool is_held;             /* until then */
	bool is_refusing;         /* the gate was, before */
	bool was_told;            /* that it cannot be opened */
	uint64_t begun_ns, size_bytes;
	uint64_t failed_ns;       /* since when it cannot be opened; 0: it was not tried */
	struct loop_timer *timer; /* owned: patience, later the next try to open */
};

void pause_free(struct pause *p)
{
	if (p)
		loop_timer_free(p->timer);
	free(p);
}

/* --- the disk is opened again */

static void open_again(struct vdi *v);

static void gave_up(struct vdi *v)
{
	struct error ignored = { 0 };

	log_error("%s is left closed: the process is to stop", v->path);
	error_set(&ignored, ESHUTDOWN, "the datapath process is stopping");
	stack_refuse(v);
	if (v->lower)
		gate_refuse(v->lower, ESHUTDOWN);
	job_fail(v, &ignored);
}

static uint64_t closed_max_ns(void)
{
	const char *text = getenv("SXM_NBD_WAIT_MS");
	unsigned long ms = text ? strtoul(text, NULL, 10) : 0;

	return (ms ? ms : CLOSED_MS) * NS_PER_MS;
}

static void could_not(struct vdi *v)
{
	struct pause *p = v->job->pause;
	uint64_t now_ns = loop_now_ns();

	if (v->is_stopping) {
		gave_up(v);
		return;
	}
	if (!p->failed_ns)
		p->failed_ns = now_ns;
	if (now_ns - p->failed_ns >= closed_max_ns() && v->on_closed) {
		log_error("after a pause: %s: guests are cut off. It is tried each second: put the image right, and they can "
			  "connect again (`sxm fsck` tells what is wrong with the SR), or deactivate the disk", v->step.text);
		v->on_closed(v->arg);
	}
	if (!p->was_told) {
		log_error("after a pause: %s: it is tried again, and guests wait", v->step.text);
		v->job->error = v->step;
		job_answer(v->job);
		error_clear(&v->job->error);
		p->was_told = true;
	}
	loop_timer_set(p->timer, AGAIN_MS);
}

static void woken(struct vdi *v)
{
	struct pause *p = v->job->pause;
	uint64_t now_bytes = v->disk->geometry.size_bytes;

	log_info("%s was paused for %.1f ms", v->path, (double)(loop_now_ns() - p->begun_ns) / 1e6);
	if (now_bytes != p->size_bytes)
		log_info("%s has %llu bytes now, not %llu", v->path, (unsigned long long)now_bytes,
			 (unsigned long long)p->size_bytes);
	guest_device_resized(v);
	job_end(v);
}

static void wake(struct vdi *v)
{
	struct pause *p = v->job->pause;
	struct error why = { 0 };

	if (v->op && !p->is_refusing && v->disk->geometry.size_bytes != p->size_bytes) {
		error_set(&why, EINVAL, "the disk's size changed while it was paused, from %llu to %llu bytes",
			  (unsigned long long)p->size_bytes, (unsigned long long)v->disk->geometry.size_bytes);
		operation_give_up(v, &why, woken); /* wakes the gate, too */
		return;
	}
	if (!v->op)
		gate_set_below(v->gate, stack_base(v));
	if (!p->is_refusing)
		stack_wake(v);
	woken(v);
}

static void on_lower_idle(struct layer *lower, void *arg)
{
	struct vdi *v = arg;

	layer_close(lower);
	v->lower = NULL;
	stack_step_end(v);
}

static void opened(struct vdi *v)
{
	if (!v->disk) {
		could_not(v);
		return;
	}
	if (!v->lower) {
		wake(v);
		return;
	}
	gate_set_below(v->lower, stack_base(v));
	v->op->mirror->below = stack_base(v);
	gate_release(v->lower);
	stack_step_begin(v, wake);
	layer_drain(v->lower, on_lower_idle, v);
}

static void open_again(struct vdi *v)
{
	stack_reopen(v, opened);
}

static void on_timer(void *arg)
{
	struct vdi *v = arg;
	struct pause *p = v->job->pause;

	if (p->is_held) {
		log_warn("%s was paused for %u ms, and is not any more: nobody has said that it may go on", v->path, PAUSE_MS);
		p->is_held = false;
	}
	if (v->gate)
		open_again(v);
	else
		job_end(v);
}

/* Now, and not from the caller's stack. */
static void end(struct pause *p)
{
	p->is_over = true;
	if (!p->is_held)
		return;
	p->is_held = false;
	loop_timer_set(p->timer, 0);
}

/* --- it is closed */

static void held(struct vdi *v)
{
	struct pause *p = v->job->pause;

	p->is_held = true;
	loop_timer_set(p->timer, PAUSE_MS);
	job_answer(v->job);
	if (p->is_over || v->is_stopping)
		end(p);
}

static void settle(struct vdi *v)
{
	disk_settle(v->run_dir, &v->step);
}

static void settled(struct vdi *v)
{
	if (!v->step.err) {
		held(v);
		return;
	}
	v->job->error = v->step;
	job_answer(v->job);
	error_clear(&v->job->error);
	v->job->pause->was_told = true;
	open_again(v);
}

static void unmerged(struct vdi *v)
{
	v->open_read_only = v->is_read_only;
	layer_close(take_ptr(&v->disk));
	stack_work(v, settle, settled);
}

static void untracked(struct vdi *v)
{
	import_close(v, unmerged);
}

static void flushed(struct vdi *v)
{
	struct error e = v->step;

	if (e.err) {
		error_prefix(&e, "pause");
		v->job->error = e;
		opened(v); /* as it was */
		return;
	}
	if (v->lower)
		gate_set_below(v->lower, NULL);
	else
		gate_set_below(v->gate, NULL);
	tracking_close(v, untracked);
}

static void drained(struct vdi *v)
{
	v->job->pause->size_bytes = v->disk->geometry.size_bytes;
	stack_flush(v, flushed);
}

static void on_base_idle(struct layer *l UNUSED, void *arg)
{
	stack_step_end(arg);
}

/* What the mirror does by itself is held apart: it goes past the gate. */
static void quiet(struct vdi *v)
{
	struct error e = { 0 };

	if (!v->op || !v->op->mirror) {
		drained(v);
		return;
	}
	v->lower = gate_new(stack_base(v));
	if (!v->lower) {
		if (!v->job->pause->is_refusing)
			stack_wake(v);
		error_set(&e, ENOMEM, "out of memory");
		job_fail(v, &e);
		return;
	}
	gate_hold(v->lower);
	v->op->mirror->below = v->lower;
	stack_step_begin(v, drained);
	layer_drain(stack_base(v), on_base_idle, v);
}

/* --- it begins */

static int check(const struct vdi *v, struct error *e)
{
	const enum commit_state state = v->owner.record.state;

	if (!v->disk)
		return error_set(e, ENXIO, "the disk could not be opened again");
	if (state == COMMIT_RECEIVING || state == COMMIT_INCOMPLETE || state == COMMIT_RELEASED)
		return error_set(e, EPERM, "it is the far side of a mirror, and not complete; it can be paused when it is");
	if (import_is_collecting(v))
		return error_set(e, EPERM, "it is the leaf of a mirror, and not complete; it can be paused when it is composed");
	return v->job->pause->will_resize ? resize_check(v, e) : 0;
}

static void hold(struct vdi *v)
{
	struct pause *p = v->job->pause;
	struct error e = v->step;

	if (e.err) {
		error_prefix(&e, "pause of %s", v->path);
		job_fail(v, &e);
		return;
	}
	p->begun_ns = loop_now_ns();
	p->is_refusing = v->is_refusing;
	if (p->is_refusing)
		stack_drain_gate(v, quiet);
	else
		stack_quiet(v, quiet);
}

void pause_begin(struct vdi *v)
{
	struct pause *p = v->job->pause;
	struct error e = { 0 };

	p->timer = loop_timer_new(v->loop, on_timer, v);
	if (!p->timer)
		error_set(&e, ENOMEM, "out of memory");
	else if (v->gate && check(v, &e) == -1)
		error_prefix(&e, "pause of %s", v->path);
	if (e.err || p->is_over) {
		job_fail(v, &e);
		return;
	}
	error_clear(&v->step);
	if (!v->gate)
		held(v); /* nobody has it open, and nobody opens it meanwhile */
	else if (p->will_resize)
		stack_work(v, resize_look_for_journal, hold);
	else
		hold(v);
}

/* --- the verbs */

uint64_t vdi_pause(struct vdi *v, bool will_resize, vdi_done_fn *done, void *arg)
{
	struct pause *p = calloc(1, sizeof(*p));
	struct error e = { 0 };
	struct job *j;

	if (!p) {
		error_set(&e, ENOMEM, "out of memory");
		done(arg, &e);
		return 0;
	}
	p->will_resize = will_resize;
	j = job_add(v, JOB_PAUSE, "", done, arg);
	if (!j) {
		pause_free(p);
		return 0;
	}
	j->pause = p;
	return j->serial;
}

void vdi_unpause(struct vdi *v, vdi_done_fn *done, void *arg)
{
	struct pause *p = v->job && v->job->kind == JOB_PAUSE ? v->job->pause : NULL;
	struct error e = { 0 };

	if (!p || !p->is_held)
		error_set(&e, ENOENT, "%s is not paused, or not any more", v->path);
	else if (job_join(v->job, done, arg) == -1)
		error_set(&e, ENOMEM, "out of memory");
	if (e.err)
		done(arg, &e);
	else
		end(p);
}

void pause_is_over(struct pause *p)
{
	end(p);
}

void pause_hurry(struct vdi *v)
{
	if (v->job && v->job->kind == JOB_PAUSE)
		end(v->job->pause);
}
