/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-doctor - sxm doctor: what a move that failed, or a crash, has left on this host is told, and put right
 *
 *      doctor_run() -> findings -> a paragraph each, or one JSON object for all -> an exit status as fsck's
 *
 * Without --fix nothing is changed.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/uri.h"
#include "cmd/cmd.h"
#include "plugins/doctor.h"
#include "plugins/meta.h"

enum status { CLEAN = 0, REPAIRED = 1, LEFT = 4, NOT_DONE = 8, USAGE = 16 };
enum option_value { FIX = 1, JSON, DOMAINS, ALIVE, OLDER };

/* --- what is said */

struct told {
	char *kind, *subject, *what, *why, *remedy, *advice, *result; /* owned */
	bool is_fixed;
};
#define TOLD(member, field) { .name = member, .type = JS_STRING, .offset = offsetof(struct told, field), .is_optional = true }
static const struct jsonspec_field told_fields[] = {
	TOLD("kind", kind), TOLD("subject", subject), TOLD("what", what), TOLD("why", why), TOLD("remedy", remedy),
	TOLD("advice", advice), TOLD("result", result),
	{ .name = "fixed", .type = JS_BOOL, .offset = offsetof(struct told, is_fixed) }, { .name = NULL },
};
static const struct jsonspec told_spec = { "finding", sizeof(struct told), told_fields };

struct talk {
	bool is_fixing, is_json;
	struct told *told; /* owned; of JSON */
	size_t count;
	bool has_failed;
};

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void note(struct talk *t, const struct doctor_finding *f)
{
	struct told *grown = reallocarray(t->told, t->count + 1, sizeof(*grown));

	if (!grown) {
		t->has_failed = true;
		return;
	}
	t->told = grown;
	grown[t->count++] = (struct told) {
		.kind = copy(f->kind), .subject = copy(f->subject), .what = copy(f->what), .why = copy(f->why),
		.remedy = copy(f->remedy), .advice = f->remedy ? NULL : copy(f->advice),
	};
}

static bool on_found(void *arg, const struct doctor_finding *f)
{
	struct talk *t = arg;

	if (t->is_json) {
		note(t, f);
		return t->is_fixing;
	}
	printf("%s: %s\n    why it matters: %s\n", f->kind, f->what, f->why);
	if (f->remedy)
		printf(t->is_fixing ? "    %s: " : "    with --fix: %s\n", f->remedy);
	else if (f->advice)
		printf("    for a person: %s\n", f->advice);
	fflush(stdout);
	return t->is_fixing;
}

static void on_result(void *arg, const char *text, bool is_done)
{
	struct talk *t = arg;

	if (!t->is_json) {
		printf("%s\n", text);
	} else if (t->count) {
		t->told[t->count - 1].result = copy(text);
		t->told[t->count - 1].is_fixed = is_done;
	}
}

static int print_json(struct talk *t, const struct doctor *d)
{
	CLEANUP_FREE char *list = t->has_failed ? NULL : jsonspec_array(&told_spec, t->told, t->count);

	if (list)
		printf("{\"found\":%u,\"repaired\":%u,\"left\":%u,\"told\":%u,\"findings\":%s}\n", d->findings, d->repaired,
		       d->left, d->told, list);
	for (size_t i = 0; i < t->count; i++)
		jsonspec_clear(&told_spec, &t->told[i]);
	free(t->told);
	return list ? 0 : -1;
}

static int examine(struct doctor *d, struct talk *t)
{
	struct error e = { 0 };

	d->found = on_found;
	d->result = on_result;
	d->arg = t;
	d->is_only_report = !t->is_fixing;
	if (doctor_run(d, &e) == -1) {
		fflush(stdout);
		fprintf(stderr, "sxm doctor: %s\n", e.text);
		return NOT_DONE;
	}
	if (t->is_json && print_json(t, d) == -1) {
		fprintf(stderr, "sxm doctor: out of memory\n");
		return NOT_DONE;
	}
	if (!t->is_json && d->findings)
		printf("%u found, %u repaired, %u left, %u only told\n", d->findings, d->repaired, d->left, d->told);
	else if (!t->is_json)
		printf("nothing found\n");
	return (d->repaired ? REPAIRED : CLEAN) | (d->left ? LEFT : CLEAN);
}

/* --- domains */

struct shown {
	char *domain, *path;
	bool is_active, is_read_only, is_gone;
	int64_t clients;
};
#define SHOWN(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct shown, field) }
static const struct jsonspec_field shown_fields[] = {
	SHOWN("domain", JS_STRING, domain), SHOWN("active", JS_BOOL, is_active), SHOWN("read_only", JS_BOOL, is_read_only),
	SHOWN("clients", JS_INT64, clients), SHOWN("gone", JS_BOOL, is_gone), SHOWN("path", JS_STRING, path), { NULL },
};
static const struct jsonspec shown_spec = { "domain", sizeof(struct shown), shown_fields };

