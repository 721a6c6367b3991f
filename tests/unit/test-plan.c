/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a move is refused for, said before anything is done, and all of it at once; what it would do, and how long that may take.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "migrate/plan.h"

#define TEXT(s) ((char *)(uintptr_t)(s))

static struct plan_user writer = { .domain = TEXT("3"), .active = true };
static struct plan_user two_writers[] = { { .domain = TEXT("3"), .active = true }, { .domain = TEXT("4"), .active = true } };

static struct plan_volume volume(void)
{
	return (struct plan_volume) {
		.sr = TEXT("file:///a"), .key = TEXT("k"), .name = TEXT("root"), .description = TEXT(""),
			.uri = TEXT("sxm:///a/k.raw"),
		.path = TEXT("/a/k.raw"), .id = TEXT("k-1"), .format = TEXT("raw"), .owner = TEXT("owned"), .operation = TEXT(""),
		.size_bytes = 1 << 30, .allocated_bytes = 100 << 20, .read_write = true, .domains = { 1, &writer },
	};
}

static const struct plan_sr place = {
	.sr = TEXT("file:///b"), .dir = TEXT("/b"), .uuid = TEXT("u"), .name = TEXT("far"), .type = TEXT("filebased"),
	.format = TEXT("raw"), .health = TEXT("Healthy"), .free_bytes = INT64_C(10) << 30, .total_bytes = INT64_C(20) << 30,
};

struct world {
	struct plan_volume v[2];
	struct plan_sr sr;
	const char *moving_in[2];
	struct plan_input in;
	struct plan plan;
};

static void make(struct world *w)
{
	struct error e;

	w->in.volume = w->v;
	w->in.sr = &w->sr;
	w->in.moving_in = w->moving_in;
	assert_int_equal(plan_make(&w->in, &w->plan, &e), 0);
}

static struct world good(void)
{
	return (struct world) {
		.v = { volume(), volume() }, .sr = place,
		.in = { .here = { .name = "here", .version = "1", .host = "h1", .run_dir = "/run/sxm" },
			.there = { .name = "b", .version = "1", .host = "h2", .run_dir = "/run/sxm", .round_trip_us = 500,
				   .rate_bytes_s = 100 << 20 }, .count = 1, .will_verify = true, .keep_s = 7 * 86400 },
	};
}

static void what_others_are_called_is_made_fit_for_a_terminal(void **state UNUSED)
{
	static char name[100000];
	struct world w = good();

	memset(name, 'x', sizeof(name) - 1);
	memcpy(name, "\033]0;a\n\302\233", 9);
	w.in.there.version = name;
	w.sr.health = name;
	make(&w);
	assert_true(w.plan.warnings.count + w.plan.refusals.count >= 1);
	for (size_t i = 0; i < w.plan.warnings.count + w.plan.refusals.count; i++) {
		const char *said = i < w.plan.warnings.count ? w.plan.warnings.item[i] :
							       w.plan.refusals.item[i - w.plan.warnings.count];

		assert_true(strlen(said) <= 480);
		assert_null(strpbrk(said, "\033\n\302"));
	}
	plan_clear(&w.plan);
}

static void is_refused(struct world w, const char *word)
{
	make(&w);
	assert_false(w.plan.is_possible);
	assert_int_equal(w.plan.refusals.count, 1);
	if (!strstr(w.plan.refusals.item[0], word))
		fail_msg("%s is not in: %s", word, w.plan.refusals.item[0]);
	plan_clear(&w.plan);
}

static void a_move_says_its_steps_and_how_long_they_take(void **state UNUSED)
{
	struct world w = good();

	make(&w);
	assert_true(w.plan.is_possible);
	assert_int_equal(w.plan.warnings.count, 0);
	assert_int_equal(w.plan.steps.count, 7);
	assert_int_equal(w.plan.bytes, 100 << 20);
	assert_int_equal(w.plan.duration_ms, 1000);
	assert_in_range(w.plan.downtime_ms, 1, 50);
	plan_clear(&w.plan);
}

static void a_limit_makes_it_longer(void **state UNUSED)
{
	struct world w = good();

	w.in.bandwidth_bytes_s = 10 << 20;
	make(&w);
	assert_int_equal(w.plan.duration_ms, 10000);
	plan_clear(&w.plan);
}

static void each_reason_has_its_sentence(void **state UNUSED)
{
	struct world w;

	w = good(), w.v[0].owner = TEXT("given"), is_refused(w, "moved away");
	w = good(), w.v[0].owner = TEXT("receiving"), is_refused(w, "receives a mirror");
	w = good(), w.v[0].owner = TEXT("incomplete"), is_refused(w, "half way");
	w = good(), w.v[0].operation = TEXT("k-1.4"), is_refused(w, "k-1.4");
	w = good(), w.v[0].domains = (struct jsonspec_records) { 2, two_writers }, is_refused(w, "2 guests");
	w = good(), w.v[0].sharable = true, is_refused(w, "sharable");
	w = good(), w.v[0].read_write = false, is_refused(w, "copied, not moved");
	w = good(), w.v[0].size_bytes = 1000, is_refused(w, "1000 bytes");
	w = good(), w.moving_in[0] = "m12", is_refused(w, "--resume m12");
	w = good(), w.sr.free_bytes = 50 << 20, is_refused(w, "free");
	w = good(), w.sr.health = TEXT("Unreachable"), is_refused(w, "Unreachable");
	w = good(), w.in.no_way = "b is not reached", is_refused(w, "b is not reached");
	w = good(), w.in.count = 2, is_refused(w, "twice");
	w = good(), w.in.there.host = "h1", w.sr.sr = TEXT("file:///a"), is_refused(w, "already");
}

static void all_reasons_are_said_at_once(void **state UNUSED)
{
	struct world w = good();

	w.v[0].sharable = true;
	w.v[0].owner = TEXT("given");
	w.sr.health = TEXT("Unreachable");
	make(&w);
	assert_int_equal(w.plan.refusals.count, 3);
	plan_clear(&w.plan);
}

static void what_may_not_fit_later_is_a_warning(void **state UNUSED)
{
	struct world w = good();

	w.sr.free_bytes = 500 << 20;
	w.in.there.version = "2";
	make(&w);
	assert_true(w.plan.is_possible);
	assert_int_equal(w.plan.warnings.count, 2);
	plan_clear(&w.plan);
}

/* A mirror that failed is no reason: it is over. */
static void what_failed_before_is_none(void **state UNUSED)
{
	struct world w = good();

	w.v[0].operation = TEXT("k-1.4");
	w.v[0].operation_failed = true;
	w.v[0].domains.count = 0;
	make(&w);
	assert_true(w.plan.is_possible);
	plan_clear(&w.plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_move_says_its_steps_and_how_long_they_take), cmocka_unit_test(a_limit_makes_it_longer),
		cmocka_unit_test(each_reason_has_its_sentence), cmocka_unit_test(all_reasons_are_said_at_once),
		cmocka_unit_test(what_may_not_fit_later_is_a_warning), cmocka_unit_test(what_failed_before_is_none),
		cmocka_unit_test(what_others_are_called_is_made_fit_for_a_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
