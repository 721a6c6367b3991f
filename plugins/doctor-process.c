/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * doctor-process - what is wrong with the datapath processes of this host
 *
 *      SXM_RUN_DIR/<id>    answers          nobody there, but somebody on record    nobody on record
 *                             |                        |                                  |
 *                  who has it, for whom         started again: it serves            its files go, under <id>.lock
 *                  (a receiver nobody sends     whoever was served
 *                  to, a domain that is no
 *                  more, nobody at all)
 *
 * What is let go of has no client, and no operation that could be handed over by it; a receiver that has not everything is let
 * go of only when nobody has been linked to it for long.  A process is told to end over a descriptor of it (pidfd), as its number
 * may be another's by then.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "control/client.h"
#include "plugins/datapath.h"
#include "plugins/doctor-private.h"
#include "plugins/lock.h"
#include "plugins/meta.h"

#define DOMAINS_FILE "domains.json"
#define QCOW2_FILE "qcow2.json"
#define XENSTORE_YOUNG_S 60u /* a domain is being made, and may not be listed yet */
#define END_WAIT_MS 5000u
#define GONE_WAIT_MS 250u
#define GONE_PAUSE_MS 25u

/* --- what a process leaves */

static bool is_left_by_process(const char *name)
{
	const char *end = name + strlen(name);

	return strcmp(name, "control") == 0 || strcmp(name, "map") == 0 ||
	       strncmp(name, DOMAINS_FILE, strlen(DOMAINS_FILE)) == 0 || strncmp(name, "nbd-", 4) == 0 ||
	       strncmp(name, "cbt.", 4) == 0 ||
	       (end - name > 4 && (strcmp(end - 4, ".tmp") == 0 || strcmp(end - 4, ".new") == 0));
}

/* With the lock under which processes are started. */
static int remove_files(const struct process *p, struct error *e)
{
	CLEANUP_FREE char *ok = NULL;
	struct dirent *entry;
	int err = 0;
	DIR *d;

	if (client_ask(p->control, "hello", NULL, DOCTOR_ASK_MS, &ok, e) != CLIENT_ABSENT)
		return error_set(e, EBUSY, "somebody serves it now");
	d = opendir(p->dir);
	if (!d)
		return errno == ENOENT ? 0 : error_errno(e, errno, "list %s", p->dir);
	while ((entry = readdir(d)))
		if (is_left_by_process(entry->d_name) && unlinkat(dirfd(d), entry->d_name, 0) == -1 && errno != ENOENT)
			err = errno;
	closedir(d);
	if (err)
		return error_errno(e, err, "remove what is in %s", p->dir);
	return rmdir(p->dir) == 0 || errno == ENOENT ? 0 : error_errno(e, errno, "remove %s", p->dir);
}

static int remove_dir(const struct process *p, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_LOCK int lock = -1;

	if (asprintf(&path, "%s/%s.lock", proc_run_dir(), p->id) < 0) {
		path = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	lock = lock_make(path, LOCK_EXCLUSIVE, e);
	return lock < 0 ? -1 : remove_files(p, e);
}

/* --- who has it, for whom */

/* Between the look and this it may have been used: then it has a client, or is not there. */
static int let_go(const struct process *p, const char *domain, struct error *e)
{
	CLEANUP_FREE char *args = datapath_domain(domain);
	CLEANUP_FREE char *inactive = NULL;
	CLEANUP_FREE char *gone = NULL;
	const struct doctor_user *u;
	struct doctor_status s;
	bool is_used = false;

	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	if (doctor_ask(p, &s, e) == -1)
		return e->err == ESRCH ? 0 : -1;
	u = s.users.item;
	for (size_t i = 0; i < s.users.count; i++)
		is_used |= strcmp(u[i].domain, domain) == 0 && u[i].clients;
	jsonspec_clear(&doctor_status_spec, &s);
	if (is_used)
		return error_set(e, EBUSY, "it is in use after all");
	inactive = process_ask(p, "deactivate", args, 0, e);
	if (!inactive && e->err != ESRCH)
		return -1;
	gone = process_ask(p, "detach", args, 0, e);
	return gone || e->err == ESRCH || e->err == ECONNRESET ? 0 : -1;
}

static bool is_receiver(const char *domain)
{
	return strncmp(domain, "MIR", 3) == 0;
}

static void check_receiver(struct doctor_view *v, const struct process *p, const struct doctor_status *s,
			   const struct doctor_user *u)
{
	const bool is_whole = strcmp(s->owner.state, "eligible") == 0;
	unsigned age_s = doctor_age_s(p->dir, DOMAINS_FILE);
	struct error what, e;

	if (u->clients || s->owner.links || age_s < v->d->older_s)
		return;
	error_set(&what, EBUSY, "%s is %s for %s, the far end of a move, and nobody sends to it", s->path,
		  u->is_active ? "active" : "attached", u->domain);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "receiver-unused", .subject = s->path, .what = what.text,
		.why = is_whole ? "it has everything, and whoever moved it did not let go of it"
				: "it has not everything, so no guest can be started from it, and it keeps the image's lock",
		.remedy = is_whole ? "let go of it; the disk stays as it is, complete"
				   : "let go of it; the volume stays, for a person to remove (its source has the disk)" }))
		doctor_done(v->d, let_go(p, u->domain, &e), &e);
}

