/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-switch - the switchover: several disks of one guest, all of them or none
 *
 *      in sync - the moment has come - lag brought to nothing - group on record - on-pause
 *              - handover.prepare of all at once (guests held) - "commit" made, durable - handover.commit of all - moved
 *                      '-- one could not, or we were told to stop: "cancel" made - handover.cancel of all - on-resume - again
 *
 * The group's name is on record before the first disk hears of it, and the decision is base/decision.h's: made once. So whoever
 * comes after a kill reads what was decided, or decides "cancel" where nothing was, and never has to guess. After "commit"
 * Ctrl-C is not looked at: nothing goes back then.
 *
 * The hooks pause and resume the guest. on-pause runs before its writes are held: a hypervisor that is told to pause a guest
 * waits for the guest's writes.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/decision.h"
#include "base/proc.h"
#include "migrate/journey-private.h"
#include "migrate/journey-vm.h"
#include "migrate/question.h"
#include "migrate/vm.h"

#define ATTEMPTS_MAX 3
#define PATIENCE_MS 30000
#define PREPARE_WAIT_MS 120000u
#define FOLLOW_WAIT_MS 60000u
#define TIGHT_MS 3000
#define TIGHT_BYTES (256 * 1024)
#define HOOK_MS 120000
#define WAIT_MS 200u

/* --- hooks */

