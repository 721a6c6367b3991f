/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * broker-rig - see broker-rig.h
 */
#include "tests/unit/broker-rig.h"

#include <stdio.h>
#include <string.h>

struct broker *b;
uint64_t now_ms, wait_ms;
const struct broker_key first = { 5, 51712 }, second = { 7, 51712 };

int rig_begin(void **s)
{
	(void)s;
	b = broker_new(BROKER_ORDER_AUTO);
	now_ms = 100000;
	assert_int_equal(broker_next(b, BROKER_STORE, now_ms, &wait_ms).what, BROKER_LIST);
	broker_listed(b, NULL, 0);
	return 0;
}

int rig_end(void **s)
{
	(void)s;
	broker_free(b);
	return 0;
}

struct broker_facts facts_of(const char *name)
{
	struct broker_facts f = { .is_there = true, .is_alive = true, .is_online = true, .is_front_open = true, .is_young = true,
				  .kind = strncmp(name, "sxm:", 4) == 0 ? BROKER_VOLUME : BROKER_PROCESS };

	snprintf(f.name, sizeof(f.name), "%s", name);
	return f;
}

struct broker_action next(enum broker_class class)
{
	return broker_next(b, class, now_ms, &wait_ms);
}

void read_as(struct broker_key key, struct broker_facts f)
{
	struct broker_action a = next(BROKER_STORE);

	assert_int_equal(a.what, BROKER_READ);
	assert_int_equal(a.key.domain, key.domain);
	broker_read_is(b, a.key, &f, now_ms);
}

void expect_ask(enum broker_do what, struct broker_key key, const char *name, int err)
{
	struct broker_action a = next(BROKER_ASK);

	assert_int_equal(a.what, what);
	assert_int_equal(a.key.domain, key.domain);
	assert_string_equal(a.name, name);
	broker_ended(b, key, err, now_ms);
}

void expect_rest(void)
{
	for (unsigned class = 0; class < BROKER_CLASSES; class++)
		assert_int_equal(next((enum broker_class)class).what, BROKER_NOTHING);
}
