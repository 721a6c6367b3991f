/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * guest - what the writer and the verifier agree on: sector stamps and the log
 *
 *      sector:  | magic | run | offset | sequence | 480 bytes made from run, offset and sequence |
 *      log:     header, then one record for each thing that happened, in that order
 */
#ifndef SXM_TESTS_GUEST_H
#define SXM_TESTS_GUEST_H

#include "base/compiler.h"

#define GUEST_SECTOR 512u

struct guest_log_header {
	char magic[8];            /* GUEST_LOG_MAGIC */
	uint64_t run;             /* in every stamp: tells this run's sectors from another's */
	uint64_t region_start;    /* bytes */
	uint64_t region_end;
};
#define GUEST_LOG_MAGIC "sxmglog1"

enum guest_log_type {
	GUEST_WRITE = 1,          /* a write of stamps is about to be sent (again, after a lost connection) */
	GUEST_ZERO,               /* the same for WRITE_ZEROES */
	GUEST_ACKNOWLEDGED,
	GUEST_FLUSH,              /* a flush is about to be sent; `sequence` is its own number */
	GUEST_FLUSHED,            /* it was answered: what was acknowledged before its GUEST_FLUSH outlives a power loss */
	GUEST_POWER_LOST,         /* what no flush covered may be there from here on, or not */
};

struct guest_log_record {
	uint32_t type;
	uint32_t length;          /* bytes */
	uint64_t sequence;        /* from 1, one each operation (flushes count by themselves); a retry keeps its own */
	uint64_t offset;          /* bytes */
};

/* The 512 bytes that operation `sequence` of `run` writes at `offset`. */
void guest_stamp(uint8_t sector[static GUEST_SECTOR], uint64_t run, uint64_t offset, uint64_t sequence);
/* True when the sector carries a stamp of `run`; *offset and *sequence say which, not whether it is whole. */
bool guest_stamp_read(const uint8_t sector[static GUEST_SECTOR], uint64_t run, uint64_t *offset, uint64_t *sequence);

/* Reads the export and the log; complains on stderr. 0: every sector is as a disk may leave it; 1: not; 2: could not look.
 * is_flushed: as a disk may leave it that lost its cache: only what a flush covered must be there.
 * moment: not 0: as a copy may be that was taken at one moment, after so many records of the log. */
int guest_verify(const char *uri, const char *log_path, bool is_flushed, uint64_t moment);

#endif
