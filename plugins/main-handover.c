/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sxm-handover - several disks of one guest are handed over to their mirrors' far sides, all of them or none
 *
 *      every disk prepared (guests held) -> "commit" on record (base/decision.h) -> every disk commits -> the record goes
 *              '-- one could not -> "cancel" on record -> every disk cancels -> the record goes: guests go on
 *
 * It keeps nothing in its head: what is on record is the group's, and the disks' own records name the group.  So it may be
 * killed at any moment and run again, or not: a disk that waits for too long makes the decision itself.
 *
 * All disks are asked at once, each by a child: a guest is held for as long as the slowest disk takes, not for the sum.
 *
 * Can fail: everything; the exit status tells how far it came.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/decision.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/uri.h"
#include "plugins/process.h"

#define DISKS_MAX 256
#define STATUS_WAIT_MS 10000u
#define PREPARE_WAIT_MS 120000u
#define FOLLOW_WAIT_MS 120000u
#define PATIENCE_S_MAX 600

enum status { HANDED_OVER = 0, NOT_HANDED_OVER = 1, USAGE = 2, NOT_FINISHED = 3 };

struct disk {
	const char *name;        /* as it was given; borrowed */
	char *path;              /* owned: the image; NULL: only its socket is known */
	struct process process;
	bool is_given, is_offered;
	char group[DECISION_GROUP_MAX];
	struct error e;          /* of the last question */
};

struct job {
	const char *domain;
	char group[DECISION_GROUP_MAX];
	int64_t patience_ms;
	struct disk disk[DISKS_MAX];
	size_t count;
};

struct args {
	char *domain, *group; /* borrowed */
	int64_t patience_ms;
};
static const struct jsonspec_field prepare_fields[] = {
	{ "domain", JS_STRING, offsetof(struct args, domain) },
	{ "group", JS_STRING, offsetof(struct args, group) },
	{ "patience_ms", JS_INT64, offsetof(struct args, patience_ms) },
	{ NULL },
};
static const struct jsonspec prepare_spec = { "handover.prepare", sizeof(struct args), prepare_fields };
static const struct jsonspec_field follow_fields[] = {
	{ "group", JS_STRING, offsetof(struct args, group) },
	{ NULL },
};
static const struct jsonspec follow_spec = { "handover", sizeof(struct args), follow_fields };

struct owner {
	char *state, *group;
};
static const struct jsonspec_field owner_fields[] = {
	{ "state", JS_STRING, offsetof(struct owner, state) },
	{ "group", JS_STRING, offsetof(struct owner, group), .is_optional = true },
	{ NULL },
};
static const struct jsonspec owner_spec = { "owner", sizeof(struct owner), owner_fields };
struct status_answer {
	struct owner owner;
};
static const struct jsonspec_field status_fields[] = {
	{ "owner", JS_RECORD, offsetof(struct status_answer, owner), .sub = &owner_spec },
	{ NULL },
};
static const struct jsonspec status_spec = { "status", sizeof(struct status_answer), status_fields };

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* --- all at once */

static void ask_in_child(struct disk *d, const char *verb, const char *args, unsigned wait_ms, int fd)
{
	struct error e = { 0 };
	char *ok = process_call(&d->process, verb, args, PROCESS_RESTART, wait_ms, &e);

	if (ok)
		error_clear(&e);
	_exit(write(fd, &e, sizeof(e)) == (ssize_t)sizeof(e) ? 0 : 1);
}

/* The reading end, or -1 + d->e. */
static int begin_asking(struct disk *d, const char *verb, const char *args, unsigned wait_ms)
{
	int ends[2];
	pid_t pid;

	if (pipe(ends) == -1)
		return error_errno(&d->e, errno, "make a pipe");
	pid = fork();
	if (pid == 0)
		ask_in_child(d, verb, args, wait_ms, ends[1]);
	close(ends[1]);
	if (pid > 0)
		return ends[0];
	close(ends[0]);
	return error_errno(&d->e, errno, "fork");
}

/* False: some failed; each disk's e says which. */
static bool ask_all(struct job *j, const char *verb, const char *args, unsigned wait_ms)
{
	int fd[DISKS_MAX];
	bool is_good = true;

	for (size_t i = 0; i < j->count; i++)
		fd[i] = begin_asking(&j->disk[i], verb, args, wait_ms);
	for (size_t i = 0; i < j->count; i++) {
		struct disk *d = &j->disk[i];

		if (fd[i] >= 0 && read(fd[i], &d->e, sizeof(d->e)) != (ssize_t)sizeof(d->e))
			error_set(&d->e, EIO, "whoever asked it died");
		if (fd[i] >= 0)
			close(fd[i]);
		if (d->e.err)
			fprintf(stderr, "sxm-handover: %s: %s: %s\n", d->name, verb, d->e.text);
		is_good = is_good && !d->e.err;
	}
	while (wait(NULL) > 0)
		;
	return is_good;
}

