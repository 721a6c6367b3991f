/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * nbd-disk-rig - a disk over a fake NBD server that goes and comes back
 */
#ifndef SXM_TESTS_UNIT_NBD_DISK_RIG_H
#define SXM_TESTS_UNIT_NBD_DISK_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "disk-rig.h"
#include "tests/lib/fake-nbd.h"

#define WORLD_BYTES (UINT64_C(1) << 20)

extern char run_dir[64], socket_link[96];

/* A server at socket_link, whichever fake it is now, and a disk over it. */
struct world {
	struct rig rig; /* first */
	struct fake_nbd server;
};

/* All tests in a run directory of their own; wait_ms: SXM_NBD_WAIT_MS. The exit status. */
int world_run(const struct CMUnitTest *tests, size_t count, const char *wait_ms);
/* Of each test: a name of its own for its server, as what a failed one left locked is not the next one's. */
int world_setup(void **state);
#define WORLD_TEST(name) cmocka_unit_test_setup(name, world_setup)

/* f is at socket_link from now on. */
void serve(struct fake_nbd *f, const struct fake_nbd_plan *plan);
/* Of a new file "*.nbd" that holds the text. */
void write_name(char path[static 128], const char *text);
/* One that names socket_link, and promises (a line, or "") something. */
void write_uri(char path[static 128], const char *promise);
/* The server, and the disk opened over it. */
void start(struct world *w, const struct fake_nbd_plan *plan, const char *promise);
void stop(struct world *w);
/* The loop turns until *what is at least wanted. */
void turn_until(struct world *w, atomic_uint *what, unsigned wanted);

#endif
