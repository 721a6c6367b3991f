/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * doctor-host - what is left on this host that is no disk's: mounts, records of operations, decisions, sockets of xapi's
 *
 *      SXM_RUN_DIR/mnt/NAME.json         a mark; of an SR that is not attached: unmounted, as SR.detach does it
 *      SXM_STATE_DIR/operations          a record that says "runs" of what cannot run any more: has failed from now on
 *      SXM_STATE_DIR/groups              a decision that not every disk has followed
 *      SXM_RUN_DIR/journeys/ID/key       the key of a move that is over, or has not been heard of for long
 *      SXM_STATE_DIR/unfinished          a file that a copy was to fill, which was killed
 *      SXM_RUN_DIR/xenbus/KIND.lock      nobody has it: sxm-xenbus does not run any more; or it never did, and a Xen guest waits
 *      /var/run/nbdproxy/export/MIR*     a socket of xapi's relay that nobody listens at: xapi was restarted during a move
 *
 * Whether somebody listens is read in /proc/net/unix: a relay takes one connection, and to try it would be that one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/backend-kind.h"
#include "base/cleanup.h"
#include "base/decision.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/uri.h"
#include "plugins/doctor-private.h"
#include "plugins/mount.h"
#include "plugins/records.h"
#include "plugins/sr.h"
#include "plugins/unfinished.h"

#define PROXY_DIR "/var/run/nbdproxy/export"
#define RECORD_SUFFIX ".json"
#define LISTENS 0x10000u /* __SO_ACCEPTCON in /proc/net/unix */
#define DECISION_OLD_S 86400u
#define RECORD_YOUNG_S 60u
#define DOMAINS_MAX_BYTES (1u << 20)

/* --- mounts */

static bool is_attached(const struct doctor_view *v, const char *dir)
{
	for (size_t i = 0; i < v->handles.count; i++) {
		struct error e;
		CLEANUP_FREE char *path = uri_path(v->handles.item[i], "file", &e);

		if (path && strcmp(path, dir) == 0)
			return true;
	}
	return false;
}

struct mark {
	char *fstype;
};
static const struct jsonspec_field mark_fields[] = {
	{ "fstype", JS_STRING, offsetof(struct mark, fstype) }, { NULL }
};
static const struct jsonspec mark_spec = { "mount's mark", sizeof(struct mark), mark_fields };

/* The type whose SRs are mounted so. NULL: not known. */
static const struct sr_ops *type_of(const char *dir)
{
	CLEANUP_FREE char *path = NULL;
	const struct sr_ops *type = NULL;
	struct mark m;

	if (asprintf(&path, "%s" DOCTOR_MARK_SUFFIX, dir) < 0) {
		path = NULL;
		return NULL;
	}
	if (!doctor_read(path, &mark_spec, &m))
		return NULL;
	type = strcmp(m.fstype, "xfs") == 0 ? &sr_xfs : strcmp(m.fstype, "ext4") == 0 ? &sr_ext4 :
	       strncmp(m.fstype, "nfs", 3) == 0 ? &sr_nfs : NULL;
	jsonspec_clear(&mark_spec, &m);
	return type;
}

/* As SR.detach does it, which refuses what is in use. */
static int detach(const char *dir, struct error *e)
{
	const struct sr_ops *type = type_of(dir);
	struct failure f = { 0 };

	if (!type || !type->detach)
		return error_set(e, ENOTSUP, "what is mounted there is not known");
	if (type->detach(type, dir, &f) == 0)
		return 0;
	*e = f.e;
	return -1;
}

static int forget_mark(const char *dir, struct error *e)
{
	CLEANUP_CLOSE int lock = mount_lock(dir, e);

	if (lock < 0)
		return -1;
	if (mount_is_up(dir))
		return error_set(e, EBUSY, "it is mounted now");
	mount_forget(dir);
	mount_drop_lock(dir);
	return 0;
}