static bool follow_all(struct job *j, const char *verb)
{
	const struct args a = { .group = j->group };
	CLEANUP_FREE char *args = jsonspec_encode(&follow_spec, &a);

	return args && ask_all(j, verb, args, FOLLOW_WAIT_MS);
}

static bool prepare_all(struct job *j)
{
	const struct args a = {
		.domain = (char *)(uintptr_t)j->domain, .group = j->group, .patience_ms = j->patience_ms,
	};
	CLEANUP_FREE char *args = jsonspec_encode(&prepare_spec, &a);

	return args && ask_all(j, "handover.prepare", args, PREPARE_WAIT_MS);
}

/* --- the record's word */

static void forget(const struct job *j)
{
	struct error e = { 0 };

	if (decision_forget(j->group, &e) == -1)
		fprintf(stderr, "sxm-handover: %s\n", e.text);
}

static int cancel(struct job *j)
{
	if (!follow_all(j, "handover.cancel")) {
		fprintf(stderr, "sxm-handover: group %s was cancelled; what could not be told hears of it by itself\n", j->group);
		return NOT_HANDED_OVER;
	}
	forget(j);
	printf("group %s: none of %zu disks was handed over; their guests go on\n", j->group, j->count);
	return NOT_HANDED_OVER;
}

static int commit(struct job *j)
{
	if (!follow_all(j, "handover.commit")) {
		fprintf(stderr, "sxm-handover: group %s was decided to be handed over, and not every disk has followed yet: each "
			"goes on trying by itself; run this again to see\n", j->group);
		return NOT_FINISHED;
	}
	forget(j);
	return HANDED_OVER;
}

static int say_unknown(const struct error *e)
{
	fprintf(stderr, "sxm-handover: %s; run this again, or the disks cancel by themselves\n", e->text);
	return NOT_FINISHED;
}

/* For tests: stands still where it may be killed. */
static void stop_at(const char *place)
{
	const char *stop = getenv("SXM_HANDOVER_STOP");

	if (stop && strcmp(stop, place) == 0)
		raise(SIGSTOP);
}

static int hand_over(struct job *j)
{
	uint64_t began_us = now_us(), prepared_us, decided_us;
	struct error e = { 0 };
	bool is_prepared = prepare_all(j);
	enum decision d;
	int status;

	prepared_us = now_us();
	stop_at("prepared");
	d = decision_make(j->group, is_prepared ? DECISION_COMMIT : DECISION_CANCEL, &e);
	decided_us = now_us();
	stop_at("decided");
	if (d == DECISION_NONE)
		return say_unknown(&e);
	if (d == DECISION_CANCEL)
		return cancel(j);
	status = commit(j);
	if (status == HANDED_OVER)
		printf("group %s: %zu disks handed over in %.1f ms (prepared after %.1f, decided after %.1f)\n", j->group,
		       j->count, (double)(now_us() - began_us) / 1000, (double)(prepared_us - began_us) / 1000,
		       (double)(decided_us - began_us) / 1000);
	return status;
}

/* --- what there is */

static int look(struct disk *d, struct error *e)
{
	CLEANUP_FREE char *ok = process_call(&d->process, "status", NULL, PROCESS_RESTART, STATUS_WAIT_MS, e);
	struct status_answer s;

	if (!ok || jsonspec_decode(&status_spec, ok, strlen(ok), &s, e) == -1)
		return error_prefix(e, "%s", d->name);
	d->is_given = strcmp(s.owner.state, "given") == 0;
	d->is_offered = strcmp(s.owner.state, "offered") == 0;
	if (s.owner.group && (d->is_given || d->is_offered))
		snprintf(d->group, sizeof(d->group), "%s", s.owner.group);
	jsonspec_clear(&status_spec, &s);
	return 0;
}

/* The group that the disks are in already becomes the job's, if none was named. */
static int find_group(struct job *j, struct error *e)
{
	for (size_t i = 0; i < j->count; i++) {
		struct disk *d = &j->disk[i];

		if (look(d, e) == -1)
			return -1;
		if (!*d->group)
			continue;
		if (!*j->group)
			memcpy(j->group, d->group, sizeof(j->group));
		else if (strcmp(j->group, d->group) != 0)
			return error_set(e, EBUSY, "%s is %s with group %s, not %s", d->name,
					 d->is_given ? "handed over" : "prepared", d->group, j->group);
	}
	return 0;
}

