/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is seen of a disk follows from its status, whatever that says, and what follows from two of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/eta.h"
#include "migrate/view.h"

#define OPERATION "{\"id\":\"%s\",\"copy\":%s,\"state\":\"%s\",\"failed\":%s,\"complete\":%s,\"why\":\"%s\",\"linked\":%s," \
	"\"total_bytes\":%llu,\"dirty_bytes\":%llu,\"sent_bytes\":%llu,\"rate_bytes\":1000000,\"pace_why\":\"\"," \
	"\"far_latency_us\":2000,\"far_flush_us\":7000,\"lag_bytes\":0}"

static struct move_view view;
static struct error e;

static int begin(void **state)
{
	(void)state;
	view = (struct move_view){ 0 };
	return view_add_disk(&view, "root", &e) ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	view_clear(&view);
	return 0;
}

static void look(int64_t now_ms, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void look(int64_t now_ms, const char *fmt, ...)
{
	static char text[16384];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	assert_int_equal(view_from_status(&view.disk[0], text, NULL, &e), 0);
	view.now_ms = now_ms;
	view_advance(&view);
}

static void the_newest_mirror_is_meant(void **state)
{
	struct move_disk *d = &view.disk[0];

	(void)state;
	look(1000, "{\"size_bytes\":4096,\"operations\":[" OPERATION "," OPERATION "," OPERATION "]}",
	     "m.1", "false", "failed", "true", "false", "gone", "false", 100ull, 50ull, 50ull,
	     "m.2", "false", "syncing", "false", "false", "", "true", 200ull, 50ull, 150ull,
	     "c.3", "true", "syncing", "false", "false", "", "true", 100ull, 50ull, 50ull);
	assert_string_equal(d->operation, "m.2");
	assert_string_equal(d->state, "syncing");
	assert_string_equal(d->why, "");
	assert_int_equal(d->total_bytes, 200);
	assert_int_equal(d->done_bytes, 150);
	assert_int_equal(d->size_bytes, 4096);
}

static void an_operation_that_is_asked_for_is_the_one(void **state)
{
	struct move_disk *d = &view.disk[0];
	const char *text = "{\"operations\":[{\"id\":\"a\",\"state\":\"failed\",\"failed\":true,\"why\":\"the disk is full\"},"
			   "{\"id\":\"b\",\"state\":\"synced\"}]}";

	(void)state;
	assert_int_equal(view_from_status(d, text, "a", &e), 0);
	assert_string_equal(d->why, "the disk is full");
	assert_true(d->is_failed);
	assert_int_equal(view_from_status(d, text, "x", &e), 0);
	assert_string_equal(d->state, "");
	assert_int_equal(view_from_status(d, "{\"operations\":7}", "a", &e), -1);
	assert_int_equal(view_from_status(d, "{\"operations\":[]", "a", &e), -1);
}

static void a_lost_link_is_said_to_be_the_reason(void **state)
{
	(void)state;
	look(1000, "{\"operations\":[{\"id\":\"a\",\"state\":\"broken\",\"linked\":false,\"links_lost\":1}]}");
	assert_non_null(strstr(view.disk[0].why, "lost"));
	view_lost(&view.disk[0], "its process does not answer");
	assert_string_equal(view.disk[0].state, "lost");
	assert_string_equal(view.disk[0].why, "its process does not answer");
	assert_string_equal(view.disk[0].operation, "a");
}

static void what_was_done_stays_done(void **state)
{
	(void)state;
	look(1000, "{\"operations\":[" OPERATION "]}", "m", "false", "syncing", "false", "false", "", "true", 100ull, 20ull, 80ull);
	look(2000, "{\"operations\":[" OPERATION "]}", "m", "false", "syncing", "false", "false", "", "true", 100ull, 60ull, 90ull);
	assert_int_equal(view.disk[0].done_bytes, 80);
	assert_int_equal(view.disk[0].dirty_bytes, 60);
	look(3000, "{\"operations\":[" OPERATION "]}", "n", "false", "syncing", "false", "false", "", "true", 100ull, 60ull, 90ull);
	assert_int_equal(view.disk[0].done_bytes, 40);
}

static void rates_and_latencies_are_of_the_interval(void **state)
{
	struct move_disk *d = &view.disk[0];

	(void)state;
	look(1000, "{\"domains\":[{\"domain\":\"3\",\"writes\":100,\"bytes_written\":1000,\"write_us\":90000,"
	     "\"write_times\":[[10,50],[1000,50]]},{\"domain\":\"MIR1\",\"writes\":7777,"
	     "\"bytes_written\":99999}],\"operations\":[{\"id\":\"m\",\"state\":\"syncing\",\"sent_bytes\":1000}]}");
	assert_int_equal(d->guest_latency_us, VIEW_UNKNOWN);
	look(3000, "{\"domains\":[{\"domain\":\"3\",\"writes\":200,\"bytes_written\":5000,\"write_us\":91000,"
	     "\"write_times\":[[10,50],[12,98],[1000,51],[5000,1]]}],"
	     "\"operations\":[{\"id\":\"m\",\"state\":\"syncing\",\"sent_bytes\":5000}]}");
	assert_int_equal(d->rate_bytes, 2000);
	assert_int_equal(d->guest_rate_bytes, 2000);
	assert_int_equal(d->guest_rate_ops, 50);
	assert_int_equal(d->guest_latency_us, 10);
	assert_int_equal(d->guest_p99_us, 1000);
}

static void a_process_that_began_anew_has_no_negative_rates(void **state)
{
	(void)state;
	look(1000, "{\"operations\":[{\"id\":\"m\",\"state\":\"syncing\",\"sent_bytes\":900000}]}");
	look(2000, "{\"operations\":[{\"id\":\"m\",\"state\":\"syncing\",\"sent_bytes\":500}]}");
	assert_int_equal(view.disk[0].rate_bytes, 500);
}

static void it_is_said_when_it_will_be_done(void **state)
{
	(void)state;
	for (unsigned s = 0; s <= 4; s++)
		look(1000 + s * 1000, "{\"operations\":[" OPERATION "]}", "m", "false", "syncing", "false", "false", "", "true",
		     10000000ull, 10000000ull - s * 1000000ull, s * 1000000ull);
	assert_in_range(view.disk[0].eta_ms, 5900, 6100);
	assert_in_range(view.eta_ms, 5900, 6100);
	assert_int_equal(view.downtime_ms, 6000 + 2 * 2 + 7);
	look(6000, "{\"operations\":[" OPERATION "]}", "m", "false", "synced", "false", "true", "", "true", 10000000ull, 0ull, 9000000ull);
	assert_int_equal(view.eta_ms, 0);
	assert_int_equal(view.downtime_ms, 11);
	look(7000, "{\"operations\":[" OPERATION "]}", "m", "false", "failed", "true", "false", "no", "false", 10000000ull, 5ull, 9000000ull);
	assert_int_equal(view.eta_ms, VIEW_UNKNOWN);
}

static void hostile_numbers_and_texts_fit(void **state)
{
	char name[3000], big[4096];

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	snprintf(big, sizeof(big), "{\"operations\":[{\"id\":\"%s\",\"state\":\"%s\",\"total_bytes\":-5,\"dirty_bytes\":-1}]}",
		 "i", name);
	look(1, "%s", big);
	assert_int_equal(strlen(view.disk[0].state), VIEW_STATE_MAX - 1);
	assert_int_equal(view.disk[0].total_bytes, 0);
	look(2, "{\"domains\":[{\"domain\":\"3\",\"write_times\":[[5,1],[5,1],[3,9],[-4,-4]]}],\"operations\":[{\"id\":\"i\",\"state\":\"\","
	     "\"total_bytes\":9223372036854775807,\"dirty_bytes\":9223372036854775807,\"sent_bytes\":9223372036854775807}]}");
	view_add_disk(&view, name, &e);
	assert_int_equal(strlen(view.disk[1].name), VIEW_NAME_MAX - 1);
}

static void disks_on_one_link_share_it(void **state)
{
	const int64_t left[] = { 200000, 2000000 }, unknown[] = { 5, ETA_UNKNOWN }, done[] = { 0, 70 };
	const double progress[] = { 50e6, 50e6 };

	(void)state;
	assert_int_equal(eta_together_ms(left, progress, 2), 1100000);
	assert_int_equal(eta_together_ms(unknown, progress, 2), ETA_UNKNOWN);
	assert_int_equal(eta_together_ms(done, progress, 2), 70);
	assert_int_equal(eta_together_ms(done, progress, 0), 0);
}

static void nothing_is_said_of_what_does_not_move(void **state)
{
	struct eta m = { 0 };
	struct eta_sample s = { .at_ms = 0, .total_bytes = 1000000, .owed_bytes = 1000000, .is_moving = true };

	(void)state;
	eta_note(&m, &s);
	assert_int_equal(eta_left_ms(&m), ETA_UNKNOWN);
	s.at_ms = 1000;
	s.owed_bytes = 900000;
	s.sent_bytes = 100000;
	eta_note(&m, &s);
	assert_in_range(eta_left_ms(&m), 8900, 9100);
	s.is_moving = false;
	eta_note(&m, &s);
	assert_int_equal(eta_left_ms(&m), ETA_UNKNOWN);
	s.is_moving = true; /* the link is back; the time between is no sign of slowness */
	s.at_ms = 60000;
	eta_note(&m, &s);
	s.at_ms = 61000;
	s.owed_bytes = 800000;
	s.sent_bytes = 200000;
	eta_note(&m, &s);
	assert_in_range(eta_left_ms(&m), 7900, 8100);
	s.is_done = true;
	eta_note(&m, &s);
	assert_int_equal(eta_left_ms(&m), 0);
	assert_int_equal(eta_downtime_ms(5, 0, 0, 0), ETA_UNKNOWN);
	assert_int_equal(eta_downtime_ms(0, 0, 1000, 500), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_newest_mirror_is_meant, begin, end),
		cmocka_unit_test_setup_teardown(an_operation_that_is_asked_for_is_the_one, begin, end),
		cmocka_unit_test_setup_teardown(a_lost_link_is_said_to_be_the_reason, begin, end),
		cmocka_unit_test_setup_teardown(what_was_done_stays_done, begin, end),
		cmocka_unit_test_setup_teardown(rates_and_latencies_are_of_the_interval, begin, end),
		cmocka_unit_test_setup_teardown(a_process_that_began_anew_has_no_negative_rates, begin, end),
		cmocka_unit_test_setup_teardown(it_is_said_when_it_will_be_done, begin, end),
		cmocka_unit_test_setup_teardown(hostile_numbers_and_texts_fit, begin, end),
		cmocka_unit_test(disks_on_one_link_share_it),
		cmocka_unit_test(nothing_is_said_of_what_does_not_move),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