static void check_mount(struct doctor_view *v, const char *name)
{
	struct error e, what;
	CLEANUP_FREE char *dir = mount_dir(name, &e);
	bool is_up;

	if (!dir || !mount_is_dir(dir))
		return;
	is_up = mount_is_up(dir);
	if (is_attached(v, dir)) {
		error_set(&what, ENOENT, "SR %s is attached, and not mounted", name);
		if (!is_up)
			doctor_found(v->d, &(struct doctor_finding) {
				.kind = "sr-unmounted", .subject = dir, .what = what.text,
				.why = "its volumes cannot be seen, and a guest of one would see errors",
				.advice = "attach it again (xe pbd-plug)" });
		return;
	}
	error_set(&what, EBUSY, is_up ? "%s is mounted, and no SR is attached there" : "%s was mounted once, and is not", dir);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = is_up ? "mount-left" : "mark-left", .subject = dir, .what = what.text,
		.why = is_up ? "its device or server is kept, so that no other host can have it"
			     : "its mark says that it belongs to this host",
		.remedy = is_up ? "unmount it, if nobody uses it" : "remove the mark" }))
		doctor_done(v->d, is_up ? detach(dir, &e) : forget_mark(dir, &e), &e);
}

/* fn for each name in dir that ends so, the list complete before the first. */
static void each_name(const char *dir, const char *suffix, void (*fn)(struct doctor_view *v, const char *name),
		      struct doctor_view *v)
{
	struct jsonspec_list names = { 0 };
	DIR *d = opendir(dir);
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		size_t bytes = strlen(entry->d_name), tail = strlen(suffix);
		CLEANUP_FREE char *name = NULL;

		if (*entry->d_name != '.' && bytes > tail && strcmp(entry->d_name + bytes - tail, suffix) == 0)
			name = strndup(entry->d_name, bytes - tail);
		if (name)
			jsonspec_list_add(&names, name);
	}
	if (d)
		closedir(d);
	for (size_t i = 0; i < names.count; i++)
		fn(v, names.item[i]);
	meta_list_clear(&names);
}

static void each_in(const char *base, const char *name, const char *suffix, void (*fn)(struct doctor_view *v, const char *name),
		    struct doctor_view *v)
{
	CLEANUP_FREE char *dir = NULL;

	if (asprintf(&dir, "%s/%s", base, name) < 0) {
		dir = NULL;
		return;
	}
	each_name(dir, suffix, fn, v);
}

/* --- records of operations */

/* Is it known to the process of its disk? */
static bool is_known(const char *operation)
{
	const struct doctor_operation *o;
	struct doctor_status s;
	char id[VDI_ID_MAX];
	struct process p;
	struct error e;
	bool is_it = false;

	if (!vdi_id_of_operation(operation, id) || process_by_id(&p, id, &e) == -1)
		return false;
	if (doctor_ask(&p, &s, &e) == -1)
		return e.err != ESRCH;
	o = s.operations.item;
	for (size_t i = 0; i < s.operations.count; i++)
		is_it |= strcmp(o[i].id, operation) == 0;
	jsonspec_clear(&doctor_status_spec, &s);
	return is_it;
}

static int fail_record(const struct record *r, struct error *e)
{
	if (is_known(r->id) || records_is_suspended(r))
		return error_set(e, EBUSY, "it goes on after all");
	return records_fail(r, "its process is gone, and it cannot be gone on with", e);
}

static void check_running(struct doctor_view *v, const struct record *r, const char *subject)
{
	struct error what, e;

	if (records_is_suspended(r)) {
		error_set(&what, EINPROGRESS, "%s %s of %s is suspended%s", r->kind, r->id, subject,
			  r->complete ? ", and had been complete" : "");
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "mirror-suspended", .subject = subject, .what = what.text,
			.why = "it goes on when the disk is activated for writing again; the volume cannot be removed before it "
			       "is settled",
			.advice = "activate the disk, or end the mirror (Data.destroy)" });
		return;
	}
	error_set(&what, ESRCH, "%s %s of %s is on record as running, and its process is gone", r->kind, r->id, subject);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "record-stale", .subject = subject, .what = what.text,
		.why = "whoever asks for it is not told how it ended",
		.remedy = "write down that it has failed" }))
		doctor_done(v->d, fail_record(r, &e), &e);
}

