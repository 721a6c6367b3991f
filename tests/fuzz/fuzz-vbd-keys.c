/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Any texts in xenstore, changing at any time: one thing at a time is done, a ring is connected when none is, let go of when one
 * is, has no more pages than were offered, and is asked for no more often than the budget says. Nothing is said or connected where
 * what was read is about another disk.
 *
 * Whose it is, is a uuid, by the toolstack's word, and the one path that is made of a text is of the form that it must have.
 *
 * The input: lines KEY=VALUE, KEY a letter from 'a' on; a step after each.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/uri.h"
#include "vbd/xenbus-keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
extern const char *const fuzz_words[];
const char *const fuzz_words[] = {
	"\nj=1", "\nj=3", "\nj=4", "\nj=6", "\nc=5", "\nk=4", "\nl=7", "\no=8", "\np=9", "\ni=nbd:a", "\ni=nbd:b", "\ni=aio:sxm:///a.raw",
	"\ni=sxm:/%61.raw", "\ni=sxm://localhost/b.raw", "\n\x81=/vm/", "\n\x82=", "5e0b8c3d-0123-4000-8000-000000000000", "4294967296",
	"x86_32-abi", NULL
};

static void insist(bool is_so)
{
	if (!is_so)
		abort();
}

static void set(struct xenbus_value *v, const uint8_t *text, size_t bytes)
{
	memset(v, 0, sizeof(*v));
	v->is_there = bytes != 0;
	v->is_long = bytes >= sizeof(v->value) || (bytes && memchr(text, 0, bytes));
	if (!v->is_long && bytes)
		memcpy(v->value, text, bytes);
}

static void set_text(struct xenbus_value *v, const char *text)
{
	set(v, (const uint8_t *)text, strlen(text));
}

struct state {
	struct xenbus x;
	struct xenbus_names names;
	struct xenbus_value value[XENBUS_KEYS];
	bool is_bound, was_this_disk; /* when it was read */
	unsigned reads;
	uint64_t now_ms;
};

static int write_it(struct state *s, const struct xenbus_action *a)
{
	char text[2] = { (char)('0' + a->state), '\0' };

	insist(a->state >= XENBUS_INIT_WAIT && a->state <= XENBUS_CLOSED && a->says & XENBUS_SAY_STATE);
	insist(a->state != XENBUS_CONNECTED || s->is_bound);
	insist(s->was_this_disk);
	if (xenbus_state_of(&s->value[XENBUS_B_STATE]) != a->expected)
		return EAGAIN;
	set_text(&s->value[XENBUS_B_STATE], text);
	return 0;
}

/* The volume is /a.raw: the file system is asked for few of its spellings. */
static void find_volume(struct state *s)
{
	const char *uri = xenbus_volume(s->value);
	struct error e;
	bool is_it = uri && uri_names(uri, "sxm", "/a.raw", &e) == 1;

	if (is_it)
		memcpy(s->names.volume, uri, strlen(uri) + 1);
	insist(!uri || !*s->names.params || xenbus_is_this_disk(&s->names, s->value) == is_it);
}

static void do_one(struct state *s)
{
	struct xenbus_action a = xenbus_next(&s->x, s->now_ms);

	switch (a.what) {
	case XENBUS_READ:
		s->reads++;
		find_volume(s);
		s->was_this_disk = xenbus_is_this_disk(&s->names, s->value);
		xenbus_read_is(&s->x, &s->names, s->value);
		break;
	case XENBUS_WRITE:
		xenbus_ended(&s->x, write_it(s, &a), NULL, s->now_ms);
		break;
	case XENBUS_CONNECT:
		insist(!s->is_bound && a.ring.order <= RING_ORDER_MAX && s->was_this_disk);
		s->is_bound = a.ring.gref[0] % 3 != 2;
		xenbus_ended(&s->x, s->is_bound ? 0 : EINVAL, "no", s->now_ms);
		break;
	case XENBUS_DISCONNECT:
		insist(s->is_bound);
		s->is_bound = false;
		xenbus_ended(&s->x, 0, NULL, s->now_ms);
		break;
	default:
		break;
	}
}

static void look_whose(struct state *s)
{
	char vm[GUID_MAX], path[XENBUS_PATH_MAX];
	bool is_known;

	for (unsigned key = XENBUS_D_VM; key <= XENBUS_V_STABLE; key++)
		s->value[key].is_toolstacks = s->reads % 4 != key - XENBUS_D_VM;
	is_known = xenbus_vm(s->value, vm);
	insist(!is_known || (guid_is(vm) && s->value[XENBUS_D_VM].is_toolstacks));
	if (!xenbus_key_path(&s->names, s->value, XENBUS_V_STABLE, path))
		return;
	insist(s->value[XENBUS_D_VM].is_toolstacks && strspn(path, "abcdefghijklmnopqrstuvwxyz0123456789-/") == strlen(path));
	insist(!is_known || s->value[XENBUS_V_STABLE].is_toolstacks);
}

static void finish(struct state *s)
{
	xenbus_leave(&s->x);
	for (unsigned i = 0; i < 3; i++)
		do_one(s);
	insist(!s->is_bound && xenbus_next(&s->x, s->now_ms).what == XENBUS_OVER);
	insist(s->reads <= 32 * (1 + (s->now_ms - 5000) / 1000));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct state *s = calloc(1, sizeof(*s));
	const uint8_t *at = data, *end = data + bytes;

	insist(s && xenbus_parse_backend(&s->names, "/local/domain/0/backend/vbd3/1/768", NULL) == 0);
	xenbus_init(&s->x, bytes % 2);
	s->x.sectors = 100;
	s->now_ms = 5000;
	set_text(&s->value[XENBUS_B_FRONTEND], s->names.frontend);
	set_text(&s->value[XENBUS_B_FRONTEND_ID], "1");
	set_text(&s->value[XENBUS_B_STATE], "1");
	set_text(&s->value[XENBUS_B_ONLINE], "1");
	set_text(&s->value[XENBUS_B_HOTPLUG], "connected");
	if (bytes % 5)
		memcpy(s->names.params, "nbd:a", 6);
	set_text(&s->value[XENBUS_B_PARAMS], "nbd:a");
	while (at < end) {
		const uint8_t *line = memchr(at, '\n', (size_t)(end - at)), *stop = line ? line : end;

		if (stop - at >= 2 && at[0] >= 'a' && at[0] < 'a' + XENBUS_KEYS)
			set(&s->value[at[0] - 'a'], at + 2, (size_t)(stop - at - 2));
		look_whose(s);
		xenbus_changed(&s->x);
		s->now_ms += bytes % 97;
		do_one(s);
		if (bytes % 3)
			do_one(s);
		at = stop + (line != NULL);
	}
	finish(s);
	free(s);
	return 0;
}
