/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mount - see mount.h
 *
 *      nothing --mark--> marked --mount--> mounted --umount--> marked --forget--> nothing
 *
 * Block devices are mounted by the system call, what needs a helper (NFS: names, versions, security) by mount(8), which is given
 * an argument array.  Either is done in a child: a device or a server that hangs does not hang the verb.
 *
 * Invariant: what we unmount is what our mark says, topmost at its place, and was mounted by us.
 */
#include "plugins/mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/proc.h"
#include "plugins/child.h"
#include "plugins/lock.h"
#include "plugins/mount-table.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256 /* since Linux 5.10; older ones ignore it */
#endif
#define FLAGS (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NOSYMFOLLOW)
#define NAME_BYTES_MAX 64u
#define MARK_MAX_BYTES 65536u
#define USERS_SHOWN 3
#define BUSY_MS 1000u      /* what is in use is unmounted, or named, by then */
#define BUSY_AGAIN_MS 20u

struct mark {
	char *fstype, *source;
	int64_t major, minor; /* of a block device; 0:0: none */
	int64_t pid;          /* of the verb that mounted it; for people */
};
static const struct jsonspec_field mark_fields[] = {
	{ "fstype", JS_STRING, offsetof(struct mark, fstype) },
	{ "source", JS_STRING, offsetof(struct mark, source) },
	{ "major", JS_INT64, offsetof(struct mark, major) },
	{ "minor", JS_INT64, offsetof(struct mark, minor) },
	{ "pid", JS_INT64, offsetof(struct mark, pid) },
	{ NULL },
};
static const struct jsonspec mark_spec = { "mount's mark", sizeof(struct mark), mark_fields };

/* --- names */

bool mount_is_name(const char *name)
{
	size_t bytes = strnlen(name, NAME_BYTES_MAX + 1);

	if (!bytes || bytes > NAME_BYTES_MAX || *name == '.' || *name == '-')
		return false;
	for (const char *c = name; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("._-", *c)))
			return false;
	return true;
}

static char *join(const char *a, const char *between, const char *b)
{
	char *path;

	return asprintf(&path, "%s%s%s", a, between, b) < 0 ? NULL : path;
}

