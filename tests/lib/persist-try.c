/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How many region marks a second get to the medium of a directory, and how long one takes:
 *
 *      persist-try DIRECTORY [MARKS [AT-ONCE]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mirror/persist.h"

#define SIZE (2 * TiB)
#define AT_ONCE_MAX 1024u

struct one {
	struct persist_mark mark;
	uint64_t since_ns;
};

static struct loop *loop;
static struct persist *persist;
static struct one one[AT_ONCE_MAX];
static uint64_t wanted, begun, ended;
static uint64_t *took_ns;

static void begin(struct one *o)
{
	o->mark.region = begun++ % (SIZE / PERSIST_REGION_BYTES);
	o->since_ns = loop_now_ns();
	persist_mark(persist, &o->mark);
}

static void on_closed(void *arg UNUSED)
{
	loop_stop(loop);
}

static void on_done(struct persist_mark *m, int err, bool has_map UNUSED)
{
	struct one *o = container_of(m, struct one, mark);

	if (err) {
		fprintf(stderr, "persist-try: mark: %s\n", strerror(err));
		exit(1);
	}
	took_ns[ended++] = loop_now_ns() - o->since_ns;
	if (begun < wanted)
		begin(o);
	else if (ended == wanted)
		persist_close(persist, PERSIST_UNLINK, on_closed, NULL);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	unsigned at_once = argc > 3 ? (unsigned)atoi(argv[3]) : 1;
	char marks[512];
	struct persist_spec spec = {
		.map_path = "/dev/shm/persist-try.map", .marks_path = marks, .size_bytes = SIZE,
		.mirror_id = "try.1", .source_name = "a", .target_name = "b",
	};
	struct error e;
	uint64_t start_ns;

	if (argc < 2)
		return 2;
	wanted = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000;
	at_once = MIN(MAX(at_once, 1u), AT_ONCE_MAX);
	snprintf(marks, sizeof(marks), "%s/persist-try.marks", argv[1]);
	took_ns = calloc(wanted + 1, sizeof(*took_ns));
	spec.loop = loop = loop_new();
	persist = persist_new(&spec, &e);
	if (!persist) {
		fprintf(stderr, "persist-try: %s\n", e.text);
		return 1;
	}
	start_ns = loop_now_ns();
	for (unsigned i = 0; i < at_once && begun < wanted; i++) {
		one[i].mark.done = on_done;
		begin(&one[i]);
	}
	loop_run(loop);
	qsort(took_ns, wanted, sizeof(*took_ns), compare);
	printf("%u at once: %.0f marks/s; one takes %.2f ms (median), %.2f (99 of 100), %.2f (longest)\n", at_once,
	       (double)wanted * 1e9 / (double)(loop_now_ns() - start_ns), (double)took_ns[wanted / 2] / 1e6,
	       (double)took_ns[wanted * 99 / 100] / 1e6, (double)took_ns[wanted - 1] / 1e6);
	loop_free(loop);
	free(took_ns);
	return 0;
}
