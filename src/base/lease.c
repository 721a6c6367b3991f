/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * lease - see lease.h
 *
 *      make:    <image>.lease.PID.LIFE/ with its file in it --rename--> <image>.lease      ENOTEMPTY: another was quicker
 *      look:    opendir, the latest of the names     (a listing that meets a rename may show both names, or none: again)
 *      change:  rename(from, to) --> fsync of the directory     ENOENT: is `to` there? then a repeated question was answered
 *
 * NFS.  rename() is decided by the server, one after the other.  A client that repeats a request whose answer was lost may be
 * told ENOENT of a rename that was made; the new name, which nobody else can have made, tells.  opendir() asks the server whether
 * the directory has changed; were it not so, an old listing would cost time and nothing else.
 *
 * Can fail: the server, a directory that somebody else has filled. Then nothing is guessed.
 */
#include "base/lease.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"

#define SHARABLE "sharable"
#define LOOKED_MAX 100u /* listings that show nothing, a pause between them */
#define PAUSE_NS 2000000L

/* --- names */

void lease_name(const struct lease *l, char out[static LEASE_NAME_MAX])
{
	if (l->kind == LEASE_SHARABLE)
		snprintf(out, LEASE_NAME_MAX, SHARABLE);
	else if (l->kind == LEASE_FREE)
		snprintf(out, LEASE_NAME_MAX, "%" PRIu64 ".free", l->generation);
	else
		snprintf(out, LEASE_NAME_MAX, "%" PRIu64 ".%" PRIu64 ".%016" PRIx64 ".%s", l->generation, l->renewals, l->life,
			 l->host);
}

/* A number and the dot behind it; NULL: it is none. */
static const char *take_number(const char *text, int base, uint64_t *out)
{
	char *end;

	if (!((*text >= '0' && *text <= '9') || (base == 16 && *text >= 'a' && *text <= 'f')))
		return NULL;
	errno = 0;
	*out = strtoull(text, &end, base);
	return !errno && *end == '.' ? end + 1 : NULL;
}

/* What names it differently from lease_name() is none of ours: two spellings would be two names. */
bool lease_parse(const char *name, struct lease *out)
{
	char again[LEASE_NAME_MAX];
	const char *at = name;

	*out = (struct lease){ .kind = LEASE_SHARABLE };
	if (strcmp(name, SHARABLE) == 0)
		return true;
	*out = (struct lease){ .kind = LEASE_HELD };
	at = take_number(at, 10, &out->generation);
	if (at && strcmp(at, "free") == 0) {
		out->kind = LEASE_FREE;
	} else {
		at = at ? take_number(at, 10, &out->renewals) : NULL;
		at = at ? take_number(at, 16, &out->life) : NULL;
		if (!at || !*at || strlen(at) >= sizeof(out->host))
			return false;
		memcpy(out->host, at, strlen(at) + 1);
	}
	lease_name(out, again);
	return strcmp(again, name) == 0;
}

bool lease_is_equal(const struct lease *a, const struct lease *b)
{
	return a->kind == b->kind && a->generation == b->generation && a->renewals == b->renewals && a->life == b->life &&
	       strcmp(a->host, b->host) == 0;
}

bool lease_is_later(const struct lease *a, const struct lease *b)
{
	if (a->generation != b->generation)
		return a->generation > b->generation;
	if (a->kind != b->kind)
		return a->kind == LEASE_FREE; /* given back */
	return a->renewals > b->renewals;
}

struct lease lease_taken(const struct lease *l, const char *host, uint64_t life)
{
	struct lease next = { .kind = LEASE_HELD, .generation = l->generation + 1, .life = life };

	snprintf(next.host, sizeof(next.host), "%s", host);
	return next;
}

struct lease lease_renewed(const struct lease *l)
{
	struct lease next = *l;

	next.renewals++;
	return next;
}

struct lease lease_given_back(const struct lease *l)
{
	return (struct lease){ .kind = LEASE_FREE, .generation = l->generation };
}

/* --- files */

static int join(char **out, const char *image, const char *name, struct error *e)
{
	if (asprintf(out, "%s" LEASE_SUFFIX "%s%s", image, *name ? "/" : "", name) != -1)
		return 0;
	*out = NULL;
	return error_set(e, ENOMEM, "out of memory");
}

