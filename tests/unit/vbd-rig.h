/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vbd-rig - a guest, its toolstack and a disk in memory, and a vbd between them on a real loop
 */
#ifndef SXM_TESTS_VBD_RIG_H
#define SXM_TESTS_VBD_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/blk-front.h"
#include "tests/lib/fake-xen.h"
#include "tests/lib/memory-layer.h"
#include "vbd/vbd.h"

#define BACK "/local/domain/0/backend/qdisk/5/51712"
#define FRONT "/local/domain/5/device/vbd/51712"
#define VM "/local/domain/5/vm"
#define UUID "5e0b8c3d-0123-4000-8000-89abcdef0123"
#define CHANNEL 9u
#define DATA 100u /* the gref of a page for data */

extern char dir[];
extern struct loop *loop;
extern struct world world;
extern struct layer *disk;
extern struct front front;

/* Over the disk, and what a vbd is made for: it answers when it is told to, and as it is told to. */
extern struct layer top;
extern struct req *held; /* the one that waits while is_slow */
extern bool is_slow;
extern int disk_err;
extern unsigned submitted;

extern struct vbd *vbd;
extern struct vbd_spec spec; /* of the next one */
extern bool is_stopped;

/* What spec.is_volume says of sxm:///sr/a.raw, while it is 0: yes; of any other: no. -1: that it cannot be told, of any. */
extern int is_volume_now;
extern unsigned asked, asked_of_it;

int set_up(void **state);
int tear_down(void **state);
#define VBD_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

void begin_vbd(void);
void stop_vbd(void); /* asks for it */
void end_vbd(void);  /* ... and waits */

void turn(unsigned ms);
void key(const char *path, const char *value);
char *text_of(const char *path); /* until the next call. NULL: it is not there */
void wait_text(const char *path, const char *wanted);
void wait_state(const char *wanted);
void wait_mapped(unsigned wanted);
void plug(void);
void offer(unsigned gref, unsigned channel);
void connect_guest(void);
unsigned count_lines(const char *path, const char *with);
void wait_line(const char *path, const char *with);
unsigned count_descriptors(void);
void wait_descriptors(unsigned most);
bool is_book_mapped(void);

/* One page, from sector 0 on. */
void ask(uint8_t op, uint64_t id);
int answer(uint64_t id); /* waits: the status */
int status_of(uint8_t op);

#endif
