/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tenure-plant - planted bugs: each breaks one rule of vdi/OWNERSHIP, and tests/sim/sim-lease (built with -DPLANT) must find it.
 * CALLER_: what tenure.h and lease.h ask of whoever uses them.
 */
#ifndef SXM_BASE_TENURE_PLANT_H
#define SXM_BASE_TENURE_PLANT_H

#include "base/compiler.h"

#define TENURE_BUGS(X) \
	X(WATCH_COUNTS_FROM_FIRST) X(HOLD_FROM_ANSWER) X(FAILURE_IS_SUCCESS) X(STALE_IS_SUCCESS) X(LOOK_RENEWS) \
	X(CALLER_HOLDS_FROM_ANSWER) X(CALLER_WATCHES_FROM_QUESTION) X(CALLER_REPLACES) X(CALLER_UNDURABLE) \
	X(CALLER_CHECKS_AT_ARRIVAL) X(CALLER_CLOCK_SLEEPS) X(CALLER_WRITES_ON) X(CALLER_SKIPS_LOCK) X(CALLER_NO_SLACK)

#define BUG_OF(name) name,
enum tenure_bug { TENURE_BUG_NONE = 0, TENURE_BUGS(BUG_OF) TENURE_BUG_COUNT };
#undef BUG_OF

#ifdef PLANT
extern enum tenure_bug tenure_planted;
#define PLANTED(bug) ((bug) == tenure_planted)
#else
#define PLANTED(bug) false
#endif

#endif
