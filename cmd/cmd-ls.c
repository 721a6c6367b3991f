/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-ls - sxm ls: the SRs that are attached here, their volumes, who has them, and what their mirrors do
 *
 *      SRs that are named, or all -> listing -> one JSON object
 *                                            -> of each a line, and a table: snapshots below what they are of
 *
 * The tree is walked from those without a parent. What is in a circle has none that is reached from there: it comes last, flat.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "base/uri.h"
#include "cmd/cmd.h"
#include "cmd/find.h"
#include "cmd/listing.h"
#include "cmd/say.h"
#include "plugins/meta.h"
#include "plugins/sr.h"

enum status { LISTED = 0, NOT_ALL = 1, USAGE = 2 };

#define DEPTH_MAX 32u
#define WORD_BYTES 64

/* --- one volume's line */

static const char *user_word(const struct listing_user *u)
{
	return !u->is_active ? "attached" : u->is_read_only ? "reads" : "writes";
}

/* Who has it, as far as a column holds that. */
static void describe_users(const struct listing_volume *v, char out[static WORD_BYTES])
{
	const struct listing_user *u = v->users.item;
	size_t best = 0;

	if (v->trouble && !v->users.count)
		snprintf(out, WORD_BYTES, "?");
	else if (v->host)
		snprintf(out, WORD_BYTES, "host %.20s", v->host);
	else if (!v->users.count)
		snprintf(out, WORD_BYTES, "-");
	for (size_t i = 1; i < v->users.count; i++)
		if (u[i].is_active > u[best].is_active || (u[i].is_active && !u[i].is_read_only && u[best].is_read_only))
			best = i;
	if (v->users.count > 1)
		snprintf(out, WORD_BYTES, "%.12s %s +%zu", u[best].domain, user_word(&u[best]), v->users.count - 1);
	else if (v->users.count)
		snprintf(out, WORD_BYTES, "%.12s %s", u[0].domain, user_word(&u[0]));
}

static void describe_mirror(const struct listing_volume *v, char out[static WORD_BYTES])
{
	const struct listing_mirror *m = v->mirrors.item;

	if (v->mirrors.count)
		snprintf(out, WORD_BYTES, "%s%.10s %.0f%%", m->is_copy ? "copy " : "", m->is_failed ? "failed" : m->state,
			 100 * m->progress);
	else if (v->owner && *v->owner && strcmp(v->owner, "owned") != 0)
		snprintf(out, WORD_BYTES, "%.20s", v->owner);
	else
		snprintf(out, WORD_BYTES, "-");
}

static void print_column(const char *text, int width)
{
	printf("%-*s  ", width, text);
}

static void print_volume(const struct listing_volume *v, unsigned depth)
{
	char size[SIZE_TEXT_MAX], allocated[SIZE_TEXT_MAX], users[WORD_BYTES], mirror[WORD_BYTES];
	int indent = depth ? (int)(2 * depth) : 0;

	describe_users(v, users);
	describe_mirror(v, mirror);
	printf("  ");
	print_column(size_format((uint64_t)v->size_bytes, size), 9);
	print_column(v->is_data_destroyed ? "no data" : size_format((uint64_t)v->allocated_bytes, allocated), 9);
	print_column(v->format, 5);
	print_column(users, 16);
	print_column(mirror, 16);
	printf("%*s%s%-*s  ", indent ? indent - 2 : 0, "", indent ? "`-" : "", 36 + MAX(4 - indent, 0), v->key);
	say_text(stdout, v->name);
	if (v->is_snapshot && v->snapshot_time) {
		printf("  (snapshot of ");
		say_text(stdout, v->snapshot_time);
		printf(")");
	}
	if (v->trouble) {
		printf("  ");
		say_text(stdout, v->trouble);
	}
	putchar('\n');
}

/* --- the tree */

struct tree_walk {
	const struct listing_volume *volume;
	size_t count;
	size_t *first, *next; /* owned: children of each, in the order in which they were taken; LISTING_NONE: no more */
	bool *is_shown;       /* owned */
};

static bool is_before(const struct listing_volume *a, const struct listing_volume *b)
{
	int r = strcmp(a->snapshot_time ? a->snapshot_time : "", b->snapshot_time ? b->snapshot_time : "");

	return r ? r < 0 : strcmp(a->key, b->key) < 0;
}

static int by_time(const void *a, const void *b, void *arg)
{
	const struct listing_volume *v = arg;

	return is_before(&v[*(const size_t *)a], &v[*(const size_t *)b]) ? -1 : 1;
}

/* The last first, each put before the ones that are there. */
static int link_children(struct tree_walk *w)
{
	CLEANUP_FREE size_t *order = calloc(w->count + 1, sizeof(*order));

	if (!order)
		return -1;
	for (size_t i = 0; i < w->count; i++) {
		order[i] = i;
		w->first[i] = w->next[i] = LISTING_NONE;
	}
	qsort_r(order, w->count, sizeof(*order), by_time, (void *)(uintptr_t)w->volume);
	for (size_t i = w->count; i--;) {
		size_t child = order[i], parent = w->volume[child].parent;

		if (parent == LISTING_NONE || parent == child)
			continue;
		w->next[child] = w->first[parent];
		w->first[parent] = child;
	}
	return 0;
}

static void show(struct tree_walk *w, size_t i, unsigned depth)
{
	if (w->is_shown[i] || depth > DEPTH_MAX)
		return;
	w->is_shown[i] = true;
	print_volume(&w->volume[i], depth);
	for (size_t child = w->first[i]; child != LISTING_NONE; child = w->next[child])
		show(w, child, depth + 1);
}

