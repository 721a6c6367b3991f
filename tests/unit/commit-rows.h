/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * commit-rows - records, links and what is expected of a verdict: for the tests of mirror/commit
 */
#ifndef SXM_TESTS_COMMIT_ROWS_H
#define SXM_TESTS_COMMIT_ROWS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "mirror/commit.h"

static inline struct commit_record record(enum commit_state state, uint64_t epoch)
{
	struct commit_record r;

	commit_record_init(&r);
	r.state = state;
	r.epoch = epoch;
	if (state == COMMIT_OWNED)
		return r;
	r.role = state == COMMIT_OFFERED || state == COMMIT_GIVEN ? COMMIT_ROLE_SOURCE : COMMIT_ROLE_FAR;
	strcpy(r.mirror, "m");
	r.generation = 3;
	r.since = r.role == COMMIT_ROLE_FAR ? 2 : 0;
	r.was_written = r.role == COMMIT_ROLE_SOURCE;
	return r;
}

/* Its mirror is running. */
static inline struct commit_record source(uint64_t epoch)
{
	struct commit_record r = record(COMMIT_GIVEN, epoch);

	r.state = COMMIT_OWNED;
	return r;
}

/* Its guest runs here, after a move. */
static inline struct commit_record taken(uint64_t epoch)
{
	struct commit_record r = record(COMMIT_ELIGIBLE, epoch);

	r.state = COMMIT_OWNED;
	r.was_written = true;
	return r;
}

static inline struct commit_link link_of(uint64_t epoch, uint64_t generation)
{
	return (struct commit_link){ .mirror = "m", .epoch = epoch, .generation = generation };
}

static inline void expect(struct commit_verdict v, enum commit_does does, enum commit_state state, uint64_t epoch)
{
	assert_int_equal(v.does, does);
	assert_string_equal(commit_state_name(v.next.state), commit_state_name(state));
	assert_int_equal(v.next.epoch, epoch);
	assert_true(commit_record_is_valid(&v.next));
}

/* Nothing becomes of it. */
static inline void refused(struct commit_verdict v, enum commit_why why)
{
	assert_int_equal(v.does, COMMIT_REFUSE);
	assert_int_equal(v.why, why);
	assert_false(v.is_changed);
}

static inline void answered(struct commit_verdict v, enum commit_status status, bool is_changed, enum commit_state state, uint64_t epoch)
{
	assert_int_equal(v.status, status);
	assert_int_equal(v.does, status == COMMIT_STATUS_OK ? COMMIT_ALLOW : COMMIT_REFUSE);
	assert_int_equal(v.is_changed, is_changed);
	assert_string_equal(commit_state_name(v.next.state), commit_state_name(state));
	assert_int_equal(v.next.epoch, epoch);
	assert_true(commit_record_is_valid(&v.next));
}

#endif