/* SXM_RUN_DIR/mnt, as the kernel's table calls it. */
static char *base_dir(struct error *e)
{
	CLEANUP_FREE char *base = join(proc_run_dir(), "/", "mnt");
	char *real;

	if (!base || proc_make_dir(proc_run_dir(), e) == -1 || proc_make_dir(base, e) == -1) {
		if (!base)
			error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	real = realpath(base, NULL);
	if (!real)
		error_errno(e, errno, "find directory %s", base);
	return real;
}

char *mount_dir(const char *name, struct error *e)
{
	CLEANUP_FREE char *base = NULL;
	char *dir;

	if (!mount_is_name(name)) {
		error_set(e, EINVAL, "%s cannot be the name of a directory: letters, digits, '.', '_' and '-', at most %u "
			  "of them", name,
			  NAME_BYTES_MAX);
		return NULL;
	}
	base = base_dir(e);
	if (!base)
		return NULL;
	dir = join(base, "/", name);
	if (!dir)
		error_set(e, ENOMEM, "out of memory");
	return dir;
}

/* The same for those who only look: NULL where there is none. */
static char *find_base(void)
{
	CLEANUP_FREE char *base = join(proc_run_dir(), "/", "mnt");

	return base ? realpath(base, NULL) : NULL;
}

bool mount_is_dir(const char *dir)
{
	CLEANUP_FREE char *base = find_base();
	size_t bytes = base ? strlen(base) : 0;

	return base && strncmp(dir, base, bytes) == 0 && dir[bytes] == '/' && mount_is_name(dir + bytes + 1);
}

char *mount_above(const char *path)
{
	CLEANUP_FREE char *base = find_base();
	CLEANUP_FREE char *dir = NULL;
	size_t bytes = base ? strlen(base) : 0;

	if (!base || strncmp(path, base, bytes) != 0 || path[bytes] != '/')
		return NULL;
	dir = strndup(path, bytes + 1 + strcspn(path + bytes + 1, "/"));
	return dir && mount_is_name(dir + bytes + 1) ? take_ptr(&dir) : NULL;
}

int mount_lock(const char *dir, struct error *e)
{
	CLEANUP_FREE char *path = join(dir, "", ".lock");

	return path ? lock_make(path, LOCK_EXCLUSIVE, e) : error_set(e, ENOMEM, "out of memory");
}

/* --- the mark */

static int write_mark(const char *dir, const struct mount_what *what, struct error *e)
{
	struct mark mark = { .fstype = (char *)(uintptr_t)what->fstype, .source = (char *)(uintptr_t)what->source,
			     .major = major(what->device), .minor = minor(what->device), .pid = getpid() };
	CLEANUP_FREE char *path = join(dir, "", ".json");
	CLEANUP_FREE char *text = jsonspec_encode(&mark_spec, &mark);

	if (!path || !text)
		return error_set(e, ENOMEM, "out of memory");
	return proc_replace_file(path, text, strlen(text), 0600, e);
}

static int read_mark(const char *dir, struct mark *mark, struct error *e)
{
	CLEANUP_FREE char *path = join(dir, "", ".json");
	CLEANUP_FREE char *text = NULL;
	size_t bytes;

	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	text = proc_read_file(path, MARK_MAX_BYTES, &bytes, e);
	if (!text)
		return -1;
	return jsonspec_decode(&mark_spec, text, bytes, mark, e) == 0 ? 0 : error_prefix(e, "%s is damaged", path);
}

char *mount_source(const char *dir, struct error *e)
{
	struct mark mark;
	char *source;

	if (read_mark(dir, &mark, e) == -1)
		return NULL;
	source = take_ptr(&mark.source);
	jsonspec_clear(&mark_spec, &mark);
	return source;
}

/* "<mark>.<pid>.tmp" of verbs that were killed while they wrote it; the lock is held. */
static void drop_half_written(const char *mark)
{
	CLEANUP_FREE char *base = strdup(mark);
	char *name = base ? strrchr(base, '/') : NULL;
	struct dirent *entry;
	size_t bytes;
	DIR *d;

	if (!name)
		return;
	*name++ = '\0';
	bytes = strlen(name);
	d = opendir(base);
	while (d && (entry = readdir(d)))
		if (strncmp(entry->d_name, name, bytes) == 0 && entry->d_name[bytes] == '.')
			unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
}

void mount_forget(const char *dir)
{
	CLEANUP_FREE char *path = join(dir, "", ".json");

	rmdir(dir);
	if (path) {
		unlink(path);
		drop_half_written(path);
	}
	mount_drop_lock(dir);
}

void mount_drop_lock(const char *dir)
{
	CLEANUP_FREE char *mark = join(dir, "", ".json");
	CLEANUP_FREE char *path = join(dir, "", ".lock");

	if (mark && path && access(mark, F_OK) == -1 && errno == ENOENT)
		unlink(path);
}

/* --- what is there */

/* A slash at the end is nothing. */
static bool is_same_source(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);

	while (n > 1 && a[n - 1] == '/')
		n--;
	while (m > 1 && b[m - 1] == '/')
		m--;
	return n == m && memcmp(a, b, n) == 0;
}

static bool is_what(const struct mount_entry *m, const struct mount_what *what)
{
	if (what->device)
		return m->device == what->device && strcmp(m->fstype, what->fstype) == 0 && strcmp(m->root, "/") == 0;
	return is_same_source(m->source, what->source);
}

/* 1: it is what's; 0: nothing is mounted at dir; -1 + e: something else. */
static int look(const char *dir, const struct mount_what *what, struct error *e)
{
	const struct mount_entry *m;
	struct mount_table t;
	size_t count;
	int r = 0;

	if (mount_table_read(&t, e) == -1)
		return -1;
	m = mount_table_at(&t, dir, &count);
	if (count > 1)
		r = error_set(e, EBUSY, "%zu file systems are mounted over one another at %s, the last from %s: not by us; "
			      "unmount what does not belong there", count, dir, m->source);
	else if (m && !is_what(m, what))
		r = error_set(e, EBUSY, "%s (%s) is mounted at %s, where %s belongs: not by us; unmount it there", m->source,
			      m->fstype, dir, what->source);
	else if (m)
		r = 1;
	mount_table_fini(&t);
	return r;
}

