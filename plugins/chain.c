/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * chain - see chain.h
 *
 *      S1.cbt  <--parent--  S2.cbt  <--parent--  S3.cbt  <--parent--  V.cbt
 *
 *      Volume.destroy(S2): its record and image go; S2.cbt is nobody's. Then S3.cbt becomes S3 and S2, its parent S1, in one
 *      step; then S2.cbt goes. Until then the chain is as it was, for a log is found by its name, not by its volume's record.
 *
 *      K1.cbt  <--  K2.cbt  <--  V.cbt
 *      origin S1    origin S2
 *
 *      V came here by a mirror, and brought its chain along: K1 and K2 are no volumes here, their origins are, or were,
 *      elsewhere. A volume here whose record says that it is a copy of S2 takes K2's place in a walk. Who makes the copy says
 *      so, as nothing else tells (cbt/README). They go when no chain leads to them any more.
 *
 * So at no instant does a walk lack anything. Where the log after it is of a disk that is written now, that waits: the next
 * snapshot makes it one that is sealed.
 */
#include "plugins/chain.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/meta.h"

#define CHAIN_MAX 10000u
#define MOVED_KEPT_S 3600

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

bool chain_has(const char *dir, const char *key)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, key, CBT_SUFFIX);

	return path && access(path, F_OK) == 0;
}

bool chain_is_sealed(const char *dir, const char *key)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, key, CBT_SUFFIX);
	struct cbt_header h;
	struct error e;

	return path && cbt_log_read_header(path, &h, &e) == 0 && h.is_sealed;
}

static int store(const char *dir, const char *key, uint64_t size_bytes, const char *parent, bool is_sealed, struct error *e)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, key, CBT_SUFFIX);
	struct cbt_log log;
	int r;

	if (!path)
		return out_of_memory(e);
	if (cbt_log_init(&log, size_bytes, e) == -1)
		return -1;
	snprintf(log.header.parent, sizeof(log.header.parent), "%s", parent);
	log.header.is_sealed = is_sealed;
	r = cbt_log_store(path, &log, e);
	cbt_log_clear(&log);
	return r;
}

int chain_enable(const char *dir, const char *key, uint64_t size_bytes, struct error *e)
{
	return chain_has(dir, key) ? 0 : store(dir, key, size_bytes, "", false, e);
}

int chain_disable(const char *dir, const char *key, struct error *e)
{
	static const char *const suffix[] = { CBT_NEXT_SUFFIX, CBT_SUFFIX, NULL };
	int err;

	for (const char *const *s = suffix; *s; s++) {
		CLEANUP_FREE char *path = cbt_log_path(dir, key, *s);

		if (!path)
			return out_of_memory(e);
		if (unlink(path) == -1 && errno != ENOENT)
			return error_errno(e, errno, "remove %s", path);
	}
	err = image_sync_dir(dir);
	return err ? error_errno(e, err, "make the removal of the log of volume %s durable", key) : 0;
}

int chain_load(const char *dir, const char *key, struct cbt_log *log, struct error *e)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, key, CBT_SUFFIX);
	CLEANUP_LOCK int lock = path ? lock_take(path, LOCK_EXCLUSIVE, e) : out_of_memory(e);

	return lock < 0 ? -1 : cbt_log_take_up(path, log, e);
}

/* --- a snapshot */

/* With the log's lock. */
static int cut(const char *dir, const char *key, const char *path, const char *new_key, struct error *e)
{
	CLEANUP_FREE char *new_path = cbt_log_path(dir, new_key, CBT_SUFFIX);
	struct cbt_log log;
	int r;

	if (!new_path)
		return out_of_memory(e);
	r = cbt_log_take_up(path, &log, e);
	if (r == -1 && e->err == EBADMSG) {
		log_error("%s; changes are tracked anew, from now on", e->text);
		return chain_disable(dir, key, e) == 0 ? store(dir, key, 0, "", false, e) : -1;
	}
	if (r == -1)
		return -1;
	if (log.header.is_sealed) {
		r = store(dir, new_key, log.header.size_bytes, key, true, e);
	} else {
		r = cbt_log_seal(new_path, new_key, &log, e);
		if (r == 0)
			r = store(dir, key, log.header.size_bytes, new_key, false, e);
	}
	cbt_log_clear(&log);
	return r;
}

int chain_cut(const char *dir, const char *key, const char *new_key, struct error *e)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, key, CBT_SUFFIX);
	CLEANUP_LOCK int lock = path ? lock_take(path, LOCK_EXCLUSIVE, e) : out_of_memory(e);

	if (lock < 0)
		return e->err == ENOENT ? 0 : -1;
	return cut(dir, key, path, new_key, e);
}

