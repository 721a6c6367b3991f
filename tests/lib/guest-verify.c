/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * guest-verify - is every sector as a disk may leave it?
 *
 * A sector is a register.  An operation lives from its first issue to its acknowledgement (for ever, if none came).  What a
 * sector holds is right when some operation wrote exactly that there, and no other operation on that sector was issued after
 * it had been acknowledged and has been acknowledged itself:
 *
 *      A  |--------|                    may the sector hold A?   yes, B overlaps it: the disk chose the order
 *      B       |--------|               ... and if C was acknowledged?   no: C began after A had ended.  A held = C lost
 *      C                   |-----|
 *
 * So two numbers a sector are enough: the latest issue among acknowledged operations, and the latest end among zeroings
 * (zeros carry no sequence number).  The region reads as zero before the run: that is a zeroing that ended at time 0.
 * "Time" is the number of the record in the log.
 *
 * After a loss of the cache only what was acknowledged before an answered flush was begun counts as acknowledged there (C in
 * the drawing); everything that was ever issued may still be what the sector holds.
 *
 * A copy taken at one moment M may lack what had not ended by then.  That it is one moment: everything that is there was issued
 * before M, everything that is missing (issued after what the sector holds had ended) ended after M.  So, over all sectors, the
 * latest issue of the first is before the earliest end of the second.
 *
 * A loss of power in the middle of the log is the same for all that ended before it.
 *
 * Can fail: lost (an older state), torn (a stamp whose bytes are not its own), elsewhere (another offset's stamp), strange (a
 * sequence number never issued for that sector, or bytes nobody wrote).
 */
#include <fcntl.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "tests/lib/guest.h"

#define STAMP_MAGIC UINT64_C(0x7369676e6f667378)
#define CHUNK_BYTES (1u << 20)
#define COMPLAINTS_MAX 10

struct stamp {
	uint64_t magic, run, offset, sequence;
};

