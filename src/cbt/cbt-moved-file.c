/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-moved-file - the logs of a disk that moves are read where it was, and stored where it goes
 *
 *      stored:   K1.cbt, K2.cbt ... from the oldest on, then W.cbt: until that one is there nobody knows of the others
 *
 * Logs that nobody knows of are swept an hour after they were last looked at here (plugins/chain): so they are when the disk's
 * follows, which may be days later.
 * Can fail: the medium, or memory. Then W.cbt is as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "cbt/cbt-moved.h"

#define COLLECT_TRIES 3u

static char *path_beside(const char *path, const char *key)
{
	CLEANUP_FREE char *dir = strndup(path, (size_t)(strrchr(path, '/') - path));

	return dir ? cbt_log_path(dir, key, CBT_SUFFIX) : NULL;
}

/* --- here */

/* Into the next place. 1: it ends here. */
static int add(struct cbt_moved *m, const char *path, struct error *e)
{
	const char *key = m->log[m->count - 1].header.parent;
	CLEANUP_FREE char *of_key = path_beside(path, key);
	struct cbt_log *l = &m->log[m->count];
	uint64_t bytes;

	if (!of_key)
		return error_set(e, ENOMEM, "out of memory");
	if (cbt_log_load(of_key, l, e) == -1)
		return e->err == ENOMEM ? -1 : 1;
	bytes = cbt_pages(l->header.size_bytes) * CBT_PAGE_BYTES;
	if (!l->header.is_sealed || bytes > CBT_MOVED_BYTES - m->bytes) {
		error_set(e, EFBIG, "%s %s", of_key, l->header.is_sealed ? "is too large to go with the disk" : "is not sealed");
		cbt_log_clear(l);
		return 1;
	}
	if (!l->header.origin[0])
		memcpy(l->header.origin, key, sizeof(l->header.origin));
	m->bytes += bytes;
	m->count++;
	return 0;
}

static void drop_past(struct cbt_moved *m)
{
	while (m->count > 1)
		cbt_log_clear(&m->log[--m->count]);
	m->bytes = cbt_pages(m->log[0].header.size_bytes) * CBT_PAGE_BYTES;
}

int cbt_moved_collect(struct cbt_moved *m, const char *path, struct cbt_log *log, struct error *e)
{
	int r = 0;

	if (cbt_pages(log->header.size_bytes) * CBT_PAGE_BYTES > CBT_MOVED_BYTES) {
		cbt_log_clear(log);
		return error_set(e, EFBIG, "%s is too large to go with the disk", path);
	}
	*m = (struct cbt_moved){ .log = { *log }, .count = 1 };
	m->log[0].header.origin[0] = '\0';
	*log = (struct cbt_log){ 0 };
	for (unsigned tries = 0; tries < COLLECT_TRIES; tries++) { /* one may just be merged into the next */
		drop_past(m);
		for (r = 0; r == 0 && m->count < CBT_MOVED_MAX && m->log[m->count - 1].header.parent[0];)
			r = add(m, path, e);
		if (r <= 0 || e->err != ENOENT)
			break;
	}
	if (r == 1)
		log_warn("%s: what changed before that does not go with the disk", e->text);
	if (r >= 0) {
		error_clear(e);
		return 0;
	}
	cbt_moved_clear(m);
	return -1;
}

/* --- there */

static bool is_stored(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW) == 0;
}

static int store(struct cbt_moved *m, const char *path, unsigned i, struct error *e)
{
	struct cbt_log *l = &m->log[i];
	CLEANUP_FREE char *file = NULL;

	if (!m->key[i][0])
		snprintf(m->key[i], sizeof(m->key[i]), "%016" PRIx64 "%016" PRIx64, cbt_random(), cbt_random());
	snprintf(l->header.parent, sizeof(l->header.parent), "%s", i + 1 < m->count ? m->key[i + 1] : "");
	file = path_beside(path, m->key[i]);
	if (!file)
		return error_set(e, ENOMEM, "out of memory");
	return is_stored(file) ? 0 : cbt_log_store(file, l, e);
}

int cbt_moved_store_past(struct cbt_moved *m, const char *path, struct error *e)
{
	for (unsigned i = m->count; i-- > 1;)
		if (store(m, path, i, e) == -1)
			return -1;
	return 0;
}

int cbt_moved_store(struct cbt_moved *m, const char *path, struct error *e)
{
	struct cbt_log disk = m->log[0]; /* its arrays are borrowed */

	assert(m->count);
	if (cbt_moved_store_past(m, path, e) == -1)
		return -1;
	disk.header.id = cbt_random();
	snprintf(disk.header.parent, sizeof(disk.header.parent), "%s", m->count > 1 ? m->key[1] : "");
	return cbt_log_store(path, &disk, e);
}
