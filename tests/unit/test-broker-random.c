/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The broker's core over random schedules: devices come, go and change their disks, domains die and leave theirs behind, processes are
 * killed, ended and deactivated, answers get lost, watches come late, twice, for nothing, or all in one, and the broker is
 * killed and begins anew.  At every step: nobody is told of a device that another still serves, and no volume is activated for two
 * devices of which one may write.  At the end, when all has been
 * said: each device that is ready is served by the process that it belongs to, and none that is not is served by anybody.
 *
 *      test-broker-random [SEED [SCHEDULES]]
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/broker.h"

#define DEVICES 6u
#define DOMAINS 3u
#define PROCESSES 4u /* a volume's process has the volume's number; the others are the toolstack's */
#define OTHERS 2u
#define STEPS 250u
#define UNDER_WAY 8u

static unsigned long first_seed = 1, schedules = 3000;
static unsigned long seed_played;
static uint32_t state;

static unsigned roll(unsigned n)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state % n;
}

/* --- the world */

struct world_process {
	bool is_up, has_record;     /* a record outlives a kill: it is up again some time, and serves what it served */
	bool is_active[DOMAINS];
	bool is_serving[DEVICES];
};
struct world {
	struct broker_facts device[DEVICES];
	bool is_alive[DOMAINS];
	struct world_process process[PROCESSES];
	char record[DEVICES][BROKER_NAME_MAX]; /* what a broker has activated */
	bool is_writer[DEVICES];               /* ... for writing */
	struct broker *broker;
	uint64_t now_ms;
	struct broker_action doing[UNDER_WAY];
	int outcome[UNDER_WAY];      /* of an ask: it was done, and the answer is under way; -1: not yet */
	unsigned doings;
	bool was_begun_again;
	bool must_tell[DEVICES], must_look, must_release, must_tell_process[PROCESSES]; /* watches that are under way */
};
static struct world w;

static struct broker_key key_of(unsigned i)
{
	return (struct broker_key){ .domain = (uint16_t)(i / 2 + 1), .device = 51712 + i % 2 * 16 };
}

static unsigned index_of(struct broker_key key)
{
	unsigned i = (key.domain - 1u) * 2 + (key.device - 51712) / 16;

	assert_true(i < DEVICES);
	return i;
}

static unsigned process_of(const char *name)
{
	const char *digits = strpbrk(name, "0123456789");

	assert_non_null(digits);
	return (unsigned)atoi(digits);
}

static void tell(unsigned i)
{
	w.must_tell[i] = true;
}

static void make_device(unsigned i)
{
	struct broker_facts *f = &w.device[i];

	memset(f, 0, sizeof(*f));
	f->is_there = f->is_online = f->is_young = f->is_front_open = true;
	f->kind = roll(3) ? BROKER_PROCESS : roll(3) ? BROKER_VOLUME : roll(2) ? BROKER_EMPTY : BROKER_NOBODYS;
	if (f->kind >= BROKER_PROCESS)
		snprintf(f->name, sizeof(f->name), f->kind == BROKER_VOLUME ? "sxm:///v%u" : "id-%u",
			 roll(OTHERS) + (f->kind == BROKER_VOLUME ? OTHERS : 0));
	f->is_read_only = roll(2);
	w.is_alive[i / 2] = true;
}

static void change_device(unsigned i)
{
	struct broker_facts *f = &w.device[i];

	switch (f->is_there ? roll(7) : 0) {
	case 0: make_device(i); break;
	case 1: memset(f, 0, sizeof(*f)); break;
	case 2: f->is_online = false; break;
	case 3: f->is_front_open = false; break;
	case 4: f->is_young = false; f->is_read_only = roll(2); break;
	case 5:
		if (f->kind == BROKER_PROCESS)
			snprintf(f->name, sizeof(f->name), "id-%u", roll(OTHERS));
		break;
	default: f->is_settled = false; break;
	}
	tell(i);
}

static void change_process(unsigned p)
{
	struct world_process *q = &w.process[p];
	unsigned dom = roll(DOMAINS);

	switch (roll(4)) {
	case 0: q->is_up = false; break;
	case 1: q->is_up = true; break;
	case 2:
		q->is_up = q->has_record = q->is_active[dom] = true;
		break;
	default:
		if (!q->is_up)
			break;
		q->is_active[dom] = false;
		q->is_serving[dom * 2] = q->is_serving[dom * 2 + 1] = false;
		break;
	}
	w.must_tell_process[p] = true;
}

