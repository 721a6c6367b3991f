/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fsck - see fsck.h
 *
 *      lock the SR -> its record -> all names: passing names -> images -> records -> what lies beside -> logs -> chains
 *                                               '-- what was put aside by one step is not there for the next
 *
 * The SR's lock is held exclusively, so nobody makes a volume meanwhile, and a passing name is nobody's; verbs that change a
 * record hold that record's lock, which is taken here too.  Each step looks at the directory anew.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "plugins/fsck-private.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/volume.h"

#define ASIDE_MAX 10000u
#define LOCK_TRIES 500u /* with image_pause(): 10 s */
#define MEMBERS_MAX_BYTES (1u << 20)

/* --- findings */

bool fsck_found(struct fsck *f, const char *remedy, const char *fmt, ...)
{
	struct error what;
	char text[400];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	error_set(&what, EUCLEAN, "%s", text); /* one line, whatever was in it */
	f->findings++;
	if (f->found(f->arg, what.text, remedy) && remedy && !f->is_only_report)
		return true;
	f->left++;
	return false;
}

int fsck_done(struct fsck *f, int r, const struct error *e)
{
	if (r == 0)
		f->repaired++;
	else
		f->left++;
	f->result(f->arg, r == 0 ? "done" : e->text);
	return r;
}

/* --- files */

char *fsck_path(const struct fsck *f, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", f->dir, name) < 0 ? NULL : path;
}

bool fsck_look(const struct fsck *f, const char *name, struct stat *st)
{
	CLEANUP_FREE char *path = fsck_path(f, name);

	return path && lstat(path, st) == 0;
}

bool fsck_is_file(const struct fsck *f, const char *name)
{
	struct stat st;

	return fsck_look(f, name, &st) && S_ISREG(st.st_mode);
}

const char *fsck_type(mode_t mode)
{
	return S_ISLNK(mode) ? "a symbolic link" : S_ISDIR(mode) ? "a directory" : S_ISREG(mode) ? "a file" : "a special file";
}