static void on_domain(void *arg, const struct doctor_domain *d)
{
	const char **between = arg;
	const struct shown s = {
		.domain = (char *)(uintptr_t)d->domain, .path = (char *)(uintptr_t)d->path, .is_active = d->is_active,
		.is_read_only = d->is_read_only, .is_gone = !d->is_alive, .clients = d->clients,
	};
	CLEANUP_FREE char *text = *between ? jsonspec_encode(&shown_spec, &s) : NULL;

	if (text) {
		printf("%s%s", *between, text);
		*between = ",";
	} else if (!*between) {
		printf("%-24s %-9s %3lld clients  %s%s\n", d->domain,
		       !d->is_active ? "attached" : d->is_read_only ? "reads" : "writes", (long long)d->clients, d->path,
		       d->is_alive ? "" : "  (no such domain)");
	}
}

static void show_domain(const struct doctor_domain *d, void *arg)
{
	on_domain(arg, d);
}

static int list_domains(const struct jsonspec_list *alive, bool is_json)
{
	const char *between = is_json ? "" : NULL;

	if (is_json)
		printf("{\"domains\":[");
	doctor_each_domain(alive, show_domain, &between);
	if (is_json)
		printf("]}\n");
	return CLEAN;
}

/* --- the command */

static int add_alive(struct jsonspec_list *alive, const char *text)
{
	CLEANUP_FREE char *copied = strdup(text);
	char *rest = copied, *one;

	if (!copied)
		return -1;
	while ((one = strsep(&rest, ", ")))
		if (*one && jsonspec_list_add(alive, one) == -1)
			return -1;
	return 0;
}

static int run_with(struct doctor *d, struct talk *t, bool is_list, const char *name)
{
	CLEANUP_FREE char *dir = NULL;
	struct error e = { 0 };

	if (is_list)
		return list_domains(d->alive, t->is_json);
	if (name) {
		dir = strncasecmp(name, "file:", 5) == 0 ? uri_path(name, "file", &e) : realpath(name, NULL);
		if (!dir) {
			fprintf(stderr, "sxm doctor: %s: %s\n", name, e.err ? e.text : strerror(errno));
			return NOT_DONE;
		}
	}
	d->dir = dir;
	return examine(d, t);
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "fix", no_argument, NULL, FIX }, { "json", no_argument, NULL, JSON },
		{ "domains", no_argument, NULL, DOMAINS }, { "alive", required_argument, NULL, ALIVE },
		{ "older", required_argument, NULL, OLDER }, { NULL, 0, NULL, 0 },
	};
	struct doctor d = { .older_s = DOCTOR_OLDER_S };
	struct jsonspec_list alive = { 0 };
	struct talk talk = { 0 };
	bool is_list = false, is_wrong = false;
	int c, status;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case FIX: talk.is_fixing = true; break;
		case JSON: talk.is_json = true; break;
		case DOMAINS: is_list = true; break;
		case ALIVE:
			d.alive = &alive;
			is_wrong |= add_alive(&alive, optarg) == -1;
			break;
		case OLDER:
			is_wrong |= optarg[strspn(optarg, "0123456789")] != '\0' || !*optarg;
			d.older_s = (unsigned)strtoul(optarg, NULL, 10);
			break;
		default: is_wrong = true;
		}
	}
	is_wrong |= argc - optind > 1;
	status = is_wrong ? CMD_USAGE : run_with(&d, &talk, is_list, argv[optind]);
	meta_list_clear(&alive);
	return status;
}

const struct cmd cmd_doctor = {
	.name = "doctor",
	.summary = "tell what a failed move or a crash has left on this host, and put it right",
	.usage = "sxm doctor [--fix] [--json] [--alive DOMAIN,...] [--older SECONDS] [SR]\n"
		 "       sxm doctor --domains [--json] [--alive DOMAIN,...]\n"
		 "  --fix            do what cannot lose data; without it nothing is changed\n"
		 "  --json           one JSON object\n"
		 "  --alive LIST     the domains that exist; else Xen is asked\n"
		 "  --older SECONDS  a receiver or process without anybody that is younger may be in use (3600)\n"
		 "  --domains        only list who has what attached\n"
		 "  SR               the directory, or URI, of an SR besides those that are attached here\n"
		 "exit status: 0 nothing found, or nothing to be done about it, 1 repaired, 4 something is left, 5 both,\n"
		 "             8 it could not be done, 16 usage",
	.run = run,
	.usage_status = USAGE,
};