static void check_guest(struct doctor_view *v, const struct process *p, const struct doctor_status *s,
			const struct doctor_user *u)
{
	const bool is_busy = u->clients || (doctor_has_live_operation(s) && u->is_active && !u->is_read_only);
	struct error what, e;

	if (doctor_is_alive(&v->domains, u->domain) ||
	    (!v->d->alive && doctor_age_s(p->dir, DOMAINS_FILE) < XENSTORE_YOUNG_S))
		return;
	error_set(&what, EBUSY, "%s is %s for domain %s, which does not exist", s->path, u->is_active ? "active" : "attached",
		  u->domain);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "domain-gone", .subject = s->path, .what = what.text,
		.why = "the disk cannot be removed or reverted, nor be active elsewhere, as long as somebody has it",
		.remedy = is_busy ? NULL : "deactivate and detach it",
		.advice = u->clients ? "somebody is connected to it: end that first"
				     : "it is mirrored, and would be handed over: cancel the mirror first, if need be" }))
		doctor_done(v->d, let_go(p, u->domain, &e), &e);
}

/* A number that is another process' by now only makes us wait. */
static bool is_command_gone(const char *domain)
{
	const char *number = domain + strlen(DOCTOR_COMMAND);
	char *end;
	long pid;

	if (strncmp(domain, DOCTOR_COMMAND, strlen(DOCTOR_COMMAND)) != 0)
		return false;
	pid = strtol(number, &end, 10);
	return *number && !*end && pid > 0 && pid <= INT_MAX && kill((pid_t)pid, 0) == -1 && errno == ESRCH;
}

static void check_command(struct doctor_view *v, const struct process *p, const struct doctor_status *s,
			  const struct doctor_user *u)
{
	struct error what, e;

	if (u->clients || doctor_has_live_operation(s))
		return;
	error_set(&what, ESRCH, "%s is %s for a command that was killed (%s)", s->path, u->is_active ? "active" : "attached",
		  u->domain);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "command-gone", .subject = s->path, .what = what.text,
		.why = "the disk cannot be removed or used otherwise as long as somebody has it",
		.remedy = "deactivate and detach it; what the command wrote to may not be whole" }))
		doctor_done(v->d, let_go(p, u->domain, &e), &e);
}

/* It may be another process' number by now. */
static int end_process(const struct process *p, struct error *e)
{
	CLEANUP_CLOSE int fd = -1;
	struct doctor_status s = { 0 };
	int64_t pid;
	bool is_empty;

	if (doctor_ask(p, &s, e) == -1)
		return e->err == ESRCH ? 0 : -1;
	pid = s.pid;
	jsonspec_clear(&doctor_status_spec, &s);
	fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0u);
	if (fd < 0)
		return errno == ESRCH ? 0 : error_errno(e, errno, "process %lld", (long long)pid);
	if (doctor_ask(p, &s, e) == -1)
		return e->err == ESRCH ? 0 : -1;
	is_empty = s.pid == pid && !s.users.count && !doctor_has_live_operation(&s) && !s.owner.links;
	jsonspec_clear(&doctor_status_spec, &s);
	if (!is_empty)
		return error_set(e, EBUSY, "it is needed after all");
	if (syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0u) == -1 && errno != ESRCH)
		return error_errno(e, errno, "end process %lld", (long long)pid);
	for (unsigned ms = 0; ms < END_WAIT_MS; ms += 20) {
		const struct timespec pause = { .tv_nsec = 20 * (long)NS_PER_MS };

		if (syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0u) == -1)
			return remove_dir(p, e);
		nanosleep(&pause, NULL);
	}
	return error_set(e, ETIMEDOUT, "it was told to end, and has not yet");
}

