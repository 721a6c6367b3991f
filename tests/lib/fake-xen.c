/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-xen - see fake-xen.h
 *
 * The store's lock is the file's, flock(): it is free when its holder was killed.
 */
#include "tests/lib/fake-xen.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vbd/xen.h"
#include "vbd/xenbus-keys.h"

#define PAGES_AT ((sizeof(struct world_shared) + 4095) / 4096 * 4096)

static void insist(bool is_so, const char *what)
{
	if (is_so)
		return;
	perror(what);
	abort();
}

void world_open(struct world *w, const char *dir)
{
	char path[128];

	signal(SIGPIPE, SIG_IGN); /* whom poke() wakes may be gone between its two calls */
	memset(w, 0, sizeof(*w));
	snprintf(w->dir, sizeof(w->dir), "%s", dir);
	snprintf(path, sizeof(path), "%s/world", dir);
	w->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	insist(w->fd >= 0 && ftruncate(w->fd, (off_t)(PAGES_AT + WORLD_PAGES * 4096ul)) == 0, path);
	w->shared = mmap(NULL, PAGES_AT + WORLD_PAGES * 4096ul, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	insist(w->shared != MAP_FAILED, "mmap");
	w->pages = (uint8_t *)w->shared + PAGES_AT;
}

void world_close(struct world *w)
{
	munmap(w->shared, PAGES_AT + WORLD_PAGES * 4096ul);
	close(w->fd);
}

uint8_t *world_page(struct world *w, uint32_t gref)
{
	insist(gref < WORLD_PAGES, "gref");
	w->shared->is_granted[gref] = 1;
	return w->pages + gref * 4096ul;
}

void world_revoke(struct world *w, uint32_t gref)
{
	w->shared->is_granted[gref] = 0;
}

static bool is_granted(const struct world *w, uint32_t gref)
{
	return gref < WORLD_PAGES && w->shared->is_granted[gref];
}

/* --- fifos */

static int open_fifo(const struct world *w, const char *name, int flags)
{
	char path[228];

	snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	if (flags == O_RDWR && mkfifo(path, 0600) == -1 && errno != EEXIST)
		insist(false, path);
	return open(path, flags | O_NONBLOCK | O_CLOEXEC);
}

static bool drain_fifo(int fd)
{
	bool is_there = false;
	char bytes[512];

	while (read(fd, bytes, sizeof(bytes)) > 0)
		is_there = true;
	return is_there;
}

static void poke(const struct world *w, const char *name)
{
	int fd = open_fifo(w, name, O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, "", 1) < 0)
		insist(errno == EAGAIN || errno == EPIPE, name);
	close(fd);
}

int world_channel(struct world *w, uint32_t channel)
{
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "%u.back", channel);
	fd = open_fifo(w, name, O_RDWR);
	insist(fd >= 0, name);
	close(fd);
	snprintf(name, sizeof(name), "%u.front", channel);
	fd = open_fifo(w, name, O_RDWR);
	insist(fd >= 0, name);
	return fd;
}

void world_notify(struct world *w, uint32_t channel)
{
	char name[32];

	snprintf(name, sizeof(name), "%u.back", channel);
	poke(w, name);
}

/* --- the store */

void world_lock(const struct world *w)
{
	int err;

	do {
		err = flock(w->fd, LOCK_EX);
	} while (err == -1 && errno == EINTR);
}

/* flock() is a descriptor's: threads of one process share it. Nothing here is called by two at a time for one world. */
void world_unlock(const struct world *w)
{
	flock(w->fd, LOCK_UN);
}

static struct world_key *find_key(const struct world *w, const char *path)
{
	struct world_key *spare = NULL;

	for (unsigned i = 0; i < WORLD_KEYS; i++) {
		struct world_key *k = &w->shared->key[i];

		if (strcmp(k->path, path) == 0)
			return k;
		if (!*k->path && !spare)
			spare = k;
	}
	return spare;
}

static void note(const struct world *w, const char *path)
{
	snprintf(w->shared->changed[w->shared->changes++ % WORLD_LOG], sizeof(w->shared->changed[0]), "%s", path);
}

static void remove_key(const struct world *w, const char *path)
{
	size_t bytes = strlen(path);

	note(w, path);
	for (unsigned i = 0; i < WORLD_KEYS; i++) {
		struct world_key *k = &w->shared->key[i];

		if (strncmp(k->path, path, bytes) == 0 && (!k->path[bytes] || k->path[bytes] == '/'))
			*k->path = '\0';
	}
}

static void put_key(const struct world *w, const char *path, const void *value, uint32_t bytes)
{
	struct world_key *k = find_key(w, path);

	note(w, path);
	insist(k && bytes <= sizeof(k->value), path);
	memcpy(k->value, value, bytes);
	k->bytes = bytes;
	k->is_guests = k->is_guests && *k->path; /* a new one is the toolstack's */
	snprintf(k->path, sizeof(k->path), "%s", path);
}

