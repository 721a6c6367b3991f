/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist - one mirror's memory of what it owes, in files that outlive the process (I11)
 *
 *      the map     in SXM_RUN_DIR, a tmpfs: survives kill -9. Exact: two bits a chunk, `owing` and `unflushed`, in a shared
 *                  mapping that the core writes by plain stores
 *      the marks   beside the volume: survive the host. Coarse: one bit a region of 16 MiB, on the medium before a write
 *                  into the region is submitted anywhere
 *
 *                        persist_mark()                                   persist_retire()
 *      region:  unmarked ------------> being marked --done(0)--> marked -------------------> unmarked
 *                                           '----done(errno)--> unmarked
 *
 * Either file speaks for itself: what it holds says everything that is owed, or more. A new file therefore says that the whole
 * disk is owed, until persist_vouch(): a crash before it costs a full copy and no data.
 *
 *      new:     persist_new(),  [bits and marks of what is owed],  persist_vouch()        then as above
 *      resume:  persist_open(), ask what is owed, mark it and set its bits, persist_vouch()
 *
 * persist_new() and persist_open() block (offload); all else is for the loop and does not.
 */
#ifndef SXM_MIRROR_PERSIST_H
#define SXM_MIRROR_PERSIST_H

#include "base/error.h"
#include "base/range.h"
#include "loop/loop.h"

#define PERSIST_CHUNK_BYTES 4096u
#define PERSIST_REGION_BYTES (16 * MiB) /* 4096 chunks: 64 words of each array */
#define PERSIST_MAX_BYTES (1024 * TiB)  /* of the disk */
#define PERSIST_ID_MAX 128u             /* bytes with the NUL: mirror_id */
#define PERSIST_NAME_MAX 4608u          /* the same: source_name, target_name */

struct persist;
struct persist_ops; /* persist-file.h: what the marks' file stands on; tests bring their own */

struct persist_spec {
	struct loop *loop;                        /* borrowed */
	const char *map_path, *marks_path;        /* copied, as all that follows; their directories exist */
	uint64_t size_bytes;                      /* of the disk, > 0 */
	const char *mirror_id;
	const char *source_name, *target_name;    /* both volumes: keys or URIs, compared byte by byte */
	uint64_t content_generation;              /* of the source */
	const struct persist_ops *ops;            /* NULL: the system's */
};

/* What persist_open() found. A file of another mirror, pair of volumes, generation or size, a truncated or spoilt one, one that
 * is not a plain file of ours: "not there". It was not used, the reason says why in a sentence, for the log, and there is a new
 * one in its place (which says that everything is owed). A region that is marked has its bits in the map, all clear where it had
 * none before, or has fallen back on its mark. */
struct persist_found {
	bool has_map;      /* persist_each_owing() says what is owed, if is_same_boot */
	bool is_same_boot; /* the map there was written since this host's boot; if not, a new one took its place */
	bool has_marks;    /* persist_each_marked() says what may be owed, whatever happened to this host */
	bool names_match;  /* neither of the files there speaks of something else */
	struct error map_reason, marks_reason; /* why not; ENOENT: none was there; ESTALE: of another mirror or content */
};

/* Makes both files anew, over older ones. A map that cannot be made (tmpfs full) is none: logged, every region falls back on
 * its mark. NULL + e where the marks cannot be made; then both are removed, if they can be. A mirror that goes on without must
 * never be resumed under this id. */
struct persist *persist_new(const struct persist_spec *spec, struct error *e);
/* Takes up what is there and makes what is not. NULL + e: as with new. */
struct persist *persist_open(const struct persist_spec *spec, struct persist_found *found, struct error *e);

/* Bit c % 64 of word c / 64 is chunk c. A bit may be read or written only while its region has a map (below): elsewhere the
 * file has no memory behind it. NULL: there is no map. Valid until persist_close(). */
uint64_t *persist_owing(struct persist *p);
uint64_t *persist_unflushed(struct persist *p);

/* --- marks */
struct persist_mark {
	uint64_t region;  /* the first; the caller's */
	uint64_t count;   /* how many; 0 is 1 */
	/* From the deferred queue, once; then the memory is the caller's again. err 0: at this moment the mark is on the medium.
	 * Else it is not, and a mirror under which a write into the region is submitted all the same must never be resumed.
	 * has_map: the region's bits may be used until it is retired. Without, they may not: the region is owed as a whole while
	 * marked. For several regions: all of them have one (else ask persist_has_map()). */
	void (*done)(struct persist_mark *m, int err, bool has_map);

	int err;          /* persist.c's, this and what follows */
	TAILQ_ENTRY(persist_mark) link;
};
/* Several for one region are fine. Of a region marked already: answered without I/O. One fdatasync at a time: what comes while
 * it runs goes together in the next one. */
void persist_mark(struct persist *p, struct persist_mark *m);
bool persist_is_marked(const struct persist *p, uint64_t region);
bool persist_has_map(const struct persist *p, uint64_t region);

/* All of its bits are clear and stay so until it is marked anew. Written within a second or so, or at the close: a crash may
 * leave the mark, which costs a copy of the region. Nothing happens to one that is not marked. */
void persist_retire(struct persist *p, uint64_t region);

/* What is owed is in bits and marks that are done(): the files need no longer say that everything is. */
void persist_vouch(struct persist *p);

/* Writes are to go on that are noted nowhere (a mark could not be made, or the mirror is over), so the files are not to be
 * believed any more: both go, the marks from the medium, too. done(), from the deferred queue, when they have; e: a power loss
 * may bring the marks back. Once. Marks that are asked for meanwhile, or later, are answered with ECANCELED; nothing is kept at
 * the close. */
void persist_void(struct persist *p, void (*done)(void *arg, const struct error *e), void *arg);

/* --- what is owed, in ascending order, adjacent ranges joined; the disk's end may be in the middle of a chunk */
enum { PERSIST_OWING = 1, PERSIST_UNFLUSHED = 2 };
typedef void persist_range_fn(void *arg, struct range r);
/* By the map: chunks with one of the bits set, and whole regions that fell back on their mark. Allocates no memory in the map.
 * Everything: before persist_vouch(), and without a map. 0, or an errno: the map could not be read, take the marks. */
int persist_each_owing(struct persist *p, unsigned which, persist_range_fn *fn, void *arg);
/* By the marks. Everything: before persist_vouch(). */
void persist_each_marked(struct persist *p, persist_range_fn *fn, void *arg);

/* --- the end. p is gone when this returns. Marks in flight are answered first (those that did not get to the medium with
 * ECANCELED), then done(), from the deferred queue; NULL allowed. Keep: retired marks are written, not made durable. */
enum persist_end { PERSIST_KEEP, PERSIST_UNLINK };
void persist_close(struct persist *p, enum persist_end end, void (*done)(void *arg), void *arg);

#endif
