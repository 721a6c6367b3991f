/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What was seen of a move is kept, in bounds, and drawn: the same picture from the same history, whatever its texts are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrate/history.h"
#include "migrate/picture.h"

#define GOLDEN UINT64_C(0x5ce14eaee7acb415)
#define HOSTILE "a<b>&\"'\033[2J\302\233\377</text>"

static char dir[] = "/tmp/sxm-history.XXXXXX";
static char path[64];
static struct move_view view;
static struct error e;

static int begin(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/sxm-history.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/m.history", dir);
	view = (struct move_view){ .phase = "mirroring", .started_ms = 1000000 };
	view_set_id(&view, "m");
	return view_add_disk(&view, HOSTILE, &e) ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	view_clear(&view);
	unlink(path);
	return rmdir(dir);
}

static void look(struct history *h, unsigned s)
{
	struct move_disk *d = &view.disk[0];

	view.now_ms = 1000000 + 1000 * (int64_t)s;
	d->total_bytes = 1000 * MiB;
	d->dirty_bytes = d->total_bytes - MIN(s, 1000u) * MiB;
	d->rate_bytes = MiB;
	d->guest_latency_us = 300;
	d->guest_p99_us = 2000;
	assert_int_equal(history_append(h, &view, &e), 0);
}

struct seen {
	unsigned count, held;
	int64_t first_ms, last_ms, widest_ms;
	char phases[256];
};

static void note(const struct move_view *v, void *arg)
{
	struct seen *s = arg;

	if (s->count)
		s->widest_ms = MAX(s->widest_ms, v->now_ms - s->last_ms);
	else
		s->first_ms = v->now_ms;
	s->held += v->held_ms && !v->released_ms;
	s->last_ms = v->now_ms;
	s->count++;
	if (!strstr(s->phases, v->phase))
		strcat(strcat(s->phases, v->phase), " ");
}

static void it_is_thinned_evenly_and_keeps_what_matters(void **state)
{
	struct history *h = history_open(path, 20000, &e);
	struct seen s = { .count = 0 };
	struct stat st;

	(void)state;
	assert_non_null(h);
	for (unsigned i = 0; i < 1000; i++) {
		view.phase = i == 333 ? "switching over" : i > 333 ? "verifying" : "mirroring";
		view.held_ms = i >= 331 ? 1331000 : 0;
		view.released_ms = i >= 334 ? 1334000 : 0;
		look(h, i);
		assert_int_equal(stat(path, &st), 0);
		assert_true(st.st_size <= 20000);
	}
	history_close(h);
	assert_int_equal(history_read(path, note, &s, &e), 0);
	assert_int_equal(s.first_ms, 1000000);
	assert_int_equal(s.last_ms, 1999000);
	assert_true(s.count > 15 && s.widest_ms <= 150000);
	assert_int_equal(s.held, 3);
	assert_string_equal(s.phases, "mirroring switching over verifying ");
}

static void a_line_cut_off_by_a_crash_is_passed_over(void **state)
{
	struct history *h = history_open(path, 0, &e);
	struct seen s = { .count = 0 };
	FILE *f;

	(void)state;
	look(h, 1);
	history_close(h);
	f = fopen(path, "a");
	fputs("{\"time\":5,\"id", f);
	fclose(f);
	h = history_open(path, 0, &e);
	look(h, 2);
	history_close(h);
	assert_int_equal(history_read(path, note, &s, &e), 0);
	assert_int_equal(s.count, 2);
	f = fopen(path, "w");
	fputs("hello\n", f);
	fclose(f);
	assert_int_equal(history_read(path, note, &s, &e), -1);
}

static void names_are_names(void **state)
{
	(void)state;
	assert_true(history_is_id("web-42.a_B"));
	assert_false(history_is_id(""));
	assert_false(history_is_id(".x"));
	assert_false(history_is_id("a/b"));
	assert_false(history_is_id("0123456789012345678901234567890123456789012345678901234567890123"));
}

static char *draw(unsigned seconds)
{
	struct picture *p = picture_new();
	char *svg;

	for (unsigned i = 0; i <= seconds; i++) {
		view.now_ms = 1000000 + 1000 * (int64_t)i;
		view.phase = i < 20 ? HOSTILE : "in sync";
		view.held_ms = i >= 30 ? 1029900 : 0;
		view.released_ms = i >= 30 ? 1029934 : 0;
		view.disk[0].total_bytes = 40 * MiB;
		view.disk[0].dirty_bytes = (40 - i) * MiB;
		view.disk[0].rate_bytes = (i + 1) * MiB;
		view.disk[0].guest_latency_us = i == 7 ? VIEW_UNKNOWN : 100 + (int64_t)i;
		view.disk[0].guest_p99_us = 900 + i;
		picture_add(p, &view);
	}
	svg = picture_svg(p);
	picture_free(p);
	return svg;
}

/* Of the bytes, FNV-1a: who changes the picture looks at it, and then changes this. */
static uint64_t digest(const char *text)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return h;
}

static void the_picture_is_the_one_that_was_looked_at(void **state)
{
	char *svg = draw(39), *again = draw(39);
	const char *to = getenv("SXM_PICTURE");

	(void)state;
	assert_string_equal(svg, again);
	assert_non_null(strstr(svg, "downtime 34 ms"));
	assert_non_null(strstr(svg, "40 MiB/s"));
	assert_non_null(strstr(svg, "a&lt;b&gt;&amp;&quot;&#39;?[2J"));
	assert_null(strstr(svg, "a<b>"));
	for (const char *p = svg; *p; p++)
		assert_true((unsigned char)*p >= 0x20 || *p == '\n');
	if (to) {
		FILE *f = fopen(to, "w");

		fputs(svg, f);
		fclose(f);
	}
	assert_int_equal(digest(svg), GOLDEN);
	free(svg);
	free(again);
}

static void little_is_drawn_too(void **state)
{
	char *svg = draw(0);
	struct picture *p = picture_new();
	char *none = picture_svg(p);

	(void)state;
	assert_non_null(strstr(svg, "</svg>"));
	assert_non_null(strstr(none, "</svg>"));
	assert_null(strstr(svg, "nan"));
	assert_null(strstr(none, "nan"));
	picture_free(p);
	free(svg);
	free(none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_is_thinned_evenly_and_keeps_what_matters, begin, end),
		cmocka_unit_test_setup_teardown(a_line_cut_off_by_a_crash_is_passed_over, begin, end),
		cmocka_unit_test(names_are_names),
		cmocka_unit_test_setup_teardown(the_picture_is_the_one_that_was_looked_at, begin, end),
		cmocka_unit_test_setup_teardown(little_is_drawn_too, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
