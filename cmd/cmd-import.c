/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-import - sxm import: a stream of `sxm export` becomes a volume
 *
 *      qcow2: head -> which clusters there are, of which content -> a delta: on which of the SR's volumes? -> a clone of that
 *                                                                   else: a blank volume
 *             -> zeros, data -> is that the end? -> it has its name
 *      raw:   as many bytes as were said, or as the file has
 *
 * A stream comes from anybody, and may end anywhere: until it is whole the volume is called incomplete, and if it is not it goes.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/size.h"
#include "cmd/cmd.h"
#include "cmd/content.h"
#include "cmd/find.h"
#include "cmd/incoming.h"
#include "cmd/say.h"
#include "cmd/signals.h"
#include "cmd/stream-in.h"
#include "cmd/stream-progress.h"
#include "plugins/meta.h"
#include "qcow2/qcow2-stream.h"

enum status { IMPORTED = 0, NOT_IMPORTED = 1, USAGE = 2 };
enum option_value { FORMAT = 1, NAME, BASE, SIZE, JSON, PROGRESS, QUIET };

struct wish {
	const char *sr, *name, *base; /* borrowed; NULL: not said */
	uint64_t size_bytes;
	bool is_raw, has_size, is_json, wants_lines, is_quiet;
};

/* --- the base */

/* Of the SR's volumes one with that content; heap. */
static char *find_base(const char *dir, const struct wish *w, const char *id, struct error *e)
{
	struct jsonspec_list keys;
	char *found = NULL;

	if (w->base) {
		if (meta_is_key(w->base) && content_is(dir, w->base, id))
			return strdup(w->base);
		error_set(e, EINVAL, "volume %s is not what the stream stands on: that has content %s", w->base, id);
		return NULL;
	}
	if (meta_list(dir, &keys, e) == -1)
		return NULL;
	for (size_t i = 0; i < keys.count && !found; i++)
		if (content_is(dir, keys.item[i], id))
			found = strdup(keys.item[i]);
	meta_list_clear(&keys);
	if (!found)
		error_set(e, ENOENT, "what the stream stands on is not here: no volume has content %s; import that first", id);
	return found;
}

/* --- qcow2 */

static int read_head(struct qcow2_stream *s, uint8_t *cluster, struct error *e)
{
	struct qcow2_stream_reader r;
	int took = 0;

	if (stream_in_read(cluster, QCOW2_STREAM_CLUSTER, e) == -1 || qcow2_stream_read(&r, s, cluster, e) == -1)
		return -1;
	while (took == 0)
		took = stream_in_read(cluster, QCOW2_STREAM_CLUSTER, e) == 0 ? qcow2_stream_take(&r, cluster, e) : -1;
	qcow2_stream_reader_fini(&r);
	if (took == -1)
		qcow2_stream_fini(s);
	return took == 1 ? 0 : -1;
}

static int write_zeros(struct incoming *in, const struct bitmap *zero, struct error *e)
{
	uint64_t end;

	for (uint64_t i = bitmap_next(zero, 0); i < bitmap_bits(zero); i = bitmap_next(zero, end)) {
		end = bitmap_next_clear(zero, i);
		if (incoming_zero(in, i * QCOW2_STREAM_CLUSTER, (end - i) * QCOW2_STREAM_CLUSTER, e) == -1)
			return -1;
	}
	return 0;
}

static struct stream_progress *begin_progress(const struct wish *w, uint64_t bytes)
{
	return w->is_quiet ? NULL : stream_progress_new("importing", w->name, bytes, w->wants_lines);
}

static int write_data(struct incoming *in, const struct bitmap *data, struct stream_progress *progress, uint8_t *cluster,
		      struct error *e)
{
	for (uint64_t i = bitmap_next(data, 0); i < bitmap_bits(data); i = bitmap_next(data, i + 1)) {
		if (stream_in_read(cluster, QCOW2_STREAM_CLUSTER, e) == -1 ||
		    incoming_write(in, i * QCOW2_STREAM_CLUSTER, cluster, QCOW2_STREAM_CLUSTER, e) == -1)
			return -1;
		stream_progress_add(progress, QCOW2_STREAM_CLUSTER);
	}
	return stream_in_check_end(e);
}

static int fill_qcow2(const struct wish *w, const char *dir, const struct qcow2_stream *s, uint8_t *cluster, char **key,
		      struct error *e)
{
	CLEANUP_FREE char *base = *s->base ? find_base(dir, w, s->base, e) : NULL;
	struct stream_progress *progress;
	struct incoming in;
	int r;

	if (*s->base && !base)
		return -1;
	if (!*s->base && w->base)
		return error_set(e, EINVAL, "the stream is a whole disk, and stands on nothing: leave --base out");
	if (incoming_open(&in, dir, base, s->base, w->name, s->size_bytes, e) == -1)
		return -1;
	progress = begin_progress(w, bitmap_count(s->data) * QCOW2_STREAM_CLUSTER);
	r = write_zeros(&in, s->zero, e) == 0 ? write_data(&in, s->data, progress, cluster, e) : -1;
	stream_progress_end(progress, r == 0);
	if (r == 0)
		r = incoming_finish(&in, s->content, key, e);
	incoming_close(&in);
	return r;
}

static int import_qcow2(const struct wish *w, const char *dir, char **key, struct error *e)
{
	CLEANUP_FREE uint8_t *cluster = malloc(QCOW2_STREAM_CLUSTER);
	struct qcow2_stream s;
	int r;

	if (!cluster)
		return error_set(e, ENOMEM, "out of memory");
	if (read_head(&s, cluster, e) == -1)
		return -1;
	r = fill_qcow2(w, dir, &s, cluster, key, e);
	qcow2_stream_fini(&s);
	return r;
}

