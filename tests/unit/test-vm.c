/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is done next with a VM that moves with its disks (migrate/vm): played with two QEMUs that behave as QEMU does, and everything
 * that can go wrong, at each step: it never runs in both places, and in the end it runs where it was decided, if it can.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "migrate/vm.h"

enum trouble {
	NOTHING, HERE_DIES, THERE_DIES, HERE_FAILS, HERE_IS_CANCELLED, CALLER_DIES, HOST_IS_CUT_OFF, ARRIVAL_FAILS,
	ARRIVAL_FAILS_AND_IT_LIVES, DISKS_ARE_TAKEN, GUEST_CRASHES, TROUBLES
};
enum decided { OPEN, STAYS, MOVES };

struct world {
	struct vm_side here, there;
	bool is_begun, was_running;   /* the record's */
	enum decided decided;
	bool is_sent, is_plugged, is_there_known, is_cut_off; /* the caller's own */
	bool is_host_away, is_connected, will_arrival_fail, will_it_live;
	bool are_disks_taken, are_disks_known, has_crashed; /* taken: by a person, who let another guest write to them */
	unsigned waited;
};

static struct world new_world(bool runs)
{
	return (struct world) {
		.here = { .run = runs ? VM_RUN_RUNNING : VM_RUN_PAUSED }, .there = { .run = VM_RUN_WAITING },
	};
}

static bool runs(const struct vm_side *s)
{
	return !s->is_gone && s->run == VM_RUN_RUNNING;
}

/* --- QEMU */

static void end_stream(struct world *w)
{
	if (w->is_connected && w->there.memory == VM_MEMORY_MOVING)
		w->there = (struct vm_side) { .is_gone = true };
	w->is_connected = false;
}

/* As QEMU's migration thread does it when it did not succeed. */
static void fall_back(struct world *w, enum vm_memory memory)
{
	w->here.memory = memory;
	if (w->has_crashed) {
		w->here.run = VM_RUN_OTHER;
	} else {
		if (w->here.run != VM_RUN_RUNNING)
			assert_true(!w->are_disks_known || !w->are_disks_taken);
		w->here.run = w->was_running ? VM_RUN_RUNNING : VM_RUN_PAUSED;
	}
	end_stream(w);
}

static void arrive(struct world *w)
{
	w->here.memory = VM_MEMORY_COMPLETED;
	w->here.run = VM_RUN_LEFT;
	if (w->there.is_gone)
		return;
	w->there = w->will_it_live ? (struct vm_side) { .run = VM_RUN_WAITING, .memory = VM_MEMORY_FAILED }
		: w->will_arrival_fail ? (struct vm_side) { .is_gone = true }
		: (struct vm_side) { .run = w->has_crashed ? VM_RUN_OTHER : VM_RUN_PAUSED, .memory = VM_MEMORY_COMPLETED };
	w->is_connected = false;
}

/* Time goes by for the one here. */
static void advance(struct world *w)
{
	if (w->here.is_gone)
		return;
	if (!w->is_connected && (w->here.memory == VM_MEMORY_MOVING || w->here.memory == VM_MEMORY_LAST)) {
		fall_back(w, VM_MEMORY_FAILED);
		return;
	}
	if (w->here.memory == VM_MEMORY_MOVING) {
		w->here.run = VM_RUN_FINISHING;
		w->here.memory = VM_MEMORY_READY;
	} else if (w->here.memory == VM_MEMORY_LAST) {
		arrive(w);
	} else if (w->here.memory == VM_MEMORY_CANCELLING) {
		fall_back(w, VM_MEMORY_CANCELLED);
	}
}

static void make_trouble(struct world *w, enum trouble what)
{
	bool is_moving = w->here.memory == VM_MEMORY_MOVING || w->here.memory == VM_MEMORY_READY || w->here.memory == VM_MEMORY_LAST;

	switch (what) {
	case HERE_DIES:
		w->here = (struct vm_side) { .is_gone = true };
		end_stream(w);
		break;
	case THERE_DIES:
		w->there = (struct vm_side) { .is_gone = true };
		w->is_connected = false;
		break;
	case HERE_FAILS:
		if (is_moving && !w->here.is_gone)
			fall_back(w, VM_MEMORY_FAILED);
		break;
	case HERE_IS_CANCELLED:
		if (is_moving && !w->here.is_gone)
			w->here.memory = VM_MEMORY_CANCELLING;
		break;
	case HOST_IS_CUT_OFF: /* and with it the memory's way */
		w->is_host_away = true;
		end_stream(w);
		break;
	case ARRIVAL_FAILS: w->will_arrival_fail = true; break;
	case ARRIVAL_FAILS_AND_IT_LIVES: w->will_it_live = true; break;
	case DISKS_ARE_TAKEN: w->are_disks_taken = true; break;
	case GUEST_CRASHES:
		if (w->here.run == VM_RUN_RUNNING && w->decided != MOVES) {
			w->here.run = VM_RUN_OTHER;
			w->has_crashed = true;
		}
		break;
	default: break;
	}
}