static void kill_domain(void)
{
	w.is_alive[roll(DOMAINS)] = false;
	w.must_release = true;
}

/* --- watches */

static void deliver(bool is_all)
{
	for (unsigned i = 0; i < DEVICES; i++)
		if (w.must_tell[i] && (is_all || roll(3) == 0)) {
			for (unsigned n = 0; n <= roll(3); n++)
				broker_changed(w.broker, key_of(i));
			w.must_tell[i] = false;
		}
	for (unsigned p = 0; p < PROCESSES; p++)
		if (w.must_tell_process[p] && (is_all || roll(3) == 0)) {
			char id[16];

			snprintf(id, sizeof(id), "id-%u", p);
			broker_process_changed(w.broker, id);
			w.must_tell_process[p] = false;
		}
	if (w.must_release && (is_all || roll(3) == 0)) {
		broker_released(w.broker);
		w.must_release = false;
	}
	if (w.must_look) { /* what was lost on the way */
		broker_look(w.broker);
		w.must_look = false;
	}
	if (!is_all && roll(10) == 0)
		broker_changed(w.broker, key_of(roll(DEVICES)));
	if (!is_all && roll(20) == 0)
		broker_changed_domain(w.broker, (uint16_t)(1 + roll(DOMAINS)));
}

static void lose_watches(void)
{
	memset(w.must_tell, 0, sizeof(w.must_tell));
	w.must_look = true;
}

/* --- what the broker does */

static int serve(struct world_process *q, unsigned i)
{
	if (!q->is_up)
		return ESRCH;
	if (!q->is_active[i / 2])
		return ENOTCONN;
	for (unsigned p = 0; p < PROCESSES; p++)
		if (&w.process[p] != q && w.process[p].is_serving[i])
			fail_msg("seed %lu: device %u is told to two processes", seed_played, i);
	q->is_serving[i] = true;
	return 0;
}

static int drop(struct world_process *q, unsigned i)
{
	if (!q->is_up)
		return q->has_record ? EAGAIN : ESRCH;
	q->is_serving[i] = false;
	return 0;
}

/* Somebody else has that volume, and one of the two may write. */
static bool is_held(unsigned i, const char *uri, bool is_writer)
{
	for (unsigned k = 0; k < DEVICES; k++)
		if (k != i && strcmp(w.record[k], uri) == 0 && (is_writer || w.is_writer[k]))
			return true;
	return false;
}

static int take(unsigned i, const struct broker_action *a)
{
	const char *uri = a->name;
	struct world_process *q = &w.process[process_of(uri)];

	if (*w.record[i] && strcmp(w.record[i], uri) != 0)
		fail_msg("seed %lu: device %u has two volumes", seed_played, i);
	if (a->is_held)
		return EBUSY;
	if (is_held(i, uri, !a->is_read_only))
		fail_msg("seed %lu: device %u gets what another has", seed_played, i);
	w.is_writer[i] = !a->is_read_only;
	snprintf(w.record[i], sizeof(w.record[i]), "%s", uri);
	if (roll(4) == 0)
		return EBUSY;
	q->is_up = q->has_record = q->is_active[i / 2] = true;
	return 0;
}

static int release(unsigned i, const char *uri)
{
	struct world_process *q = &w.process[process_of(uri)];
	bool is_other = *w.record[i ^ 1] && strcmp(w.record[i ^ 1], uri) == 0;

	if (roll(4) == 0)
		return EIO;
	if (q->is_serving[i])
		fail_msg("seed %lu: device %u is released while it is served", seed_played, i);
	if (!is_other) { /* a domain is active once, however many devices it has of it */
		q->is_active[i / 2] = false;
		q->is_serving[i ^ 1] = false;
	}
	*w.record[i] = '\0';
	return 0;
}

static void look(uint16_t domain)
{
	uint32_t device[2];
	size_t count = 0;

	for (unsigned i = (domain - 1u) * 2; i < domain * 2u; i++)
		if (w.device[i].is_there)
			device[count++] = key_of(i).device;
	broker_looked(w.broker, domain, device, count, w.is_alive[domain - 1]);
}

