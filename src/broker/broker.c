/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * broker - see broker.h
 *
 *      an event --> the device is dirty --> its turn: READ --> what plan_next() says, one thing after the other --> at rest
 *                   (again: nothing)          ^                   |
 *                                             '--- failed: later -'
 *
 * Devices wait for their turn in one line for each class of things, whoever came first; one that was served goes to its end.  So
 * a guest whose device is reported ten thousand times a second has one place in one line, like everybody else, and no more of
 * READs than plan allows it.  Domains that have to be looked through wait in a line of their own, of which every other turn is.
 * Who sleeps is in no line; the next one to wake is looked for when the clock says that there may be one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker-private.h"

#define BUCKETS 1024u
#define LIST_AGAIN_MS 1000u
#define EXPECT_MS 3000u

TAILQ_HEAD(device_list, broker_device);
LIST_HEAD(device_bucket, broker_device);

struct domain {
	uint16_t id;
	bool is_queued;
	uint64_t wake_ms;           /* 0: it is not to be looked at */
	struct device_list devices;
	TAILQ_ENTRY(domain) link, queue_link;
};
TAILQ_HEAD(domain_list, domain);
#define EACH_DEVICE(b, dom, d) TAILQ_FOREACH(dom, &(b)->domains, link) TAILQ_FOREACH(d, &(dom)->devices, domain_link)

struct broker {
	enum broker_order order;
	bool must_list, is_listing;
	uint64_t list_ms;                 /* not before */
	struct domain_list domains, looks; /* all; and those that are to be looked at */
	bool is_look_next;
	struct device_bucket bucket[BUCKETS];
	struct device_list queue[BROKER_CLASSES];
	struct device_list sleepers;
	uint64_t wake_ms;                 /* of the first of the sleepers, at the earliest */
	struct broker_counts counts;
};

struct broker *broker_new(enum broker_order order)
{
	struct broker *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->order = order;
	b->must_list = true;
	b->wake_ms = UINT64_MAX;
	TAILQ_INIT(&b->domains);
	TAILQ_INIT(&b->looks);
	TAILQ_INIT(&b->sleepers);
	for (unsigned i = 0; i < BROKER_CLASSES; i++)
		TAILQ_INIT(&b->queue[i]);
	return b;
}

/* --- the lines */

static enum broker_class class_of(enum broker_do what)
{
	return what == BROKER_SERVE || what == BROKER_DROP ? BROKER_ASK : what >= BROKER_TAKE ? BROKER_VERB : BROKER_STORE;
}

static void unqueue(struct broker *b, struct broker_device *d)
{
	if (d->is_queued)
		TAILQ_REMOVE(&b->queue[d->queue], d, queue_link);
	else
		TAILQ_REMOVE(&b->sleepers, d, queue_link);
}

static void place(struct broker *b, struct broker_device *d, enum broker_do what)
{
	d->is_queued = what != BROKER_NOTHING;
	if (d->is_queued) {
		d->queue = class_of(what);
		TAILQ_INSERT_TAIL(&b->queue[d->queue], d, queue_link);
		return;
	}
	TAILQ_INSERT_TAIL(&b->sleepers, d, queue_link);
	b->wake_ms = MIN(b->wake_ms, d->wake_ms);
}

/* For events, which come without a clock: if it may not be read yet, its turn will show that. */
static void mark(struct broker *b, struct broker_device *d)
{
	if (d->is_dirty)
		return;
	d->is_dirty = true;
	if (d->doing != BROKER_NOTHING)
		return;
	unqueue(b, d);
	place(b, d, BROKER_READ);
}

/* --- devices and domains */

static struct device_bucket *bucket_of(struct broker *b, struct broker_key key)
{
	return &b->bucket[(key.domain * 2654435761u ^ key.device * 40503u) / 64 % BUCKETS];
}

static struct broker_device *find(struct broker *b, struct broker_key key)
{
	struct broker_device *d;

	LIST_FOREACH(d, bucket_of(b, key), hash_link)
		if (d->key.domain == key.domain && d->key.device == key.device)
			return d;
	return NULL;
}

static struct domain *find_domain(struct broker *b, uint16_t id)
{
	struct domain *dom;

	TAILQ_FOREACH(dom, &b->domains, link)
		if (dom->id == id)
			return dom;
	return NULL;
}

static struct domain *make_domain(struct broker *b, uint16_t id)
{
	struct domain *dom = find_domain(b, id);

	if (dom)
		return dom;
	dom = calloc(1, sizeof(*dom));
	if (!dom)
		return NULL;
	dom->id = id;
	TAILQ_INIT(&dom->devices);
	TAILQ_INSERT_TAIL(&b->domains, dom, link);
	return dom;
}

