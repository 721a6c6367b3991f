/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-export - sxm export: a disk, or what changed in it since a snapshot, on standard output
 *
 *      outgoing: held as it is, and which clusters have data -> qcow2: head, then those clusters, in order
 *                                                            -> raw: all of it; holes are skipped where the output is a file
 *      -> of a file: is it on the medium?
 *
 * A reader that goes away, or Ctrl-C, ends it; what was taken for it goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cmd/cmd.h"
#include "cmd/outgoing.h"
#include "cmd/signals.h"
#include "cmd/stream-progress.h"

enum status { EXPORTED = 0, NOT_EXPORTED = 1, USAGE = 2 };
enum option_value { FORMAT = 1, FROM_FORMAT, BASE, PROGRESS, QUIET };

#define PATIENCE_MS 200 /* between two looks for Ctrl-C */

struct wish {
	const char *from, *from_format, *base; /* borrowed; NULL: not said */
	bool is_raw, wants_lines, is_quiet;
};

/* --- bytes out */

static int wait_for_room(struct error *e)
{
	struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };

	for (;;) {
		int n = poll(&p, 1, PATIENCE_MS);

		if (signals_came(0))
			return error_set(e, EINTR, "it was cancelled");
		if (n == 1 || (n == -1 && errno != EINTR))
			return 0; /* write says what is wrong */
	}
}

static int write_out(const void *data, size_t bytes, struct error *e)
{
	const char *at = data;

	while (bytes) {
		ssize_t n;

		if (wait_for_room(e) == -1)
			return -1;
		n = write(STDOUT_FILENO, at, bytes);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return error_errno(e, errno, "write");
		if (n > 0) {
			at += n;
			bytes -= (size_t)n;
		}
	}
	return 0;
}

static int emit(void *progress, const void *cluster, struct error *e)
{
	stream_progress_add(progress, QCOW2_STREAM_CLUSTER);
	return write_out(cluster, QCOW2_STREAM_CLUSTER, e);
}

static int write_qcow2(struct outgoing *o, struct stream_progress *progress, struct error *e)
{
	const struct bitmap *data = o->stream.data;

	if (qcow2_stream_write_head(&o->stream, emit, progress, e) == -1)
		return -1;
	for (uint64_t i = bitmap_next(data, 0); i < bitmap_bits(data); i = bitmap_next(data, i + 1))
		if (outgoing_read(o, i, e) == -1 || emit(progress, o->side.block, e) == -1)
			return -1;
	return 0;
}

/* The output is a file that is written from where it is, and new there. What is appended goes behind the end wherever it is. */
static bool can_skip(void)
{
	struct stat st;
	off_t at = lseek(STDOUT_FILENO, 0, SEEK_CUR);
	int flags = fcntl(STDOUT_FILENO, F_GETFL);

	return flags >= 0 && !(flags & O_APPEND) && fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode) && at >= 0 &&
	       at == st.st_size;
}

static int write_raw(struct outgoing *o, struct stream_progress *progress, struct error *e)
{
	static const char zeros[QCOW2_STREAM_CLUSTER];
	const bool is_skipping = can_skip();
	const off_t begin = is_skipping ? lseek(STDOUT_FILENO, 0, SEEK_CUR) : 0;

	for (uint64_t i = 0; i < qcow2_stream_clusters(&o->stream); i++) {
		uint64_t at = i * QCOW2_STREAM_CLUSTER, bytes = MIN(QCOW2_STREAM_CLUSTER, o->stream.size_bytes - at);
		bool has_data = bitmap_test(o->stream.data, i);

		stream_progress_add(progress, bytes);
		if (has_data && outgoing_read(o, i, e) == -1)
			return -1;
		if (!has_data && is_skipping && lseek(STDOUT_FILENO, (off_t)bytes, SEEK_CUR) >= 0)
			continue;
		if (write_out(has_data ? o->side.block : zeros, bytes, e) == -1)
			return -1;
	}
	if (is_skipping && ftruncate(STDOUT_FILENO, begin + (off_t)o->stream.size_bytes) == -1)
		return error_errno(e, errno, "write");
	return 0;
}