int chain_restart(const char *dir, const char *key, const char *parent, struct error *e)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, key, CBT_SUFFIX);
	CLEANUP_FREE char *next = cbt_log_path(dir, key, CBT_NEXT_SUFFIX);
	CLEANUP_LOCK int lock = path && next ? lock_take(path, LOCK_EXCLUSIVE, e) : out_of_memory(e);

	if (lock < 0)
		return e->err == ENOENT ? 0 : -1;
	if (unlink(next) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove %s", next);
	return store(dir, key, 0, parent, false, e); /* it grows when it is opened */
}

/* --- what changed */

static int say_broken(const char *from, const char *to, struct error *e)
{
	return error_set(e, ENODATA,
			 "what changed from volume %s to volume %s is not known: no unbroken chain of logs leads from the one to "
			 "the other (they are unrelated, in the other order, or tracking was off in between); make a full copy",
			 from, to);
}

static int add_log(const char *dir, const char *key, struct cbt_log *to, struct error *e)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, key, CBT_SUFFIX);
	struct cbt_log log;
	int r;

	if (!path)
		return out_of_memory(e);
	if (cbt_log_load(path, &log, e) == -1)
		return -1;
	r = log.header.is_sealed ? cbt_log_merge(to, &log, e)
				 : error_set(e, EBADMSG, "%s is damaged: it is in the middle of a chain, and not sealed", path);
	memcpy(to->header.parent, log.header.parent, sizeof(to->header.parent));
	cbt_log_clear(&log);
	return r;
}

/* What from is a copy of; heap, NULL: nothing is said. */
static char *copied_from(const char *dir, const char *from)
{
	struct meta_volume m;
	struct error e;
	const char *origin;
	char *copy;

	if (meta_volume_read(dir, from, &m, &e) == -1)
		return NULL;
	origin = m.read_write ? NULL : jsonspec_map_get(&m.keys, CHAIN_COPY_OF);
	copy = origin && *origin ? strdup(origin) : NULL;
	meta_volume_clear(&m);
	return copy;
}

/* Whether what changed since log `key` was sealed is what changed since `from`. */
static bool is_of(const char *dir, const char *key, const char *from, const char *copy_of)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, key, CBT_SUFFIX);
	struct cbt_header h;
	struct error e;

	if (!path || cbt_log_read_header(path, &h, &e) == -1 || !h.is_sealed)
		return false;
	if (!h.origin[0])
		return strcmp(key, from) == 0;
	return strcmp(h.origin, from) == 0 || (copy_of && strcmp(h.origin, copy_of) == 0);
}

int chain_walk(const char *dir, const char *from, const char *to, struct cbt_log *log, struct error *e)
{
	CLEANUP_FREE char *copy_of = copied_from(dir, from);

	if (strcmp(from, to) == 0) {
		memset(log->bits, 0, log->regions * CBT_REGION_WORDS * sizeof(*log->bits));
		return 0;
	}
	for (unsigned steps = 0; !is_of(dir, log->header.parent, from, copy_of); steps++) {
		char parent[CBT_KEY_MAX];

		memcpy(parent, log->header.parent, sizeof(parent));
		if (!*parent || steps == CHAIN_MAX)
			return say_broken(from, to, e);
		if (add_log(dir, parent, log, e) == -1)
			return e->err == ENOENT ? say_broken(from, to, e) : -1;
	}
	return 0;
}

/* --- merging */

struct node {
	char key[CBT_KEY_MAX];
	struct cbt_header header;
	bool is_next, is_gone, is_damaged;
};
struct nodes {
	struct node *item; /* owned */
	size_t count;
};

static bool take_name(const char *name, struct node *n)
{
	n->is_next = meta_split_name(name, CBT_NEXT_SUFFIX, n->key);
	return n->is_next || meta_split_name(name, CBT_SUFFIX, n->key);
}

/* All or -1. */
static int find_nodes(const char *dir, struct nodes *found)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	int r = d ? 0 : -1;

	*found = (struct nodes) { 0 };
	while (r == 0 && (errno = 0, entry = readdir(d))) {
		struct node n = { .key = "" }, *more;
		CLEANUP_FREE char *path = NULL;
		struct error e = { 0 };

		if (!take_name(entry->d_name, &n))
			continue;
		path = cbt_log_path(dir, entry->d_name, "");
		more = realloc(found->item, (found->count + 1) * sizeof(*more));
		if (!path || !more) {
			r = -1;
			break;
		}
		found->item = more;
		if (cbt_log_read_header(path, &n.header, &e) == -1)
			n.is_damaged = e.err == EBADMSG; /* whatever it came after, its chain is broken */
		if (n.is_damaged || !e.err)
			found->item[found->count++] = n;
		else if (e.err != ENOENT)
			r = -1;
	}
	if (r == 0 && errno)
		r = -1;
	if (d)
		closedir(d);
	return r;
}