static void check_record(struct doctor_view *v, const char *operation)
{
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *name = NULL;
	struct record r;
	struct error what;

	if (asprintf(&dir, "%s/operations", proc_state_dir()) < 0)
		dir = NULL;
	if (asprintf(&name, "%s.json", operation) < 0)
		name = NULL;
	if (!dir || !name || !records_read(operation, &r))
		return;
	if (strcmp(r.id, operation) != 0 || is_known(operation)) {
		; /* its process tells */
	} else if (!r.ended) {
		if (doctor_age_s(dir, name) >= RECORD_YOUNG_S || records_is_suspended(&r) || !v->d->older_s)
			check_running(v, &r, r.path ? r.path : operation);
	} else if (r.failed) {
		error_set(&what, EIO, "%s %s has failed: %.300s", r.kind, r.id, r.text);
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "mirror-failed", .subject = r.path ? r.path : operation, .what = what.text,
			.why = "the move is over; this record goes a day after its end" });
	}
	jsonspec_clear(&records_spec, &r);
}

/* --- decisions */

static void check_group(struct doctor_view *v, const char *group)
{
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *name = NULL;
	struct error what, e = { 0 };

	if (asprintf(&dir, "%s/groups", proc_state_dir()) < 0)
		dir = NULL;
	if (asprintf(&name, "%s.json", group) < 0)
		name = NULL;
	if (!dir || !name || !decision_group_is_valid(group) || decision_read(group, &e) != DECISION_COMMIT ||
	    doctor_age_s(dir, name) < DECISION_OLD_S)
		return;
	error_set(&what, EINPROGRESS, "group %s was handed over more than a day ago, and its decision is still kept", group);
	doctor_found(v->d, &(struct doctor_finding) {
		.kind = "group-open", .subject = group, .what = what.text,
		.why = "a disk of it may not have followed yet, and would have to know" });
}

/* --- keys of moves */

struct journey {
	char *step;
};
static const struct jsonspec_field journey_fields[] = { { "step", JS_STRING, offsetof(struct journey, step) }, { NULL } };
static const struct jsonspec journey_spec = { "journey", sizeof(struct journey), journey_fields };

/* It is of this host, and not over: it is gone on with some day, with this key. */
static bool is_open_journey(const char *id)
{
	CLEANUP_FREE char *path = NULL;
	struct journey j;
	bool is_open;

	if (asprintf(&path, "%s/journeys/%s.json", proc_state_dir(), id) < 0) {
		path = NULL;
		return true;
	}
	if (!doctor_read(path, &journey_spec, &j))
		return access(path, F_OK) == 0;
	is_open = strcmp(j.step, "done") != 0 && strcmp(j.step, "aborted") != 0;
	jsonspec_clear(&journey_spec, &j);
	return is_open;
}

struct search {
	const char *word; /* borrowed */
	bool is_found;
};

/* A process that is started again reads its keys by what stands there. */
static void search_users(const char *id, void *arg)
{
	struct search *s = arg;
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;
	struct error e;

	if (asprintf(&path, "%s/%s/domains.json", proc_run_dir(), id) < 0)
		path = NULL;
	text = path ? proc_read_own_file(path, DOMAINS_MAX_BYTES, NULL, &e) : NULL;
	s->is_found |= text && strstr(text, s->word);
}

static int remove_keys(const char *dir, struct error *e)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	int err = 0;

	while (d && (entry = readdir(d)))
		if (strncmp(entry->d_name, "key", 3) == 0 && unlinkat(dirfd(d), entry->d_name, 0) == -1)
			err = errno;
	if (d)
		closedir(d);
	rmdir(dir); /* others' files may be in it */
	return err ? error_errno(e, err, "remove the key in %s", dir) : 0;
}