static void queue_look(struct broker *b, struct domain *dom)
{
	if (dom->is_queued)
		return;
	dom->is_queued = true;
	TAILQ_INSERT_TAIL(&b->looks, dom, queue_link);
}

static void drop_domain_if_empty(struct broker *b, struct domain *dom)
{
	if (dom->is_queued || !TAILQ_EMPTY(&dom->devices))
		return;
	TAILQ_REMOVE(&b->domains, dom, link);
	free(dom);
}

/* NULL: no memory, or there are too many: the next look tries again. */
static struct broker_device *make(struct broker *b, struct broker_key key)
{
	struct broker_device *d = find(b, key);
	struct domain *dom;

	if (d)
		return d;
	dom = b->counts.devices < BROKER_DEVICES_MAX ? make_domain(b, key.domain) : NULL;
	d = dom ? calloc(1, sizeof(*d)) : NULL;
	if (!d)
		return NULL;
	d->key = key;
	d->wake_ms = UINT64_MAX;
	LIST_INSERT_HEAD(bucket_of(b, key), d, hash_link);
	TAILQ_INSERT_TAIL(&dom->devices, d, domain_link);
	place(b, d, BROKER_NOTHING);
	b->counts.devices++;
	return d;
}

static void forget(struct broker *b, struct broker_device *d)
{
	struct domain *dom = find_domain(b, d->key.domain);

	unqueue(b, d);
	LIST_REMOVE(d, hash_link);
	TAILQ_REMOVE(&dom->devices, d, domain_link);
	free(d);
	b->counts.devices--;
	drop_domain_if_empty(b, dom);
}

/* Something about it is otherwise: it keeps its place where it waits for the same kind of thing. */
static void settle(struct broker *b, struct broker_device *d, uint64_t now_ms)
{
	enum broker_do what = plan_next(d, now_ms, &d->wake_ms);

	if (what != BROKER_NOTHING && d->is_queued && d->queue == class_of(what))
		return;
	unqueue(b, d);
	place(b, d, what);
	if (plan_is_over(d))
		forget(b, d);
}

void broker_free(struct broker *b)
{
	struct broker_device *d;
	struct domain *dom;

	if (!b)
		return;
	while ((dom = TAILQ_FIRST(&b->domains))) {
		while ((d = TAILQ_FIRST(&dom->devices))) {
			TAILQ_REMOVE(&dom->devices, d, domain_link);
			free(d);
		}
		TAILQ_REMOVE(&b->domains, dom, link);
		free(dom);
	}
	free(b);
}

/* --- what happened, perhaps */

void broker_changed(struct broker *b, struct broker_key key)
{
	struct broker_device *d = make(b, key);

	if (d)
		mark(b, d);
}

static void mark_domain(struct broker *b, struct domain *dom)
{
	struct broker_device *d;

	queue_look(b, dom);
	TAILQ_FOREACH(d, &dom->devices, domain_link)
		mark(b, d);
}

void broker_changed_domain(struct broker *b, uint16_t domain)
{
	struct domain *dom = make_domain(b, domain);

	if (dom)
		mark_domain(b, dom);
}

void broker_look(struct broker *b)
{
	struct domain *dom;

	b->must_list = true;
	TAILQ_FOREACH(dom, &b->domains, link)
		mark_domain(b, dom);
}

void broker_released(struct broker *b)
{
	struct domain *dom;

	TAILQ_FOREACH(dom, &b->domains, link)
		queue_look(b, dom);
}

/* Whom it has and what it serves may be otherwise: it is asked again. */
void broker_process_changed(struct broker *b, const char *id)
{
	struct domain *dom;
	struct broker_device *d;

	EACH_DEVICE(b, dom, d)
		if (plan_was_told(d, id) || strcmp(plan_process(d), id) == 0) {
			d->is_served = false;
			d->must_ask_again = d->doing == BROKER_SERVE;
			plan_begin_anew(d);
			mark(b, d);
		}
}

/* --- what an earlier broker has left */

void broker_recall_told(struct broker *b, struct broker_key key, const char *id, uint64_t now_ms)
{
	struct broker_device *d = make(b, key);

	if (!d || plan_was_told(d, id))
		return;
	plan_tell(d, id);
	d->expect_ms = now_ms + EXPECT_MS;
	mark(b, d);
}

void broker_recall_taken(struct broker *b, struct broker_key key, const char *uri, bool is_read_only)
{
	size_t bytes = strlen(uri);
	struct broker_device *d = bytes < sizeof(d->taken) ? make(b, key) : NULL;

	if (!d)
		return;
	memcpy(d->taken, uri, bytes + 1);
	d->is_taken_to_read = is_read_only;
	d->was_told = d->was_there = true; /* who was told of such a one, was told by a broker */
	mark(b, d);
}

/* --- what is to be done */