static void check_idle(struct doctor_view *v, const struct process *p, const struct doctor_status *s)
{
	struct error what, e;

	if (s->users.count || doctor_has_live_operation(s) || s->owner.links ||
	    doctor_age_s(p->dir, "control") < v->d->older_s)
		return;
	error_set(&what, EBUSY, "process %lld serves %s, and nobody has that attached", (long long)s->pid, s->path);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "process-idle", .subject = s->path, .what = what.text, .why = "it keeps memory, and does nothing",
		.remedy = "end it" }))
		doctor_done(v->d, end_process(p, &e), &e);
}

static void check_operation(struct doctor_view *v, const struct doctor_status *s, const struct doctor_operation *o)
{
	struct error what;

	if (o->is_failed) {
		error_set(&what, EIO, "%s %s of %s has failed: %.250s", o->is_copy ? "copy" : "mirror", o->id, s->path, o->why);
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "mirror-failed", .subject = s->path, .what = what.text,
			.why = o->is_remembered ? "the move is over; it could be resumed, and what guests write is noted"
						: "the move is over; the disk goes on here" });
	} else if (!o->is_ended && !o->is_linked && !o->is_given && o->links_lost) {
		error_set(&what, EIO, "mirror %s of %s has lost its link", o->id, s->path);
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "mirror-unlinked", .subject = s->path, .what = what.text,
			.why = "the far side falls behind; a link is tried again until the move is given up" });
	}
}

/* As doctor-volume.c says it of a disk that nobody serves: the other side is not there to settle it.  Between two sxm that are
 * linked it takes a moment, in every move. */
static void check_doubt(struct doctor_view *v, const struct doctor_status *s)
{
	const struct doctor_operation *o = s->operations.item;
	const bool is_far = strcmp(s->owner.state, "eligible") == 0 || strcmp(s->owner.state, "released") == 0;

	if (is_far && !s->users.count && !s->owner.links)
		doctor_say_state(v, s->path, s->owner.state);
	for (size_t i = 0; i < s->operations.count; i++)
		if (o[i].is_given && !o[i].is_ended && !o[i].is_linked)
			doctor_say_state(v, s->path, s->owner.state);
}

static void check_answering(struct doctor_view *v, const struct process *p, const struct doctor_status *s)
{
	const struct doctor_operation *o = s->operations.item;
	const struct doctor_user *u = s->users.item;
	struct error what;

	for (size_t i = 0; i < s->users.count; i++) {
		if (is_receiver(u[i].domain))
			check_receiver(v, p, s, &u[i]);
		else if (doctor_is_guest(u[i].domain))
			check_guest(v, p, s, &u[i]);
		else if (is_command_gone(u[i].domain))
			check_command(v, p, s, &u[i]);
	}
	for (size_t i = 0; i < s->operations.count; i++)
		check_operation(v, s, &o[i]);
	check_doubt(v, s);
	check_idle(v, p, s);
	if (*s->owed) {
		error_set(&what, EIO, "%s: the next deactivation will fail once: %.300s", s->path, s->owed);
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "debt", .subject = s->path, .what = what.text,
			.why = "a mirror that was said to be complete is not: whoever wants to start the disk there must hear" });
	}
	if (*s->lease && !s->lease_left_ms && s->is_open) {
		error_set(&what, EIO, "%s: this host's lease is over and cannot be renewed", s->path);
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "lease-late", .subject = s->path, .what = what.text, .why = "its guests wait",
			.advice = "see to the storage: when it answers, the lease is renewed, and guests go on" });
	}
}

/* --- nobody answers */

static int start_again(struct process *p, const char *path, struct error *e)
{
	CLEANUP_FREE char *ok = NULL;

	p->path = path;
	ok = process_call(p, "status", NULL, PROCESS_START, DOCTOR_ASK_MS, e);
	return ok ? 0 : -1;
}

/* domains.json says that somebody had it, or cannot be read. */
static bool has_users_on_record(const struct process *p)
{
	static const struct jsonspec_field fields[] = { { "domain", JS_STRING, 0 }, { NULL } };
	static const struct jsonspec one = { "domain", sizeof(char *), fields };
	static const struct jsonspec_field all_fields[] = {
		{ "domains", JS_RECORDS, 0, .sub = &one },
		{ "operation", JS_STRING, sizeof(struct jsonspec_records), .is_optional = true }, { NULL }
	};
	struct {
		struct jsonspec_records domains;
		char *operation;
	} record;
	static const struct jsonspec all = { "domains", sizeof(record), all_fields };
	CLEANUP_FREE char *path = NULL;
	bool has;

	if (asprintf(&path, "%s/" DOMAINS_FILE, p->dir) < 0) {
		path = NULL;
		return true;
	}
	if (access(path, F_OK) == -1)
		return false;
	if (!doctor_read(path, &all, &record))
		return true;
	has = record.domains.count || (record.operation && *record.operation);
	jsonspec_clear(&all, &record);
	return has;
}

