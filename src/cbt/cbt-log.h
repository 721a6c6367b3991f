/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-log - what was written of one disk since the volume it was snapshotted to last: a bit for each 64 KiB, in a file
 *
 *      S1.cbt  parent ""   <-- S2.cbt  parent S1  <-- V.cbt  parent S2
 *                              what changed           what changed since S2
 *                              between S1 and S2      (V is written)
 *
 * A log is named like its volume, whatever the format of its image. It says of which volume's content it tells the changes:
 * its parent. So what changed between two volumes is the union of the logs from the newer one up to, not with, the older one's.
 * A log whose volume has gone stays until it was merged into those that have it for a parent.
 *
 * Sealed: a snapshot's; it does not change. Else it is the log of a disk that is, or may be, written. Then `session` says
 * whether somebody has it open, or died so (cbt-live.h): not 0, and its bits are only those that reached the file, and for all
 * others there are marks, one for each 16 MiB.
 */
#ifndef SXM_CBT_CBT_LOG_H
#define SXM_CBT_CBT_LOG_H

#include "base/error.h"
#include "base/range.h"

#define CBT_SUFFIX ".cbt"
#define CBT_NEXT_SUFFIX ".cbt.next"       /* of a snapshot under way: what was written since, see cbt-live.h */
#define CBT_BLOCK_BYTES (64 * KiB)        /* a bit */
#define CBT_REGION_BYTES (16 * MiB)       /* a mark */
#define CBT_REGION_WORDS 4u               /* of bits */
#define CBT_MAX_BYTES (1024 * TiB)        /* of a disk */
#define CBT_KEY_MAX 65u                   /* with the NUL */

/* In the file: a header, then pages; each has the marks and the bits of some regions. */
#define CBT_PAGE_BYTES 4096u
#define CBT_PAGE_REGIONS 127u

struct cbt_header {
	uint64_t size_bytes;                      /* of the disk, as the log knows it */
	uint64_t id;                              /* of this log; random */
	uint64_t session;                         /* whoever has it open; 0: closed, and the bits are all there is */
	bool is_sealed;
	char parent[CBT_KEY_MAX];                 /* "": it begins with nothing before it */
	char origin[CBT_KEY_MAX];                 /* of which volume it is, elsewhere (cbt-moved.h); "": as it is named */
};

struct cbt_log {
	struct cbt_header header;
	uint64_t regions;
	uint64_t *bits;                           /* owned; bit b % 64 of word b / 64 is block b */
	uint64_t *marks;                          /* owned; a bit a region */
};

/* --- pure */
uint64_t cbt_regions(uint64_t size_bytes);
uint64_t cbt_blocks(uint64_t size_bytes);
uint64_t cbt_pages(uint64_t size_bytes);
uint64_t cbt_file_bytes(uint64_t size_bytes);
void cbt_header_encode(const struct cbt_header *h, uint8_t page[static CBT_PAGE_BYTES]);
int cbt_header_decode(const uint8_t *page, size_t bytes, struct cbt_header *h, struct error *why); /* -1 + why (EBADMSG) */
/* Page n of the file, not counting the header. */
void cbt_page_encode(const uint64_t *bits, const uint64_t *marks, uint64_t regions, uint64_t n,
		     uint8_t page[static CBT_PAGE_BYTES]);
void cbt_page_decode(const uint8_t page[static CBT_PAGE_BYTES], uint64_t n, uint64_t regions, uint64_t *bits, uint64_t *marks);
bool cbt_bits_test_all(const uint64_t *words, uint64_t first, uint64_t end);
void cbt_bits_set(uint64_t *words, uint64_t first, uint64_t end);

int cbt_log_init(struct cbt_log *l, uint64_t size_bytes, struct error *e); /* empty, its own id, no parent */
void cbt_log_clear(struct cbt_log *l);
int cbt_log_grow(struct cbt_log *l, uint64_t size_bytes, struct error *e); /* what is new has no bits; not smaller */
void cbt_log_set(struct cbt_log *l, struct range r);                       /* bytes, inside the disk */
void cbt_log_settle(struct cbt_log *l);                                    /* what is marked has changed; nobody has it open */
int cbt_log_merge(struct cbt_log *into, const struct cbt_log *from, struct error *e); /* bits only; grows as needed */
/* The blocks of r (bytes), the first one in the most significant bit: heap. NULL: out of memory. */
char *cbt_log_base64(const struct cbt_log *l, struct range r);

/* --- files */
uint64_t cbt_random(void);                                                 /* never 0 */
char *cbt_log_path(const char *dir, const char *key, const char *suffix);  /* heap */
char *cbt_log_path_with(const char *path, const char *suffix);             /* heap */
/* Of an image of ours: <dir>/<key>.<format> -> <dir>/<key>.cbt; heap. NULL: it has no such name, or out of memory. */
char *cbt_log_path_of_image(const char *image, const char *suffix);
/* ENOENT: there is none. EBADMSG: it is damaged. */
int cbt_log_read_header(const char *path, struct cbt_header *h, struct error *e);
int cbt_log_load(const char *path, struct cbt_log *l, struct error *e);
/* Durable, all or nothing; session 0. */
int cbt_log_store(const char *path, const struct cbt_log *l, struct error *e);
/* As key's log, of this path, sealed. Where that was tried before (log's parent is key itself), what was sealed then is in it,
 * too. key "": nobody's. */
int cbt_log_seal(const char *path, const char *key, const struct cbt_log *log, struct error *e);
/* Of the disk's log, which nobody has open: finishes what a snapshot that was killed had begun. Good where there is no log. */
int cbt_log_recover(const char *path, struct error *e);
/* ... and loads it, settled. */
int cbt_log_take_up(const char *path, struct cbt_log *l, struct error *e);

#endif
