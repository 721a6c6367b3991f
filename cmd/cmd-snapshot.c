/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-snapshot - sxm snapshot: several volumes as they are at one moment
 *
 *      SR KEY... | SR/KEY...  ->  directories and keys  ->  snapshot_group()  ->  what was made, as lines or as JSON
 *
 * It is the last slash that stands before a key, so an SR may be a directory or a URI there, too.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "cmd/cmd.h"
#include "cmd/find.h"
#include "plugins/snapshot-group.h"

enum status { TAKEN = 0, NONE_TAKEN = 1, USAGE = 2 };

struct answer_item {
	char *sr, *volume, *snapshot;
	double held_ms;
};
static const struct jsonspec_field item_fields[] = {
	{ "sr", JS_STRING, offsetof(struct answer_item, sr) },
	{ "volume", JS_STRING, offsetof(struct answer_item, volume) },
	{ "snapshot", JS_STRING, offsetof(struct answer_item, snapshot) },
	{ "held_ms", JS_FLOAT, offsetof(struct answer_item, held_ms) },
	{ NULL },
};
static const struct jsonspec item_spec = { "snapshot", sizeof(struct answer_item), item_fields };

struct answer {
	char *group, *time;
	double held_ms;
	struct jsonspec_records snapshots;
};
static const struct jsonspec_field answer_fields[] = {
	{ "group", JS_STRING, offsetof(struct answer, group) },
	{ "time", JS_STRING, offsetof(struct answer, time) },
	{ "held_ms", JS_FLOAT, offsetof(struct answer, held_ms) },
	{ "snapshots", JS_RECORDS, offsetof(struct answer, snapshots), .sub = &item_spec },
	{ NULL },
};
static const struct jsonspec answer_spec = { "snapshots", sizeof(struct answer), answer_fields };

/* --- what was made */

static double longest_ms(const struct snapshot_group *g)
{
	uint64_t longest_us = 0;

	for (size_t i = 0; i < g->count; i++)
		longest_us = MAX(longest_us, g->member[i].held_us);
	return (double)longest_us / 1000;
}

static char *encode(const struct snapshot_group *g)
{
	CLEANUP_FREE struct answer_item *items = calloc(g->count, sizeof(*items));
	const struct answer a = { .group = (char *)(uintptr_t)g->id, .time = (char *)(uintptr_t)g->time,
				  .held_ms = longest_ms(g), .snapshots = { g->count, items } };

	for (size_t i = 0; items && i < g->count; i++)
		items[i] = (struct answer_item) {
			.sr = (char *)(uintptr_t)g->member[i].dir, .volume = (char *)(uintptr_t)g->member[i].key,
			.snapshot = g->member[i].new_key, .held_ms = (double)g->member[i].held_us / 1000,
		};
	return items ? jsonspec_encode(&answer_spec, &a) : NULL;
}

static void print(const struct snapshot_group *g, bool is_json)
{
	CLEANUP_FREE char *text = is_json ? encode(g) : NULL;

	if (is_json) {
		printf("%s\n", text ? text : "{}");
		return;
	}
	for (size_t i = 0; i < g->count; i++)
		printf("%s/%s: %s\n", g->member[i].dir, g->member[i].key, g->member[i].new_key);
	printf("group %s: %zu volume%s as of one moment, guests were held for %.1f ms\n", g->id, g->count,
	       g->count == 1 ? "" : "s", longest_ms(g));
}

/* --- what is meant */

struct request {
	struct snapshot_member member[SNAPSHOT_GROUP_MAX];
	char *dir[SNAPSHOT_GROUP_MAX]; /* owned */
	size_t count;
};

static void clear(struct request *r)
{
	for (size_t i = 0; i < r->count; i++)
		free(r->dir[i]);
}

static int add(struct request *r, const char *sr, const char *key, struct error *e)
{
	char *dir = find_sr_dir(sr, e);

	if (!dir)
		return -1;
	r->dir[r->count] = dir;
	r->member[r->count++] = (struct snapshot_member) { .dir = dir, .key = key };
	return 0;
}

/* sr: NULL: each argument says it. */
static int add_all(struct request *r, const char *sr, char **arg, int count, struct error *e)
{
	for (int i = 0; i < count; i++) {
		const char *slash = strrchr(arg[i], '/');
		CLEANUP_FREE char *own = slash ? strndup(arg[i], (size_t)(slash - arg[i])) : NULL;

		if (add(r, sr ? sr : own ? own : "", sr ? arg[i] : slash + 1, e) == -1)
			return -1;
	}
	return 0;
}

static int take(const char *sr, char **arg, int count, bool is_json)
{
	CLEANUP_FREE struct request *r = calloc(1, sizeof(*r));
	struct snapshot_group g;
	struct error e = { 0 };
	int status = NONE_TAKEN;

	if (!r)
		error_set(&e, ENOMEM, "out of memory");
	else if (add_all(r, sr, arg, count, &e) == 0) {
		g = (struct snapshot_group) { .member = r->member, .count = r->count };
		if (snapshot_group(&g, &e) == 0) {
			print(&g, is_json);
			status = TAKEN;
		}
	}
	if (r)
		clear(r);
	if (status != TAKEN)
		fprintf(stderr, "sxm snapshot: no snapshot was taken: %s\n", e.text);
	return status;
}

static int complain(const char *what)
{
	fprintf(stderr, "sxm snapshot: %s\n", what);
	return CMD_USAGE;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { NULL, 0, NULL, 0 } };
	bool is_json = false, has_sr;
	int c, count;

	while ((c = getopt_long(argc, argv, "j", options, NULL)) != -1) {
		if (c == '?')
			return CMD_USAGE;
		is_json = true;
	}
	argv += optind;
	count = argc - optind;
	if (!count)
		return complain("of which volumes? An SR and keys of volumes in it are missing");
	has_sr = count > 1 && !strchr(argv[1], '/');
	for (int i = has_sr; i < count; i++)
		if (!has_sr != !!strchr(argv[i], '/'))
			return complain(has_sr ? "after an SR come keys, which have no slash" : "of an SR no key is given");
	if (count - has_sr > (int)SNAPSHOT_GROUP_MAX)
		return complain("that many volumes cannot be snapshotted together");
	return take(has_sr ? argv[0] : NULL, argv + has_sr, count - has_sr, is_json);
}

const struct cmd cmd_snapshot = {
	.name = "snapshot",
	.summary = "take snapshots of several volumes at one moment, of all or of none",
	.usage = "sxm snapshot [--json] SR KEY... | SR/KEY...\n"
		 "  SR      a directory, its file:// URI, or the uuid of an SR that is attached here\n"
		 "  KEY     a volume in it\n"
		 "  --json  say what was made as one line of JSON\n"
		 "exit status: 0 all were taken, 1 none was and nothing is left of any, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
