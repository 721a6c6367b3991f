/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * deadline - a move that is to be done by a moment: how fast its mirrors may send, so that they take no more than that needs
 *
 *      deadline_init(&d, began_ms, at_ms, bytes that are read back after it)
 *      each interval:
 *              left_ms = deadline_left_ms(&d, now_ms)                  until both sides are to be the same
 *              deadline_note(&d, now_ms, eta_ms, taken)                      as it goes now
 *              rate = deadline_rate(&d, view_rate_for(v, left_ms))     0: no limit
 *
 * Pure. All zero: there is no such moment.
 */
#ifndef SXM_MIGRATE_DEADLINE_H
#define SXM_MIGRATE_DEADLINE_H

#include "base/compiler.h"

struct deadline {
	int64_t at_ms, aim_ms;     /* Unix time; 0: there is none. Both sides are to be the same at aim_ms */
	uint64_t rate_bytes_s;     /* as it was said last */
	int64_t doubted_ms;        /* since then what is foreseen contradicts is_late; 0: it does not */
	bool is_late;              /* it cannot be made, as it is foreseen */
};

enum deadline_news { DEADLINE_AS_BEFORE, DEADLINE_IS_LATE, DEADLINE_IS_IN_TIME };

/* began_ms: from when on it can be paced. check_bytes: so much is read back and compared after it, before at_ms. */
void deadline_init(struct deadline *d, int64_t began_ms, int64_t at_ms, uint64_t check_bytes);
/* Not less than 0. */
int64_t deadline_left_ms(const struct deadline *d, int64_t now_ms);
/* eta_ms: until both sides are the same, as it goes now; negative: not known. taken: what all disks send a second. */
enum deadline_news deadline_note(struct deadline *d, int64_t now_ms, int64_t eta_ms, double taken_bytes_s);
/* needed: of eta_rate_for(), all disks. A second; 0: no limit, as it is late, or there is no such moment. Small changes of what
 * is needed change nothing. */
uint64_t deadline_rate(struct deadline *d, uint64_t needed);

#endif
