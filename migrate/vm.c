/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vm - see vm.h
 *
 *      here   running --SEND--> MOVING - - -> READY (stands still) --CONTINUE--> LAST - - -> COMPLETED, postmigrate
 *                                 '--------------'-- CANCEL: runs --------------'              '-- RUN_HERE
 *      there  inmigrate - - - - -> MOVING - - - - - - - - - - - - - - - - - - -> COMPLETED, paused --PLUG_THERE--> running
 *                                 '-- ended by itself, or END_THERE -----------'              '-- END_THERE
 *
 *      goals  |---- READY ----------->|---- WHOLE (the disks are prepared) ---->| decision |-- MOVE, or STAY at any place
 *
 * Can fail: either QEMU dies, refuses, cancels or is told other things by somebody else, at any place. Before the decision each
 * failure leads to STAY; from there nothing is needed that could fail but the QEMU here.
 * Never: RUN_HERE after MOVE was wanted, PLUG_THERE before it. What runs there took nothing from us (it did not wait for a VM, or
 * its memory is not what we sent) is not ended. What stands still does not run again on disks that somebody else has had
 * meanwhile.
 */
#include "migrate/vm.h"

#include <string.h>

static const struct {
	const char *status;
	enum vm_run run;
} runs[] = {
	{ "running", VM_RUN_RUNNING }, { "paused", VM_RUN_PAUSED }, { "inmigrate", VM_RUN_WAITING },
	{ "finish-migrate", VM_RUN_FINISHING }, { "postmigrate", VM_RUN_LEFT },
};
static const struct {
	const char *status;
	enum vm_memory memory;
} memories[] = {
	{ "", VM_MEMORY_NONE }, { "none", VM_MEMORY_NONE }, { "setup", VM_MEMORY_MOVING }, { "active", VM_MEMORY_MOVING },
	{ "pre-switchover", VM_MEMORY_READY }, { "device", VM_MEMORY_LAST }, { "completed", VM_MEMORY_COMPLETED },
	{ "failed", VM_MEMORY_FAILED }, { "cancelling", VM_MEMORY_CANCELLING }, { "cancelled", VM_MEMORY_CANCELLED },
};

enum vm_run vm_run_of(const char *status)
{
	for (size_t i = 0; i < ARRAY_LEN(runs); i++)
		if (strcmp(runs[i].status, status) == 0)
			return runs[i].run;
	return VM_RUN_OTHER;
}

enum vm_memory vm_memory_of(const char *status)
{
	for (size_t i = 0; i < ARRAY_LEN(memories); i++)
		if (strcmp(memories[i].status, status ? status : "") == 0)
			return memories[i].memory;
	return VM_MEMORY_OTHER;
}

const char *vm_why_text(enum vm_why why)
{
	static const char *const text[] = {
		[VM_WHY_NONE] = "",
		[VM_WHY_GONE_HERE] = "the VM's QEMU here has ended",
		[VM_WHY_GONE_THERE] = "the QEMU there has ended",
		[VM_WHY_NOT_WAITING] = "the QEMU there does not wait for a VM: start it with -incoming defer",
		[VM_WHY_BUSY] = "the VM is being migrated already, by somebody else",
		[VM_WHY_NOT_A_VM] = "the VM here neither runs nor is paused (or not any more: its guest shut down, or crashed)",
		[VM_WHY_FAILED_HERE] = "the QEMU here could not send the VM's memory",
		[VM_WHY_FAILED_THERE] = "the QEMU there could not take the VM: is it the same machine, with the same devices?",
		[VM_WHY_TOO_FAR] = "the VM's memory was sent without a halt before the switchover",
		[VM_WHY_RUNS_THERE] = "the VM was started there by somebody else",
		[VM_WHY_RUNS_HERE] = "the VM was continued here by somebody else, although it has moved: end this QEMU",
		[VM_WHY_OTHER_TIME] = "the VM stands still here, and is not let run: its disks may have been written to since "
				      "by somebody else. End this QEMU, and boot the VM from its disks",
		[VM_WHY_APART] = "not all disks of the VM have moved, as a person took one back: it stands still on both sides, "
				 "and is not let run on either. End both QEMUs, and boot it from the disks that are right",
	};

	return text[why];
}

static struct vm_verdict act(enum vm_do does)
{
	return (struct vm_verdict) { .does = does };
}

static struct vm_verdict fail(enum vm_why why)
{
	return (struct vm_verdict) { VM_FAIL, why };
}

static bool is_under_way(enum vm_memory m)
{
	return m == VM_MEMORY_MOVING || m == VM_MEMORY_READY || m == VM_MEMORY_LAST;
}

/* It took what was sent, or began to. */
static bool has_taken(const struct vm_side *there)
{
	return !there->is_gone && there->memory != VM_MEMORY_NONE;
}

/* --- READY */

static struct vm_verdict begin(const struct vm_seen *s)
{
	if (is_under_way(s->here.memory) || s->here.memory == VM_MEMORY_CANCELLING)
		return fail(VM_WHY_BUSY);
	if (s->here.run != VM_RUN_RUNNING && s->here.run != VM_RUN_PAUSED)
		return fail(VM_WHY_NOT_A_VM);
	if (!s->there.is_known)
		return act(VM_ASK_THERE);
	if (s->there.is_gone || s->there.run != VM_RUN_WAITING || s->there.memory != VM_MEMORY_NONE)
		return fail(VM_WHY_NOT_WAITING);
	return act(VM_SEND);
}