/* Of a file or device: it is on the medium, or that is said. */
static int settle(struct error *e)
{
	struct stat st;

	if (fstat(STDOUT_FILENO, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) && fsync(STDOUT_FILENO) == -1 &&
	    errno != EINVAL && errno != EROFS)
		return error_errno(e, errno, "write");
	return close(STDOUT_FILENO) == -1 ? error_errno(e, errno, "write") : 0; /* NFS says here that there is no room */
}

/* --- the command */

static int do_export(const struct wish *w)
{
	struct stream_progress *progress = NULL;
	struct outgoing o;
	struct error e = { 0 }, second;
	int r;

	signals_hold();
	if (outgoing_open(&o, w->from, w->from_format, w->base, &e) == -1) {
		fprintf(stderr, "sxm export: %s\n", e.text);
		return NOT_EXPORTED;
	}
	if (!w->is_quiet)
		progress = stream_progress_new("exporting", w->from, w->is_raw ? o.stream.size_bytes :
					       qcow2_stream_total_bytes(&o.stream), w->wants_lines);
	r = w->is_raw ? write_raw(&o, progress, &e) : write_qcow2(&o, progress, &e);
	stream_progress_end(progress, r == 0);
	if (outgoing_close(&o, &second) == -1)
		fprintf(stderr, "sxm export: %s\n", second.text);
	if (r == 0)
		r = settle(&e);
	if (r == -1)
		fprintf(stderr, "sxm export: the stream is not whole: %s\n", e.text);
	return r == 0 ? EXPORTED : NOT_EXPORTED;
}

static bool take_format(const char *text, bool *is_raw)
{
	*is_raw = strcmp(text, "raw") == 0;
	return *is_raw || strcmp(text, "qcow2") == 0;
}

static int complain(const char *what)
{
	fprintf(stderr, "sxm export: %s\n", what);
	return CMD_USAGE;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "format", required_argument, NULL, FORMAT }, { "from-format", required_argument, NULL, FROM_FORMAT },
		{ "base", required_argument, NULL, BASE }, { "progress", no_argument, NULL, PROGRESS },
		{ "quiet", no_argument, NULL, QUIET }, { NULL, 0, NULL, 0 },
	};
	struct wish w = { 0 };
	bool is_raw;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == FORMAT ? !take_format(optarg, &w.is_raw) : c == FROM_FORMAT ? !take_format(optarg, &is_raw) : c == '?')
			return CMD_USAGE;
		w.wants_lines |= c == PROGRESS;
		w.is_quiet |= c == QUIET;
		if (c == FROM_FORMAT)
			w.from_format = optarg;
		if (c == BASE)
			w.base = optarg;
	}
	if (argc - optind != 1)
		return CMD_USAGE;
	if (w.is_raw && w.base)
		return complain("what is not as in the base can be said in qcow2 only");
	if (isatty(STDOUT_FILENO))
		return complain("a disk is not written to a terminal; redirect the output");
	w.from = argv[optind];
	return do_export(&w);
}

const struct cmd cmd_export = {
	.name = "export",
	.summary = "write a disk, or what changed in it since a snapshot, to standard output",
	.usage = "sxm export [--format qcow2|raw] [--base KEY] [--from-format raw|qcow2] [--progress | --quiet] SRC >STREAM\n"
		 "  SRC            a volume (SR/KEY), or a file or block device\n"
		 "  --format       of the stream: qcow2 (default), what has data; raw, all of it\n"
		 "  --base KEY     only what is not as in that volume, a snapshot in the same SR\n"
		 "  --from-format  of SRC, where its name does not say so\n"
		 "  --progress     say how far it is on standard error, also where that is no terminal; --quiet: nowhere\n"
		 "exit status: 0 the stream is whole, 1 it is not, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