/* --- raw */

static bool is_zero(const uint8_t *data, size_t bytes)
{
	return !*data && memcmp(data, data + 1, bytes - 1) == 0;
}

static int copy_raw(struct incoming *in, uint64_t bytes, struct stream_progress *progress, uint8_t *block, struct error *e)
{
	for (uint64_t at = 0; at < bytes; at += QCOW2_STREAM_CLUSTER) {
		size_t now = (size_t)MIN(QCOW2_STREAM_CLUSTER, bytes - at), whole = (now + 511) / 512 * 512;

		if (stream_in_read(block, now, e) == -1)
			return -1;
		memset(block + now, 0, whole - now);
		if (!is_zero(block, whole) && incoming_write(in, at, block, whole, e) == -1)
			return -1;
		stream_progress_add(progress, now);
	}
	return stream_in_check_end(e);
}

static int import_raw(const struct wish *w, const char *dir, char **key, struct error *e)
{
	CLEANUP_FREE uint8_t *block = malloc(QCOW2_STREAM_CLUSTER);
	int64_t found = stream_in_bytes();
	uint64_t bytes = w->has_size ? w->size_bytes : found < 0 ? 0 : (uint64_t)found;
	struct stream_progress *progress;
	struct incoming in;
	int r;

	if (!block)
		return error_set(e, ENOMEM, "out of memory");
	if (!bytes || bytes > QCOW2_STREAM_SIZE_MAX)
		return error_set(e, EINVAL, "a raw stream does not say where it ends, so that it could be known to be whole: "
				 "say --size");
	if (incoming_open(&in, dir, NULL, NULL, w->name, (bytes + 511) / 512 * 512, e) == -1)
		return -1;
	progress = begin_progress(w, bytes);
	r = copy_raw(&in, bytes, progress, block, e);
	stream_progress_end(progress, r == 0);
	if (r == 0)
		r = incoming_finish(&in, "", key, e);
	incoming_close(&in);
	return r;
}

/* --- the command */

struct answer {
	char *volume;
};
static const struct jsonspec_field answer_fields[] = { { "volume", JS_STRING, offsetof(struct answer, volume) }, { NULL } };
static const struct jsonspec answer_spec = { "imported", sizeof(struct answer), answer_fields };

static int say_end(const struct wish *w, char *key)
{
	const struct answer a = { key };
	CLEANUP_FREE char *json = w->is_json ? jsonspec_encode(&answer_spec, &a) : NULL;

	if (w->is_json)
		return say_json(json);
	say_text(stdout, key);
	putchar('\n');
	return 0;
}

static int do_import(const struct wish *w)
{
	struct error e = { 0 };
	CLEANUP_FREE char *dir = find_sr_dir(w->sr, &e);
	CLEANUP_FREE char *key = NULL;
	struct meta_sr m;
	int r = -1;

	signals_hold();
	if (dir && meta_sr_read(dir, &m, &e) == 0) {
		meta_sr_clear(&m);
		r = w->is_raw ? import_raw(w, dir, &key, &e) : import_qcow2(w, dir, &key, &e);
	}
	if (r == 0)
		return say_end(w, key) == 0 ? IMPORTED : NOT_IMPORTED;
	fprintf(stderr, "sxm import: nothing was imported: %s\n", e.text);
	return NOT_IMPORTED;
}

static bool take_option(struct wish *w, int c)
{
	switch (c) {
	case FORMAT: w->is_raw = strcmp(optarg, "raw") == 0; return w->is_raw || strcmp(optarg, "qcow2") == 0;
	case NAME: w->name = optarg; return true;
	case BASE: w->base = optarg; return true;
	case SIZE: w->has_size = true; return size_parse(optarg, &w->size_bytes);
	case JSON: w->is_json = true; return true;
	case PROGRESS: w->wants_lines = true; return true;
	case QUIET: w->is_quiet = true; return true;
	default: return false;
	}
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "format", required_argument, NULL, FORMAT }, { "name", required_argument, NULL, NAME },
		{ "base", required_argument, NULL, BASE }, { "size", required_argument, NULL, SIZE },
		{ "json", no_argument, NULL, JSON }, { "progress", no_argument, NULL, PROGRESS },
		{ "quiet", no_argument, NULL, QUIET }, { NULL, 0, NULL, 0 },
	};
	struct wish w = { .name = "imported" };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(&w, c))
			return CMD_USAGE;
	if (argc - optind != 1 || (w.is_raw ? w.base != NULL : w.has_size))
		return CMD_USAGE;
	w.sr = argv[optind];
	return do_import(&w);
}

const struct cmd cmd_import = {
	.name = "import",
	.summary = "make a volume of what `sxm export` wrote",
	.usage = "sxm import [--name NAME] [--base KEY] [--progress | --quiet] [--json] SR <STREAM\n"
		 "       sxm import --format raw [--size SIZE] [--name NAME] [--progress | --quiet] [--json] SR <STREAM\n"
		 "  SR           a directory, its file:// URI, or the uuid of an SR that is attached here\n"
		 "  --name NAME  of the new volume\n"
		 "  --base KEY   the volume that a delta stands on; else one with that content is looked for\n"
		 "  --size SIZE  of a raw stream, which may be a pipe's; a file's is known\n"
		 "  --progress   say how far it is on standard error, also where that is no terminal; --quiet: nowhere\n"
		 "exit status: 0 it is there, 1 nothing is, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