static bool has_file(const struct process *p, const char *name)
{
	CLEANUP_FREE char *path = NULL;

	if (asprintf(&path, "%s/%s", p->dir, name) < 0) {
		path = NULL;
		return true;
	}
	return access(path, F_OK) == 0;
}

/* One that ends takes its files away when it no longer answers, and one that died is started again by its keeper. */
static bool stays_dead(const struct process *p)
{
	const struct timespec pause = { .tv_nsec = GONE_PAUSE_MS * (long)NS_PER_MS };

	for (unsigned ms = 0; ms < GONE_WAIT_MS; ms += GONE_PAUSE_MS) {
		CLEANUP_FREE char *ok = NULL;
		struct error e;

		nanosleep(&pause, NULL);
		if (access(p->dir, F_OK) == -1)
			return false;
		ok = process_ask(p, "hello", NULL, DOCTOR_ASK_MS, &e);
		if (ok || e.err != ESRCH)
			return false;
	}
	return true;
}

static void check_dead(struct doctor_view *v, struct process *p)
{
	const struct doctor_volume *volume = doctor_volume_of(v, p->id);
	const bool has_users = has_users_on_record(p), has_qemu = has_file(p, QCOW2_FILE);
	struct error what, e;

	if (has_users || has_qemu) {
		error_set(&what, ESRCH, "the datapath process of %s is gone, and nobody started another; %s", p->id,
			  has_users ? "somebody had the disk attached" : "it left a qemu that has the image");
		if (doctor_found(v->d, &(struct doctor_finding) {
			.kind = "process-dead", .subject = volume ? volume->path : p->dir, .what = what.text,
			.why = "guests that use the disk wait, or saw errors; the next verb would start it",
			.remedy = volume ? "start it again: it serves whom it served, or ends what is not needed" : NULL,
			.advice = "its disk is in no SR that is attached here: attach the SR, or detach the disk" }))
			doctor_done(v->d, start_again(p, volume->path, &e), &e);
		return;
	}
	error_set(&what, ESRCH, "%s was left by a datapath process that is gone", p->dir);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "files-left", .subject = p->dir, .what = what.text, .why = "nobody needs its sockets and files",
		.remedy = "remove them" }))
		doctor_done(v->d, remove_dir(p, &e), &e);
}

/* --- each of them */

/* Who dies, or ends, while he is asked hangs up: what is so after that counts. One that begins anew takes the question up. */
static int ask_living(const struct process *p, struct doctor_status *s, struct error *e)
{
	const struct timespec pause = { .tv_nsec = GONE_PAUSE_MS * (long)NS_PER_MS };

	for (unsigned ms = 0;; ms += GONE_PAUSE_MS) {
		if (doctor_ask(p, s, e) == 0)
			return 0;
		if (e->err != ECONNRESET || ms >= GONE_WAIT_MS)
			return -1;
		nanosleep(&pause, NULL);
	}
}

static void check_one(const char *id, void *arg)
{
	struct doctor_view *v = arg;
	struct doctor_status s;
	struct process p;
	struct error e, what;
	struct stat st;

	if (process_by_id(&p, id, &e) == -1 || lstat(p.dir, &st) == -1 || !S_ISDIR(st.st_mode))
		return;
	if (ask_living(&p, &s, &e) == 0) {
		check_answering(v, &p, &s);
		jsonspec_clear(&doctor_status_spec, &s);
	} else if (e.err == ESRCH) {
		if (stays_dead(&p))
			check_dead(v, &p);
	} else {
		error_set(&what, e.err, "the datapath process of %s does not say how it is: %.250s", id, e.text);
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "process-silent", .subject = p.dir, .what = what.text, .why = "its disk may not be served",
			.advice = "look at its log; if its storage answers and it does not, kill it: it is started again" });
	}
}

/* Names first: what is removed or made meanwhile must not be met. */
static void note_id(const char *id, void *arg)
{
	jsonspec_list_add(arg, id);
}

void doctor_check_processes(struct doctor_view *v)
{
	struct jsonspec_list ids = { 0 };

	process_each(note_id, &ids);
	for (size_t i = 0; i < ids.count; i++)
		check_one(ids.item[i], v);
	meta_list_clear(&ids);
}
