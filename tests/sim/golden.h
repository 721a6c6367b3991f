/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * golden - readable histories of a mirror, each for one sentence of mirror/THEORY
 *
 * Figures are sectors, 8 a chunk: 16+8 is the third chunk. A map has a letter a chunk: D owed, C being copied, q CLEAN with a
 * far leg on it, . CLEAN; pristine: d, c and p. A line with an arrow is what the core asked for; one without, what happened.
 */
#ifndef SXM_TESTS_GOLDEN_H
#define SXM_TESTS_GOLDEN_H

#include "tests/lib/sim.h"

extern struct sim *golden;

#define GOLDEN_SECTORS(first, count) ((struct range){ (first) * SIM_SECTOR, ((first) + (count)) * SIM_SECTOR })

/* A disk of 4 chunks, the same on both sides; a far side that can everything. */
struct sim_params golden_plain(void);
void golden_start(const struct sim_params *p);
void golden_write(unsigned first, unsigned count); /* a guest's, of sectors */
void golden_map(void);
/* Ends the history; if it is not this, prints what it was, as a C string. */
void golden_expect(const char *name, const char *trace);
int golden_end(void); /* for main() */

#endif