static uint64_t mix(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

void guest_stamp(uint8_t sector[static GUEST_SECTOR], uint64_t run, uint64_t offset, uint64_t sequence)
{
	const struct stamp stamp = { STAMP_MAGIC, run, offset, sequence };
	uint64_t state = run ^ (offset << 20) ^ sequence;

	memcpy(sector, &stamp, sizeof(stamp));
	for (size_t at = sizeof(stamp); at < GUEST_SECTOR; at += sizeof(state)) {
		const uint64_t word = mix(&state);

		memcpy(sector + at, &word, sizeof(word));
	}
}

bool guest_stamp_read(const uint8_t sector[static GUEST_SECTOR], uint64_t run, uint64_t *offset, uint64_t *sequence)
{
	struct stamp stamp;

	memcpy(&stamp, sector, sizeof(stamp));
	*offset = stamp.offset;
	*sequence = stamp.sequence;
	return stamp.magic == STAMP_MAGIC && stamp.run == run;
}

/* --- the log, digested */

struct operation {
	uint64_t offset, issued, ended; /* ended: UINT64_MAX until acknowledged */
	uint32_t length;
	bool is_zero, may_be_lost;
};

struct history {
	struct guest_log_header header;
	struct operation *operation;    /* owned; [sequence - 1] */
	uint64_t operations;
	uint64_t acknowledged;
	uint64_t *flush;                /* owned; [number - 1]: when it was begun */
	uint64_t flushes, flushed;      /* flushed: the latest beginning among answered flushes */
	uint64_t power_lost;            /* the last time */
	bool is_flushed;                /* only what is older than `flushed` must be there */
	uint64_t moment;                /* ... than this; 0: it is no copy of one moment */
	uint64_t latest_there;          /* the latest issue of what is there */
	uint64_t *held_end;             /* owned; per sector: when what it holds had ended */
	uint64_t *must_outlive;         /* owned; per sector: the latest issue among acknowledged operations */
	uint64_t *zeroed;               /* owned; per sector: the latest end among zeroings */
};

static void history_fini(struct history *h)
{
	free(h->operation);
	free(h->flush);
	free(h->must_outlive);
	free(h->held_end);
	free(h->zeroed);
}

static bool is_in_region(const struct history *h, uint64_t offset, uint64_t length)
{
	return length > 0 && offset % GUEST_SECTOR == 0 && length % GUEST_SECTOR == 0 && offset >= h->header.region_start &&
	       length <= h->header.region_end && offset <= h->header.region_end - length;
}

static int take_flush(struct history *h, const struct guest_log_record *r, uint64_t time)
{
	if (r->type == GUEST_FLUSH && r->sequence == h->flushes + 1)
		h->flush[h->flushes++] = time;
	else if (r->type == GUEST_FLUSH && r->sequence > 0 && r->sequence <= h->flushes)
		h->flush[r->sequence - 1] = time; /* the connection had not taken it */
	else if (r->type == GUEST_FLUSHED && r->sequence > 0 && r->sequence <= h->flushes)
		h->flushed = MAX(h->flushed, h->flush[r->sequence - 1]);
	else
		return -1;
	return 0;
}

static void take_power_loss(struct history *h, uint64_t time)
{
	for (uint64_t i = 0; i < h->operations; i++) {
		struct operation *op = &h->operation[i];

		if (op->ended != UINT64_MAX && op->ended > MAX(h->flushed, h->power_lost))
			op->may_be_lost = true;
	}
	h->power_lost = time;
}

static int take_record(struct history *h, const struct guest_log_record *r, uint64_t time)
{
	struct operation *op;

	if (r->type == GUEST_FLUSH || r->type == GUEST_FLUSHED)
		return take_flush(h, r, time);
	if (r->type == GUEST_POWER_LOST) {
		take_power_loss(h, time);
		return 0;
	}
	if (r->sequence == 0 || r->sequence > h->operations + 1)
		return -1;
	if (r->type == GUEST_ACKNOWLEDGED) {
		if (r->sequence > h->operations)
			return -1;
		h->operation[r->sequence - 1].ended = time;
		h->acknowledged++;
		return 0;
	}
	if ((r->type != GUEST_WRITE && r->type != GUEST_ZERO) || !is_in_region(h, r->offset, r->length))
		return -1;
	if (r->sequence <= h->operations)
		return 0; /* a retry: it lives since its first issue */
	op = &h->operation[h->operations++];
	*op = (struct operation){ r->offset, time, UINT64_MAX, r->length, r->type == GUEST_ZERO };
	return 0;
}

static void note_sectors(struct history *h)
{
	for (uint64_t i = 0; i < h->operations; i++) {
		const struct operation *op = &h->operation[i];
		const uint64_t first = (op->offset - h->header.region_start) / GUEST_SECTOR;

		for (uint64_t s = first; s < first + op->length / GUEST_SECTOR; s++) {
			if (op->ended != UINT64_MAX && !op->may_be_lost && (!h->is_flushed || op->ended < h->flushed) &&
			    (!h->moment || op->ended <= h->moment))
				h->must_outlive[s] = MAX(h->must_outlive[s], op->issued);
			if (op->is_zero)
				h->zeroed[s] = MAX(h->zeroed[s], op->ended);
		}
	}
}

static int digest(struct history *h, const uint8_t *log, size_t bytes)
{
	const size_t records = (bytes - sizeof(h->header)) / sizeof(struct guest_log_record); /* a cut last one is nobody's */
	uint64_t sectors;

	memcpy(&h->header, log, sizeof(h->header));
	if (memcmp(h->header.magic, GUEST_LOG_MAGIC, sizeof(h->header.magic)) != 0 ||
	    h->header.region_end <= h->header.region_start)
		return -1;
	sectors = (h->header.region_end - h->header.region_start) / GUEST_SECTOR;
	h->operation = calloc(records + 1, sizeof(*h->operation));
	h->flush = calloc(records + 1, sizeof(*h->flush));
	h->must_outlive = calloc(sectors, sizeof(*h->must_outlive));
	h->zeroed = calloc(sectors, sizeof(*h->zeroed));
	h->held_end = calloc(sectors, sizeof(*h->held_end));
	if (!h->held_end || !h->operation || !h->flush || !h->must_outlive || !h->zeroed)
		return -1;
	for (size_t i = 0; i < records; i++) {
		struct guest_log_record r;

		memcpy(&r, log + sizeof(h->header) + i * sizeof(r), sizeof(r));
		if (take_record(h, &r, i + 1) == -1)
			return -1;
	}
	note_sectors(h);
	return 0;
}

static int read_log(struct history *h, const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *map;
	int ret;

	if (fd == -1 || fstat(fd, &st) == -1 || (size_t)st.st_size < sizeof(h->header)) {
		fprintf(stderr, "guest: %s: not a log\n", path);
		return -1;
	}
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return -1;
	ret = digest(h, map, (size_t)st.st_size);
	munmap(map, (size_t)st.st_size);
	if (ret == -1)
		fprintf(stderr, "guest: %s: broken log\n", path);
	return ret;
}

/* --- the disk against it */

/* What is wrong with the sector at `offset`; NULL: nothing. */
static const char *judge(struct history *h, const uint8_t *sector, uint64_t offset)
{
	static const uint8_t zeros[GUEST_SECTOR];
	const uint64_t index = (offset - h->header.region_start) / GUEST_SECTOR;
	uint8_t whole[GUEST_SECTOR];
	uint64_t from, sequence;
	const struct operation *op;

	h->held_end[index] = h->zeroed[index];
	if (memcmp(sector, zeros, GUEST_SECTOR) == 0)
		return h->zeroed[index] >= h->must_outlive[index] ? NULL : "lost: reads as zero";
	if (!guest_stamp_read(sector, h->header.run, &from, &sequence))
		return "strange: not written by this guest";
	if (from != offset)
		return "elsewhere: another sector's stamp";
	if (sequence == 0 || sequence > h->operations)
		return "strange: this operation was never issued";
	op = &h->operation[sequence - 1];
	if (op->is_zero || offset < op->offset || offset >= op->offset + op->length)
		return "strange: this operation did not write here";
	guest_stamp(whole, h->header.run, offset, sequence);
	if (memcmp(sector, whole, GUEST_SECTOR) != 0)
		return "torn: half of a stamp";
	h->held_end[index] = op->ended;
	h->latest_there = MAX(h->latest_there, op->issued);
	return op->ended >= h->must_outlive[index] ? NULL : "lost: an older write's stamp";
}

/* Is all that is there from before everything that is missing had ended? */
static bool is_one_moment(const struct history *h)
{
	uint64_t missing = UINT64_MAX;

	for (uint64_t i = 0; i < h->operations; i++) {
		const struct operation *op = &h->operation[i];
		const uint64_t first = (op->offset - h->header.region_start) / GUEST_SECTOR;

		for (uint64_t s = first; s < first + op->length / GUEST_SECTOR; s++)
			if (op->issued > h->held_end[s])
				missing = MIN(missing, op->ended);
	}
	if (h->latest_there < missing)
		return true;
	fprintf(stderr, "guest: not one moment: what was issued at %" PRIu64 " is there, what had ended at %" PRIu64
		" is not\n", h->latest_there, missing);
	return false;
}

static int compare(struct nbd_handle *nbd, struct history *h, uint64_t *bad)
{
	CLEANUP_FREE uint8_t *chunk = malloc(CHUNK_BYTES);

	if (!chunk)
		return -1;
	for (uint64_t at = h->header.region_start; at < h->header.region_end; at += CHUNK_BYTES) {
		const size_t bytes = (size_t)MIN((uint64_t)CHUNK_BYTES, h->header.region_end - at);

		if (nbd_pread(nbd, chunk, bytes, at, 0) == -1) {
			fprintf(stderr, "guest: %s\n", nbd_get_error());
			return -1;
		}
		for (size_t i = 0; i < bytes; i += GUEST_SECTOR) {
			const char *wrong = judge(h, chunk + i, at + i);

			if (wrong && ++*bad <= COMPLAINTS_MAX)
				fprintf(stderr, "guest: sector at %" PRIu64 " is %s\n", at + i, wrong);
		}
	}
	return 0;
}

int guest_verify(const char *uri, const char *log_path, bool is_flushed, uint64_t moment)
{
	struct history h = { .is_flushed = is_flushed, .moment = moment };
	struct nbd_handle *nbd = nbd_create();
	uint64_t bad = 0;
	int ret = 2;

	if (!nbd || read_log(&h, log_path) == -1)
		goto out;
	if (nbd_connect_uri(nbd, uri) == -1) {
		fprintf(stderr, "guest: %s\n", nbd_get_error());
		goto out;
	}
	if (compare(nbd, &h, &bad) == 0)
		ret = bad || (moment && !is_one_moment(&h)) ? 1 : 0;
	nbd_shutdown(nbd, 0);
	if (ret != 2)
		printf("verified=%" PRIu64 " acknowledged=%" PRIu64 " bad_sectors=%" PRIu64 "\n", h.operations, h.acknowledged,
		       bad);
out:
	history_fini(&h);
	nbd_close(nbd);
	return ret;
}
