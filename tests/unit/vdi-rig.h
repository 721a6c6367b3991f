/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vdi-rig - one disk over fakes, driven from outside of its loop
 */
#ifndef SXM_TESTS_VDI_RIG_H
#define SXM_TESTS_VDI_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/fake-rooms.h"
#include "vdi/vdi.h"

struct answer {
	unsigned count;
	struct error e;
};

extern char rig_dir[];
extern struct vdi *rig_vdi;
extern unsigned rig_linger_ms, rig_envoy_ms, rig_expect_ms; /* of the next vdi; 0 after each test */
extern unsigned rig_emptied, rig_lost; /* how often on_empty(), on_lost() came */

int rig_group(const char *name, const struct CMUnitTest *tests, size_t count);
int rig_set_up(void **state);
int rig_tear_down(void **state);
#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)

void rig_answer(void *arg, const struct error *e); /* arg: a struct answer */
int rig_answered(const struct answer *a);          /* waits; its errno */
void rig_begin(void);
void rig_begin_badly(void);                        /* not everybody is served at once */
void rig_stop(void);
int rig_activate(const char *domain, bool is_read_only);
int rig_deactivate(const char *domain);
int rig_detach(const char *domain);
bool rig_is_on_file(const char *text);
bool rig_is_owned(const char *text); /* in the file that says whose the disk is */

/* Runs the loop until something in it makes the condition true; fails after 20 s. */
void rig_arm(void);
void rig_turn(void);
void rig_disarm(void);
#define UNTIL(condition) \
	do { \
		rig_arm(); \
		while (!(condition)) \
			rig_turn(); \
		rig_disarm(); \
	} while (0)

#endif