static void list(void)
{
	uint32_t domain[DOMAINS];
	size_t count = 0;

	for (unsigned i = 0; i < DEVICES; i++)
		if (w.device[i].is_there && (!count || domain[count - 1] != key_of(i).domain))
			domain[count++] = key_of(i).domain;
	broker_listed(w.broker, domain, count);
}

static void end_read(const struct broker_action *a, unsigned i)
{
	struct broker_facts f = w.device[i];

	f.is_alive = w.is_alive[i / 2];
	if (roll(20) == 0)
		broker_not_read(w.broker, a->key, w.now_ms);
	else
		broker_read_is(w.broker, a->key, &f, w.now_ms);
}

static void end_store(const struct broker_action *a)
{
	unsigned i;

	if (a->what == BROKER_LIST || a->what == BROKER_LOOK) {
		if (roll(20) == 0)
			broker_not_listed(w.broker, a->key.domain, a->what == BROKER_LOOK, w.now_ms);
		else if (a->what == BROKER_LOOK)
			look(a->key.domain);
		else
			list();
		return;
	}
	i = index_of(a->key);
	if (a->what == BROKER_READ) {
		end_read(a, i);
		return;
	}
	if (w.device[i].is_there) { /* CLEAN: as everything, it may find that all is otherwise by now */
		w.device[i].is_settled = !w.is_alive[i / 2] || !w.device[i].is_front_open;
		for (unsigned p = 0; p < PROCESSES; p++)
			if (w.process[p].is_up && w.process[p].is_serving[i] && w.is_alive[i / 2] && w.device[i].is_front_open)
				fail_msg("seed %lu: device %u is closed under its process", seed_played, i);
	}
	broker_ended(w.broker, a->key, 0, w.now_ms);
}

static int ask(const struct broker_action *a, unsigned i)
{
	struct world_process *q = &w.process[process_of(a->name)];

	return a->what == BROKER_SERVE ? serve(q, i) : drop(q, i);
}

/* What it does is done; it is not said yet. */
static void do_one(unsigned n)
{
	const struct broker_action *a = &w.doing[n];

	if ((a->what == BROKER_SERVE || a->what == BROKER_DROP) && w.outcome[n] < 0)
		w.outcome[n] = ask(a, index_of(a->key));
}

static void end_one(unsigned n)
{
	struct broker_action a = w.doing[n];
	int err, outcome = w.outcome[n];
	unsigned i;

	w.doing[n] = w.doing[--w.doings];
	w.outcome[n] = w.outcome[w.doings];
	if (a.what < BROKER_SERVE) {
		end_store(&a);
		return;
	}
	i = index_of(a.key);
	if (a.what == BROKER_TAKE) {
		char id[16];

		err = take(i, &a);
		snprintf(id, sizeof(id), "id-%u", process_of(a.name));
		broker_taken(w.broker, a.key, roll(8) ? err : EIO, id, w.now_ms);
		return;
	}
	err = a.what == BROKER_RELEASE ? release(i, a.name) : outcome >= 0 ? outcome : ask(&a, i);
	if (roll(8) == 0 && (err == 0 || err == EAGAIN))
		err = a.what == BROKER_RELEASE ? err : ECONNRESET; /* done, or not: the answer got lost */
	broker_ended(w.broker, a.key, err, w.now_ms);
}

/* False: there is nothing to be done, of any class. */
static bool begin_some(uint64_t *wait_ms)
{
	bool has_begun = false;

	*wait_ms = UINT64_MAX;
	for (unsigned class = 0; class < BROKER_CLASSES && w.doings < UNDER_WAY; class++) {
		uint64_t ms;
		struct broker_action a = broker_next(w.broker, (enum broker_class)class, w.now_ms, &ms);

		if (a.what != BROKER_NOTHING) {
			w.outcome[w.doings] = -1;
			w.doing[w.doings++] = a;
			has_begun = true;
		} else if (ms < *wait_ms) {
			*wait_ms = ms;
		}
	}
	return has_begun;
}

/* A broker that begins finds what the processes say, and the records. What its predecessor had under way goes on without it. */
static void begin_broker(bool is_first)
{
	if (!is_first)
		broker_free(w.broker);
	w.was_begun_again = !is_first;
	w.doings = 0;
	w.broker = broker_new(BROKER_ORDER_AUTO);
	for (unsigned i = 0; i < DEVICES; i++) {
		char id[16];

		if (*w.record[i])
			broker_recall_taken(w.broker, key_of(i), w.record[i], !w.is_writer[i]);
		for (unsigned p = 0; p < PROCESSES; p++)
			if (w.process[p].is_serving[i]) {
				snprintf(id, sizeof(id), "id-%u", p);
				broker_recall_told(w.broker, key_of(i), id, w.now_ms);
			}
	}
}