static void check_key(struct doctor_view *v, const char *move)
{
	struct search s = { .word = move };
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *key = NULL;
	struct error what, e;

	if (asprintf(&dir, "%s/journeys/%s", proc_run_dir(), move) < 0)
		dir = NULL;
	if (!dir || asprintf(&key, "%s/key", dir) < 0)
		key = NULL;
	if (!key || access(key, F_OK) == -1 || doctor_age_s(dir, "key") < v->d->older_s || is_open_journey(move))
		return;
	process_each(search_users, &s);
	if (s.is_found)
		return;
	error_set(&what, ENOENT, "%s is the key of a move that is over, and nobody listens with it", key);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "key-left", .subject = key, .what = what.text,
		.why = "a secret that nobody needs is one that can only be lost",
		.remedy = "remove it" }))
		doctor_done(v->d, remove_keys(dir, &e), &e);
}

/* --- sockets of xapi's relays */

/* Some socket of that name listens. Where it cannot be read: yes. */
static bool is_listening(const char *path)
{
	CLEANUP_FREE char *real = realpath(path, NULL);
	CLEANUP_FCLOSE FILE *f = fopen("/proc/net/unix", "re");
	CLEANUP_FREE char *line = NULL;
	size_t bytes = 0;
	bool is_it = false;

	while (f && getline(&line, &bytes, f) > 0) {
		unsigned flags;
		int name = 0;

		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%*s %*x %*x %x %*x %*x %*u %n", &flags, &name) == 1 && name && (flags & LISTENS))
			is_it |= strcmp(line + name, path) == 0 || (real && strcmp(line + name, real) == 0);
	}
	return !f || is_it;
}

static const char *proxy_dir(void)
{
	const char *dir = getenv("SXM_NBDPROXY_DIR");

	return dir && *dir ? dir : PROXY_DIR;
}

static int remove_socket(const char *path, struct error *e)
{
	if (is_listening(path))
		return error_set(e, EBUSY, "somebody listens there now");
	return unlink(path) == 0 || errno == ENOENT ? 0 : error_errno(e, errno, "remove %s", path);
}

static void check_proxy(struct doctor_view *v, const char *name)
{
	CLEANUP_FREE char *path = NULL;
	struct error what, e;
	struct stat st;

	if (asprintf(&path, "%s/%s", proxy_dir(), name) < 0) {
		path = NULL;
		return;
	}
	if (strncmp(name, "MIR", 3) != 0 || lstat(path, &st) == -1 || !S_ISSOCK(st.st_mode) || is_listening(path))
		return;
	error_set(&what, ECONNREFUSED, "nobody listens at %s", path);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "proxy-left", .subject = path, .what = what.text,
		.why = "it was left by a move that xapi did not end; names repeat, and a later move may meet it",
		.remedy = "remove it" }))
		doctor_done(v->d, remove_socket(path, &e), &e);
}

/* --- the broker of Xen guests' disks: while one is at work it has the lock of its kind */

#define BROKER_DIR "xenbus"

struct guest {
	char *domain, *backend;
	bool is_active;
};
static const struct jsonspec_field guest_fields[] = {
	{ .name = "domain", .type = JS_STRING, .offset = offsetof(struct guest, domain) },
	{ .name = "active", .type = JS_BOOL, .offset = offsetof(struct guest, is_active), .is_optional = true },
	{ .name = "backend", .type = JS_STRING, .offset = offsetof(struct guest, backend), .is_optional = true },
	{ .name = NULL },
};
static const struct jsonspec guest_spec = { "domain", sizeof(struct guest), guest_fields };
struct guests {
	struct jsonspec_records domains;
};
static const struct jsonspec_field guests_fields[] = {
	{ .name = "domains", .type = JS_RECORDS, .offset = offsetof(struct guests, domains), .is_optional = true,
	  .sub = &guest_spec },
	{ .name = NULL },
};
static const struct jsonspec guests_spec = { "domains", sizeof(struct guests), guests_fields };

