/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * broker-rig - the broker's core, whose questions a test answers: one broker, two devices, a clock that the test sets
 */
#ifndef SXM_TESTS_BROKER_RIG_H
#define SXM_TESTS_BROKER_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/broker.h"

extern struct broker *b;
extern uint64_t now_ms, wait_ms; /* the time; and what the last question's answer said */
extern const struct broker_key first, second; /* of two domains */

#define TEST(t) cmocka_unit_test_setup_teardown(t, rig_begin, rig_end)
int rig_begin(void **s);
int rig_end(void **s);

/* Of a device that is there and wants what is named: a process, or a volume by its URI. */
struct broker_facts facts_of(const char *name);
struct broker_action next(enum broker_class class);
/* What must be next: */
void read_as(struct broker_key key, struct broker_facts f);
void expect_ask(enum broker_do what, struct broker_key key, const char *name, int err);
void expect_rest(void); /* nothing */

#endif