static int run(struct job *j)
{
	struct error e = { 0 };
	size_t given = 0;

	if (find_group(j, &e) == -1) {
		fprintf(stderr, "sxm-handover: %s\n", e.text);
		return NOT_HANDED_OVER;
	}
	if (!*j->group)
		snprintf(j->group, sizeof(j->group), "g%" PRId64 "-%d", (int64_t)time(NULL), (int)getpid());
	switch (decision_read(j->group, &e)) {
	case DECISION_COMMIT:
		printf("group %s was decided to be handed over: going on with that\n", j->group);
		return commit(j);
	case DECISION_CANCEL:
		printf("group %s had been cancelled: run this once more to hand the disks over\n", j->group);
		return cancel(j);
	case DECISION_NONE:
		break;
	}
	if (e.err)
		return say_unknown(&e);
	for (size_t i = 0; i < j->count; i++)
		given += j->disk[i].is_given && *j->disk[i].group;
	if (given == j->count) {
		printf("group %s was handed over before\n", j->group);
		return HANDED_OVER;
	}
	return hand_over(j);
}

/* --- the command line */

static int find_disk(struct disk *d, const char *name, struct error *e)
{
	const char *slash = strrchr(name, '/');
	CLEANUP_FREE char *path = NULL;

	d->name = name;
	if (*name == '/') { /* a control socket */
		if (strlen(name) >= sizeof(d->process.control))
			return error_set(e, ENAMETOOLONG, "%s is too long for a socket's path", name);
		strcpy(d->process.control, name);
		snprintf(d->process.dir, sizeof(d->process.dir), "%.*s", (int)(slash - name), name);
		return 0;
	}
	path = uri_path(name, "sxm", e);
	if (!path)
		return -1;
	d->path = uri_canonical(path, e);
	return d->path ? process_by_path(&d->process, d->path, e) : -1;
}

static void usage(FILE *out)
{
	fprintf(out,
		"usage: sxm-handover [--group NAME] [--patience SECONDS] DOMAIN DISK...\n"
		"Hands over several disks of one guest to the far sides of their mirrors: all of them, or none.\n"
		"  DOMAIN   who has the disks active for writing; held from here on, and inactive when this succeeds\n"
		"  DISK     sxm:///path/of/image, or the path of a control socket; its mirror is complete\n"
		"  --group NAME        what this is called on record; else the group the disks are in already, or a new one\n"
		"  --patience SECONDS  how long a disk that is prepared waits for the decision before it cancels (default 30)\n"
		"  --help, --version\n"
		"May be killed and run again with the same disks: it goes on where it was.\n"
		"Ends with 0: all are handed over, the guest may be started there. 1: none is, the guest goes on here.\n"
		"2: that is no command line. 3: it is decided or not known, and not every disk has followed: run it again, and\n"
		"start the guest nowhere before it has ended with 0 or 1.\n");
}

static int parse(int argc, char **argv, struct job *j)
{
	static const struct option longs[] = {
		{ "group", required_argument, NULL, 'g' }, { "patience", required_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' }, { NULL, 0, NULL, 0 },
	};
	struct error e = { 0 };
	long seconds = 30;
	char *end = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		switch (c) {
		case 'g':
			if (!decision_group_is_valid(optarg)) {
				fprintf(stderr, "sxm-handover: %s is no name of a group\n", optarg);
				return -1;
			}
			strcpy(j->group, optarg);
			break;
		case 'p': seconds = strtol(optarg, &end, 10); break;
		case 'h': usage(stdout); exit(0);
		case 'V': printf("sxm-handover %s\n", PACKAGE_VERSION); exit(0);
		default: usage(stderr); return -1;
		}
	}
	if (argc - optind < 2 || argc - optind - 1 > DISKS_MAX || (end && *end) || seconds < 1 || seconds > PATIENCE_S_MAX) {
		usage(stderr);
		return -1;
	}
	j->patience_ms = seconds * 1000;
	j->domain = argv[optind];
	for (int i = optind + 1; i < argc; i++)
		if (find_disk(&j->disk[j->count++], argv[i], &e) == -1) {
			fprintf(stderr, "sxm-handover: %s\n", e.text);
			return -1;
		}
	for (size_t i = 0; i < j->count; i++)
		j->disk[i].process.path = j->disk[i].path;
	return 0;
}

int main(int argc, char **argv)
{
	static struct job job;
	int status;

	log_init("sxm-handover");
	setvbuf(stdout, NULL, _IOLBF, 0);
	status = parse(argc, argv, &job) == -1 ? USAGE : run(&job);
	for (size_t i = 0; i < job.count; i++)
		free(job.disk[i].path);
	return status;
}
