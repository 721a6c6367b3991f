/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-migrate - sxm migrate: disks go to another host while they are written to
 *
 *      SRC... HOST:SR  -> a record (migrate-options) -> plan -> on record -> journey_run()
 *      --resume, --abort, --release ID -> the record -> the journey's
 *
 * Ctrl-C: once, the journey stops where it can be resumed; twice, this program ends at once, and it can be resumed, too.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cmd/cmd.h"
#include "cmd/migrate-options.h"
#include "cmd/migrate-show.h"
#include "migrate/journey-vm.h"

static volatile sig_atomic_t interrupts;

static void on_interrupt(int number UNUSED)
{
	static const char text[] = "\nsxm migrate: ended at once; `sxm migrate --list` says how to go on\n";

	if (interrupts++) {
		(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
		_exit(JOURNEY_INTERRUPTED);
	}
}

static void catch_signals(void)
{
	const struct sigaction action = { .sa_handler = on_interrupt };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int fail(const struct error *e)
{
	fprintf(stderr, "sxm migrate: %s\n", e->text);
	return MIGRATE_REFUSED;
}

/* --- what became of it */

static const char *guests_here(const struct journey *j)
{
	if (journey_has_vm(j) && journey_vm_is_gone(j))
		return "its disks stay here, where the VM's QEMU has ended";
	return "its guests go on here";
}

static void say_resumable(const struct journey *j, bool is_switching, const struct error *e)
{
	const char *id = j->r.id;

	if (is_switching) {
		fprintf(stderr, "sxm migrate: move %s has stopped in the middle of its switchover: %s\n"
				"  start its guest nowhere before it was resumed: sxm migrate --resume %s\n", id, e->text, id);
		return;
	}
	if (j->r.is_vm_lost)
		fprintf(stderr, "sxm migrate: move %s has stopped: %s\n", id, e->text);
	else
		fprintf(stderr, "sxm migrate: move %s has stopped: %s\n"
				"  %s, and nothing is lost. To go on: sxm migrate --resume %s\n"
				"  to give it up: sxm migrate --abort %s\n", id, e->text, guests_here(j), id, id);
}

static int say_outcome(const struct migrate_options *o, const struct journey *j, enum journey_outcome outcome,
		       const struct error *e)
{
	const char *id = j->r.id;

	if (o->action == MIGRATE_RELEASE) {
		if (outcome == JOURNEY_OK && !o->is_json)
			printf("move %s: its source is gone\n", id);
		return outcome == JOURNEY_OK ? 0 : fail(e);
	}
	if (outcome == JOURNEY_LEFT && journey_step_of(&j->r) == JOURNEY_ABORTED) {
		fprintf(stderr, "sxm migrate: move %s: given up%s%s, but: %s\n", id, j->r.is_vm_lost ? "" : "; ",
			j->r.is_vm_lost ? "" : guests_here(j), e->text);
		return (int)outcome;
	}
	if (o->action == MIGRATE_ABORT && outcome == JOURNEY_UNDONE) {
		if (!o->is_json)
			printf("move %s: undone; %s\n", id, guests_here(j));
		return 0;
	}
	switch (outcome) {
	case JOURNEY_OK:
		if (!o->is_json)
			printf("move %s: done; the source is kept (sxm migrate --release %s)\n", id, id);
		break;
	case JOURNEY_UNDONE:
		fprintf(stderr, "sxm migrate: nothing was moved, and nothing is left of it: %s\n", e->text);
		break;
	case JOURNEY_INTERRUPTED:
		say_resumable(j, *j->r.group && journey_step_of(&j->r) == JOURNEY_SWITCHING, e);
		break;
	case JOURNEY_LEFT:
		fprintf(stderr, "sxm migrate: move %s: the disks have moved, but: %s\n"
				"  sxm migrate --resume %s goes on, where there is something to do\n", id, e->text, id);
		break;
	}
	return (int)outcome;
}

/* --- a new one */

static int print_plan(const struct plan *p, bool is_json)
{
	CLEANUP_FREE char *text = is_json ? jsonspec_encode(&plan_spec, p) : NULL;

	if (is_json)
		printf("%s\n", text ? text : "{}");
	else
		show_plan(p);
	return p->is_possible ? 0 : MIGRATE_REFUSED;
}

static int refuse(const struct plan *p)
{
	for (size_t i = 0; i < p->refusals.count; i++)
		fprintf(stderr, "sxm migrate: %s\n", p->refusals.item[i]);
	return MIGRATE_REFUSED;
}

typedef enum journey_outcome journey_fn(struct journey *j, struct error *e);

static int drive(const struct migrate_options *o, struct journey *j, struct show *show, journey_fn *how)
{
	struct error e = { 0 };
	enum journey_outcome outcome = how(j, &e);

	show_close(show); /* what is said now stands under it */
	return say_outcome(o, j, outcome, &e);
}

/* all: no other move begins before this one is on record. */
static int begin(const struct migrate_options *o, struct journey *j, struct error *e)
{
	CLEANUP_CLOSE int all = journey_lock_all(e);
	struct plan p;
	int status;

	if (all < 0 || journey_plan(j, o->sources, o->is_plan, &p, e) == -1)
		return fail(e);
	if (p.is_possible && journey_has_vm(j) && journey_vm_check(j, &p.warnings, e) == -1) {
		plan_clear(&p);
		return fail(e);
	}
	status = o->is_plan ? print_plan(&p, o->is_json) : p.is_possible ? 0 : refuse(&p);
	for (size_t i = 0; !o->is_plan && !o->is_json && i < p.warnings.count; i++)
		fprintf(stderr, "sxm migrate: note: %s\n", p.warnings.item[i]);
	plan_clear(&p);
	if (o->is_plan || status)
		return status;
	j->lock = journey_lock(j->r.id, e);
	return j->lock >= 0 && journey_begin(j, e) == 0 ? 0 : fail(e);
}

static int move(const struct migrate_options *o, const struct journey_watch *watch)
{
	struct journey_record r;
	struct journey j = { .lock = -1 };
	struct error e = { 0 };
	int status;

	if (migrate_make_record(o, &r, &e) == -1)
		return fail(&e);
	status = journey_open(&j, &r, -1, watch, &e) == 0 && journey_reach(&j, NULL, &e) == 0 ? begin(o, &j, &e) : fail(&e);
	if (!status && !o->is_plan) {
		show_begin(watch->arg, &j);
		status = drive(o, &j, watch->arg, journey_run);
	}
	journey_close(&j);
	return status;
}

/* --- one that is there */

static int take_up(const struct migrate_options *o, const struct journey_watch *watch)
{
	struct journey_record r;
	struct journey j = { .lock = -1 };
	struct error e = { 0 };
	int lock, status;

	if (journey_read(o->id, &r, &e) == -1)
		return fail(&e);
	jsonspec_clear(&journey_record_spec, &r);
	lock = journey_lock(o->id, &e);
	if (lock < 0 || journey_read(o->id, &r, &e) == -1) {
		status = fail(&e);
		if (lock >= 0)
			close(lock);
		return status;
	}
	migrate_change_record(o, &r);
	status = journey_open(&j, &r, lock, watch, &e) == -1 ? fail(&e) : 0;
	if (!status) {
		show_begin(watch->arg, &j);
		status = drive(o, &j, watch->arg, o->action == MIGRATE_ABORT ? journey_abort
			       : o->action == MIGRATE_RELEASE ? journey_release : journey_run);
	}
	journey_close(&j);
	return status;
}

static int tell(const struct migrate_options *o)
{
	struct journey_record r;
	struct error e = { 0 };
	int status;

	if (journey_read(o->id, &r, &e) == -1)
		return fail(&e);
	status = journey_is_over(&r) ? error_set(&e, EALREADY, "move %s is over", o->id)
		 : o->action == MIGRATE_GO ? journey_tell_go(o->id, &e) : journey_tell_bandwidth(o->id, o->bandwidth_bytes_s, &e);
	jsonspec_clear(&journey_record_spec, &r);
	if (status == 0 && !journey_is_driven(o->id))
		fprintf(stderr, "sxm migrate: nobody drives move %s just now; this is heeded when it goes on: "
				"sxm migrate --resume %s\n", o->id, o->id);
	return status == 0 ? 0 : fail(&e);
}

/* --- all of them */

static bool is_expired(const struct journey_record *r)
{
	return journey_step_of(r) == JOURNEY_DONE && r->until_s && r->until_s <= (int64_t)time(NULL);
}

/* only_expired: those that are, are released; else each is told. */
static int each(const struct migrate_options *o, const struct journey_watch *watch, bool only_expired)
{
	struct jsonspec_list ids;
	struct error e = { 0 };
	int status = 0;

	if (journey_list(&ids, &e) == -1)
		return fail(&e);
	if (!ids.count && !only_expired && !o->is_json)
		printf("no move is on record on this host\n");
	for (size_t i = 0; i < ids.count; i++) {
		struct migrate_options one = *o;
		struct journey_record r;
		bool is_due;

		if (journey_read(ids.item[i], &r, &e) == -1) {
			status = fail(&e);
			continue;
		}
		is_due = only_expired && is_expired(&r);
		if (!only_expired)
			show_record(&r, o->is_json);
		jsonspec_clear(&journey_record_spec, &r);
		one.id = ids.item[i];
		one.action = MIGRATE_RELEASE;
		if (is_due && take_up(&one, watch))
			status = MIGRATE_REFUSED;
	}
	while (ids.count)
		free(ids.item[--ids.count]);
	free(ids.item);
	return status;
}

static int run(int argc, char **argv)
{
	struct migrate_options o;
	struct error e = { 0 };
	struct show show = { 0 };
	struct journey_watch watch = { .show = show_view, .say = show_text, .arg = &show, .interrupts = &interrupts };
	int status = migrate_parse(argc, argv, &o);

	if (status)
		return status;
	show.is_json = o.is_json;
	show.is_quiet = o.is_quiet;
	watch.patience_s = o.patience_s;
	watch.is_forced = o.is_forced;
	catch_signals();
	if (show_open(&show, &e) == -1)
		return fail(&e);
	switch (o.action) {
	case MIGRATE_MOVE: status = move(&o, &watch); break;
	case MIGRATE_RESUME:
	case MIGRATE_ABORT:
	case MIGRATE_RELEASE: status = o.id ? take_up(&o, &watch) : each(&o, &watch, true); break;
	case MIGRATE_GO:
	case MIGRATE_CHANGE: status = tell(&o); break;
	case MIGRATE_LIST: status = each(&o, &watch, false); break;
	}
	show_close(&show);
	migrate_options_clear(&o);
	return status;
}

const struct cmd cmd_migrate = {
	.name = "migrate",
	.summary = "move disks to another host while they are written to",
	.usage = "sxm migrate [OPTIONS] SRC... [USER@]HOST:SR\n"
		 "       sxm migrate --plan [--json] [OPTIONS] SRC... [USER@]HOST:SR\n"
		 "       sxm migrate --resume ID | --abort ID | --go ID | --release ID [--force] |\n"
		 "                   --release expired | --list\n"
		 "       sxm migrate --change ID --bandwidth RATE\n"
		 "  SRC                  SR/KEY, the path of an image, or the id of a disk in use; several go together\n"
		 "  SR                   there: a name, a uuid, or a directory\n"
		 "  --domain D           activate the disks there for that domain at the end (default: none)\n"
		 "  --switchover WHEN    auto (default): when both sides are the same; manual: at --go ID; at=TIME: not before;\n"
		 "                       finish-by=TIME: paced to be done by then. TIME is 23:30, 2026-11-26T23:30 or +30m\n"
		 "  --on-pause CMD, --on-resume CMD   run around the switchover, without a shell\n"
		 "  --qemu-qmp SOCKET, --qemu-dest SOCKET   their VM moves with them: the QMP sockets of its QEMU here and of\n"
		 "                       the one that waits for it there\n"
		 "  --bandwidth RATE     at most so much a second, of all disks together (100MiB); 0: no limit\n"
		 "  --no-verify          do not read both sides back and compare them before it\n"
		 "  --keep-for TIME      how long the source is kept at least (7d); --release removes it, when the other host\n"
		 "                       says that it has the disk; with --force unasked, where that host is gone for good\n"
		 "  --patience TIME      how long the other host may be out of reach (10m)\n"
		 "  --carrier KIND       how to get there: ssh2, ssh\n"
		 "  --via 'PROG ARGS'    a program that brings bytes to `sxm relay` there\n"
		 "  --port N, --config FILE   of ssh\n"
		 "  --transport KIND     how the disks' bytes go: ssh (default), tcp+tls, tcp (with --insecure)\n"
		 "  --listen ADDRESS     of tcp+tls and tcp: where the other host listens (default: where its sshd was reached)\n"
		 "  --tls-certificates DIR   on both hosts, in place of a key that is made for this move\n"
		 "  --compress           make what goes through ssh shorter (zstd): for networks slower than some 200 MB/s\n"
		 "  --json, --quiet\n"
		 "exit status: 0 done, 1 refused, or failed and undone, 2 usage, 3 interrupted and resumable,\n"
		 "4 moved, but something was left",
	.run = run,
	.usage_status = MIGRATE_USAGE,
};
