/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * source-rig - the disk of vdi-rig as the source of a mirror to another sxm, under a guest in domain 3
 */
#ifndef SXM_TESTS_SOURCE_RIG_H
#define SXM_TESTS_SOURCE_RIG_H

#include "tests/unit/vdi-rig.h"

extern char id[64]; /* of the operation that begin_mirror() began */

struct vdi_operation_status stat_of(void);
/* What the far side answers from now on. */
void says(enum remote_question q, uint32_t status, uint32_t state, uint32_t epoch);
/* To a far side that does what it is asked, from the source's epoch 1. */
void begin_mirror(void);
/* In sync under a guest, and said; fake.trace is empty. */
void mirror_for_guest(void);
/* The guest is gone from here: the far side has the disk, epoch 2. */
void switch_over(void);

#endif