void world_tell(const struct world *w)
{
	DIR *d = opendir(w->dir);
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (strncmp(entry->d_name, "store.", 6) == 0)
			poke(w, entry->d_name);
	if (d)
		closedir(d);
}

void world_put_bytes(struct world *w, const char *path, const void *value, uint32_t bytes)
{
	world_lock(w);
	if (value)
		put_key(w, path, value, bytes);
	else
		remove_key(w, path);
	world_unlock(w);
	world_tell(w);
}

void world_give(struct world *w, const char *path)
{
	struct world_key *k;

	world_lock(w);
	k = find_key(w, path);
	insist(k && *k->path, path);
	k->is_guests = true;
	note(w, path);
	world_unlock(w);
	world_tell(w);
}

void world_put(struct world *w, const char *path, const char *value)
{
	world_put_bytes(w, path, value, value ? (uint32_t)strlen(value) : 0);
}

bool world_get(struct world *w, const char *path, char *value, size_t bytes)
{
	const struct world_key *k;
	bool is_there;

	world_lock(w);
	k = find_key(w, path);
	is_there = k && *k->path && k->bytes < bytes;
	if (is_there)
		memcpy(value, k->value, k->bytes);
	if (is_there)
		value[k->bytes] = '\0';
	world_unlock(w);
	return is_there;
}

const struct world_key *world_find(const struct world *w, const char *path)
{
	const struct world_key *k = find_key(w, path);

	return k && *k->path ? k : NULL;
}

void world_change(struct world *w, const char *path, const char *value)
{
	if (value)
		put_key(w, path, value, (uint32_t)strlen(value));
	else
		remove_key(w, path);
}

int world_watch(struct world *w, const char *name)
{
	int fd = open_fifo(w, name, O_RDWR);

	insist(fd >= 0, name);
	return fd;
}

/* --- what the backend is given */

struct xen {
	struct world world;
	int events, store;
	int front;             /* the guest's end of the channel, to be told of an event */
	void *ring;
	uint32_t pages;
	bool is_masked;
};

static struct xen *open_xen(uint16_t domain UNUSED, struct error *e)
{
	struct xen *x = calloc(1, sizeof(*x));
	const char *dir = getenv("SXM_FAKE_XEN");

	if (!x || !dir) {
		error_set(e, ENODEV, "SXM_FAKE_XEN is not set");
		free(x);
		return NULL;
	}
	world_open(&x->world, dir);
	x->store = x->events = x->front = -1;
	return x;
}

static void close_xen(struct xen *x)
{
	insist(!x->ring, "closed while connected");
	if (x->store >= 0)
		close(x->store);
	world_close(&x->world);
	free(x);
}

static void *map_pages(struct xen *x, const struct xenbus_ring *ring)
{
	uint8_t *at = mmap(NULL, x->pages * 4096ul, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (uint32_t i = 0; i < x->pages; i++)
		if (!is_granted(&x->world, ring->gref[i]) ||
		    mmap(at + i * 4096ul, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, x->world.fd,
			 (off_t)(PAGES_AT + ring->gref[i] * 4096ul)) == MAP_FAILED) {
			munmap(at, x->pages * 4096ul);
			return NULL;
		}
	return at;
}

static void *connect_xen(struct xen *x, const struct xenbus_ring *ring, struct error *e)
{
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "%u.back", ring->channel);
	fd = open_fifo(&x->world, name, O_RDONLY);
	if (fd < 0) {
		error_set(e, ENOENT, "there is no channel %u", ring->channel);
		return NULL;
	}
	x->pages = 1u << ring->order;
	x->ring = map_pages(x, ring);
	if (!x->ring) {
		close(fd);
		error_set(e, EINVAL, "a page of the ring is not granted");
		return NULL;
	}
	close(fd);
	x->events = open_fifo(&x->world, name, O_RDWR);
	insist(x->events >= 0, name);
	snprintf(name, sizeof(name), "%u.front", ring->channel);
	x->front = open_fifo(&x->world, name, O_RDWR);
	insist(x->front >= 0, name);
	__atomic_add_fetch(&x->world.shared->mapped, 1, __ATOMIC_SEQ_CST);
	return x->ring;
}

static void disconnect_xen(struct xen *x)
{
	insist(x->ring != NULL, "disconnected twice");
	close(x->events);
	close(x->front);
	x->events = x->front = -1;
	munmap(x->ring, x->pages * 4096ul);
	x->ring = NULL;
	__atomic_sub_fetch(&x->world.shared->mapped, 1, __ATOMIC_SEQ_CST);
}

