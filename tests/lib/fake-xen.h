/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-xen - guests' memory, event channels and a store in one directory, for several processes
 *
 * Whoever links fake-xen has xen_ops() over the directory $SXM_FAKE_XEN; the guest's and the toolstack's side is below.
 *
 *      world      a file, mapped: the store's keys, and pages; a page's number is its grant reference
 *      N.back, N.front    fifos: event channel N, to the backend and to the guest
 *      store.*    fifos, one for each who watches: a byte for each change
 */
#ifndef SXM_TESTS_FAKE_XEN_H
#define SXM_TESTS_FAKE_XEN_H

#include "base/compiler.h"

#define WORLD_PAGES 4096u
#define WORLD_KEYS 512u
#define WORLD_LOG 256u /* changes that whoever watches can still be told of */
#define WORLD_DEAD "/fake/dead" /* /fake/dead/DOMID: that domain is no more */
#define WORLD_SICK "/fake/sick" /* "read" or "write": backends cannot do that */

struct world_key {
	char path[128];
	bool is_guests; /* a guest may write it */
	uint32_t bytes;
	char value[4096];
};

struct world_shared {
	uint64_t copies, mapped, bound; /* made; and there are now */
	uint64_t masked;                /* channels of which nothing is heard now */
	uint8_t is_granted[WORLD_PAGES];
	struct world_key key[WORLD_KEYS];
	uint64_t changes;
	char changed[WORLD_LOG][128]; /* the paths of the last of them */
};

struct world {
	char dir[100];
	int fd;
	struct world_shared *shared;
	uint8_t *pages;
};

/* Makes it where there is none. Aborts when it cannot. */
void world_open(struct world *w, const char *dir);
void world_close(struct world *w);
uint8_t *world_page(struct world *w, uint32_t gref); /* granted from now on */
void world_revoke(struct world *w, uint32_t gref);

/* The store. A value of NULL, or a removal, takes what is below along. */
void world_put(struct world *w, const char *path, const char *value);
void world_put_bytes(struct world *w, const char *path, const void *value, uint32_t bytes);
void world_give(struct world *w, const char *path); /* that key: from now on a guest may write it, too */
bool world_get(struct world *w, const char *path, char *value, size_t bytes);
/* For fake-store: a fifo that gets a byte at each change, made. And a lock, for what is read or changed at one moment. */
int world_watch(struct world *w, const char *name);
void world_lock(const struct world *w);
void world_unlock(const struct world *w);
/* Under that lock. NULL: it is not there. */
const struct world_key *world_find(const struct world *w, const char *path);
void world_change(struct world *w, const char *path, const char *value);
void world_tell(const struct world *w); /* when it is let go of */

/* The guest's end of a channel. */
int world_channel(struct world *w, uint32_t channel); /* makes it; -> what to read events from, non-blocking */
void world_notify(struct world *w, uint32_t channel);

#endif
