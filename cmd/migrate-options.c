/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * migrate-options - see migrate-options.h
 *
 * A program with its arguments is one option's text: split at spaces, with '...', "..." and \ as a shell has them, and nothing
 * else of a shell's. A time is 10s, 5m, 2h, 7d; a moment 23:30, 2026-11-26T23:30, or +30m.
 */
#include "cmd/migrate-options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cmd/cmd.h"
#include "migrate/squeeze.h"
#include "migrate/way.h"

#define DAY_S 86400
#define KEEP_DAYS 7
#define PATIENCE_S 600

static int complain(const char *fmt, ...) PRINTF_LIKE(1, 2);
static int complain(const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "sxm migrate: ");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	return CMD_USAGE;
}

/* --- texts */

/* The end of one word; its text goes to out. NULL: a quote is open. */
static const char *take_word(const char *from, char *out)
{
	char quote = '\0';

	for (; *from && (quote || (*from != ' ' && *from != '\t')); from++) {
		if (quote ? *from == quote : *from == '\'' || *from == '"')
			quote = quote ? '\0' : *from;
		else if (*from == '\\' && quote != '\'' && from[1])
			*out++ = *++from;
		else
			*out++ = *from;
	}
	*out = '\0';
	return quote ? NULL : from;
}

static int split(const char *text, struct jsonspec_list *words)
{
	CLEANUP_FREE char *word = malloc(strlen(text) + 1);

	while (word && *(text += strspn(text, " \t"))) {
		text = take_word(text, word);
		if (!text || jsonspec_list_add(words, word) == -1)
			return -1;
	}
	return words->count ? 0 : -1;
}

static bool parse_time(const char *text, int64_t *seconds)
{
	static const char units[] = "smhd";
	static const int64_t factor[] = { 1, 60, 3600, DAY_S };
	const char *unit;
	char *end;
	double n;

	errno = 0;
	n = strtod(text, &end);
	if (end == text || errno || !(n >= 0) || n > 1e9)
		return false;
	unit = *end ? strchr(units, *end) : units;
	if (!unit || (*end && end[1]))
		return false;
	*seconds = (int64_t)(n * (double)factor[unit - units]);
	return true;
}

/* Today's, or tomorrow's where that is past. */
static bool parse_hour(const char *text, int64_t now_s, int64_t *at_s)
{
	time_t now = (time_t)now_s;
	struct tm tm;
	const char *end;

	if (!localtime_r(&now, &tm))
		return false;
	tm.tm_sec = 0;
	end = strptime(text, "%H:%M:%S", &tm);
	if (!end)
		end = strptime(text, "%H:%M", &tm);
	if (!end || *end)
		return false;
	tm.tm_isdst = -1;
	*at_s = (int64_t)mktime(&tm);
	if (*at_s < now_s)
		*at_s += DAY_S;
	return true;
}

static bool parse_moment(const char *text, int64_t *at_s)
{
	int64_t now_s = (int64_t)time(NULL), in_s;
	struct tm tm = { .tm_isdst = -1 };
	const char *end;

	if (*text == '+') {
		*at_s = now_s;
		if (!parse_time(text + 1, &in_s))
			return false;
		*at_s += in_s;
		return true;
	}
	if (parse_hour(text, now_s, at_s))
		return true;
	end = strptime(text, "%Y-%m-%dT%H:%M", &tm);
	if (end && *end == ':')
		end = strptime(end, ":%S", &tm);
	if (!end || *end)
		return false;
	*at_s = (int64_t)mktime(&tm);
	return true;
}

static int parse_switchover(const char *text, struct migrate_options *o)
{
	o->switchover = strcmp(text, "manual") == 0 ? "manual" : "auto";
	if (strcmp(text, "auto") == 0 || strcmp(text, "manual") == 0)
		return 0;
	if (strncmp(text, "at=", 3) == 0)
		o->switchover = "at";
	else if (strncmp(text, "finish-by=", 10) != 0)
		return complain("--switchover is auto, manual, at=TIME or finish-by=TIME, not %s", text);
	if (!parse_moment(strchr(text, '=') + 1, &o->at_s))
		return complain("%s is no moment: 23:30, 2026-11-26T23:30 or +30m", strchr(text, '=') + 1);
	if (strcmp(o->switchover, "auto") == 0 && o->at_s <= (int64_t)time(NULL))
		return complain("--switchover %s: that is past", text);
	return 0;
}

