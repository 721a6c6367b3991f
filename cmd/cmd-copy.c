/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-copy - sxm copy: a disk is copied, in use or not, and stays where it is
 *
 *      SRC: held for a domain of ours, read only; others may have it        its process does the copy:
 *      DST: made, or there and unused; active for a domain of ours          mirror.start copy:true, to DST's socket or NBD URI
 *      -> lines about how far it is -> complete -> [compared] -> both let go of, DST flushed -> what was made has its name
 *
 * A disk that guests write to is copied as it is at the moment when the copy is complete.
 * Ctrl-C, or any error: the copy is cancelled; what was made for it goes, what was there is not whole, and said to be so.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/size.h"
#include "cmd/cmd.h"
#include "cmd/live.h"
#include "cmd/transfer.h"
#include "cmd/say.h"
#include "cmd/served.h"
#include "cmd/signals.h"
#include "cmd/target.h"
#include "plugins/doctor.h"

enum status { COPIED = 0, NOT_COPIED = 1, USAGE = 2 };
enum option_value { FORMAT = 1, TO_FORMAT, NAME, BANDWIDTH, VERIFY, FORCE, QUIET, JSON };

#define DOMAIN_BYTES 32
#define NEWS_MS 500u
#define LINE_MS 1000u

struct wish {
	const char *from, *to, *format, *to_format, *volume_name; /* borrowed */
	uint64_t limit_bytes;
	bool is_verified, is_forced, is_quiet, is_json;
};

struct copying {
	const struct wish *wish;
	struct place from;
	struct target to;
	struct served from_served, to_served;
	char domain[DOMAIN_BYTES]; /* at both ends: plugins/doctor knows it when this command was killed */
	bool is_from_served, is_to_served, is_made; /* to.is_made, when to is closed */
	char *made_name;                           /* owned */
	struct timespec said;
	const char *remote;                        /* borrowed */
	bool is_verified;
};

/* --- lines */

struct line {
	char *phase;
	double progress;
	int64_t total_bytes, done_bytes, rate_bytes, eta_ms;
};
#define LINE(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct line, field) }
static const struct jsonspec_field line_fields[] = {
	LINE("phase", JS_STRING, phase), LINE("progress", JS_FLOAT, progress), LINE("total_bytes", JS_INT64, total_bytes),
	LINE("done_bytes", JS_INT64, done_bytes), LINE("rate_bytes", JS_INT64, rate_bytes), LINE("eta_ms", JS_INT64, eta_ms),
	{ .name = NULL },
};
static const struct jsonspec line_spec = { "line", sizeof(struct line), line_fields };

static bool is_due(struct copying *c)
{
	struct timespec now;
	int64_t ms;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ms = (int64_t)(now.tv_sec - c->said.tv_sec) * 1000 + (now.tv_nsec - c->said.tv_nsec) / (long)NS_PER_MS;
	if (c->said.tv_sec && ms < (int64_t)LINE_MS)
		return false;
	c->said = now;
	return true;
}

static void say_line(struct copying *c, const struct line *l)
{
	char done[SIZE_TEXT_MAX], total[SIZE_TEXT_MAX], rate[SIZE_TEXT_MAX];
	CLEANUP_FREE char *json = c->wish->is_json ? jsonspec_encode(&line_spec, l) : NULL;

	if (c->wish->is_quiet || !is_due(c))
		return;
	if (json) {
		say_json(json);
		fflush(stdout);
		return;
	}
	fprintf(stderr, "%s: %.0f %%, %s of %s, %s/s", l->phase, 100 * l->progress, size_format((uint64_t)l->done_bytes, done),
		size_format((uint64_t)l->total_bytes, total), size_format((uint64_t)l->rate_bytes, rate));
	if (l->eta_ms >= 0)
		fprintf(stderr, ", %lld s left", (long long)(l->eta_ms + 999) / 1000);
	fputc('\n', stderr);
}

/* --- the copy, and the comparison */