/* --- the end */

static void check_device(unsigned i)
{
	const struct broker_facts *f = &w.device[i];
	bool is_wanted = f->is_there && w.is_alive[i / 2] && f->kind >= BROKER_PROCESS;
	unsigned own = is_wanted ? process_of(f->name) : PROCESSES;

	for (unsigned p = 0; p < PROCESSES; p++) {
		const struct world_process *q = &w.process[p];

		/* What says nothing may be another's word. */
		if (f->is_there && w.is_alive[i / 2] && f->kind < BROKER_PROCESS && w.was_begun_again)
			continue;
		if (q->is_serving[i] && p != own && q->is_up)
			fail_msg("seed %lu: device %u is served by %u, not by %u", seed_played, i, p, own);
		if (p == own && f->is_online && f->is_front_open && q->is_up && q->is_active[i / 2] && !q->is_serving[i] &&
		    (f->kind != BROKER_VOLUME || *w.record[i])) /* else another of its domain's has it */
			fail_msg("seed %lu: device %u is not served by %u", seed_played, i, p);
	}
	if (*w.record[i] && (!is_wanted || f->kind != BROKER_VOLUME || strcmp(w.record[i], f->name) != 0))
		fail_msg("seed %lu: device %u still has %s", seed_played, i, w.record[i]);
	if (is_wanted && f->kind == BROKER_VOLUME && f->is_online && !*w.record[i] &&
	    !is_held(i, f->name, !f->is_read_only))
		fail_msg("seed %lu: device %u has not its volume", seed_played, i);
	if (f->is_there && f->kind != BROKER_NOBODYS && !f->is_settled && own == PROCESSES && !w.is_alive[i / 2])
		fail_msg("seed %lu: device %u of a dead domain is not cleaned up", seed_played, i);
}

static void come_to_rest(void)
{
	uint64_t wait_ms, end_ms = w.now_ms + 120000;

	for (unsigned p = 0; p < PROCESSES; p++)
		if (w.process[p].has_record && !w.process[p].is_up) {
			w.process[p].is_up = true;
			w.must_tell_process[p] = true;
		}
	while (w.now_ms < end_ms) {
		deliver(true);
		if (begin_some(&wait_ms))
			continue;
		if (w.doings)
			end_one(roll(w.doings));
		else if (wait_ms == UINT64_MAX)
			break;
		else
			w.now_ms += MAX(wait_ms, (uint64_t)1);
	}
	for (unsigned i = 0; i < DEVICES; i++)
		check_device(i);
}

static void play(uint32_t seed)
{
	uint64_t wait_ms;

	memset(&w, 0, sizeof(w));
	state = seed * 2654435761u + 1;
	w.now_ms = 1000;
	begin_broker(true);
	for (unsigned step = 0; step < STEPS; step++) {
		switch (roll(12)) {
		case 0: case 1: change_device(roll(DEVICES)); break;
		case 2: change_process(roll(PROCESSES)); break;
		case 3: if (roll(8) == 0) kill_domain(); break;
		case 4: deliver(false); break;
		case 5: w.now_ms += roll(400); break;
		case 6: if (roll(6) == 0) begin_broker(false); break;
		case 7: if (roll(6) == 0) lose_watches(); break;
		default:
			if (w.doings && roll(3) == 0)
				do_one(roll(w.doings));
			else if (w.doings && roll(2))
				end_one(roll(w.doings));
			else
				begin_some(&wait_ms);
			break;
		}
	}
	come_to_rest();
	broker_free(w.broker);
}

static void each_device_that_is_ready_is_served_by_its_process_alone(void **unused UNUSED)
{
	for (unsigned long i = 0; i < schedules; i++) {
		print_message(i % 1000 ? "" : "seed %lu\n", first_seed + i);
		seed_played = first_seed + i;
		play((uint32_t)seed_played);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(each_device_that_is_ready_is_served_by_its_process_alone) };

	if (argc > 1)
		first_seed = strtoul(argv[1], NULL, 10);
	if (argc > 2)
		schedules = strtoul(argv[2], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
