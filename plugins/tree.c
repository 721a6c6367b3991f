/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tree - see tree.h
 *
 *      .new ----.
 *      leaf ----+--> base ----.
 *      leaf ------------------+--> base        a base with one child that is a base: the two can be made one (coalesce.h)
 *      base (no children: it goes)
 *
 * A base is removed only when every image of the directory was read and none stands on it. One that cannot be read may stand on
 * any, so then none goes; but what is being made is read under the lock, and where it is no image yet it stands on nothing.
 *
 * A network file system may show an old listing of the directory: making and removing a file in it is what renews it.
 */
#include "plugins/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "plugins/lock.h"
#include "qcow2/qcow2-chain.h"

#define LOCK_NAME "sxm-sr.chains"
#define PASSING_SUFFIX QCOW2_SUFFIX ".new"

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

int tree_lock(const char *dir, struct error *e)
{
	CLEANUP_FREE char *path = NULL;

	if (asprintf(&path, "%s/" LOCK_NAME, dir) < 0) {
		path = NULL;
		return out_of_memory(e);
	}
	return lock_make(path, LOCK_EXCLUSIVE, e);
}

/* --- one chain */

/* c: to be closed and freed. */
static struct qcow2_chain *open_chain(const char *dir, const char *path, struct error *e)
{
	CLEANUP_CLOSE int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct qcow2_chain *c = malloc(sizeof(*c));
	const char *name = strrchr(path, '/') + 1;
	CLEANUP_CLOSE int fd = -1;

	if (!c) {
		out_of_memory(e);
		return NULL;
	}
	if (dir_fd < 0)
		error_errno(e, errno, "open %s", dir);
	else if ((fd = qcow2_open(dir_fd, name, O_RDONLY, e)) >= 0 && qcow2_chain_open(c, dir_fd, fd, name, e) == 0)
		return c;
	free(c);
	return NULL;
}

static void close_chain(struct qcow2_chain *c)
{
	qcow2_chain_close(c);
	free(c);
}

/* Takes on: what it stands on, described; NULL: out of memory. */
static char *describe_on(const char *path, char *on)
{
	CLEANUP_FREE char *below = on;
	CLEANUP_FREE char *name = jsonspec_string(path);
	char *text;

	if (!below || !name)
		return NULL;
	return asprintf(&text, "{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":%s,\"locking\":\"off\"},"
			"\"backing\":%s}", name, below) < 0 ? NULL : text;
}

static char *finish_description(char *described, struct error *e)
{
	CLEANUP_FREE char *text = described;
	char *whole;

	if (text && asprintf(&whole, "json:%s", text) >= 0)
		return whole;
	out_of_memory(e);
	return NULL;
}

char *tree_describe_alone(const char *path, struct error *e)
{
	return finish_description(describe_on(path, strdup("null")), e);
}

char *tree_describe(const char *dir, const char *path, struct error *e)
{
	struct qcow2_chain *c = open_chain(dir, path, e);
	char *text;

	if (!c)
		return NULL;
	text = strdup("null");
	for (size_t i = c->count; i--;) {
		CLEANUP_FREE char *base = NULL;

		if (asprintf(&base, "%s/%s", dir, c->base[i].name) < 0)
			base = NULL;
		if (base)
			text = describe_on(base, text);
		else
			free(take_ptr(&text));
	}
	close_chain(c);
	return finish_description(describe_on(path, text), e);
}

int tree_look(const char *dir, const char *path, struct image_info *out, unsigned *files, struct error *e)
{
	struct qcow2_chain *c = open_chain(dir, path, e);
	struct stat st;
	int r = 0;

	if (!c)
		return -1;
	out->virtual_bytes = (int64_t)c->leaf.size_bytes;
	*files = (unsigned)c->count + 1;
	if (stat(path, &st) == -1)
		r = error_errno(e, errno, "look at %s", path);
	else
		out->allocated_bytes = (int64_t)st.st_blocks * 512;
	for (size_t i = 0; r == 0 && i < c->count; i++)
		if (fstat(c->base[i].fd, &st) == 0)
			out->allocated_bytes += (int64_t)st.st_blocks * 512;
	close_chain(c);
	return r;
}

/* --- all of them */

static bool has_suffix(const char *name, const char *suffix)
{
	size_t bytes = strlen(name), tail = strlen(suffix);

	return bytes > tail && strcmp(name + bytes - tail, suffix) == 0;
}

static struct tree_node *add_node(struct tree *t)
{
	struct tree_node *more;

	if ((t->count & (t->count - 1)) == 0) {
		more = realloc(t->node, MAX(t->count * 2, (size_t)1) * sizeof(*more));
		if (!more)
			return NULL;
		t->node = more;
	}
	t->node[t->count] = (struct tree_node) { .parent = TREE_NONE };
	return &t->node[t->count++];
}