/* --- the caller */

/* -1: refused. */
static int act(struct world *w, enum vm_goal goal, enum vm_do what)
{
	switch (what) {
	case VM_WAIT:
		advance(w);
		return ++w->waited > 20 ? -1 : 0;
	case VM_ASK_THERE:
		if (w->is_host_away && goal != VM_GOAL_STAY)
			return -1;
		w->is_cut_off = w->is_host_away;
		w->is_there_known = !w->is_host_away;
		return ++w->waited > 20 ? -1 : 0;
	case VM_SEND:
		assert_int_equal(w->there.run, VM_RUN_WAITING);
		w->is_begun = w->is_sent = true;
		w->was_running = w->here.run == VM_RUN_RUNNING;
		if (w->is_host_away || w->there.is_gone || w->here.is_gone)
			return -1;
		w->there.memory = w->here.memory = VM_MEMORY_MOVING;
		w->is_connected = true;
		return 0;
	case VM_CONTINUE:
		assert_int_equal(w->here.memory, VM_MEMORY_READY);
		w->here.memory = VM_MEMORY_LAST;
		return 0;
	case VM_ASK_DISKS:
		w->are_disks_known = true;
		return 0;
	case VM_CANCEL:
		assert_int_not_equal(w->decided, MOVES);
		w->here.memory = VM_MEMORY_CANCELLING;
		return 0;
	case VM_RUN_HERE:
		assert_int_not_equal(w->decided, MOVES);
		assert_true(w->are_disks_known && !w->has_crashed);
		w->here.run = VM_RUN_RUNNING;
		return 0;
	case VM_END_THERE:
		assert_int_not_equal(w->decided, MOVES);
		w->there = (struct vm_side) { .is_gone = true };
		end_stream(w);
		return 0;
	case VM_PLUG_THERE:
		assert_int_equal(w->decided, MOVES);
		if (w->is_host_away || w->there.is_gone)
			return -1;
		w->is_plugged = true;
		w->there.run = w->was_running && w->there.run == VM_RUN_PAUSED ? VM_RUN_RUNNING : w->there.run;
		return 0;
	case VM_END_HERE:
		assert_int_equal(w->decided, MOVES);
		assert_true(!w->was_running || w->has_crashed || runs(&w->there));
		w->here = (struct vm_side) { .is_gone = true };
		return 0;
	default: return 0;
	}
}

struct play {
	struct world w;
	enum trouble trouble;
	unsigned at, steps; /* the trouble comes before step `at` */
	bool is_dead;       /* the caller is */
};

/* 1: done; 0: not; the caller may have died. */
static int drive(struct play *p, enum vm_goal goal)
{
	struct world *w = &p->w;

	w->waited = 0;
	w->is_there_known = w->is_cut_off = w->are_disks_known = false;
	for (;;) {
		struct vm_seen s = { .here = w->here, .there = w->there, .is_begun = w->is_begun, .was_running = w->was_running,
				     .is_sent = w->is_sent, .is_plugged = w->is_plugged, .is_cut_off = w->is_cut_off,
				     .are_disks_known = w->are_disks_known, .are_disks_its = !w->are_disks_taken };
		struct vm_verdict v;

		s.there.is_known = w->is_there_known;
		v = vm_next(goal, &s);
		if (p->steps++ == p->at) {
			make_trouble(w, p->trouble);
			p->is_dead = p->trouble == CALLER_DIES;
			if (p->is_dead) {
				end_stream(w);
				return 0;
			}
			if (p->trouble != NOTHING)
				continue; /* it is seen, or comes between the look and the act: the next step is the same then */
		}
		if (v.does == VM_DONE)
			return 1;
		if (v.does == VM_FAIL)
			return 0;
		if (act(w, goal, v.does) == -1)
			return 0;
		if (v.does != VM_ASK_THERE)
			w->is_there_known = false;
		if (v.does != VM_ASK_THERE && v.does != VM_ASK_DISKS && v.does != VM_END_THERE)
			w->are_disks_known = false;
		assert_false(runs(&w->here) && runs(&w->there));
	}
}