/* 1: one is there; 0: none; -1 + e. */
static int list(const char *dir, struct lease *out, struct error *e)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	int found = 0, err;

	if (!d)
		return error_errno(e, errno, "look at the lease %s", dir);
	while (errno = 0, (entry = readdir(d))) {
		struct lease l;

		if (entry->d_name[0] == '.')
			continue;
		if (!lease_parse(entry->d_name, &l)) {
			error_set(e, EBADMSG, "who has the image cannot be known: %s/%.60s is no lease; if no host uses the "
				  "image, remove that directory", dir, entry->d_name);
			closedir(d);
			return -1;
		}
		if (!found || lease_is_later(&l, out))
			*out = l;
		found = 1;
	}
	err = errno;
	closedir(d);
	return err ? error_errno(e, err, "look at the lease %s", dir) : found;
}

int lease_look(const char *image, struct lease *out, struct error *e)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	CLEANUP_FREE char *dir = NULL;

	*out = (struct lease){ .kind = LEASE_ABSENT };
	if (join(&dir, image, "", e) == -1)
		return -1;
	for (unsigned tries = 0; tries < LOOKED_MAX; tries++) {
		struct error why = { 0 };
		int r = list(dir, out, &why);

		if (r == 1 || (r == -1 && why.err == ENOENT))
			return 0;
		if (r == -1)
			return error_set(e, why.err, "%s", why.text);
		nanosleep(&pause, NULL);
	}
	return error_set(e, EBADMSG, "who has the image cannot be known: %s is empty; if no host uses the image, remove that "
			 "directory", dir);
}

static int sync_dir(const char *dir, struct error *e)
{
	CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) == -1 ? error_errno(e, errno, "make a change of the lease %s durable", dir) : 0;
}

/* A directory of our own, with the file in it. */
static int fill(const char *dir, bool is_sharable, struct error *e)
{
	const struct lease first = { .kind = is_sharable ? LEASE_SHARABLE : LEASE_FREE };
	CLEANUP_FREE char *file = NULL;
	CLEANUP_CLOSE int fd = -1;
	char name[LEASE_NAME_MAX];

	lease_name(&first, name);
	if (asprintf(&file, "%s/%s", dir, name) == -1) {
		file = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (mkdir(dir, 0700) == -1)
		return error_errno(e, errno, "make the lease %s", dir);
	fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0 && fsync(fd) == 0)
		return sync_dir(dir, e);
	error_errno(e, errno, "make the lease %s", file);
	unlink(file);
	return -1;
}

void lease_drop(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
	rmdir(dir);
}

int lease_make(const char *image, bool is_sharable, struct error *e)
{
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *passing = NULL;
	struct stat st;
	int r;

	if (join(&dir, image, "", e) == -1)
		return -1;
	if (lstat(dir, &st) == 0)
		return 0;
	if (asprintf(&passing, "%s.%016" PRIx64 ".tmp", dir, lease_new_life()) == -1) {
		passing = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	r = fill(passing, is_sharable, e);
	if (r == 0 && rename(passing, dir) == 0)
		return proc_sync_dir(dir, e);
	if (r == 0 && errno != ENOTEMPTY && errno != EEXIST)
		r = error_errno(e, errno, "make the lease %s", dir);
	lease_drop(passing);
	return r;
}

int lease_change(const char *image, const struct lease *from, const struct lease *to, struct error *e)
{
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *old = NULL;
	CLEANUP_FREE char *new = NULL;
	char name[LEASE_NAME_MAX];

	lease_name(from, name);
	if (join(&dir, image, "", e) == -1 || join(&old, image, name, e) == -1)
		return -1;
	lease_name(to, name);
	if (join(&new, image, name, e) == -1)
		return -1;
	if (rename(old, new) == -1) {
		int err = errno;

		if (err != ENOENT)
			return error_errno(e, err, "change the lease %s", old);
		if (access(new, F_OK) == -1)
			return error_set(e, errno == ENOENT ? ESTALE : errno, "the lease is not %s any more", old);
	}
	return sync_dir(dir, e);
}

int lease_remove(const char *image, struct error *e)
{
	CLEANUP_FREE char *dir = NULL;

	if (join(&dir, image, "", e) == -1)
		return -1;
	lease_drop(dir);
	return rmdir(dir) == -1 && errno != ENOENT && errno != ENOTDIR ? error_errno(e, errno, "remove %s", dir) : 0;
}

uint64_t lease_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t lease_new_life(void)
{
	uint64_t life;

	if (getrandom(&life, sizeof(life), 0) == sizeof(life))
		return life;
	return lease_now_ns() ^ ((uint64_t)getpid() << 40);
}