static void copy_xen(struct xen *x, bool is_to_guest, struct xen_copy *copy, unsigned count)
{
	insist(x->ring != NULL, "a copy without a ring");
	for (unsigned i = 0; i < count; i++) {
		struct xen_copy *c = &copy[i];
		uint8_t *page = x->world.pages + c->gref * 4096ul;

		c->has_failed = !is_granted(&x->world, c->gref) || c->offset + c->bytes > 4096;
		if (c->has_failed)
			continue;
		if (is_to_guest)
			memcpy(page + c->offset, c->memory, c->bytes);
		else
			memcpy(c->memory, page + c->offset, c->bytes);
		__atomic_add_fetch(&x->world.shared->copies, 1, __ATOMIC_RELAXED);
	}
}

static void notify_xen(struct xen *x)
{
	if (write(x->front, "", 1) < 0)
		insist(errno == EAGAIN, "an event");
}

static int events_fd(struct xen *x)
{
	return x->events;
}

/* Of a channel that is masked nothing is heard, and what came is kept. */
static bool is_pending(struct xen *x)
{
	if (!x->ring || x->is_masked || !drain_fifo(x->events))
		return false;
	x->is_masked = true;
	__atomic_add_fetch(&x->world.shared->masked, 1, __ATOMIC_SEQ_CST);
	return true;
}

static void unmask(struct xen *x)
{
	__atomic_sub_fetch(&x->world.shared->masked, x->is_masked ? 1 : 0, __ATOMIC_SEQ_CST);
	x->is_masked = false;
}

static int open_store(struct xen *x, const struct xenbus_names *n, struct error *e)
{
	char name[64];

	snprintf(name, sizeof(name), "store.%u.%u.%d", n->domain, n->device, (int)getpid());
	x->store = open_fifo(&x->world, name, O_RDWR);
	return x->store >= 0 ? 0 : error_errno(e, errno, "%s", name);
}

static int store_fd(struct xen *x)
{
	return x->store;
}

static void drain_store(struct xen *x)
{
	drain_fifo(x->store);
}

static void read_value(const struct xen *x, const char *path, struct xenbus_value *out)
{
	const struct world_key *k = find_key(&x->world, path);

	memset(out, 0, sizeof(*out));
	if (!k || !*k->path)
		return;
	out->is_there = true;
	out->is_toolstacks = !k->is_guests;
	out->is_long = k->bytes >= sizeof(out->value) || memchr(k->value, '\0', k->bytes);
	if (!out->is_long)
		memcpy(out->value, k->value, k->bytes);
}

static bool is_sick(const struct xen *x, const char *what)
{
	const struct world_key *k = world_find(&x->world, WORLD_SICK);

	return k && k->bytes == strlen(what) && memcmp(k->value, what, k->bytes) == 0;
}

static int read_keys(struct xen *x, const struct xenbus_names *n, struct xenbus_value *value, struct error *e)
{
	char path[XENBUS_PATH_MAX];
	bool cannot;

	world_lock(&x->world);
	cannot = is_sick(x, "read");
	memset(value, 0, XENBUS_KEYS * sizeof(*value));
	for (unsigned key = 0; key < XENBUS_KEYS; key++)
		if (xenbus_key_path(n, value, key, path))
			read_value(x, path, &value[key]);
	snprintf(path, sizeof(path), WORLD_DEAD "/%u", n->domain);
	if (world_find(&x->world, path))
		memset(&value[XENBUS_F_STATE], 0, (XENBUS_KEYS - XENBUS_F_STATE) * sizeof(*value));
	world_unlock(&x->world);
	return cannot ? error_set(e, EIO, "the store is sick") : 0;
}

static int write_keys(struct xen *x, const struct xenbus_names *n, enum xenbus_state expected, const struct xen_write *w,
		      unsigned count)
{
	struct xenbus_value value;
	char path[XENBUS_PATH_MAX];
	int err;

	world_lock(&x->world);
	err = is_sick(x, "write") ? ENOSPC : 0;
	xenbus_key_path(n, NULL, XENBUS_B_FRONTEND, path);
	read_value(x, path, &value);
	if (!value.is_there)
		err = ENOENT;
	xenbus_key_path(n, NULL, XENBUS_B_STATE, path);
	read_value(x, path, &value);
	if (!err && xenbus_state_of(&value) != expected)
		err = EAGAIN;
	for (unsigned i = 0; !err && i < count; i++)
		if (w[i].is_removal)
			remove_key(&x->world, w[i].path);
		else
			put_key(&x->world, w[i].path, w[i].value, (uint32_t)strlen(w[i].value));
	world_unlock(&x->world);
	world_tell(&x->world);
	return err;
}

static const struct xen_ops ops = {
	.open = open_xen, .close = close_xen, .connect = connect_xen, .disconnect = disconnect_xen, .copy = copy_xen,
	.notify = notify_xen, .fd = events_fd, .pending = is_pending, .unmask = unmask, .store_open = open_store,
	.store_fd = store_fd, .store_drain = drain_store, .store_read = read_keys, .store_write = write_keys,
};

const struct xen_ops *xen_ops(void)
{
	return &ops;
}