static void run_hook(const struct journey *j, const struct jsonspec_list *hook, const char *outcome)
{
	int null = open("/dev/null", O_RDONLY);
	char **argv = calloc(hook->count + 1, sizeof(*argv));

	setpgid(0, 0);
	if (null < 0 || !argv || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		_exit(127);
	for (size_t i = 0; i < hook->count; i++)
		argv[i] = hook->item[i];
	setenv("SXM_MIGRATE_ID", j->r.id, 1);
	setenv("SXM_MIGRATE_OUTCOME", outcome, 1);
	execvp(argv[0], argv);
	fprintf(stderr, "sxm migrate: run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* Waits for it, but not for ever. */
static int await_hook(pid_t pid, const char *name, struct error *e)
{
	int64_t until_ms = journey_now_ms() + HOOK_MS;
	int status;
	pid_t r;

	while ((r = waitpid(pid, &status, WNOHANG)) == 0) {
		if (journey_now_ms() > until_ms) {
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			return error_set(e, ETIMEDOUT, "%s did not end within %d s, and was killed", name, HOOK_MS / 1000);
		}
		journey_pause(2);
	}
	if (r == -1)
		return error_errno(e, errno, "wait for %s", name);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return error_set(e, ECHILD, WIFEXITED(status) ? "%s failed with status %d" : "%s was ended by signal %d", name,
			 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static int call_hook(const struct journey *j, const struct jsonspec_list *hook, const char *outcome, struct error *e)
{
	pid_t pid;

	if (!hook->count)
		return 0;
	pid = fork();
	if (pid == 0)
		run_hook(j, hook, outcome);
	return pid < 0 ? error_errno(e, errno, "fork") : await_hook(pid, hook->item[0], e);
}

static int pause_guest(struct journey *j, struct error *e)
{
	if (!j->r.on_pause.count && !j->r.on_resume.count)
		return 0;
	j->r.is_paused = true;
	if (journey_save(j, e) == -1)
		return -1;
	return call_hook(j, &j->r.on_pause, "", e) == 0 ? 0 : error_prefix(e, "--on-pause");
}

/* A VM that is lost is said to be, and is no reason to stop: its disks are where they are to be. */
static int resume_vm(struct journey *j, bool has_moved, struct error *e)
{
	if (!journey_has_vm(j))
		return 0;
	if (!has_moved)
		return journey_vm_stay(j, e);
	if (journey_vm_move(j, e) == 0)
		return 0;
	j->r.is_vm_lost = e->err == ENODATA || e->err == ESTALE;
	if (j->r.is_vm_lost)
		journey_say(j, "%s", e->text);
	return j->r.is_vm_lost ? 0 : -1;
}

/* Whatever the hook says, what has moved has moved; who resumes the guest hears of it. */
int journey_resume_guest(struct journey *j, bool has_moved, struct error *e)
{
	struct error why;

	if (!j->r.is_paused)
		return 0;
	if (resume_vm(j, has_moved, e) == -1)
		return -1;
	if (call_hook(j, &j->r.on_resume, has_moved ? "moved" : "stayed", &why) == -1)
		journey_say(j, "--on-resume: %s", why.text);
	j->r.is_paused = false;
	return journey_save(j, e);
}

/* --- the moment */

static bool is_time(struct journey *j)
{
	CLEANUP_FREE char *go = journey_run_path(j->r.id, "go");
	bool is_told = go && access(go, F_OK) == 0;

	if (is_told)
		unlink(go);
	if (is_told || (j->watch->is_wanted_now && j->watch->is_wanted_now(j->watch->arg)))
		return true;
	if (strcmp(j->r.switchover, "manual") == 0)
		return false;
	return strcmp(j->r.switchover, "at") != 0 || journey_now_ms() / 1000 >= j->r.at_s;
}

/* What happens to a mirror meanwhile is mended. */
static int await_moment(struct journey *j, struct error *e)
{
	bool is_first = true;

	if (journey_has_deadline(j) && journey_now_ms() / 1000 > j->r.at_s)
		journey_say(j, "it is later than was wished for (--switchover finish-by)");
	while (!is_time(j)) {
		if (is_first && strcmp(j->r.switchover, "manual") == 0)
			journey_say(j, "in sync; `sxm migrate --go %s` switches over", j->r.id);
		is_first = false;
		if (journey_await_sync(j, e) == -1 || journey_check(j, e) == -1)
			return -1;
		journey_pause(WAIT_MS);
	}
	return 0;
}

/* --- tightening: what the switchover would have to send is sent before it */

static void set_mode(struct journey *j, const char *mode)
{
	for (size_t i = 0; i < j->r.disks.count; i++) {
		struct error e;
		CLEANUP_FREE char *args = question_new(NULL, "id", journey_disk(j, i)->operation, "mode", mode, NULL);
		CLEANUP_FREE char *ok = args ? journey_control(j, i, "mirror.mode", args, &e) : NULL;
	}
}

static bool is_tight(struct journey *j)
{
	for (size_t i = 0; i < j->r.disks.count; i++) {
		struct journey_look l;
		struct error e;

		if (journey_look(j, i, &l, &e) == -1 || l.is_lagging || l.lag_bytes + l.dirty_bytes > TIGHT_BYTES)
			return false;
	}
	return true;
}

/* Guests hear of a write when both sides have it, for a moment; and nothing is slowed by a limit. A guest that writes more than
 * goes through is not waited for. */
void journey_tighten(struct journey *j)
{
	int64_t until_ms = journey_now_ms() + TIGHT_MS;

	journey_set_limit(j, 0);
	set_mode(j, "sync");
	while (!is_tight(j) && journey_now_ms() < until_ms)
		journey_pause(10);
}

/* --- the group */

static int follow(struct journey *j, const char *verb, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "group", j->r.group, NULL);

	return args ? journey_control_all(j, verb, args, FOLLOW_WAIT_MS, e) : error_set(e, ENOMEM, "out of memory");
}

/* For tests: stands still where it may be killed. */
static void stop_at(const char *place)
{
	const char *stop = getenv("SXM_MIGRATE_STOP");

	if (stop && strcmp(stop, place) == 0)
		raise(SIGSTOP);
}

/* No disk of the group is offered any more, and none has moved: as if it had been cancelled. */
static int none_moved(struct journey *j, struct error *e)
{
	CLEANUP_FREE char *group = strdup(j->r.group);
	struct error why;

	for (size_t i = 0; i < j->r.disks.count; i++)
		journey_disk(j, i)->stays = false;
	if (journey_resume_guest(j, false, e) == -1) /* the decision stays: it is followed again */
		return -1;
	if (!group || journey_set(&j->r.group, "", e) == -1 || journey_set_step(j, JOURNEY_VERIFIED, e) == -1)
		return group ? -1 : error_set(e, ENOMEM, "out of memory");
	decision_forget(group, &why);
	return 0;
}

/* Those that were taken back meanwhile will not follow. */
static int commit(struct journey *j, struct error *e)
{
	size_t stay = 0;
	struct error why;

	if (follow(j, "handover.commit", e) == -1 && journey_sort(j, &stay, &why) == -1)
		return error_prefix(e, "it is decided that the disks move, and not every one has followed yet; each goes on "
				    "trying by itself");
	if (stay == j->r.disks.count)
		return none_moved(j, e);
	j->view.released_ms = journey_now_ms();
	if (j->view.held_ms)
		journey_say(j, "handed over: guests were held for %" PRId64 " ms", j->view.released_ms - j->view.held_ms);
	stop_at("committed");
	if (journey_set_step(j, JOURNEY_MOVED, e) == -1)
		return -1;
	decision_forget(j->r.group, &why); /* only when that is on record */
	journey_show(j, "handed over");
	return 1;
}

static int cancel(struct journey *j, struct error *e)
{
	struct error why = { 0 };
	bool is_told = follow(j, "handover.cancel", &why) == 0;

	set_mode(j, "lag");
	if (journey_resume_guest(j, false, e) == -1) /* the decision stays: it is followed again */
		return -1;
	if (is_told)
		decision_forget(j->r.group, &why);
	if (journey_set(&j->r.group, "", e) == -1)
		return -1;
	return journey_set_step(j, JOURNEY_VERIFIED, e);
}

static int decide(struct journey *j, enum decision want, struct error *e)
{
	enum decision d = decision_make(j->r.group, want, e);

	stop_at("decided");
	if (d == DECISION_NONE)
		return -1;
	return d == DECISION_COMMIT ? commit(j, e) : cancel(j, e);
}

/* Nothing was decided: nothing will be but by us, or by a disk that waits no longer. Without a group nothing can be. */
int journey_settle(struct journey *j, struct error *e)
{
	enum decision d;

	if (!*j->r.group)
		return journey_resume_guest(j, false, e);
	error_clear(e);
	d = decision_read(j->r.group, e);
	if (d == DECISION_NONE && e->err)
		return -1;
	return d == DECISION_COMMIT ? commit(j, e) : decide(j, DECISION_CANCEL, e);
}

int journey_unpause(struct journey *j, struct error *e)
{
	error_clear(e);
	if (!j->r.is_paused || !journey_has_vm(j) || journey_step_of(&j->r) > JOURNEY_SWITCHING)
		return 0;
	if (*j->r.group && decision_make(j->r.group, DECISION_CANCEL, e) != DECISION_CANCEL)
		return e->err ? -1 : 0;
	return journey_resume_guest(j, false, e);
}

static int begin_group(struct journey *j, struct error *e)
{
	char group[DECISION_GROUP_MAX];

	snprintf(group, sizeof(group), "%s.%" PRId64, j->r.id, ++j->r.attempt);
	return journey_set(&j->r.group, group, e) == 0 ? journey_set_step(j, JOURNEY_SWITCHING, e) : -1;
}

static bool is_one_domain(const struct journey *j)
{
	for (size_t i = 1; i < j->r.disks.count; i++)
		if (strcmp(journey_disk(j, i)->domain, journey_disk(j, 0)->domain) != 0)
			return false;
	return true;
}

/* Each with its own domain, where they are not one guest's. */
static int prepare(struct journey *j, struct error *e)
{
	char raw[64];
	CLEANUP_FREE char *args = NULL;

	snprintf(raw, sizeof(raw), "\"patience_ms\":%d", PATIENCE_MS);
	if (!is_one_domain(j))
		return error_set(e, EINVAL, "the disks are not all of one guest: move them one by one");
	args = question_new(raw, "domain", journey_disk(j, 0)->domain, "group", j->r.group, NULL);
	j->view.held_ms = journey_now_ms();
	return args ? journey_control_all(j, "handover.prepare", args, PREPARE_WAIT_MS, e) : -1;
}

/* Nothing was decided. */
static int give_up_vm(struct journey *j, const struct error *why, struct error *e)
{
	set_mode(j, "lag");
	if (journey_resume_guest(j, false, e) == -1)
		return -1;
	*e = *why;
	return 0;
}

static int finish_vm(struct journey *j, struct error *e)
{
	stop_at("still");
	return journey_vm_finish(j, e);
}

/* 1: moved; 0: none has, and it may be tried again: e says why not. */
static int attempt(struct journey *j, struct error *e)
{
	struct error why = { 0 }, second;
	bool has_vm = journey_has_vm(j), is_good;
	int r;

	if (has_vm && journey_vm_send(j, &why) == -1)
		return give_up_vm(j, &why, e);
	if (!has_vm)
		journey_tighten(j);
	if (begin_group(j, e) == -1)
		return -1;
	stop_at("begun");
	is_good = pause_guest(j, &why) == 0 && prepare(j, &why) == 0 && (!has_vm || finish_vm(j, &why) == 0) &&
		  journey_check(j, &why) == 0;
	stop_at("prepared");
	r = decide(j, is_good ? DECISION_COMMIT : DECISION_CANCEL, &second);
	if (r == 0 && is_good)
		error_set(&why, EALREADY, "it was decided otherwise, or every disk was taken back");
	*e = r == -1 ? second : why;
	return r;
}

static int ensure_writers(struct journey *j, struct error *e)
{
	for (size_t i = 0; i < j->r.disks.count; i++) {
		struct journey_look l;

		if (journey_look(j, i, &l, e) == -1 || journey_ensure_writer(j, i, &l, e) == -1)
			return -1;
	}
	return 0;
}

/* What its guest handed over by letting go of it is handed over. */
int journey_switch(struct journey *j, struct error *e)
{
	int r = journey_settle(j, e);

	if (r == 0 && j->r.is_vm_lost)
		return error_set(e, ESTALE, "%s; --abort gives the move up", vm_why_text(VM_WHY_OTHER_TIME));
	if (r == 0 && journey_have_all_moved(j))
		return 0;

	for (int tries = 1; r == 0; tries++) {
		if (journey_await_sync(j, e) == -1 || await_moment(j, e) == -1 || ensure_writers(j, e) == -1)
			return -1;
		j->view.phase = "switching over";
		r = attempt(j, e);
		if (r == 0 && (journey_check(j, e) == -1 || tries == ATTEMPTS_MAX || journey_has_vm(j) || e->err == ECHILD ||
			       e->err == EINVAL))
			return error_prefix(e, "the disks stayed here, and their mirrors go on");
		if (r == 0)
			journey_say(j, "the switchover is tried again, since %s", e->text);
	}
	return r == 1 ? 0 : -1;
}