/* As look(), by the mark. -1 with ENOENT: there is no mark, and nothing is mounted. */
static int look_marked(const char *dir, struct error *e)
{
	struct mount_what what;
	struct mount_table t;
	struct mark mark;
	int r;

	if (read_mark(dir, &mark, e) == 0) {
		what = (struct mount_what) { .fstype = mark.fstype, .source = mark.source,
					     .device = makedev((unsigned)mark.major, (unsigned)mark.minor) };
		r = look(dir, &what, e);
		jsonspec_clear(&mark_spec, &mark);
		return r;
	}
	if (e->err != ENOENT || mount_table_read(&t, e) == -1)
		return -1;
	r = mount_table_at(&t, dir, NULL) ? EBUSY : ENOENT;
	mount_table_fini(&t);
	return error_set(e, r, r == EBUSY ? "something is mounted at %s that has no mark: not by us; unmount it there"
					  : "nothing is mounted at %s", dir);
}

bool mount_is_up(const char *dir)
{
	struct error e;

	return look_marked(dir, &e) == 1;
}

/* --- up */

struct ask {
	const char *dir;
	const struct mount_what *what;
};

static int mount_device(void *arg, int fd UNUSED, struct error *e)
{
	const struct ask *a = arg;

	if (mount(a->what->source, a->dir, a->what->fstype, FLAGS, a->what->options) == 0)
		return 0;
	return error_errno(e, errno, "mount %s (%s)", a->what->source, a->what->fstype);
}

/* The flags by ourselves, too: not every helper knows each of them. */
static int restrict_it(void *arg, int fd UNUSED, struct error *e)
{
	const struct ask *a = arg;

	if (mount(NULL, a->dir, NULL, MS_REMOUNT | MS_BIND | FLAGS, NULL) == 0)
		return 0;
	return error_errno(e, errno, "restrict what is mounted at %s", a->dir);
}