/* [USER@]HOST:SR; an IPv6 address stands in brackets. */
static int parse_destination(const char *text, struct migrate_options *o)
{
	const char *at = strchr(text, '@'), *colon, *host;

	host = at && at < text + strcspn(text, ":/") ? at + 1 : text;
	colon = *host == '[' ? strstr(host, "]:") : strchr(host, ':');
	if (colon && *host == '[')
		colon++;
	if (!colon || colon == host || !colon[1] || at == text)
		return complain("%s does not say where to: [USER@]HOST:SR", text);
	o->user = host == text ? NULL : strndup(text, (size_t)(at - text));
	o->host = *host == '[' ? strndup(host + 1, (size_t)(colon - host) - 2) : strndup(host, (size_t)(colon - host));
	o->sr = strdup(colon + 1);
	return o->host && o->sr && *o->host != '-' ? 0 : complain("%s is no host", text);
}

/* --- options */

enum long_option {
	OPT_PLAN = 256, OPT_RESUME, OPT_ABORT, OPT_RELEASE, OPT_GO, OPT_CHANGE, OPT_LIST, OPT_DOMAIN, OPT_SWITCHOVER,
	OPT_ON_PAUSE, OPT_ON_RESUME, OPT_BANDWIDTH, OPT_KEEP, OPT_NO_VERIFY, OPT_CARRIER, OPT_VIA, OPT_PORT, OPT_CONFIG, OPT_JSON,
	OPT_QUIET, OPT_PATIENCE, OPT_TRANSPORT, OPT_INSECURE, OPT_LISTEN, OPT_CERTIFICATES, OPT_COMPRESS, OPT_FORCE,
	OPT_QEMU_QMP, OPT_QEMU_DEST,
};

static int take_action(enum migrate_action action, const char *id, struct migrate_options *o)
{
	if (o->action != MIGRATE_MOVE)
		return complain("%s: one of --resume, --abort, --release, --go, --change, --list at a time", id ? id : "--list");
	o->action = action;
	o->id = action == MIGRATE_RELEASE && strcmp(id, "expired") == 0 ? NULL : id;
	return 0;
}

static int take_number(const char *text, struct migrate_options *o)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || end == text || !n || n > 65535)
		return complain("%s is no port", text);
	o->port = (unsigned)n;
	return 0;
}

static int take_option(int c, char *arg, struct migrate_options *o)
{
	switch (c) {
	case OPT_PLAN: o->is_plan = true; return 0;
	case OPT_RESUME: return take_action(MIGRATE_RESUME, arg, o);
	case OPT_ABORT: return take_action(MIGRATE_ABORT, arg, o);
	case OPT_RELEASE: return take_action(MIGRATE_RELEASE, arg, o);
	case OPT_GO: return take_action(MIGRATE_GO, arg, o);
	case OPT_CHANGE: return take_action(MIGRATE_CHANGE, arg, o);
	case OPT_LIST: return take_action(MIGRATE_LIST, NULL, o);
	case OPT_DOMAIN: o->domain = arg; return 0;
	case OPT_SWITCHOVER: return parse_switchover(arg, o);
	case OPT_ON_PAUSE: return split(arg, &o->on_pause) == 0 ? 0 : complain("--on-pause: %s is no command", arg);
	case OPT_ON_RESUME: return split(arg, &o->on_resume) == 0 ? 0 : complain("--on-resume: %s is no command", arg);
	case OPT_BANDWIDTH:
		o->has_bandwidth = size_parse(arg, &o->bandwidth_bytes_s);
		return o->has_bandwidth ? 0 : complain("%s is no bandwidth: bytes a second, as 100MiB", arg);
	case OPT_KEEP: return parse_time(arg, &o->keep_s) ? 0 : complain("%s is no time: 12h, 7d", arg);
	case OPT_PATIENCE: return parse_time(arg, &o->patience_s) ? 0 : complain("%s is no time: 30s, 10m", arg);
	case OPT_NO_VERIFY: o->will_verify = false; return 0;
	case OPT_CARRIER: o->carrier = arg; return 0;
	case OPT_VIA: return split(arg, &o->via) == 0 ? 0 : complain("--via: %s is no command", arg);
	case OPT_PORT: return take_number(arg, o);
	case OPT_CONFIG: o->config = arg; return 0;
	case OPT_TRANSPORT: o->transport = arg; return 0;
	case OPT_INSECURE: o->is_insecure = true; return 0;
	case OPT_LISTEN: o->address = arg; return 0;
	case OPT_CERTIFICATES: o->certificates = arg; return 0;
	case OPT_COMPRESS: o->is_squeezed = true; return 0;
	case OPT_JSON: o->is_json = true; return 0;
	case OPT_QUIET: o->is_quiet = true; return 0;
	case OPT_FORCE: o->is_forced = true; return 0;
	case OPT_QEMU_QMP: o->qemu_qmp = arg; return 0;
	case OPT_QEMU_DEST: o->qemu_dest = arg; return 0;
	default: return CMD_USAGE;
	}
}