static struct vm_verdict get_ready(const struct vm_seen *s)
{
	if (s->here.is_gone)
		return fail(VM_WHY_GONE_HERE);
	if (!s->is_sent)
		return begin(s);
	switch (s->here.memory) {
	case VM_MEMORY_MOVING: return s->here.run == VM_RUN_OTHER ? fail(VM_WHY_NOT_A_VM) : act(VM_WAIT);
	case VM_MEMORY_CANCELLING: return act(VM_WAIT);
	case VM_MEMORY_READY: return act(VM_DONE);
	case VM_MEMORY_LAST:
	case VM_MEMORY_COMPLETED:
	case VM_MEMORY_OTHER: return fail(VM_WHY_TOO_FAR);
	default: return fail(VM_WHY_FAILED_HERE);
	}
}

/* --- WHOLE */

static struct vm_verdict judge_there(const struct vm_side *there)
{
	if (!there->is_known)
		return act(VM_ASK_THERE);
	if (there->is_gone)
		return fail(VM_WHY_FAILED_THERE);
	if (there->run == VM_RUN_RUNNING)
		return fail(VM_WHY_RUNS_THERE);
	if (there->memory == VM_MEMORY_MOVING)
		return act(VM_ASK_THERE);
	return there->memory == VM_MEMORY_COMPLETED && there->run != VM_RUN_WAITING ? act(VM_DONE) : fail(VM_WHY_FAILED_THERE);
}

static struct vm_verdict get_whole(const struct vm_seen *s)
{
	if (s->here.is_gone)
		return fail(VM_WHY_GONE_HERE);
	if (s->here.run == VM_RUN_RUNNING)
		return fail(VM_WHY_FAILED_HERE);
	switch (s->here.memory) {
	case VM_MEMORY_READY: return act(VM_CONTINUE);
	case VM_MEMORY_LAST:
	case VM_MEMORY_MOVING:
	case VM_MEMORY_CANCELLING: return act(VM_WAIT);
	case VM_MEMORY_COMPLETED: return s->here.run == VM_RUN_LEFT ? judge_there(&s->there) : act(VM_WAIT);
	default: return fail(VM_WHY_FAILED_HERE);
	}
}

/* --- STAY: first the one here, for which somebody waits */

static struct vm_verdict clear_there(const struct vm_seen *s, struct vm_verdict otherwise)
{
	if (!s->is_begun || s->is_cut_off)
		return otherwise;
	if (!s->there.is_known)
		return act(VM_ASK_THERE);
	return has_taken(&s->there) ? act(VM_END_THERE) : otherwise;
}

/* QEMU itself lets it run when it is cancelled, if it did. */
static struct vm_verdict run_here(const struct vm_seen *s, enum vm_do how)
{
	if (!s->are_disks_known)
		return act(VM_ASK_DISKS);
	return s->are_disks_its ? act(how) : clear_there(s, fail(VM_WHY_OTHER_TIME));
}

static struct vm_verdict stay(const struct vm_seen *s)
{
	bool is_still = s->was_running && s->here.run != VM_RUN_RUNNING && s->here.run != VM_RUN_OTHER;

	if (!s->is_begun)
		return act(VM_DONE);
	if (s->here.is_gone)
		return clear_there(s, fail(VM_WHY_GONE_HERE));
	if (is_under_way(s->here.memory))
		return is_still ? run_here(s, VM_CANCEL) : act(VM_CANCEL);
	if (s->here.memory == VM_MEMORY_CANCELLING || s->here.run == VM_RUN_FINISHING)
		return act(VM_WAIT);
	return is_still ? run_here(s, VM_RUN_HERE) : clear_there(s, act(VM_DONE));
}

/* --- MOVE */

static struct vm_verdict move(const struct vm_seen *s)
{
	if (!s->there.is_known)
		return act(VM_ASK_THERE);
	if (s->there.is_gone)
		return fail(VM_WHY_GONE_THERE);
	if (!s->here.is_gone && s->here.run == VM_RUN_RUNNING)
		return fail(VM_WHY_RUNS_HERE);
	if (s->there.memory != VM_MEMORY_COMPLETED || s->there.run == VM_RUN_WAITING)
		return fail(VM_WHY_FAILED_THERE);
	if (s->are_disks_apart && s->there.run != VM_RUN_RUNNING)
		return fail(VM_WHY_APART);
	if (!s->is_plugged && !s->are_disks_apart)
		return act(VM_PLUG_THERE);
	return s->here.is_gone ? act(VM_DONE) : act(VM_END_HERE);
}

struct vm_verdict vm_next(enum vm_goal goal, const struct vm_seen *s)
{
	switch (goal) {
	case VM_GOAL_READY: return get_ready(s);
	case VM_GOAL_WHOLE: return get_whole(s);
	case VM_GOAL_STAY: return stay(s);
	case VM_GOAL_MOVE: return move(s);
	}
	return fail(VM_WHY_NONE);
}
