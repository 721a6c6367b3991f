/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-vm - see journey-vm.h: asks both QEMUs, and does what vm_next() says, until it says done
 *
 *      here     its QMP socket, by ourselves: it is given the very channel to the other host for its memory
 *      there    its relay's vm.* (PROTOCOL.relay)
 *
 * On record before the first byte of memory is sent: "paused" (it may stand still) and whether it ran. What is asked of the QEMU
 * there while its VM may stand still is asked once, not for the journey's patience.
 */
#include "migrate/journey-vm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "migrate/journey-private.h"
#include "migrate/question.h"
#include "migrate/vm-verbs.h"

#define RECEIVE_WAIT_MS 20000u
#define ARRIVE_WAIT_MS 10000
#define STILL_MAX_MS 20000
#define STAY_MAX_MS 60000
#define LOOK_EVERY_MS 5u
#define SHOW_EVERY_MS 500

struct effort {
	struct journey *j;
	enum vm_goal goal;
	struct qmp here;
	struct vm_seen seen;
	struct qemu_state state;     /* of the one here */
	int64_t until_ms, shown_ms;  /* until_ms 0: as long as it takes */
	bool is_tight;
};

bool journey_has_vm(const struct journey *j)
{
	return j->r.vm_here && *j->r.vm_here;
}

bool journey_vm_is_gone(const struct journey *j)
{
	struct qemu_state state;
	struct vm_side here;
	struct error e;
	struct qmp q;

	qmp_init(&q, j->r.vm_here);
	if (qemu_see(&q, &here, &state, &e) == 0)
		jsonspec_clear(&qemu_state_spec, &state);
	qmp_fini(&q);
	return here.is_gone;
}

/* --- the one there */

/* is_patient: for as long as the host may be away. */
static int look_there(struct journey *j, int wait_ms, bool is_patient, struct vm_look *l, struct error *e)
{
	char raw[32];
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *ok = NULL;

	snprintf(raw, sizeof(raw), "\"wait_ms\":%d", wait_ms);
	args = question_new(raw, "qmp", j->r.vm_there, NULL);
	ok = !args ? NULL : is_patient ? journey_ask_there(j, "vm.look", args, e)
	     : peer_ask(&j->there, "vm.look", args, JOURNEY_ASK_MS, e);
	return ok ? jsonspec_decode(&vm_look_spec, ok, strlen(ok), l, e) : -1;
}

/* Where it is to stay, a host that cannot be asked is no reason not to. */
static int ask_there(struct effort *f, struct error *e)
{
	struct journey *j = f->j;
	struct vm_look l;

	if (look_there(j, f->goal == VM_GOAL_WHOLE ? ARRIVE_WAIT_MS : 0, f->goal == VM_GOAL_MOVE, &l, e) == -1) {
		f->seen.is_cut_off = f->goal == VM_GOAL_STAY;
		if (f->seen.is_cut_off)
			journey_say(j, "the QEMU there could not be asked, and is of no use any more: end it: %s", e->text);
		return f->seen.is_cut_off ? 0 : -1;
	}
	f->seen.there = (struct vm_side) {
		.is_known = true, .is_gone = l.is_gone, .run = vm_run_of(l.state.status ? l.state.status : ""),
		.memory = vm_memory_of(l.state.memory),
	};
	jsonspec_clear(&vm_look_spec, &l);
	return 0;
}

static int end_there(struct effort *f, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "qmp", f->j->r.vm_there, NULL);
	CLEANUP_FREE char *ok = args ? peer_ask(&f->j->there, "vm.end", args, JOURNEY_ASK_MS, e) : NULL;

	if (!ok)
		journey_say(f->j, "the QEMU there could not be ended, and is of no use any more: %s", e->text);
	f->seen.is_cut_off = !ok;
	return 0;
}

/* Of vm.run, and of vm.receive. */
static char *disks_args(const struct journey *j)
{
	CLEANUP_FREE struct vm_plug *plugs = calloc(j->r.disks.count, sizeof(*plugs));
	CLEANUP_FREE char *list = NULL;
	CLEANUP_FREE char *raw = NULL;

	for (size_t i = 0; plugs && i < j->r.disks.count; i++) {
		const struct journey_disk *d = journey_disk(j, i);

		plugs[i] = (struct vm_plug) { d->vm_device, d->far_uri, j->r.far_domain };
	}
	list = plugs ? jsonspec_array(&vm_plug_spec, plugs, j->r.disks.count) : NULL;
	if (!list || asprintf(&raw, "\"run\":%s,\"disks\":%s", j->r.vm_ran ? "true" : "false", list) < 0) {
		raw = NULL;
		return NULL;
	}
	return question_new(raw, "qmp", j->r.vm_there, NULL);
}

