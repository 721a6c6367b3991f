/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * lane-rig - a guest's pages, a channel and a disk in memory, and a lane between them on a real loop
 */
#ifndef SXM_TESTS_LANE_RIG_H
#define SXM_TESTS_LANE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/blk-front.h"
#include "tests/lib/fake-xen.h"
#include "tests/lib/memory-layer.h"
#include "vbd/lane.h"

#define DISK_BYTES (4 * MiB)
#define CHANNEL 9u
#define DATA 100u /* the first gref of pages for data */

extern struct loop *loop;
extern struct world world;
extern struct iobuf_pool *pool;
extern struct layer *disk;
extern struct ring_book book;
extern struct vbd_stats stats;
extern struct xen *xen;
extern struct front front;
extern struct lane *lane;
extern bool is_read_only, can_discard; /* of the next lane */
/* The disk answers when it is told to (is_slow: what waits is in held), and as it is told to. */
extern struct req *held[RING_ENTRIES_MAX];
extern unsigned held_count;
extern bool is_slow;
extern int disk_err;
extern bool is_stopped;
extern struct layer slow;           /* that disk */
extern unsigned submitted;          /* to it */

int set_up(void **state);
int tear_down(void **state);
#define LANE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

void turn(void);                     /* once round all descriptors and timers */
void begin_ring(unsigned order, bool is_32); /* a new ring, an empty book */
void begin_lane(void);               /* ... those there are */
void end_lane(void);
void on_stopped(void *arg);
void push(void);
void ask(struct front_request q);
bool was_notified(void);             /* since it was asked last */
int answered(uint64_t id);           /* the one answer that is there: its status */
int done(struct front_request q);    /* both */

#endif