static void wake(struct broker *b, uint64_t now_ms)
{
	struct broker_device *d, *next;
	struct device_list asleep;

	if (now_ms < b->wake_ms)
		return;
	b->wake_ms = UINT64_MAX;
	TAILQ_INIT(&asleep);
	TAILQ_CONCAT(&asleep, &b->sleepers, queue_link);
	for (d = TAILQ_FIRST(&asleep); d; d = next) {
		next = TAILQ_NEXT(d, queue_link);
		TAILQ_REMOVE(&asleep, d, queue_link);
		place(b, d, plan_next(d, now_ms, &d->wake_ms));
	}
}

/* NULL: nobody has what it is to get, or it may have it as well. */
static const struct broker_device *holder_of(const struct broker *b, const struct broker_device *d)
{
	const struct broker_device *other;
	const struct domain *dom;

	EACH_DEVICE(b, dom, other)
		if (other != d && plan_is_held(d, other))
			return other;
	return NULL;
}

static void fill(struct broker *b, struct broker_device *d, enum broker_do what, struct broker_action *a)
{
	const struct broker_device *holder = what == BROKER_TAKE ? holder_of(b, d) : NULL;

	a->what = what;
	a->key = d->key;
	snprintf(a->name, sizeof(a->name), "%s", plan_whom(d, what));
	a->is_again = what == BROKER_SERVE && plan_was_told(d, a->name);
	a->is_held = holder;
	a->holder = holder ? holder->key.domain : 0;
	a->failures = d->failures;
	a->is_read_only = d->facts.is_read_only;
	a->is_eager = b->order == BROKER_ORDER_EAGER || (b->order == BROKER_ORDER_AUTO && d->facts.is_libxl);
}

static void begin(struct broker *b, struct broker_device *d, const struct broker_action *a, uint64_t now_ms)
{
	d->doing = a->what;
	memcpy(d->doing_name, a->name, sizeof(d->doing_name));
	if (a->what == BROKER_READ) {
		d->is_dirty = d->is_stale = false;
		plan_count_read(d, now_ms);
		b->counts.reads++;
	} else if (a->what == BROKER_SERVE) {
		plan_tell(d, a->name);
		d->was_told = true;
		d->must_ask_again = false;
	} else if (a->what == BROKER_TAKE && !a->is_held) {
		memcpy(d->taken, a->name, sizeof(d->taken));
		d->is_taken_to_read = a->is_read_only;
	}
	unqueue(b, d);
	place(b, d, BROKER_NOTHING);
}

/* The first in line for whom it is time. */
static bool next_device(struct broker *b, enum broker_class class, uint64_t now_ms, struct broker_action *a)
{
	struct broker_device *d;

	while ((d = TAILQ_FIRST(&b->queue[class]))) {
		enum broker_do what = plan_next(d, now_ms, &d->wake_ms);

		if (what != BROKER_NOTHING && class_of(what) == class) {
			fill(b, d, what, a);
			begin(b, d, a, now_ms);
			return true;
		}
		unqueue(b, d);
		place(b, d, what);
	}
	return false;
}

static bool next_look(struct broker *b, uint64_t now_ms, struct broker_action *a, uint64_t *wait_ms)
{
	struct domain *dom;

	if (b->must_list && !b->is_listing) {
		if (now_ms < b->list_ms) {
			*wait_ms = MIN(*wait_ms, b->list_ms - now_ms);
		} else {
			b->must_list = false;
			b->is_listing = true;
			a->what = BROKER_LIST;
			return true;
		}
	}
	TAILQ_FOREACH(dom, &b->looks, queue_link) {
		if (now_ms < dom->wake_ms) {
			*wait_ms = MIN(*wait_ms, dom->wake_ms - now_ms);
			continue;
		}
		TAILQ_REMOVE(&b->looks, dom, queue_link);
		dom->is_queued = false;
		a->what = BROKER_LOOK;
		a->key.domain = dom->id;
		return true;
	}
	return false;
}

struct broker_action broker_next(struct broker *b, enum broker_class class, uint64_t now_ms, uint64_t *wait_ms)
{
	struct broker_action a = { .what = BROKER_NOTHING };

	*wait_ms = UINT64_MAX;
	wake(b, now_ms);
	if (class == BROKER_STORE) {
		b->is_look_next = !b->is_look_next;
		if ((b->is_look_next && next_look(b, now_ms, &a, wait_ms)) || next_device(b, class, now_ms, &a) ||
		    (!b->is_look_next && next_look(b, now_ms, &a, wait_ms)))
			return a;
	} else if (next_device(b, class, now_ms, &a)) {
		return a;
	}
	if (b->wake_ms != UINT64_MAX)
		*wait_ms = MIN(*wait_ms, b->wake_ms > now_ms ? b->wake_ms - now_ms : 0);
	return a;
}

/* --- how it ended */

static bool is_in(uint32_t number, const uint32_t *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] == number)
			return true;
	return false;
}