/* A guest has the disk active, and nobody has told its process which device that is. */
static void search_waiting(const char *id, void *arg)
{
	bool *is_waiting = arg;
	CLEANUP_FREE char *path = NULL;
	const struct guest *g;
	struct guests guests;

	if (asprintf(&path, "%s/%s/domains.json", proc_run_dir(), id) < 0) {
		path = NULL;
		return;
	}
	if (!doctor_read(path, &guests_spec, &guests))
		return;
	g = guests.domains.item;
	for (size_t i = 0; i < guests.domains.count; i++)
		*is_waiting |= g[i].is_active && !g[i].backend && doctor_is_guest(g[i].domain);
	jsonspec_clear(&guests_spec, &guests);
}

static bool is_xen_host(void)
{
	const char *dir = getenv("SXM_PROC_XEN"); /* for tests */
	CLEANUP_FREE char *path = NULL;

	return asprintf(&path, "%s/capabilities", dir && *dir ? dir : "/proc/xen") >= 0 && access(path, F_OK) == 0;
}

/* 1, 0; -1: none was there since the host was booted. */
static int is_broker_up(const char *kind)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_CLOSE int fd = -1;

	if (asprintf(&path, "%s/" BROKER_DIR "/%s.lock", proc_run_dir(), kind) < 0)
		path = NULL;
	if (path)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -1 : flock(fd, LOCK_SH | LOCK_NB) == -1;
}

static void say_broker_down(struct doctor_view *v, const char *kind, bool is_waiting)
{
	struct error what;

	if (is_waiting)
		error_set(&what, ESRCH, "sxm-xenbus does not run (for backends of kind %s), and a guest has a disk active which "
			  "its process serves over NBD alone", kind);
	else
		error_set(&what, ESRCH, "sxm-xenbus ran (for backends of kind %s), and does not any more", kind);
	doctor_found(v->d, &(struct doctor_finding) {
		.kind = "broker-down", .subject = "sxm-xenbus", .what = what.text,
		.why = "Xen guests' disks that are served go on, but none that comes is, and what a guest that is gone had stays",
		.advice = "start it (systemctl enable --now sxm-xenbus)" });
}

static void check_broker(struct doctor_view *v, const char *kind)
{
	if (is_broker_up(kind) == 0)
		say_broker_down(v, kind, false);
}

static void check_brokers(struct doctor_view *v)
{
	char kind[BACKEND_KIND_MAX];
	bool is_waiting = false;

	each_in(proc_run_dir(), BROKER_DIR, ".lock", check_broker, v);
	backend_kind(kind);
	if (is_xen_host() && is_broker_up(kind) == -1)
		process_each(search_waiting, &is_waiting);
	if (is_waiting)
		say_broker_down(v, kind, true);
}

/* --- files that are not whole */

static void check_unfinished(struct doctor_view *v, const char *record)
{
	CLEANUP_FREE char *path = unfinished_path(record);
	struct error what;

	if (!path || !doctor_is_unserved(path))
		return;
	if (access(path, F_OK) == -1) {
		if (errno == ENOENT && !v->d->is_only_report)
			unfinished_forget(path);
		return;
	}
	error_set(&what, EUCLEAN, "%s was left by a copy that was killed", path);
	doctor_found(v->d, &(struct doctor_finding) {
		.kind = "copy-left", .subject = path, .what = what.text,
		.why = "it takes space, and nobody knows whether it is whole: a copy that is has another name",
		.advice = "remove the file" });
}

/* --- */

void doctor_check_host(struct doctor_view *v)
{
	each_in(proc_run_dir(), "mnt", DOCTOR_MARK_SUFFIX, check_mount, v);
	each_in(proc_state_dir(), "operations", RECORD_SUFFIX, check_record, v);
	each_in(proc_state_dir(), "groups", RECORD_SUFFIX, check_group, v);
	each_in(proc_run_dir(), "journeys", "", check_key, v);
	each_in(proc_state_dir(), UNFINISHED_DIR, RECORD_SUFFIX, check_unfinished, v);
	each_name(proxy_dir(), "", check_proxy, v);
	check_brokers(v);
}