static int mount_by_helper(const char *dir, const struct mount_what *what, struct error *e)
{
	CLEANUP_FREE char *options = NULL;
	const char *argv[] = { "mount", "-t", what->fstype, "-o", NULL, what->source, dir, NULL };

	if (asprintf(&options, "nosuid,nodev,noexec,noatime%s%s", what->options ? "," : "",
		     what->options ? what->options : "") < 0) {
		options = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	argv[4] = options;
	if (child_run(argv, what->wait_ms, NULL, e) == -1)
		return error_prefix(e, "mount %s", what->source);
	return 0;
}

/* A directory for it, with nothing in it that would be hidden. */
static int make_place(const char *dir, struct error *e)
{
	struct dirent *entry;
	bool is_empty = true;
	DIR *d;

	if (proc_make_dir(dir, e) == -1)
		return -1;
	d = opendir(dir);
	if (!d)
		return error_errno(e, errno, "list %s", dir);
	while ((entry = readdir(d)))
		is_empty = is_empty && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
	closedir(d);
	return is_empty ? 0 : error_set(e, ENOTEMPTY, "%s has files in it though nothing is mounted there; move them away", dir);
}

static int mount_now(const char *dir, const struct mount_what *what, struct error *e)
{
	struct ask ask = { dir, what };
	int r;

	if ((what->device ? child_call(mount_device, &ask, what->wait_ms, 0, NULL, e) : mount_by_helper(dir, what, e)) == -1)
		return -1;
	r = look(dir, what, e);
	if (r == 0)
		r = error_set(e, EIO, "mount says that %s was mounted at %s, and it is not there", what->source, dir);
	if (r == -1 || child_call(restrict_it, &ask, what->wait_ms, 0, NULL, e) == 0)
		return r == -1 ? -1 : 0;
	umount2(dir, UMOUNT_NOFOLLOW);
	return -1;
}

int mount_up(const char *dir, const struct mount_what *what, bool *was_up, struct error *e)
{
	struct error why;
	int r = look(dir, what, e);

	*was_up = r == 1;
	if (r == -1)
		return -1;
	if (r == 1)
		return write_mark(dir, what, e);
	if (make_place(dir, e) == -1)
		return -1;
	if (write_mark(dir, what, e) == 0 && mount_now(dir, what, e) == 0)
		return 0;
	if (look(dir, what, &why) == 0)
		mount_forget(dir);
	return -1;
}

/* --- down */

/* target, of n bytes, as readlink() gave it: -1 where it did not. */
static bool is_within(const char *target, ssize_t n, const char *dir)
{
	ssize_t bytes = (ssize_t)strlen(dir);

	return n >= bytes && memcmp(target, dir, (size_t)bytes) == 0 && (n == bytes || target[bytes] == '/');
}

/* Has that process something of dir open? */
static bool is_user(const char *pid, const char *dir)
{
	static const char *const links[] = { "cwd", "root", "exe" };
	char path[PATH_MAX], target[PATH_MAX];
	struct dirent *entry;
	bool is_found = false;
	ssize_t n;
	DIR *d;

	for (size_t i = 0; i < ARRAY_LEN(links) && !is_found; i++) {
		snprintf(path, sizeof(path), "/proc/%s/%s", pid, links[i]);
		n = readlink(path, target, sizeof(target));
		is_found = is_within(target, n, dir);
	}
	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	d = is_found ? NULL : opendir(path);
	while (d && !is_found && (entry = readdir(d))) {
		n = readlinkat(dirfd(d), entry->d_name, target, sizeof(target));
		is_found = is_within(target, n, dir);
	}
	if (d)
		closedir(d);
	return is_found;
}

/* "4711 (qemu-dp), 4712 (bash)"; "" when nobody can be found. */
static void name_users(const char *dir, char text[static 200])
{
	DIR *d = opendir("/proc");
	struct dirent *entry;
	int shown = 0;
	size_t n = 0;

	text[0] = '\0';
	while (d && shown < USERS_SHOWN && (entry = readdir(d))) {
		char path[PATH_MAX];
		CLEANUP_FREE char *name = NULL;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !is_user(entry->d_name, dir))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/comm", entry->d_name);
		name = proc_read_file(path, 64, NULL, NULL);
		n += (size_t)snprintf(text + n, 200 - n, "%s%.20s (%.16s)", shown ? ", " : "", entry->d_name,
				      name ? strtok(name, "\n") : "?");
		shown++;
	}
	if (d)
		closedir(d);
}

static int unmount_now(void *arg, int fd UNUSED, struct error *e)
{
	const char *dir = arg;

	return umount2(dir, UMOUNT_NOFOLLOW) == 0 ? 0 : error_errno(e, errno, "unmount %s", dir);
}

/* What a process had open, the kernel may still be closing when the process is gone: the ring that did its I/O goes later. */
static int unmount_soon(const char *dir, unsigned wait_ms, struct error *e)
{
	const struct timespec a_moment = { .tv_nsec = BUSY_AGAIN_MS * 1000000 };

	for (unsigned waited_ms = 0;; waited_ms += BUSY_AGAIN_MS) {
		if (child_call(unmount_now, (void *)(uintptr_t)dir, wait_ms, 0, NULL, e) == 0)
			return 0;
		if (e->err != EBUSY || waited_ms >= BUSY_MS)
			return -1;
		nanosleep(&a_moment, NULL);
	}
}

int mount_down(const char *dir, unsigned wait_ms, bool has_more, struct error *e)
{
	char users[200];
	int r = look_marked(dir, e);

	if (r == -1 && e->err == ENOENT) {
		mount_drop_lock(dir);
		return 0;
	}
	if (r == -1)
		return -1;
	if (r == 1 && unmount_soon(dir, wait_ms, e) == -1) {
		if (e->err != EBUSY)
			return -1;
		name_users(dir, users);
		return error_set(e, EBUSY, "what is mounted at %s is in use%s%s", dir, *users ? " by process " : "", users);
	}
	if (!has_more)
		mount_forget(dir);
	return 0;
}