static int print_tree(const struct listing *l)
{
	struct tree_walk w = { .volume = l->volumes.item, .count = l->volumes.count };
	int r = -1;

	w.first = calloc(w.count + 1, sizeof(*w.first));
	w.next = calloc(w.count + 1, sizeof(*w.next));
	w.is_shown = calloc(w.count + 1, sizeof(*w.is_shown));
	if (w.first && w.next && w.is_shown)
		r = link_children(&w);
	for (size_t i = 0; r == 0 && i < w.count; i++)
		if (w.volume[i].parent == LISTING_NONE)
			show(&w, i, 0);
	for (size_t i = 0; r == 0 && i < w.count; i++)
		show(&w, i, 0);
	free(w.first);
	free(w.next);
	free(w.is_shown);
	return r;
}

static int print_sr(const struct listing *l)
{
	printf("SR %s  ", l->uuid ? l->uuid : "?");
	say_text(stdout, l->dir);
	if (l->trouble) {
		printf("  ");
		say_text(stdout, l->trouble);
	}
	if (l->uuid) {
		printf("  %s%s, %zu volume%s  ", l->format ? l->format : "raw", l->is_shared ? ", shared" : "", l->volumes.count,
		       l->volumes.count == 1 ? "" : "s");
		say_text(stdout, l->name);
	}
	putchar('\n');
	if (!l->volumes.count)
		return 0;
	printf("  %-9s  %-9s  %-6s %-16s  %-16s  %-40s  %s\n", "SIZE", "USED", "FORMAT", "ACTIVE", "MIRROR", "KEY", "NAME");
	return print_tree(l);
}

/* --- which SRs */

struct report {
	struct jsonspec_records srs; /* struct listing */
};
static const struct jsonspec_field report_fields[] = {
	{ "srs", JS_RECORDS, offsetof(struct report, srs), .sub = &listing_spec }, { NULL }
};
static const struct jsonspec report_spec = { "listing", sizeof(struct report), report_fields };

/* Directories, heap. */
static int find_all(struct jsonspec_list *dirs, struct error *e)
{
	struct jsonspec_list handles;
	int r = 0;

	if (sr_attached(&handles, e) == -1)
		return -1;
	for (size_t i = 0; r == 0 && i < handles.count; i++) {
		struct error why;
		CLEANUP_FREE char *dir = uri_path(handles.item[i], "file", &why);

		if (dir)
			r = jsonspec_list_add(dirs, dir);
	}
	meta_list_clear(&handles);
	return r == 0 ? 0 : error_set(e, ENOMEM, "out of memory");
}

static int find_named(char **name, size_t count, struct jsonspec_list *dirs, struct error *e)
{
	for (size_t i = 0; i < count; i++) {
		CLEANUP_FREE char *dir = find_sr_dir(name[i], e);

		if (!dir)
			return -1;
		if (jsonspec_list_add(dirs, dir) == -1)
			return error_set(e, ENOMEM, "out of memory");
	}
	return 0;
}

static int look_at_all(const struct jsonspec_list *dirs, struct report *r)
{
	struct listing *l = calloc(dirs->count + 1, sizeof(*l));

	if (!l)
		return -1;
	r->srs.item = l;
	for (size_t i = 0; i < dirs->count; i++) {
		r->srs.count++; /* what there is of it is freed, too */
		if (listing_look(dirs->item[i], &l[i]) == -1)
			return -1;
	}
	return 0;
}

static int print_all(const struct report *r, bool is_json)
{
	CLEANUP_FREE char *text = is_json ? jsonspec_encode(&report_spec, r) : NULL;
	const struct listing *l = r->srs.item;

	if (is_json)
		return say_json(text);
	if (!r->srs.count)
		printf("no SR is attached here\n");
	for (size_t i = 0; i < r->srs.count; i++)
		if (print_sr(&l[i]) == -1)
			return -1;
	return 0;
}

static int list(char **name, size_t count, bool is_json)
{
	struct jsonspec_list dirs = { 0 };
	struct report r = { 0 };
	struct error e = { 0 };
	int status = NOT_ALL;

	if ((count ? find_named(name, count, &dirs, &e) : find_all(&dirs, &e)) == -1)
		fprintf(stderr, "sxm ls: %s\n", e.text);
	else if (look_at_all(&dirs, &r) == -1)
		fprintf(stderr, "sxm ls: out of memory\n");
	else if (print_all(&r, is_json) == 0)
		status = LISTED;
	for (size_t i = 0; i < r.srs.count; i++)
		if (((struct listing *)r.srs.item)[i].trouble)
			status = NOT_ALL;
	jsonspec_clear(&report_spec, &r);
	meta_list_clear(&dirs);
	return status;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { NULL, 0, NULL, 0 } };
	bool is_json = false;
	int c;

	while ((c = getopt_long(argc, argv, "j", options, NULL)) != -1) {
		if (c == '?')
			return CMD_USAGE;
		is_json = true;
	}
	return list(argv + optind, (size_t)(argc - optind), is_json);
}

const struct cmd cmd_ls = {
	.name = "ls",
	.summary = "list the SRs that are attached here, their volumes, who has them and what their mirrors do",
	.usage = "sxm ls [--json] [SR...]\n"
		 "  SR      a directory, its file:// URI, or the uuid of an SR that is attached here; none: all of those\n"
		 "  --json  one JSON object with all that is known\n"
		 "exit status: 0 all were listed, 1 not all of them could be, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