/* What is in the clear is so because somebody said that it may be. */
static int check_transport(const struct migrate_options *o)
{
	bool is_tls = o->transport && strcmp(o->transport, "tcp+tls") == 0;
	bool is_tcp = o->transport && strcmp(o->transport, "tcp") == 0;

	if (o->transport && !is_tls && !is_tcp && strcmp(o->transport, "ssh") != 0)
		return complain("--transport is ssh, tcp+tls or tcp, not %s", o->transport);
	if (is_tcp && !o->is_insecure)
		return complain("--transport tcp sends the disks over the network in the clear, and whoever reaches the port "
				"there can read and change them: use tcp+tls, or say --insecure, too");
	if (o->is_squeezed && (is_tls || is_tcp))
		return complain("--compress is for what goes through ssh; over tcp a disk's bytes go as they are");
	if (o->is_squeezed && !squeeze_is_there())
		return complain("--compress: this sxm was built without " SQUEEZE_NAME);
	if (o->address && !is_tls && !is_tcp)
		return complain("--listen is for --transport tcp+tls and tcp: over ssh nothing listens there");
	if (o->address && !way_is_address(o->address))
		return complain("--listen: %s is no numeric address", o->address);
	if (o->certificates && !is_tls)
		return complain("--tls-certificates is for --transport tcp+tls");
	if (o->certificates && *o->certificates != '/')
		return complain("--tls-certificates: %s is no absolute path", o->certificates);
	return 0;
}

static int check(int argc, char **argv, struct migrate_options *o)
{
	if (o->is_forced && (o->action != MIGRATE_RELEASE || !o->id))
		return complain("--force goes with --release ID alone");
	if (o->action != MIGRATE_MOVE) {
		if (argc)
			return complain("%s: a move that is there has its disks", argv[0]);
		return o->action != MIGRATE_CHANGE || o->has_bandwidth ? 0 : complain("--change: what? There is --bandwidth");
	}
	if (argc < 2)
		return complain("%s", argc ? "where to? [USER@]HOST:SR is missing" : "which disks, and where to?");
	if (!o->qemu_qmp != !o->qemu_dest)
		return complain("--qemu-qmp and --qemu-dest: a VM moves from one QEMU to another; both have a QMP socket");
	if (o->qemu_qmp && (*o->qemu_qmp != '/' || *o->qemu_dest != '/'))
		return complain("%s: a QMP socket is named with its whole path",
				*o->qemu_qmp != '/' ? o->qemu_qmp : o->qemu_dest);
	if ((size_t)argc - 1 > JOURNEY_DISKS_MAX)
		return complain("that many disks cannot be moved together");
	o->sources = (const char *const *)argv;
	o->count = (size_t)argc - 1;
	if (check_transport(o))
		return CMD_USAGE;
	return parse_destination(argv[argc - 1], o);
}

int migrate_parse(int argc, char **argv, struct migrate_options *o)
{
	static const struct option options[] = {
		{ "plan", 0, NULL, OPT_PLAN }, { "resume", 1, NULL, OPT_RESUME }, { "abort", 1, NULL, OPT_ABORT },
		{ "release", 1, NULL, OPT_RELEASE }, { "go", 1, NULL, OPT_GO }, { "change", 1, NULL, OPT_CHANGE },
		{ "list", 0, NULL, OPT_LIST }, { "domain", 1, NULL, OPT_DOMAIN }, { "switchover", 1, NULL, OPT_SWITCHOVER },
		{ "on-pause", 1, NULL, OPT_ON_PAUSE }, { "on-resume", 1, NULL, OPT_ON_RESUME },
		{ "bandwidth", 1, NULL, OPT_BANDWIDTH }, { "keep-for", 1, NULL, OPT_KEEP },
		{ "no-verify", 0, NULL, OPT_NO_VERIFY },
		{ "carrier", 1, NULL, OPT_CARRIER }, { "via", 1, NULL, OPT_VIA }, { "port", 1, NULL, OPT_PORT },
		{ "config", 1, NULL, OPT_CONFIG }, { "json", 0, NULL, OPT_JSON }, { "quiet", 0, NULL, OPT_QUIET },
		{ "patience", 1, NULL, OPT_PATIENCE }, { "transport", 1, NULL, OPT_TRANSPORT },
		{ "insecure", 0, NULL, OPT_INSECURE }, { "listen", 1, NULL, OPT_LISTEN },
		{ "tls-certificates", 1, NULL, OPT_CERTIFICATES }, { "compress", 0, NULL, OPT_COMPRESS },
		{ "force", 0, NULL, OPT_FORCE }, { "qemu-qmp", 1, NULL, OPT_QEMU_QMP }, { "qemu-dest", 1, NULL, OPT_QEMU_DEST },
		{ NULL, 0, NULL, 0 },
	};
	int c, status = 0;

	*o = (struct migrate_options) { .switchover = "auto", .keep_s = KEEP_DAYS * DAY_S, .patience_s = PATIENCE_S,
					.will_verify = true };
	while (!status && (c = getopt_long(argc, argv, "", options, NULL)) != -1)
		status = take_option(c, optarg, o);
	if (!status)
		status = check(argc - optind, argv + optind, o);
	if (status)
		migrate_options_clear(o);
	return status;
}

