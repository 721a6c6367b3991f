/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xenbus-rig - a store with one device in it, and whoever does what xenbus says, half a step at a time
 */
#ifndef SXM_TESTS_XENBUS_RIG_H
#define SXM_TESTS_XENBUS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vbd/xenbus-keys.h"

extern struct xenbus x;
extern struct xenbus_names names;
extern struct xenbus_value store[XENBUS_KEYS];
extern struct xenbus_action pending; /* begun, and not ended */
extern bool is_bound, was_again;     /* a ring is; by the last CONNECT */
extern unsigned connects, disconnects, reads, writes, errors; /* done since begin() */
extern struct xenbus_ring bound;
extern uint64_t now_ms;

void begin(bool is_eager);
void put(unsigned key, const char *value); /* NULL: not there. Tells nobody, nor do the next two */
void put_number(unsigned key, unsigned value);
void new_ring(unsigned gref);     /* from 1000 on: is not granted */
void changed(void);               /* a watch tells */
void front(unsigned value);       /* the frontend's state; tells */
void plug(void);                  /* what a toolstack writes first; tells */
unsigned state(unsigned key);
void end_pending(void);
bool turn(void);                  /* one half of a step; true: there was one */
void settle(void);                /* until nothing is to be done */
void offer(unsigned gref);        /* begin(), and to a guest that has offered its ring */
void connect_all(void);           /* begin(), and all the way to a guest at work */

#endif