/* -1. That a disk's process is not there does not say that a VM is lost. */
static int not_of_a_qemu(struct error *e)
{
	if (e->err == ESRCH || e->err == ENODATA || e->err == ESTALE || e->err == ECONNRESET)
		e->err = EIO;
	return -1;
}

static int plug_there(struct effort *f, struct error *e)
{
	struct journey *j = f->j;
	CLEANUP_FREE char *args = disks_args(j);
	CLEANUP_FREE char *ok = args ? journey_ask_there(j, "vm.run", args, e) : NULL;

	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	f->seen.is_plugged = ok;
	return ok ? 0 : not_of_a_qemu(e);
}

/* --- the one here */

/* QEMU writes the last of it without answering anybody meanwhile: where nothing takes it any more, only we can end that. */
static void end_memory(struct journey *j)
{
	if (j->memory <= 0)
		return;
	shutdown(j->memory, SHUT_RDWR);
	close(j->memory);
	j->memory = 0;
}

/* The channel is QEMU's then, and we have it, too. */
static int send_memory(struct effort *f, struct error *e)
{
	struct journey *j = f->j;
	CLEANUP_FREE char *args = disks_args(j);
	CLEANUP_CLOSE int channel = -1;
	int r;

	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	if (journey_vm_note_disks(j, e) == -1)
		return -1;
	j->r.is_paused = true;
	j->r.vm_ran = f->seen.here.run == VM_RUN_RUNNING;
	if (journey_save(j, e) == -1)
		return -1;
	channel = tunnel_channel(j->tunnel, e);
	if (channel < 0)
		return -1;
	if (peer_stream(channel, "vm.receive", args, RECEIVE_WAIT_MS, NULL, e) == -1)
		return error_prefix(e, "%s", j->r.host);
	r = qemu_send(&f->here, channel, (uint64_t)j->r.bandwidth_bytes_s, e);
	end_memory(j);
	j->memory = take_fd(&channel);
	if (r == -1)
		end_memory(j);
	f->seen.is_sent = true;
	return r;
}

/* What it never will write any more is not waited for. */
static int end_here(struct effort *f, struct error *e)
{
	for (size_t i = 0; i < f->j->r.disks.count; i++)
		if (qemu_cut_off(&f->here, journey_disk(f->j, i)->id, e) == -1)
			return e->err == ESRCH || e->err == ECONNRESET ? 0 : -1;
	return qemu_end(&f->here, e);
}

/* What its VM writes while the last of its memory goes is sent at once. */
static void show_memory(struct effort *f)
{
	struct journey *j = f->j;

	if (f->state.pass > 1 && !f->is_tight) {
		journey_tighten(j);
		f->is_tight = true;
	}
	if (f->state.pass < 1 || journey_now_ms() - f->shown_ms < SHOW_EVERY_MS)
		return;
	f->shown_ms = journey_now_ms();
	snprintf(j->view.why, sizeof(j->view.why), "memory, pass %" PRId64 ": %" PRId64 " of %" PRId64 " MiB are left",
		 f->state.pass, f->state.left_bytes >> 20, f->state.total_bytes >> 20);
	journey_show(j, "moving the VM");
}

static int wait_here(struct effort *f, struct error *e)
{
	if (f->goal == VM_GOAL_READY) {
		if (journey_check(f->j, e) == -1)
			return -1;
		show_memory(f);
	}
	journey_pause(LOOK_EVERY_MS);
	return 0;
}

/* Also where it says that it did what it was told, and did not. */
static int check_time(const struct effort *f, struct error *e)
{
	if (!f->until_ms || journey_now_ms() <= f->until_ms)
		return 0;
	return error_set(e, ETIMEDOUT, "the VM's QEMU here takes too long: it is %s, its migration %s",
			 f->state.status ? f->state.status : "gone", f->state.memory ? f->state.memory : "none");
}

/* QEMU is "pre-switchover" for a moment yet when it was told; and then refuses to hear it again. */
static int continue_here(struct effort *f, struct error *e)
{
	if (qemu_continue(&f->here, e) == 0)
		return 0;
	if (e->err != EREMOTEIO)
		return -1;
	error_clear(e);
	return wait_here(f, e);
}

