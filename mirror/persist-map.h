/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-map - the map's file, mapped: two bits a chunk, with memory behind them only where they may be set
 *
 * Knows no loop. One region is (as the file has it):
 *
 *      undecided --persist_map_take()--> reserved    its bits may be used
 *          ^            '--------------> fallen      they may not: it is owed as a whole
 *          '--persist_map_drop()-----------'
 */
#ifndef SXM_MIRROR_PERSIST_MAP_H
#define SXM_MIRROR_PERSIST_MAP_H

#include "base/range.h"
#include "mirror/persist-header.h"

/* The regions whose bits share a page: what is given back at once. */
#define PERSIST_GROUP 8u

struct persist_map {
	char *path;            /* owned */
	uint64_t size_bytes, chunks, regions;
	int fd;                /* owned; -1: there is no map */
	uint8_t *base;         /* owned: the mapping, all of the file */
	size_t bytes;
	size_t owing_at, unflushed_at; /* offsets of the arrays */
	uint64_t *fallen, *reserved;   /* in the mapping; bit `regions` of fallen: everything is owed */
	uint64_t *owing, *unflushed;   /* in the mapping */
};

/* Block a little (tmpfs). path is copied. A new one says that everything is owed. -1 + e: there is none (fd -1, the rest valid:
 * everything is owed, reserve() fails); ENOSPC. */
int persist_map_new(struct persist_map *m, const char *path, const struct persist_header *h, struct error *e);
/* -1 + why: it was not taken, as with new(). *is_same_boot: false, and 0: there is one, and it is worth nothing. */
int persist_map_open(struct persist_map *m, const char *path, const struct persist_header *h, bool *is_same_boot,
		     struct error *why);
/* Unmaps, removes nothing. */
void persist_map_fini(struct persist_map *m);

bool persist_map_is_decided(const struct persist_map *m, uint64_t region); /* without a map: always, fallen */
bool persist_map_is_reserved(const struct persist_map *m, uint64_t region);
void persist_map_take(struct persist_map *m, uint64_t region, bool has_memory);
void persist_map_drop(struct persist_map *m, uint64_t region);     /* fallen -> undecided */
void persist_map_unreserve(struct persist_map *m, uint64_t region); /* reserved -> undecided, before its memory goes */
void persist_map_vouch(struct persist_map *m);

/* For any thread: memory for the bits of regions [first, end), and back. 0 or an errno. Giving back clears the bits. */
int persist_map_reserve(const struct persist_map *m, uint64_t first, uint64_t end);
void persist_map_release(const struct persist_map *m, uint64_t first, uint64_t end);

/* See persist_each_owing(). */
int persist_map_each(const struct persist_map *m, unsigned which, void (*fn)(void *arg, struct range r), void *arg);

#endif