/* As journey-switch does it; once more by another caller where the first died. */
static void move(struct play *p)
{
	struct world *w = &p->w;

	for (int callers = 0; callers < 2; callers++) {
		bool is_whole = false;

		w->is_sent = w->is_plugged = p->is_dead = false;
		if (callers == 0)
			is_whole = drive(p, VM_GOAL_READY) && drive(p, VM_GOAL_WHOLE);
		assert_true(!is_whole || (!w->there.is_gone && w->there.memory == VM_MEMORY_COMPLETED && !runs(&w->here)));
		if (p->is_dead)
			continue;
		if (w->decided == OPEN)
			w->decided = is_whole ? MOVES : STAYS;
		drive(p, w->decided == MOVES ? VM_GOAL_MOVE : VM_GOAL_STAY);
		if (!p->is_dead)
			return;
	}
}

static void judge(const struct play *p, bool did_run)
{
	const struct world *w = &p->w;
	bool may_run = did_run && !w->has_crashed;

	assert_int_not_equal(w->decided, OPEN);
	assert_false(runs(&w->here) && runs(&w->there));
	if (w->decided == STAYS && !w->here.is_gone && !w->are_disks_taken)
		assert_int_equal(runs(&w->here), may_run);
	if (w->decided == STAYS && w->is_begun && !w->is_host_away)
		assert_true(w->there.is_gone || w->there.memory == VM_MEMORY_NONE);
	if (w->decided == MOVES && !w->there.is_gone && !w->is_host_away) {
		assert_int_equal(runs(&w->there), may_run);
		assert_true(w->here.is_gone);
	}
}

static void test_it_moves_where_nothing_goes_wrong(void **state)
{
	(void)state;
	for (int did_run = 0; did_run < 2; did_run++) {
		struct play p = { .w = new_world(did_run), .at = UINT32_MAX };

		move(&p);
		judge(&p, did_run);
		assert_int_equal(p.w.decided, MOVES);
		assert_true(p.w.is_plugged);
	}
}

static void test_whatever_goes_wrong_whenever(void **state)
{
	unsigned moved = 0, stayed = 0;

	(void)state;
	for (enum trouble t = HERE_DIES; t < TROUBLES; t++)
		for (unsigned at = 0; at < 16; at++)
			for (int did_run = 0; did_run < 2; did_run++) {
				struct play p = { .w = new_world(did_run), .trouble = t, .at = at };

				move(&p);
				judge(&p, did_run);
				*(p.w.decided == MOVES ? &moved : &stayed) += 1;
			}
	assert_true(moved > 20 && stayed > 20);
}

/* --- single rules */

static struct vm_verdict next(enum vm_goal goal, struct vm_seen s)
{
	return vm_next(goal, &s);
}
#define KNOWN(...) { .is_known = true, __VA_ARGS__ }

static void test_a_qemu_that_does_not_wait_is_not_sent_to(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_RUNNING), .there = KNOWN(.run = VM_RUN_RUNNING) };

	(void)state;
	assert_int_equal(next(VM_GOAL_READY, s).why, VM_WHY_NOT_WAITING);
	s.there = (struct vm_side) KNOWN(.run = VM_RUN_WAITING, .memory = VM_MEMORY_MOVING);
	assert_int_equal(next(VM_GOAL_READY, s).why, VM_WHY_NOT_WAITING);
}

static void test_a_vm_that_somebody_else_migrates_is_let_be(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_RUNNING, .memory = VM_MEMORY_MOVING) };

	(void)state;
	assert_int_equal(next(VM_GOAL_READY, s).why, VM_WHY_BUSY);
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_DONE); /* nothing was begun by us */
}

static void test_one_that_was_paused_before_stays_paused(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_LEFT, .memory = VM_MEMORY_COMPLETED), .is_begun = true, .is_cut_off = true };

	(void)state;
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_DONE);
	s.was_running = true;
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_ASK_DISKS);
	s.are_disks_known = s.are_disks_its = true;
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_RUN_HERE);
}

static void test_one_whose_disks_somebody_else_had_is_not_run(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_LEFT, .memory = VM_MEMORY_COMPLETED), .is_begun = true, .was_running = true,
			     .are_disks_known = true, .there = KNOWN(.run = VM_RUN_PAUSED, .memory = VM_MEMORY_COMPLETED) };

	(void)state;
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_END_THERE);
	s.there = (struct vm_side) KNOWN(.is_gone = true);
	assert_int_equal(next(VM_GOAL_STAY, s).why, VM_WHY_OTHER_TIME);
	s.here = (struct vm_side) KNOWN(.run = VM_RUN_FINISHING, .memory = VM_MEMORY_READY); /* cancelled, it would run */
	assert_int_equal(next(VM_GOAL_STAY, s).why, VM_WHY_OTHER_TIME);
	s.here = (struct vm_side) KNOWN(.run = VM_RUN_RUNNING, .memory = VM_MEMORY_MOVING); /* it does anyway */
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_CANCEL);
}

