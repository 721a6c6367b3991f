/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-store - the broker's xenstore, in the Xen of fake-xen ($SXM_FAKE_XEN)
 *
 * Changes are reported by their paths, as xenstored does it; whoever comes too late for some of them hears that some were lost.
 * With SXM_FAKE_STORE=twice each is reported twice.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/store.h"
#include "tests/lib/fake-xen.h"



struct store {
	struct world world; /* the pool thread's */
	struct world watch; /* the loop's */
	int fd;
	uint64_t told;
	bool is_twice, was_told, is_first;
};

static struct store *open_store(struct facts_root *r, struct error *e)
{
	struct store *s = calloc(1, sizeof(*s));
	const char *dir = getenv("SXM_FAKE_XEN"), *how = getenv("SXM_FAKE_STORE");
	char name[32];

	if (!s || !dir) {
		error_set(e, ENODEV, "SXM_FAKE_XEN is not set");
		free(s);
		return NULL;
	}
	world_open(&s->world, dir);
	world_open(&s->watch, dir);
	snprintf(name, sizeof(name), "store.broker.%d", (int)getpid());
	s->fd = world_watch(&s->watch, name);
	s->is_twice = how && strcmp(how, "twice") == 0;
	s->told = s->watch.shared->changes;
	s->is_first = true; /* a watch that is made is told of at once */
	r->domain = 0;
	return s;
}

static void close_store(struct store *s)
{
	close(s->fd);
	world_close(&s->watch);
	world_close(&s->world);
	free(s);
}

static int store_fd(struct store *s)
{
	return s->fd;
}

static void next_path(struct store *s, char path[static STORE_EVENT_MAX])
{
	const char *changed = s->watch.shared->changed[s->told % WORLD_LOG];

	if (strncmp(changed, WORLD_DEAD, strlen(WORLD_DEAD)) == 0)
		changed = "@releaseDomain";
	snprintf(path, STORE_EVENT_MAX, "%s", changed);
	if (!s->is_twice || s->was_told)
		s->told++;
	s->was_told = !s->was_told;
}

static bool next_event(struct store *s, char path[static STORE_EVENT_MAX])
{
	char bytes[512];
	bool is_there = true;

	world_lock(&s->watch);
	if (s->is_first || s->watch.shared->changes - s->told > WORLD_LOG) {
		s->is_first = false;
		s->told = s->watch.shared->changes;
		*path = '\0';
	} else if (s->watch.shared->changes > s->told) {
		next_path(s, path);
	} else {
		while (read(s->fd, bytes, sizeof(bytes)) > 0)
			;
		is_there = s->watch.shared->changes > s->told;
		if (is_there)
			next_path(s, path);
	}
	world_unlock(&s->watch);
	return is_there;
}

static int read_numbers(struct store *s, const char *path, uint32_t *out, size_t max, size_t *count, struct error *e UNUSED)
{
	size_t bytes = strlen(path);

	*count = 0;
	world_lock(&s->world);
	for (unsigned i = 0; i < WORLD_KEYS; i++) {
		const char *key = s->world.shared->key[i].path;
		unsigned long number;
		size_t n;

		if (strncmp(key, path, bytes) != 0 || key[bytes] != '/')
			continue;
		number = strtoul(key + bytes + 1, NULL, 10);
		for (n = 0; n < *count && out[n] != number; n++)
			;
		if (n == *count && *count < max)
			out[(*count)++] = (uint32_t)number;
	}
	world_unlock(&s->world);
	return 0;
}

static bool is_dead(const struct store *s, uint16_t domain)
{
	char path[64];

	snprintf(path, sizeof(path), WORLD_DEAD "/%u", domain);
	return world_find(&s->world, path) != NULL;
}

static int is_alive(struct store *s, uint16_t domain)
{
	bool is;

	world_lock(&s->world);
	is = !is_dead(s, domain);
	world_unlock(&s->world);
	return is;
}

static void read_locked(struct store *s, const struct facts_root *r, struct broker_key key, struct facts_value *value)
{
	for (unsigned i = 0; i < FACTS_KEYS; i++) {
		char path[FACTS_PATH_MAX];
		const struct world_key *k;

		memset(&value[i], 0, sizeof(value[i]));
		facts_key_path(r, key, (enum facts_key)i, path);
		k = world_find(&s->world, path);
		if (!k)
			continue;
		value[i].is_there = true;
		value[i].is_long = k->bytes >= sizeof(value[i].value) || memchr(k->value, '\0', k->bytes);
		if (!value[i].is_long)
			memcpy(value[i].value, k->value, k->bytes);
	}
}

static int read_device(struct store *s, const struct facts_root *r, struct broker_key key, struct facts_value *value, bool *alive,
		       struct error *e UNUSED)
{
	world_lock(&s->world);
	read_locked(s, r, key, value);
	*alive = !is_dead(s, key.domain);
	world_unlock(&s->world);
	return 0;
}

static int settle(struct store *s, const struct facts_root *r, struct broker_key key)
{
	struct facts_value value[FACTS_KEYS];
	char path[FACTS_PATH_MAX];
	struct broker_facts f;
	bool must;

	world_lock(&s->world);
	read_locked(s, r, key, value);
	facts_read(&f, r, key, value);
	f.is_alive = !is_dead(s, key.domain);
	must = plan_must_settle(&f);
	if (must) {
		facts_key_path(r, key, FACTS_STATE, path);
		world_change(&s->world, path, "6");
		facts_key_path(r, key, FACTS_HOTPLUG, path);
		world_change(&s->world, path, NULL);
	}
	world_unlock(&s->world);
	world_tell(&s->world);
	return must ? 0 : EAGAIN;
}

static bool get_key(struct store *s, const char *path, char *value, size_t bytes)
{
	return world_get(&s->world, path, value, bytes);
}

static int put_key(struct store *s, const char *path, const char *value, struct error *e UNUSED)
{
	world_put(&s->world, path, value);
	return 0;
}

static const struct store_ops ops = {
	.open = open_store, .close = close_store, .fd = store_fd, .event = next_event, .numbers = read_numbers,
	.read = read_device, .is_alive = is_alive, .settle = settle, .get = get_key, .put = put_key,
};

const struct store_ops *store_ops(void)
{
	return &ops;
}