static int64_t number(uint64_t n)
{
	return n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

static int fail(const char *why, struct error *e)
{
	return error_set(e, EIO, "%s", *why ? why : "the process gives no reason");
}

static int interrupted(struct error *e)
{
	return error_set(e, EINTR, "it was cancelled");
}

static int wait_for_copy(struct copying *c, const char *id, struct error *e)
{
	struct transfer_figures f;

	for (;;) {
		if (signals_came(0))
			return interrupted(e);
		if (transfer_look(&c->from, id, NEWS_MS, &f, e) == -1)
			return -1;
		if (f.is_failed)
			return fail(f.why, e);
		if (f.is_complete)
			return 0;
		say_line(c, &(struct line) {
			.phase = (char *)(uintptr_t)"copy", .progress = f.progress, .eta_ms = f.eta_ms,
			.total_bytes = number(f.total_bytes), .done_bytes = number(f.done_bytes),
			.rate_bytes = number(f.rate_bytes) });
	}
}

static int do_copy(struct copying *c, struct error *e)
{
	char id[TRANSFER_ID_MAX];
	struct transfer_limit limit;
	struct error second;
	int r;

	r = transfer_copy(&c->from, c->domain, c->remote, c->wish->limit_bytes, &limit, id, e);
	if (r == 0) {
		r = wait_for_copy(c, id, e);
		transfer_cancel(&c->from, id, &second); /* where it is over, its record goes */
	}
	transfer_unlimit(&c->from, &limit);
	return r;
}

static int judge(const struct transfer_verdict *v, struct error *e)
{
	if (v->is_same)
		return 0;
	if (v->different_bytes)
		return error_set(e, EBADMSG, "both were read back, and %llu bytes differ, the first at %llu",
				 (unsigned long long)v->different_bytes, (unsigned long long)v->first_start);
	if (v->unsettled_bytes)
		return error_set(e, EAGAIN, "both were read back; of %llu bytes it cannot be said, as they are written to all "
				 "the time", (unsigned long long)v->unsettled_bytes);
	return fail(v->why, e);
}

static int wait_for_verdict(struct copying *c, const char *id, struct error *e)
{
	struct transfer_verdict v;

	for (;;) {
		if (signals_came(0))
			return interrupted(e);
		if (transfer_look_verdict(&c->from, id, NEWS_MS, &v, e) == -1)
			return -1;
		if (v.is_over)
			return judge(&v, e);
		say_line(c, &(struct line) {
			.phase = (char *)(uintptr_t)"compare", .progress = v.progress, .total_bytes = number(v.total_bytes),
			.done_bytes = number(v.done_bytes), .rate_bytes = number(v.rate_bytes), .eta_ms = -1 });
	}
}

static int compare(struct copying *c, struct error *e)
{
	char id[TRANSFER_ID_MAX];
	struct error second;

	c->said = (struct timespec) { 0 };
	if (transfer_compare(&c->from, c->remote, c->wish->limit_bytes, id, e) == -1)
		return -1;
	if (wait_for_verdict(c, id, e) == 0)
		return 0;
	transfer_stop_comparing(&c->from, id, &second);
	return error_prefix(e, "compare");
}

/* --- both ends */

/* Whoever writes to it meanwhile makes a comparison pointless. */
static int check_quiet(const struct copying *c, struct error *e)
{
	const struct live_user *u;
	struct live l;
	int r = 0;

	if (!c->wish->is_verified || live_ask(c->from.image, 10000, &l, e) == -1)
		return c->wish->is_verified ? -1 : 0;
	u = l.users.item;
	for (size_t i = 0; r == 0 && i < l.users.count; i++)
		if (u[i].is_active && !u[i].is_read_only)
			r = error_set(e, EBUSY, "%s is active for writing for domain %s, and would differ from its copy at once: "
				      "--verify is for a disk that nobody writes to", c->from.name, u[i].domain);
	live_clear(&l);
	return r;
}

static int open_from(struct copying *c, struct error *e)
{
	if (place_find(&c->from, c->wish->from, c->wish->format, e) == -1)
		return -1;
	if (served_begin(&c->from_served, &c->from, c->domain, true, e) == -1)
		return -1;
	c->is_from_served = true;
	return check_quiet(c, e);
}

static int open_to(struct copying *c, struct error *e)
{
	const struct target_wish wish = {
		.name = c->wish->to, .format = c->wish->to_format, .bytes = c->from_served.size_bytes,
		.volume_name = c->wish->volume_name ? c->wish->volume_name : "copy", .may_overwrite = c->wish->is_forced,
		.not_this = &c->from,
	};

	if (target_find(&c->to, &wish, e) == -1)
		return -1;
	c->is_made = c->to.is_made;
	if (c->to.place.kind == PLACE_NBD) {
		c->remote = c->to.place.nbd;
		return 0;
	}
	if (served_begin(&c->to_served, &c->to.place, c->domain, false, e) == -1)
		return -1;
	c->is_to_served = true;
	c->remote = c->to_served.uri;
	return 0;
}

/* What was written is on the medium when this is over. */
static int close_ends(struct copying *c, int r, struct error *e)
{
	struct error second;

	signals_release();
	if (c->is_to_served && served_end(&c->to.place, c->domain, r == 0 ? e : &second) == -1)
		r = -1;
	if (c->is_from_served)
		served_end(&c->from, c->domain, &second);
	served_clear(&c->to_served);
	served_clear(&c->from_served);
	if (r == 0)
		r = target_finish(&c->to, NULL, NULL, e);
	if (r == 0 && c->to.made_name)
		c->made_name = strdup(c->to.made_name);
	target_close(&c->to, r == 0);
	place_clear(&c->from);
	return r;
}

/* --- what is said at the end */

struct answer {
	char *copied, *made;
	int64_t size_bytes;
	bool is_verified;
};
static const struct jsonspec_field answer_fields[] = {
	{ "copied", JS_STRING, offsetof(struct answer, copied) },
	{ "to", JS_STRING, offsetof(struct answer, made) },
	{ "size_bytes", JS_INT64, offsetof(struct answer, size_bytes) },
	{ "verified", JS_BOOL, offsetof(struct answer, is_verified) },
	{ NULL },
};
static const struct jsonspec answer_spec = { "copy", sizeof(struct answer), answer_fields };

static int say_end(const struct copying *c, int64_t bytes)
{
	const char *to = c->made_name ? c->made_name : c->wish->to;
	const struct answer a = { .copied = (char *)(uintptr_t)c->wish->from, .made = (char *)(uintptr_t)to, .size_bytes = bytes,
				  .is_verified = c->is_verified };
	CLEANUP_FREE char *json = c->wish->is_json ? jsonspec_encode(&answer_spec, &a) : NULL;

	if (c->wish->is_json)
		return say_json(json);
	say_text(stdout, to);
	putchar('\n');
	return 0;
}

static int copy(const struct wish *w)
{
	struct copying c = { .wish = w };
	struct error e = { 0 };
	int64_t bytes;
	int r = -1;

	snprintf(c.domain, sizeof(c.domain), DOCTOR_COMMAND "%ld", (long)getpid());
	signals_hold();
	if (open_from(&c, &e) == 0 && open_to(&c, &e) == 0)
		r = do_copy(&c, &e);
	if (r == 0 && w->is_verified) {
		r = compare(&c, &e);
		c.is_verified = r == 0;
	}
	bytes = c.from_served.size_bytes;
	r = close_ends(&c, r, &e);
	if (r == 0)
		r = say_end(&c, bytes);
	else
		fprintf(stderr, "sxm copy: %s%s\n", e.text, c.remote && !c.is_made ? "; what was there is not whole" :
			c.is_made ? "; nothing is left of the copy" : "");
	free(c.made_name);
	return r == 0 ? COPIED : NOT_COPIED;
}

/* --- the command */

static bool take_option(struct wish *w, int c)
{
	switch (c) {
	case FORMAT: w->format = optarg; return strcmp(optarg, "raw") == 0 || strcmp(optarg, "qcow2") == 0;
	case TO_FORMAT: w->to_format = optarg; return strcmp(optarg, "raw") == 0 || strcmp(optarg, "qcow2") == 0;
	case NAME: w->volume_name = optarg; return true;
	case BANDWIDTH: return size_parse(optarg, &w->limit_bytes);
	case VERIFY: w->is_verified = true; return true;
	case FORCE: w->is_forced = true; return true;
	case QUIET: w->is_quiet = true; return true;
	case JSON: w->is_json = true; return true;
	default: return false;
	}
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "format", required_argument, NULL, FORMAT }, { "to-format", required_argument, NULL, TO_FORMAT },
		{ "name", required_argument, NULL, NAME }, { "bandwidth", required_argument, NULL, BANDWIDTH },
		{ "verify", no_argument, NULL, VERIFY }, { "force", no_argument, NULL, FORCE },
		{ "quiet", no_argument, NULL, QUIET }, { "json", no_argument, NULL, JSON }, { NULL, 0, NULL, 0 },
	};
	struct wish w = { 0 };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(&w, c))
			return CMD_USAGE;
	if (argc - optind != 2)
		return CMD_USAGE;
	w.from = argv[optind];
	w.to = argv[optind + 1];
	return copy(&w);
}

const struct cmd cmd_copy = {
	.name = "copy",
	.summary = "copy a disk, in use or not, to a file, a volume or an NBD server",
	.usage = "sxm copy [--verify] [--bandwidth SIZE] [--force] [--format FORMAT] [--to-format FORMAT] [--name NAME]\n"
		 "                [--quiet] [--json] SRC DST\n"
		 "  SRC, DST          a volume (SR/KEY), a file or block device, an NBD URI; DST also an SR: a new volume\n"
		 "  --verify          read both back and compare them; of a disk that nobody writes to\n"
		 "  --bandwidth SIZE  so many bytes a second at most\n"
		 "  --force           overwrite what is in DST\n"
		 "  --format FORMAT, --to-format FORMAT   raw or qcow2, of SRC and of DST, where the name does not say so\n"
		 "  --name NAME       of a new volume\n"
		 "  --quiet           no lines about how far it is\n"
		 "  --json            lines of JSON\n"
		 "exit status: 0 it was copied (and is the same, with --verify), 1 it was not, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
