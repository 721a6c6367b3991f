/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay-mark - what is made and undone for a move, one at a time, and nothing after it was undone
 *
 *      SXM_RUN_DIR/moves/<mark>    flock: who makes, takes or undoes; "undone" in it: never again
 *
 * Whoever drove a move may be dead, and the relay that he asked alive: it is in the middle of a verb, or has not read it yet, as
 * it lies in a pipe or on the way. Who undoes the move asks another relay:
 *
 *      make begins - undo finds nothing - the volume is made        so undo waits for make
 *      undo finds nothing - make is read - the volume is made       so undo is final
 *
 * A mark is used once, so that costs nobody anything. It is kept as long as the host runs: no relay outlives that. After a day
 * nothing is on its way any more.
 *
 * Can fail: the medium; then nothing is made and nothing undone.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "cmd/relay-verbs.h"
#include "plugins/lock.h"

#define DIR_NAME "moves"
#define KEPT_S 86400
#define UNDONE "undone\n"

static char *path_of(const char *name)
{
	char *path;

	return asprintf(&path, "%s/" DIR_NAME "/%s", proc_run_dir(), name) < 0 ? NULL : path;
}

static int make_dir(struct error *e)
{
	CLEANUP_FREE char *dir = path_of("");

	if (!dir)
		return error_set(e, ENOMEM, "out of memory");
	return proc_make_dir(proc_run_dir(), e) == 0 ? proc_make_dir(dir, e) : -1;
}

static int take(const char *mark, struct error *e)
{
	CLEANUP_FREE char *path = path_of(mark);

	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	return make_dir(e) == 0 ? lock_make(path, LOCK_EXCLUSIVE, e) : -1;
}

int relay_mark_begin(const char *mark, struct error *e)
{
	CLEANUP_LOCK int lock = take(mark, e);
	struct stat st;

	if (lock < 0)
		return -1;
	if (fstat(lock, &st) == -1)
		return error_errno(e, errno, "look at the lock of %s", mark);
	if (st.st_size)
		return error_set(e, EPERM, "%s was undone: nothing is made for it any more", mark);
	return take_fd(&lock);
}

void relay_mark_end(const char *mark, int lock)
{
	CLEANUP_FREE char *path = path_of(mark);

	if (path)
		unlink(path); /* who waits looks again at what the name means */
	close(lock);
}

static void collect(void)
{
	CLEANUP_FREE char *place = path_of("");
	DIR *d = place ? opendir(place) : NULL;
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		CLEANUP_FREE char *path = entry->d_name[0] == '.' ? NULL : path_of(entry->d_name);
		CLEANUP_LOCK int lock = -1;
		struct error e;
		struct stat st;

		if (!path || lstat(path, &st) == -1 || time(NULL) - st.st_mtime < KEPT_S)
			continue;
		lock = lock_try(path, &e);
		if (lock >= 0)
			unlink(path);
	}
	if (d)
		closedir(d);
}

int relay_mark_undo(const char *mark, struct error *e)
{
	CLEANUP_LOCK int lock = take(mark, e);

	if (lock < 0)
		return -1;
	if (pwrite(lock, UNDONE, sizeof(UNDONE) - 1, 0) != (ssize_t)sizeof(UNDONE) - 1)
		return error_errno(e, errno, "note that %s is undone", mark);
	collect();
	return take_fd(&lock);
}