void broker_listed(struct broker *b, const uint32_t *domain, size_t count)
{
	struct domain *dom;

	b->is_listing = false;
	for (size_t i = 0; i < count; i++) {
		dom = domain[i] <= UINT16_MAX ? make_domain(b, (uint16_t)domain[i]) : NULL;
		if (dom)
			queue_look(b, dom);
	}
	TAILQ_FOREACH(dom, &b->domains, link)
		if (!is_in(dom->id, domain, count))
			mark_domain(b, dom);
}

/* A list that was cut short says nothing of who is not in it: so whoever is not is read. */
void broker_looked(struct broker *b, uint16_t domain, const uint32_t *device, size_t count, bool is_alive)
{
	struct domain *dom = make_domain(b, domain);
	struct broker_device *d;

	if (!dom)
		return;
	dom->wake_ms = 0;
	for (size_t i = 0; i < count; i++)
		if (!find(b, (struct broker_key){ domain, device[i] }))
			broker_changed(b, (struct broker_key){ domain, device[i] });
	TAILQ_FOREACH(d, &dom->devices, domain_link)
		if (d->facts.is_alive != is_alive || !is_in(d->key.device, device, count))
			mark(b, d);
	drop_domain_if_empty(b, dom);
}

void broker_not_listed(struct broker *b, uint16_t domain, bool is_look, uint64_t now_ms)
{
	struct domain *dom = is_look ? make_domain(b, domain) : NULL;

	if (dom) {
		dom->wake_ms = now_ms + LIST_AGAIN_MS;
		queue_look(b, dom);
	} else if (!is_look) {
		b->is_listing = false;
		b->must_list = true;
		b->list_ms = now_ms + LIST_AGAIN_MS;
	}
}

void broker_read_is(struct broker *b, struct broker_key key, const struct broker_facts *facts, uint64_t now_ms)
{
	struct broker_device *d = find(b, key);

	assert(d && d->doing == BROKER_READ);
	d->doing = BROKER_NOTHING;
	plan_learn(d, facts);
	settle(b, d, now_ms);
}

void broker_not_read(struct broker *b, struct broker_key key, uint64_t now_ms)
{
	struct broker_device *d = find(b, key);

	assert(d && d->doing == BROKER_READ);
	d->doing = BROKER_NOTHING;
	d->is_dirty = true; /* what it was is not acted upon */
	d->reads = UINT32_MAX / 2; /* until the window is over */
	d->window_ms = now_ms;
	settle(b, d, now_ms);
}

/* Whoever waits for it is looked at. */
static void let_go(struct broker *b, struct broker_device *d)
{
	struct broker_device *other;
	struct domain *dom;

	EACH_DEVICE(b, dom, other)
		if (other != d && plan_is_held(other, d)) {
			plan_begin_anew(other);
			mark(b, other);
		}
	*d->taken = *d->taken_id = '\0';
}

void broker_ended(struct broker *b, struct broker_key key, int err, uint64_t now_ms)
{
	struct broker_device *d = find(b, key);

	assert(d && d->doing != BROKER_NOTHING && d->doing != BROKER_READ && d->doing != BROKER_TAKE);
	if (d->doing == BROKER_DROP && (err == ESRCH || err == ENOTCONN))
		err = 0;
	if (d->doing == BROKER_SERVE)
		plan_served(d, err, now_ms);
	else if (err)
		plan_fail(d, now_ms);
	else if (d->doing == BROKER_DROP)
		plan_untell(d, d->doing_name);
	else if (d->doing == BROKER_RELEASE)
		let_go(b, d);
	if (d->doing == BROKER_CLEAN)
		d->is_dirty = true; /* whatever came of it is read */
	d->doing = BROKER_NOTHING;
	settle(b, d, now_ms);
}

void broker_taken(struct broker *b, struct broker_key key, int err, const char *id, uint64_t now_ms)
{
	struct broker_device *d = find(b, key);
	size_t bytes = strlen(id);

	assert(d && d->doing == BROKER_TAKE);
	d->doing = BROKER_NOTHING;
	d->is_served = false;
	if (err || bytes >= sizeof(d->taken_id))
		plan_fail(d, now_ms);
	else
		memcpy(d->taken_id, id, bytes + 1);
	settle(b, d, now_ms);
}

/* --- what is so now */

void broker_count(const struct broker *b, struct broker_counts *out)
{
	const struct domain *dom;
	const struct broker_device *d;

	*out = b->counts;
	EACH_DEVICE(b, dom, d)
		out->served += d->is_served;
}

bool broker_wants(const struct broker *b, const char *id)
{
	const struct domain *dom;
	const struct broker_device *d;

	EACH_DEVICE(b, dom, d)
		if (plan_was_told(d, id) || strcmp(plan_process(d), id) == 0)
			return true;
	return false;
}