static void test_one_whose_disks_are_on_both_sides_is_run_on_neither(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_LEFT, .memory = VM_MEMORY_COMPLETED), .is_begun = true, .was_running = true,
			     .are_disks_apart = true, .there = KNOWN(.run = VM_RUN_PAUSED, .memory = VM_MEMORY_COMPLETED) };

	(void)state;
	assert_int_equal(next(VM_GOAL_MOVE, s).why, VM_WHY_APART);
	s.there.run = VM_RUN_RUNNING; /* it was given them before one was taken back: it has them */
	assert_int_equal(next(VM_GOAL_MOVE, s).does, VM_END_HERE);
}

static void test_a_guest_that_shut_down_is_no_vm_that_stands_still(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_OTHER, .memory = VM_MEMORY_MOVING), .is_begun = true, .is_sent = true,
			     .was_running = true, .is_cut_off = true };

	(void)state;
	assert_int_equal(next(VM_GOAL_READY, s).why, VM_WHY_NOT_A_VM);
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_CANCEL);
	s.here.memory = VM_MEMORY_CANCELLED;
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_DONE);
}

static void test_a_qemu_there_that_took_nothing_is_not_ended(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_RUNNING), .there = KNOWN(.run = VM_RUN_RUNNING), .is_begun = true };

	(void)state;
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_DONE);
	s.there.memory = VM_MEMORY_COMPLETED;
	assert_int_equal(next(VM_GOAL_STAY, s).does, VM_END_THERE);
}

static void test_memory_that_went_without_a_halt_is_no_move(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_LEFT, .memory = VM_MEMORY_COMPLETED), .is_begun = true, .is_sent = true };

	(void)state;
	assert_int_equal(next(VM_GOAL_READY, s).why, VM_WHY_TOO_FAR);
}

static void test_what_somebody_started_there_is_not_decided_for(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_LEFT, .memory = VM_MEMORY_COMPLETED),
			     .there = KNOWN(.run = VM_RUN_RUNNING, .memory = VM_MEMORY_COMPLETED), .is_begun = true, .is_sent = true };

	(void)state;
	assert_int_equal(next(VM_GOAL_WHOLE, s).why, VM_WHY_RUNS_THERE);
}

static void test_one_that_was_continued_here_is_not_run_there(void **state)
{
	struct vm_seen s = { .here = KNOWN(.run = VM_RUN_RUNNING, .memory = VM_MEMORY_COMPLETED),
			     .there = KNOWN(.run = VM_RUN_PAUSED, .memory = VM_MEMORY_COMPLETED), .is_begun = true };

	(void)state;
	assert_int_equal(next(VM_GOAL_MOVE, s).why, VM_WHY_RUNS_HERE);
}

static void test_names_that_nobody_knows(void **state)
{
	(void)state;
	assert_int_equal(vm_run_of("colo"), VM_RUN_OTHER);
	assert_int_equal(vm_run_of("postmigrate"), VM_RUN_LEFT);
	assert_int_equal(vm_memory_of("postcopy-active"), VM_MEMORY_OTHER);
	assert_int_equal(vm_memory_of(NULL), VM_MEMORY_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_it_moves_where_nothing_goes_wrong), cmocka_unit_test(test_whatever_goes_wrong_whenever),
		cmocka_unit_test(test_a_qemu_that_does_not_wait_is_not_sent_to),
		cmocka_unit_test(test_a_vm_that_somebody_else_migrates_is_let_be),
		cmocka_unit_test(test_one_that_was_paused_before_stays_paused),
		cmocka_unit_test(test_one_whose_disks_somebody_else_had_is_not_run),
		cmocka_unit_test(test_one_whose_disks_are_on_both_sides_is_run_on_neither),
		cmocka_unit_test(test_a_guest_that_shut_down_is_no_vm_that_stands_still),
		cmocka_unit_test(test_a_qemu_there_that_took_nothing_is_not_ended),
		cmocka_unit_test(test_memory_that_went_without_a_halt_is_no_move),
		cmocka_unit_test(test_what_somebody_started_there_is_not_decided_for),
		cmocka_unit_test(test_one_that_was_continued_here_is_not_run_there),
		cmocka_unit_test(test_names_that_nobody_knows),
	};

	return cmocka_run_group_tests_name("vm", tests, NULL, NULL);
}
