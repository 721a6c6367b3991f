/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-rig - one link, its far side, and a test that waits for what happens to it
 */
#ifndef SXM_TESTS_REMOTE_RIG_H
#define SXM_TESTS_REMOTE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <cmocka.h>

#include "mirror/remote.h"
#include "tests/lib/fake-nbd.h"

#define SIZE (UINT64_C(4) << 20)
#define DEAD_MS 200       /* where a far side that hangs is to be found dead */
#define PATIENT_MS 30000  /* where it is not: what its threads have for their work on a machine that is busy */

/* Everything that may happen to a link, and a test that waits for it. */
struct world {
	struct loop *loop;
	struct loop_timer *alarm;
	struct fake_nbd far;
	struct remote *remote;
	unsigned ups, failures, downs, closes;
	int down_err;
	struct error why;
	struct remote_info info;
	uint64_t zero_bytes;
	unsigned done;       /* operations */
	int done_err;        /* of the last */
	unsigned done_at_down;
	unsigned *awaited;   /* the loop stops when it reaches wanted */
	unsigned wanted;
};

struct test_op {
	struct remote_op op; /* first */
	struct world *world;
};

struct remote_spec rig_spec(struct world *w);
void rig_connect(struct world *w, const struct remote_spec *spec);
void rig_start(struct world *w, const struct fake_nbd_plan *plan); /* the far side, and a link to it */
void rig_check(struct world *w);
void rig_await(struct world *w, unsigned *what, unsigned wanted);
void rig_hang_up(struct world *w, bool is_polite);
void rig_submit(struct world *w, struct test_op *t, enum remote_opcode opcode, struct range r, const void *data);
int rig_setup(void **state);
int rig_teardown(void **state);

#endif