static bool has_record(const char *dir, const char *key)
{
	CLEANUP_FREE char *record = meta_volume_path(dir, key);

	return !record || access(record, F_OK) == 0 || errno != ENOENT;
}

/* child's parent is n. */
static int merge_one(const char *dir, const struct node *n, struct node *child, struct error *e)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, n->key, CBT_SUFFIX);
	CLEANUP_FREE char *child_path = cbt_log_path(dir, child->key, CBT_SUFFIX);
	const struct image of_child = image_of(dir, child->key, NULL);
	CLEANUP_LOCK int image = child->header.is_sealed ? -1 : image_claim(&of_child, e);
	struct cbt_log log, more;
	int r;

	if (!path || !child_path)
		return out_of_memory(e);
	if (!child->header.is_sealed && image < 0 && e->err != ENOENT)
		return -1;
	if (cbt_log_take_up(child_path, &log, e) == -1)
		return -1;
	r = cbt_log_load(path, &more, e);
	if (r == 0) {
		r = cbt_log_merge(&log, &more, e);
		memcpy(log.header.parent, more.header.parent, sizeof(log.header.parent));
		if (r == 0)
			r = cbt_log_store(child_path, &log, e);
		if (r == 0)
			memcpy(child->header.parent, more.header.parent, sizeof(child->header.parent));
		cbt_log_clear(&more);
	}
	cbt_log_clear(&log);
	return r;
}

/* It came here with a disk, which a while ago was still to follow. */
static bool is_fresh(const char *path)
{
	struct stat st;

	return stat(path, &st) == -1 || st.st_mtim.tv_sec + MOVED_KEPT_S > time(NULL);
}

/* Of a log whose volume was never here nothing is merged: a copy of that volume may come. */
static void sweep_moved(const char *dir, struct nodes *nodes, struct node *n)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, n->key, CBT_SUFFIX);

	for (size_t i = 0; i < nodes->count; i++)
		if (!nodes->item[i].is_gone && strcmp(nodes->item[i].header.parent, n->key) == 0)
			return;
	n->is_gone = path && !is_fresh(path) && unlink(path) == 0;
}

static void merge_node(const char *dir, struct nodes *nodes, struct node *n)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, n->key, CBT_SUFFIX);
	bool is_needed = !path;
	struct error e;

	for (size_t i = 0; i < nodes->count; i++) {
		struct node *child = &nodes->item[i];

		if (n->is_damaged || child->is_gone || strcmp(child->header.parent, n->key) != 0)
			continue;
		if (child->is_next) {
			is_needed = true;
		} else if (merge_one(dir, n, child, &e) == -1) {
			is_needed = true;
			if (e.err != EBUSY)
				log_warn("merge the log of the volume %s that was: %s", n->key, e.text);
		}
	}
	if (is_needed)
		return;
	unlink(path);
	n->is_gone = true;
}

static void collect_node(const char *dir, struct nodes *nodes, struct node *n)
{
	if (n->is_next || has_record(dir, n->key))
		return;
	if (n->header.origin[0])
		sweep_moved(dir, nodes, n);
	else
		merge_node(dir, nodes, n);
}

void chain_collect(const char *dir)
{
	CLEANUP_FREE char *lock_path = meta_sr_lock_path(dir);
	CLEANUP_LOCK int lock = -1;
	struct nodes nodes;
	struct error e;

	lock = lock_path ? lock_try(lock_path, &e) : -1;
	if (lock < 0)
		return;
	if (find_nodes(dir, &nodes) == 0)
		for (size_t i = 0; i < nodes.count; i++)
			collect_node(dir, &nodes, &nodes.item[i]);
	free(nodes.item);
}

int chain_log_id(const char *dir, const char *key, char id[static CHAIN_ID_MAX], struct error *e)
{
	CLEANUP_FREE char *path = cbt_log_path(dir, key, CBT_SUFFIX);
	struct cbt_header h;

	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	if (cbt_log_read_header(path, &h, e) == -1)
		return -1;
	snprintf(id, CHAIN_ID_MAX, "%016" PRIx64, h.id);
	return 0;
}
