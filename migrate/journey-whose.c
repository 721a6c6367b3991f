/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-whose - whose the disks of a journey are, where its own steps do not say it
 *
 *      decided to move, and not every disk could follow
 *              given      it has moved
 *              offered    it follows when its far side can be asked: nothing else may be done with it
 *              owned      it stays: somebody took it back (sxm epoch take), or asked it back, or its far side had given up
 *      not decided, and given
 *              its guest was shut down meanwhile, which handed it over: it is asked back, unless a guest has it there
 *
 * The record of the disk says so, here, and is durable; the far side's may say more, and is asked only by compare and set
 * (THEORY, 5): RECLAIM by an activation, volume.undo with the epoch that is owned here.
 *
 * Can fail: what is not known is not guessed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/journey-private.h"
#include "migrate/question.h"

struct answer {
	char *state, *epoch, *mirror;
};
static const struct jsonspec_field answer_fields[] = {
	{ "state", JS_STRING, offsetof(struct answer, state) }, { "epoch", JS_STRING, offsetof(struct answer, epoch) },
	{ "mirror", JS_STRING, offsetof(struct answer, mirror) }, { NULL },
};
static const struct jsonspec answer_spec = { "volume.owner", sizeof(struct answer), answer_fields };

static int ask(struct journey *j, size_t i, struct peer *p, struct journey_owner *o, struct error *e)
{
	const struct journey_disk *d = journey_disk(j, i);
	CLEANUP_FREE char *args = question_new(NULL, "uri", p == &j->there ? d->far_uri : d->uri, NULL);
	CLEANUP_FREE char *ok = args ? peer_ask(p, "volume.owner", args, JOURNEY_ASK_MS, e) : NULL;
	struct answer a;

	if (!args)
		error_set(e, ENOMEM, "out of memory");
	if (!ok || jsonspec_decode(&answer_spec, ok, strlen(ok), &a, e) == -1)
		return error_prefix(e, "whose %s is", d->name);
	*o = (struct journey_owner) { 0 };
	snprintf(o->state, sizeof(o->state), "%s", a.state);
	snprintf(o->epoch, sizeof(o->epoch), "%s", a.epoch);
	snprintf(o->mirror, sizeof(o->mirror), "%s", a.mirror);
	jsonspec_clear(&answer_spec, &a);
	return 0;
}

int journey_ask_owner(struct journey *j, size_t i, struct journey_owner *o, struct error *e)
{
	return ask(j, i, &j->disk_here[i], o, e);
}

static bool is_in(const struct journey_owner *o, const char *state)
{
	return strcmp(o->state, state) == 0;
}

bool journey_have_all_moved(struct journey *j)
{
	for (size_t i = 0; i < j->r.disks.count; i++) {
		struct journey_owner o;
		struct error e;

		if (journey_ask_owner(j, i, &o, &e) == -1 || !is_in(&o, "given"))
			return false;
	}
	return true;
}

/* --- decided */

static int sort_one(struct journey *j, size_t i, struct error *e)
{
	struct journey_disk *d = journey_disk(j, i);
	bool was_known = d->stays;
	struct journey_owner o;

	if (journey_ask_owner(j, i, &o, e) == -1)
		return -1;
	if (is_in(&o, "offered"))
		return error_set(e, EAGAIN, "%s has not followed yet", d->name);
	d->stays = !is_in(&o, "given");
	if (d->stays && !was_known)
		journey_say(j, "%s: it was decided that it moves, and it is %s here: it was taken back, and stays", d->name,
			    o.state);
	return 0;
}

int journey_sort(struct journey *j, size_t *stay, struct error *e)
{
	*stay = 0;
	for (size_t i = 0; i < j->r.disks.count; i++) {
		if (sort_one(j, i, e) == -1)
			return -1;
		*stay += journey_disk(j, i)->stays;
	}
	return 0;
}

/* --- not decided, and given */

static int activate(struct journey *j, const struct journey_disk *d, struct error *e)
{
	char *attach = question_new(NULL, "dbg", "sxm migrate", "uri", d->uri, "domain", d->domain, NULL);
	char *go = question_new(NULL, "dbg", "sxm migrate", "uri", d->uri, "domain", d->domain, NULL);

	if (journey_call_here(j, "Datapath.attach", attach, e) == 0)
		return journey_call_here(j, "Datapath.activate", go, e);
	free(go);
	return -1;
}

/* A disk that runs there has no receiver any more, so nothing can be asked over its socket. */
static bool is_started_there(struct journey *j, size_t i)
{
	struct journey_owner o;
	struct error e;

	return ask(j, i, &j->there, &o, &e) == 0 && is_in(&o, "owned");
}

/* Whoever is to write here asks for it: RECLAIM, over the disk's socket. */
static int ask_back(struct journey *j, size_t i, struct error *e)
{
	struct journey_disk *d = journey_disk(j, i);
	char own[JOURNEY_ID_MAX + 8];

	snprintf(own, sizeof(own), "sxm-%s", j->r.id);
	if (journey_prepare(j, JOURNEY_SWITCHING, e) == -1)
		return -1;
	if (is_started_there(j, i))
		return error_set(e, EALREADY, "%s was handed over when its guest let go of it, and a guest has it there: only "
				 "--resume goes on", d->name);
	d->is_ours = true;
	if (journey_set(&d->domain, own, e) == -1 || journey_save(j, e) == -1)
		return -1;
	if (activate(j, d, e) == 0)
		return 0;
	return error_prefix(e, "%s was handed over when its guest let go of it, and is not given back", d->name);
}

int journey_take_back(struct journey *j, struct error *e)
{
	for (size_t i = 0; i < j->r.disks.count; i++) {
		struct journey_owner o;

		if (journey_ask_owner(j, i, &o, e) == -1)
			return -1;
		if (is_in(&o, "given") && ask_back(j, i, e) == -1)
			return -1;
	}
	return 0;
}
