/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * hold - an image that may be in use is ours for a moment
 *
 *      nobody has it     its lock is ours
 *      its process has   that one pauses: guests wait, what they had under way is done and flushed, the image closed and its lock
 *                        ours; then it opens what is at the image's path, and guests go on (src/PROTOCOL.control, pause)
 *      else              EBUSY
 *
 * A pause ends by itself after 10 s, but its process waits for the image's lock before it opens it.
 */
#ifndef SXM_PLUGINS_HOLD_H
#define SXM_PLUGINS_HOLD_H

#include <stdint.h>

#include "control/client.h"

#define HOLD_WAIT_MS 30000u /* until it is held: a slow disk's guests may have much to flush */

struct hold {
	int lock;             /* owned; -1: not held */
	bool for_resize;
	bool was_open;        /* its process was asked to pause */
	bool is_going;        /* hold_go() was called */
	unsigned wait_ms;
	struct client client; /* ... here: the pause lasts as long as this connection */
	uint64_t asked_us, held_us, going_us; /* when */
	uint64_t lasted_us;   /* after hold_end(): so long did it last for its process */
};

/* -1 + e: EBUSY, it is open elsewhere; or why its process does not pause. for_resize: what is opened then has another size;
 * refused where a mirror runs. */
int hold_take(struct hold *h, const char *path, bool for_resize, struct error *e);
/* Whether that could be, just now; nobody waits for it. */
bool hold_is_possible(const char *path, struct error *e);
/* The same for several at once: all are asked, then all waited for. Each that was begun, or failed to, is to be ended. wait_ms:
 * until it is held, and until it goes on. */
void hold_begin(struct hold *h, const char *path, unsigned wait_ms);
int hold_wait(struct hold *h, const char *path, struct error *e);
/* For several at once, before hold_end(): it is not ours any more, and whoever had it was told to go on. */
void hold_go(struct hold *h);
/* Whoever had it goes on with what is at its path. -1 + e: it could not; it tries again by itself. Again: nothing. */
int hold_end(struct hold *h, struct error *e);

#endif