static void clear_list(struct jsonspec_list *l)
{
	while (l->count)
		free(l->item[--l->count]);
	free(take_ptr(&l->item));
}

void migrate_options_clear(struct migrate_options *o)
{
	free(take_ptr(&o->user));
	free(take_ptr(&o->host));
	free(take_ptr(&o->sr));
	clear_list(&o->via);
	clear_list(&o->on_pause);
	clear_list(&o->on_resume);
}

/* --- the record */

static bool copy_list(const struct jsonspec_list *from, struct jsonspec_list *to)
{
	for (size_t i = 0; i < from->count; i++)
		if (jsonspec_list_add(to, from->item[i]) == -1)
			return false;
	return true;
}

static char *text_of(const char *text)
{
	return strdup(text ? text : "");
}

int migrate_make_record(const struct migrate_options *o, struct journey_record *r, struct error *e)
{
	char id[JOURNEY_ID_MAX], receiver[JOURNEY_ID_MAX + 4];
	struct timespec now;

	journey_make_id(id);
	snprintf(receiver, sizeof(receiver), "MIR%s", id + 1);
	clock_gettime(CLOCK_REALTIME, &now);
	*r = (struct journey_record) {
		.format = 1, .id = strdup(id), .step = strdup(journey_step_name(JOURNEY_PLANNED)), .why = strdup(""),
		.started_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / (long)NS_PER_MS,
		.host = text_of(o->host), .user = text_of(o->user), .port = o->port, .config = text_of(o->config),
		.kind = text_of(o->via.count ? "exec" : o->carrier), .far_sr = text_of(o->sr), .far_domain = text_of(o->domain),
		.receiver = strdup(receiver), .group = strdup(""), .switchover = text_of(o->switchover), .at_s = o->at_s,
		.bandwidth_bytes_s = (int64_t)MIN(o->bandwidth_bytes_s, (uint64_t)INT64_MAX), .keep_s = o->keep_s,
		.transport = strdup(o->transport ? o->transport : "ssh"), .address = text_of(o->address),
		.certificates = text_of(o->certificates), .is_squeezed = o->is_squeezed, .will_verify = o->will_verify,
		.vm_here = o->qemu_qmp ? strdup(o->qemu_qmp) : NULL, .vm_there = o->qemu_dest ? strdup(o->qemu_dest) : NULL,
		.disks = { o->count, calloc(o->count, sizeof(struct journey_disk)) },
	};
	if (r->id && r->step && r->why && r->host && r->user && r->config && r->kind && r->far_sr && r->far_domain &&
	    r->receiver && r->transport && r->address && r->certificates &&
	    r->group && r->switchover && r->disks.item && copy_list(&o->via, &r->argv) && copy_list(&o->on_pause, &r->on_pause) &&
	    copy_list(&o->on_resume, &r->on_resume) && !o->qemu_qmp == !r->vm_here && !o->qemu_dest == !r->vm_there)
		return 0;
	if (!r->disks.item)
		r->disks.count = 0;
	jsonspec_clear(&journey_record_spec, r);
	return error_set(e, ENOMEM, "out of memory");
}

void migrate_change_record(const struct migrate_options *o, struct journey_record *r)
{
	if (o->has_bandwidth)
		r->bandwidth_bytes_s = (int64_t)MIN(o->bandwidth_bytes_s, (uint64_t)INT64_MAX);
}