/* The descriptor of the directory for what is out of the way, made when it is not there. */
static int open_aside(const struct fsck *f, struct error *e)
{
	CLEANUP_FREE char *path = fsck_path(f, FSCK_ASIDE);
	int fd;

	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	if (mkdir(path, 0700) == -1 && errno != EEXIST)
		return error_errno(e, errno, "make %s", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? error_errno(e, errno, "open %s", path) : fd;
}

int fsck_put_aside(struct fsck *f, const char *name, struct error *e)
{
	CLEANUP_FREE char *path = fsck_path(f, name);
	CLEANUP_CLOSE int aside = open_aside(f, e);
	char to[NAME_MAX + 1];
	int err;

	if (aside < 0 || !path)
		return aside < 0 ? -1 : error_set(e, ENOMEM, "out of memory");
	snprintf(to, sizeof(to), "%s", name);
	for (unsigned n = 1;; n++) {
		/* Not every file system has RENAME_NOREPLACE: the SR's lock is held, so looking first is as good. */
		if (faccessat(aside, to, F_OK, AT_SYMLINK_NOFOLLOW) == -1 && errno == ENOENT)
			break;
		if (n == ASIDE_MAX)
			return error_set(e, EEXIST, "%s holds %u files called %s already", FSCK_ASIDE, n, name);
		snprintf(to, sizeof(to), "%.240s.%u", name, n);
	}
	if (renameat(AT_FDCWD, path, aside, to) == -1)
		return error_errno(e, errno, "move %s to %s", path, FSCK_ASIDE);
	log_warn("%s is now %s/%s/%s", path, f->dir, FSCK_ASIDE, to);
	err = fsync(aside) == -1 ? errno : image_sync_dir(f->dir);
	return err ? error_errno(e, err, "make the move of %s durable", path) : 0;
}

void fsck_aside(struct fsck *f, const char *name, const char *fmt, ...)
{
	char text[400];
	struct error e;
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (fsck_found(f, "move it to " FSCK_ASIDE, "%s", text))
		fsck_done(f, fsck_put_aside(f, name, &e), &e);
}

int fsck_lock(const struct fsck *f, const char *name, struct error *e)
{
	CLEANUP_FREE char *path = fsck_path(f, name);
	CLEANUP_CLOSE int fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;

	if (path && fd < 0 && errno == EROFS)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return path ? error_errno(e, errno, "open %s", path) : error_set(e, ENOMEM, "out of memory");
	if (flock(fd, LOCK_EX | LOCK_NB) == -1)
		return errno == EWOULDBLOCK ? error_set(e, EBUSY, "%s is in use: it is left as it is", path)
					    : error_errno(e, errno, "lock %s", path);
	return take_fd(&fd);
}

/* Over NFS the owner is whoever the server makes of us. */
static bool has_foreign_owner(const struct fsck *f, const struct stat *st)
{
	struct statfs fs;

	return st->st_uid != geteuid() && statfs(f->dir, &fs) == 0 && fs.f_type != NFS_SUPER_MAGIC;
}

static int set_access(const struct fsck *f, const char *name, mode_t mode, bool has_wrong_owner, struct error *e)
{
	CLEANUP_LOCK int fd = fsck_lock(f, name, e);

	if (fd < 0)
		return -1;
	if ((has_wrong_owner && fchown(fd, geteuid(), getegid()) == -1) || fchmod(fd, mode) == -1)
		return error_errno(e, errno, "change mode and owner of %s", name);
	return 0;
}

void fsck_check_access(struct fsck *f, const char *name, const struct stat *st)
{
	bool has_wrong_owner = has_foreign_owner(f, st);
	mode_t mode = st->st_mode & 07777;
	struct error e;

	if (mode == 0600 && !has_wrong_owner)
		return;
	if (fsck_found(f, "give it mode 0600 and our own user", "%s has mode %04o and belongs to user %u", name, (unsigned)mode,
		       (unsigned)st->st_uid))
		fsck_done(f, set_access(f, name, 0600, has_wrong_owner, &e), &e);
}

/* --- the SR itself */

static void check_dir(struct fsck *f)
{
	struct stat st;
	struct statfs fs;
	struct error e;

	if (stat(f->dir, &st) == -1 || statfs(f->dir, &fs) == -1 || fs.f_type == NFS_SUPER_MAGIC || !(st.st_mode & 022))
		return;
	if (fsck_found(f, "take the right to write from others", "%s has mode %04o: others may put files into it", f->dir,
		       (unsigned)(st.st_mode & 07777)))
		fsck_done(f, chmod(f->dir, st.st_mode & 07755) == 0 ? 0 : error_errno(&e, errno, "change the mode of %s", f->dir),
			  &e);
}

/* With what is left of the old one. */
static int rebuild_sr(struct fsck *f, const char *text, struct error *e)
{
	CLEANUP_FREE char *uuid = f->uuid ? strdup(f->uuid) : fsck_salvage_string(text, "uuid");
	CLEANUP_FREE char *name = fsck_salvage_string(text, "name");
	CLEANUP_FREE char *description = fsck_salvage_string(text, "description");
	char none[] = "", raw[] = "raw";
	CLEANUP_FREE char *format = fsck_salvage_string(text, "format");
	const struct meta_sr m = { .uuid = uuid, .name = name ? name : none, .description = description ? description : none,
				   .format = format ? format : raw };

	if (!uuid || !*uuid)
		return error_set(e, EINVAL, "the SR's uuid is not known any more; say it with --uuid");
	if (fsck_look(f, "sxm-sr.json", &(struct stat) { 0 }) && fsck_put_aside(f, "sxm-sr.json", e) == -1)
		return -1;
	return meta_sr_write(f->dir, &m, e);
}

static void check_sr_record(struct fsck *f)
{
	CLEANUP_FREE char *path = meta_sr_path(f->dir);
	CLEANUP_FREE char *text = NULL;
	struct meta_sr m;
	struct error e;
	struct stat st;
	size_t bytes;
	int r;

	if (!path)
		return;
	if (fsck_look(f, "sxm-sr.json", &st) && S_ISREG(st.st_mode)) {
		fsck_check_access(f, "sxm-sr.json", &st);
		text = proc_read_file(path, MEMBERS_MAX_BYTES, &bytes, &e);
	}
	r = text ? meta_sr_read(f->dir, &m, &e) : error_set(&e, ENOENT, "%s is not there, or not a file", path);
	if (r == -1) {
		if (fsck_found(f, "make a new record of what is known, and keep the old one", "%s", e.text))
			fsck_done(f, rebuild_sr(f, text ? text : "", &e), &e);
		return;
	}
	if (f->uuid && strcmp(f->uuid, m.uuid) != 0)
		fsck_found(f, NULL, "%s says that the SR is %s, not %s", path, m.uuid, f->uuid);
	meta_sr_clear(&m);
}

/* --- all names */

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int fsck_list(const struct fsck *f, struct jsonspec_list *names, struct error *e)
{
	DIR *d = opendir(f->dir);
	struct dirent *entry;
	int err = 0;

	*names = (struct jsonspec_list) { 0 };
	if (!d)
		return error_errno(e, errno, "list %s", f->dir);
	while (!err && (errno = 0, entry = readdir(d)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    jsonspec_list_add(names, entry->d_name) == -1)
			err = ENOMEM;
	if (!err)
		err = errno;
	closedir(d);
	if (err) {
		meta_list_clear(names);
		return error_errno(e, err, "list %s", f->dir);
	}
	if (names->count)
		qsort(names->item, names->count, sizeof(*names->item), compare);
	return 0;
}

static int each_name(struct fsck *f, void (*check)(struct fsck *f, const char *name), struct error *e)
{
	struct jsonspec_list names;

	if (fsck_list(f, &names, e) == -1)
		return -1;
	for (size_t i = 0; i < names.count; i++)
		check(f, names.item[i]);
	meta_list_clear(&names);
	return 0;
}

static bool is_an_sr(const struct fsck *f)
{
	struct jsonspec_list keys;
	struct error e;
	struct stat st;
	bool has_volumes;

	if (fsck_look(f, "sxm-sr.json", &st))
		return true;
	if (meta_list(f->dir, &keys, &e) == -1)
		return false;
	has_volumes = keys.count > 0;
	meta_list_clear(&keys);
	return has_volumes;
}

/* Whoever makes a volume is waited for. */
static int lock_sr(struct fsck *f, struct error *e)
{
	struct stat st;
	bool has_lock;
	int fd = -1;

	if (fsck_look(f, "sxm-sr.lock", &st) && !S_ISREG(st.st_mode))
		fsck_aside(f, "sxm-sr.lock", "sxm-sr.lock is %s, so no volume can be made", fsck_type(st.st_mode));
	has_lock = fsck_look(f, "sxm-sr.lock", &st);
	if (!has_lock && !f->is_only_report) {
		CLEANUP_FREE char *path = meta_sr_lock_path(f->dir);

		return path ? lock_make(path, LOCK_EXCLUSIVE, e) : error_set(e, ENOMEM, "out of memory");
	}
	if (!has_lock || !S_ISREG(st.st_mode))
		return open("/dev/null", O_RDONLY | O_CLOEXEC); /* left as it is: nobody can have locked it */
	for (unsigned tries = 0; tries < LOCK_TRIES; tries++) {
		fd = fsck_lock(f, "sxm-sr.lock", e);
		if (fd >= 0 || e->err != EBUSY)
			return fd;
		image_pause();
	}
	return error_set(e, EBUSY, "a verb has been changing %s for 10 s; try again when it has ended", f->dir);
}

int fsck_run(struct fsck *f, struct error *e)
{
	CLEANUP_LOCK int lock = -1;

	f->findings = f->repaired = f->left = 0;
	if (!is_an_sr(f))
		return error_set(e, ENOENT, "there is no SR in %s; is its file system mounted?", f->dir);
	lock = lock_sr(f, e);
	if (lock < 0)
		return -1;
	check_dir(f);
	check_sr_record(f);
	if (each_name(f, fsck_passing, e) == -1 || each_name(f, fsck_image, e) == -1 || each_name(f, fsck_record, e) == -1)
		return -1;
	if (each_name(f, fsck_beside, e) == -1 || each_name(f, fsck_log, e) == -1)
		return -1;
	return each_name(f, fsck_chain, e);
}