static int say_failed(struct effort *f, enum vm_why why, struct error *e)
{
	const char *said = why == VM_WHY_FAILED_HERE ? f->state.why : NULL;
	int err = why == VM_WHY_GONE_HERE || why == VM_WHY_GONE_THERE ? ESRCH
		  : why == VM_WHY_OTHER_TIME || why == VM_WHY_APART ? ESTALE : EIO;

	return error_set(e, err, "%s%s%.200s", vm_why_text(why), said ? ": " : "", said ? said : "");
}

/* Those that are not active for it any more are, when this says that they are its. */
static int ask_disks(struct effort *f, struct error *e)
{
	int r = journey_vm_claim_disks(f->j, e);

	if (r == -1)
		return not_of_a_qemu(e);
	f->seen.are_disks_known = true;
	f->seen.are_disks_its = r == 1;
	return 0;
}

/* --- what is said, is done */

static int act(struct effort *f, struct vm_verdict v, struct error *e)
{
	switch (v.does) {
	case VM_DONE: return 0;
	case VM_FAIL: return say_failed(f, v.why, e);
	case VM_WAIT: return wait_here(f, e);
	case VM_ASK_THERE: return ask_there(f, e);
	case VM_ASK_DISKS: return ask_disks(f, e);
	case VM_SEND: return send_memory(f, e);
	case VM_CONTINUE: return continue_here(f, e);
	case VM_CANCEL: return qemu_cancel(&f->here, e);
	case VM_RUN_HERE: return qemu_run(&f->here, e);
	case VM_END_THERE: return end_there(f, e);
	case VM_PLUG_THERE: return plug_there(f, e);
	case VM_END_HERE: return end_here(f, e);
	}
	return -1;
}

/* What was heard of the one there is true until something was done. As long as the other host was not reached the connection here
 * is not kept: the processes that have the way there are forked, would have it too, and QEMU would serve nobody else. */
static int drive(struct journey *j, enum vm_goal goal, int max_ms, bool is_sent, struct error *e)
{
	struct effort f = { .j = j, .goal = goal, .until_ms = max_ms ? journey_now_ms() + max_ms : 0 };
	struct vm_verdict v = { .does = VM_WAIT };
	bool is_seen;
	enum vm_do last;
	int r;

	error_clear(e);
	qmp_init(&f.here, j->r.vm_here);
	f.seen.is_sent = is_sent;
	for (size_t i = 0; i < j->r.disks.count; i++)
		f.seen.are_disks_apart |= journey_disk(j, i)->stays;
	do {
		f.seen.is_begun = j->r.is_paused;
		f.seen.was_running = j->r.vm_ran;
		r = qemu_see(&f.here, &f.seen.here, &f.state, e);
		is_seen = r == 0;
		if (!j->tunnel)
			qmp_fini(&f.here);
		if (r == 0) {
			last = v.does;
			v = vm_next(goal, &f.seen);
			r = v.does == last && v.does != VM_WAIT ? wait_here(&f, e) : 0;
		}
		if (r == 0)
			r = v.does == VM_DONE || check_time(&f, e) == 0 ? act(&f, v, e) : -1;
		if (r == -1 && e->err == ECONNRESET && goal == VM_GOAL_STAY && is_seen)
			r = wait_here(&f, e); /* it may have ended just then: it is looked for */
		if (v.does != VM_ASK_THERE)
			f.seen.there.is_known = false;
		if (v.does != VM_ASK_DISKS && v.does != VM_ASK_THERE && v.does != VM_END_THERE)
			f.seen.are_disks_known = false;
		jsonspec_clear(&qemu_state_spec, &f.state);
	} while (r == 0 && v.does != VM_DONE);
	qmp_fini(&f.here);
	return r;
}

int journey_vm_send(struct journey *j, struct error *e)
{
	int r = drive(j, VM_GOAL_READY, 0, false, e);

	j->view.why[0] = '\0';
	if (r == 0)
		journey_say(j, "the VM's memory is there, but for what changes last; it stands still now");
	return r;
}

int journey_vm_finish(struct journey *j, struct error *e)
{
	int r = drive(j, VM_GOAL_WHOLE, STILL_MAX_MS, true, e);

	if (r == 0)
		end_memory(j);
	return r;
}

int journey_vm_stay(struct journey *j, struct error *e)
{
	struct error why;
	int r;

	if (j->memory > 0 && journey_vm_claim_disks(j, &why) == 1) /* it goes on by itself then */
		end_memory(j);
	r = drive(j, VM_GOAL_STAY, STAY_MAX_MS, false, e);
	if (r == -1 && e->err != ESRCH && e->err != ESTALE)
		return error_prefix(e, "the VM may stand still here");
	if (r == -1)
		journey_say(j, "%s", e->text);
	j->r.is_vm_lost |= r == -1 && e->err == ESTALE; /* else there is nothing to be continued */
	return 0;
}