static int read_node(int dir, struct tree_node *n, struct error *e)
{
	CLEANUP_CLOSE int fd = qcow2_open(dir, n->name, O_RDONLY, e);
	struct qcow2_header h;
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == -1)
		return error_errno(e, errno, "look at %s", n->name);
	if (qcow2_read_header(fd, n->name, &h, e) == -1)
		return -1;
	n->inode = st.st_ino;
	n->bytes = (int64_t)h.size_bytes;
	if (strlen(h.backing) >= sizeof(n->on))
		return error_set(e, ENAMETOOLONG, "%s stands on %s, which is none of ours", n->name, h.backing);
	strcpy(n->on, h.backing);
	return 0;
}

static int scan_name(int dir, const char *name, struct tree *t, struct error *e)
{
	bool is_passing = *name == '.' && has_suffix(name, PASSING_SUFFIX);
	struct tree_node *n;

	if (!is_passing && (*name == '.' || !has_suffix(name, QCOW2_SUFFIX)))
		return 0;
	n = add_node(t);
	if (!n)
		return out_of_memory(e);
	if ((size_t)snprintf(n->name, sizeof(n->name), "%s", name) >= sizeof(n->name))
		return error_set(e, ENAMETOOLONG, "%s is the name of none of ours", name);
	n->is_passing = is_passing;
	n->is_base = !is_passing && qcow2_is_base_name(name);
	if (read_node(dir, n, e) == 0)
		return 0;
	if (e->err != ENOENT && !(is_passing && e->err == EINVAL))
		return -1;
	t->count--; /* just gone, or not yet an image */
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct tree_node *)a)->name, ((const struct tree_node *)b)->name);
}

static void find_parents(struct tree *t)
{
	if (t->count)
		qsort(t->node, t->count, sizeof(*t->node), compare);
	for (size_t i = 0; i < t->count; i++) {
		struct tree_node key, *parent;

		if (!*t->node[i].on)
			continue;
		strcpy(key.name, t->node[i].on);
		parent = bsearch(&key, t->node, t->count, sizeof(key), compare);
		if (!parent)
			continue;
		parent->children++;
		t->node[i].parent = (size_t)(parent - t->node);
	}
}

static int renew_listing(int dir, struct error *e)
{
	CLEANUP_CLOSE int fd = openat(dir, TREE_LISTING_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd >= 0 && unlinkat(dir, TREE_LISTING_NAME, 0) == 0)
		return 0;
	return errno == ENOSPC || errno == EDQUOT || errno == ENOENT ? 0 : error_errno(e, errno, "write to the SR's directory");
}

int tree_scan(const char *dir, struct tree *t, struct error *e)
{
	CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *d = NULL;
	int r;

	*t = (struct tree) { 0 };
	if (fd < 0)
		return error_errno(e, errno, "open %s", dir);
	r = renew_listing(fd, e);
	if (r == 0 && !(d = opendir(dir)))
		r = error_errno(e, errno, "list %s", dir);
	while (r == 0) {
		errno = 0;
		entry = readdir(d);
		if (!entry) {
			r = errno ? error_errno(e, errno, "list %s", dir) : 0;
			break;
		}
		r = scan_name(fd, entry->d_name, t, e);
	}
	if (d)
		closedir(d);
	if (r == 0)
		find_parents(t);
	else
		tree_clear(t);
	return r;
}

void tree_clear(struct tree *t)
{
	free(t->node);
	*t = (struct tree) { 0 };
}

bool tree_has_bases(const char *dir)
{
	struct dirent *entry;
	DIR *d = opendir(dir);
	bool is_there = false;

	while (d && !is_there && (entry = readdir(d)))
		is_there = qcow2_is_base_name(entry->d_name);
	if (d)
		closedir(d);
	return is_there;
}

/* --- collect */

static int remove_base(const char *dir, struct tree *t, struct tree_node *n, struct error *e)
{
	CLEANUP_FREE char *path = NULL;

	if (asprintf(&path, "%s/%s", dir, n->name) < 0) {
		path = NULL;
		return out_of_memory(e);
	}
	if (unlink(path) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove %s", path);
	log_info("%s is removed: nothing stands on it any more", path);
	n->is_base = false; /* it is gone */
	if (n->parent != TREE_NONE)
		t->node[n->parent].children--;
	return 0;
}

/* 1: removed one. */
static int remove_some(const char *dir, struct tree *t, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < t->count; i++) {
		if (!t->node[i].is_base || t->node[i].children)
			continue;
		if (remove_base(dir, t, &t->node[i], e) == -1)
			return -1;
		r = 1;
	}
	return r;
}

int tree_collect(const char *dir, struct error *e)
{
	CLEANUP_LOCK int lock = tree_lock(dir, e);
	struct tree t;
	int r;

	if (lock < 0 || tree_scan(dir, &t, e) == -1)
		return -1;
	do {
		r = remove_some(dir, &t, e);
	} while (r == 1);
	tree_clear(&t);
	return r;
}