int journey_vm_move(struct journey *j, struct error *e)
{
	int r = drive(j, VM_GOAL_MOVE, STAY_MAX_MS, true, e);

	if (r == -1 && e->err == ESRCH && !j->there.is_lost)
		return error_set(e, ENODATA, "the QEMU there ended with the VM's memory in it: boot the VM there, "
				 "from its disks");
	return r;
}

/* --- before it begins */

static int check_disk(struct journey *j, size_t i, const struct jsonspec_records *here, const struct vm_look *there,
		      struct error *e)
{
	struct journey_disk *d = journey_disk(j, i);
	const struct qemu_disk *from = qemu_find_export(here, d->id), *to;

	if (!from)
		return error_set(e, ENODEV, "no device of the QEMU at %s has the disk %s (the export %s of a unix socket)",
				 j->r.vm_here, d->name, d->id);
	to = qemu_find_device(&there->disks, from->device);
	if (!to)
		return error_set(e, ENODEV, "the QEMU there has no disk at %s, as it has here: start it with the same "
				 "devices, and what has the size of each disk in place of it", from->device);
	if (to->size_bytes != d->size_bytes)
		return error_set(e, EINVAL, "what stands for %s there has %" PRId64 " bytes (%s): it has to have %" PRId64,
				 d->name, to->size_bytes, to->node, d->size_bytes);
	return journey_set(&d->vm_device, from->device, e);
}

/* Another disk of its, which nobody else moves, would be lost there. */
static int check_others(struct journey *j, const struct jsonspec_records *here, struct error *e)
{
	const struct qemu_disk *q = here->item;

	for (size_t i = 0; i < here->count; i++) {
		bool is_moved = !strstr(q[i].file, proc_run_dir()) || strncmp(q[i].file, "nbd", 3) != 0;

		for (size_t k = 0; k < j->r.disks.count && !is_moved; k++)
			is_moved = strcmp(journey_disk(j, k)->vm_device, q[i].device) == 0;
		if (!is_moved)
			return error_set(e, EINVAL, "the VM has another disk, %s at %s: all of them move with it", q[i].file,
					 q[i].device);
	}
	return 0;
}

static int check_there(struct journey *j, struct vm_look *l, struct error *e)
{
	if (look_there(j, 0, false, l, e) == -1)
		return -1;
	if (!l->is_gone && vm_run_of(l->state.status ? l->state.status : "") == VM_RUN_WAITING &&
	    vm_memory_of(l->state.memory) == VM_MEMORY_NONE)
		return 0;
	error_set(e, EBUSY, l->is_gone ? "there is no QEMU at %s there: start one with -incoming defer"
		  : "the QEMU at %s there does not wait for a VM: start it with -incoming defer", j->r.vm_there);
	jsonspec_clear(&vm_look_spec, l);
	return -1;
}

static int check_memory(struct qmp *q, struct jsonspec_list *warnings, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	char version[QEMU_VERSION_MAX];
	int r = qemu_loses_memory(q, version, e);

	if (r != 1)
		return r;
	if (asprintf(&text, "the VM is emulated (no KVM) by QEMU %s, which may send memory without what the guest wrote to it "
		     "last, so that the guest crashes there or goes on with wrong data: use QEMU 9.0 or newer, or give the VM "
		     "memory whose size is no multiple of 256 KiB", version) < 0) {
		text = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	return jsonspec_list_add(warnings, text) == 0 ? 0 : error_set(e, ENOMEM, "out of memory");
}

int journey_vm_check(struct journey *j, struct jsonspec_list *warnings, struct error *e)
{
	struct jsonspec_records here = { 0 };
	struct vm_look there;
	struct qmp q;
	int r;

	if (!*j->r.far_domain && journey_set(&j->r.far_domain, journey_disk(j, 0)->domain, e) == -1)
		return -1;
	if (check_there(j, &there, e) == -1)
		return -1;
	qmp_init(&q, j->r.vm_here);
	r = qemu_disks(&q, &here, e);
	for (size_t i = 0; r == 0 && i < j->r.disks.count; i++)
		r = check_disk(j, i, &here, &there, e);
	if (r == 0)
		r = check_others(j, &here, e);
	if (r == 0)
		r = check_memory(&q, warnings, e);
	qemu_clear_disks(&here);
	jsonspec_clear(&vm_look_spec, &there);
	qmp_fini(&q);
	return r;
}
