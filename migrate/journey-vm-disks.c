/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-vm-disks - a VM that stands still here, and whose its disks are by now
 *
 * Its memory is of the moment in which it stopped, and what it would run on has to be of that moment, too. While it had its disks
 * active nobody else was to write to them; but a person may have taken them back by force since (sxm epoch take), or let go of
 * them, and started another guest from them, who may have written, or runs yet.
 *
 *      while it runs         each volume's content_id is noted: a new one is made, durable, each time somebody has it activated
 *                            for writing (plugins/volume-writer.c)
 *      before it runs again  owned here, the same content_id, active for writing for its domain or for nobody -> it is made
 *                            active for it -> for it, and for nobody else -> the new content_id is noted
 *
 * Where nothing was decided its disks are as a rule what they were: active for it all the time. Then a bare image, which has no
 * content_id, is believed, too. After "commit" it is not: its domain was cut off, and who let it in again is not known.
 *
 * Can fail: the disks' processes cannot be asked. A driver that dies between the activation and its note cannot be told from
 * somebody else: then the VM stands still, and it is said.
 * Assumed: nobody starts a guest, lets it write and ends it between the look and the activation, which is milliseconds.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/decision.h"
#include "migrate/journey-private.h"
#include "migrate/journey-vm.h"
#include "migrate/question.h"

static int find(struct journey *j, size_t i, struct plan_volume *v, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "source", journey_disk(j, i)->uri, NULL);
	CLEANUP_FREE char *ok = args ? peer_ask(&j->here, "volume.find", args, JOURNEY_ASK_MS, e) : NULL;

	if (!args)
		error_set(e, ENOMEM, "out of memory");
	if (ok && jsonspec_decode(&plan_volume_spec, ok, strlen(ok), v, e) == 0)
		return 0;
	return error_prefix(e, "who has %s", journey_disk(j, i)->name);
}

/* "": a bare image, of which nobody knows. */
static const char *content_of(const struct plan_volume *v)
{
	const char *id = jsonspec_map_get(&v->keys, "content_id");

	return id ? id : "";
}

static int note(struct journey *j, size_t i, struct error *e)
{
	struct plan_volume v;
	int r;

	if (find(j, i, &v, e) == -1)
		return -1;
	r = journey_set(&journey_disk(j, i)->vm_content, content_of(&v), e);
	jsonspec_clear(&plan_volume_spec, &v);
	return r;
}

int journey_vm_note_disks(struct journey *j, struct error *e)
{
	for (size_t i = 0; i < j->r.disks.count; i++)
		if (note(j, i, e) == -1)
			return -1;
	return 0;
}

/* --- before it runs again */

enum whose { ITS, FREE, OTHERS };

static enum whose judge(const struct journey *j, const struct journey_disk *d, const struct plan_volume *v, bool is_decided)
{
	const char *noted = d->vm_content ? d->vm_content : "", *content = content_of(v);
	bool is_known = *noted && *content;
	size_t count;
	const char *writer = plan_writer(v, &count);

	if (count > 1 || (writer && strcmp(writer, d->domain) != 0))
		journey_say(j, "%s is active for writing for another guest (%s)", d->name, writer);
	else if (is_known && strcmp(noted, content) != 0)
		journey_say(j, "%s has been made active for writing by somebody else since the VM stood still", d->name);
	else if (!is_known && (is_decided || !writer))
		journey_say(j, "nobody can say whether %s, which is no volume of an SR, was written to since the VM stood still",
			    d->name);
	else if (!writer && strcmp(v->owner, "owned") != 0)
		journey_say(j, "%s is not active for the VM's domain any more, and is %s", d->name, v->owner);
	else
		return writer && !is_decided ? ITS : FREE;
	return OTHERS;
}

static int look(struct journey *j, size_t i, bool is_decided, enum whose *whose, struct error *e)
{
	struct plan_volume v;

	if (find(j, i, &v, e) == -1)
		return -1;
	*whose = judge(j, journey_disk(j, i), &v, is_decided);
	jsonspec_clear(&plan_volume_spec, &v);
	return 0;
}

static char *domain_args(const struct journey_disk *d)
{
	return question_new(NULL, "dbg", "sxm migrate", "uri", d->uri, "domain", d->domain, NULL);
}

/* 1: it has it, and nobody else. */
static int activate(struct journey *j, size_t i, struct error *e)
{
	const struct journey_disk *d = journey_disk(j, i);
	struct plan_volume v;
	const char *writer;
	size_t count;
	int r;

	if (journey_call_here(j, "Datapath.attach", domain_args(d), e) == -1 ||
	    journey_call_here(j, "Datapath.activate", domain_args(d), e) == -1 || find(j, i, &v, e) == -1)
		return -1;
	writer = plan_writer(&v, &count);
	r = writer && count == 1 && strcmp(writer, d->domain) == 0;
	if (!r)
		journey_say(j, "another guest has just got %s for writing", d->name);
	jsonspec_clear(&plan_volume_spec, &v);
	return r == 1 && note(j, i, e) == -1 ? -1 : r;
}

int journey_vm_claim_disks(struct journey *j, struct error *e)
{
	enum whose whose[JOURNEY_DISKS_MAX];
	struct error why;
	bool is_decided = *j->r.group && decision_read(j->r.group, &why) == DECISION_COMMIT, has_claimed = false;

	for (size_t i = 0; i < j->r.disks.count; i++) {
		if (look(j, i, is_decided, &whose[i], e) == -1)
			return -1;
		if (whose[i] == OTHERS)
			return 0;
	}
	for (size_t i = 0; i < j->r.disks.count; i++) {
		int r = whose[i] == FREE ? activate(j, i, e) : 1;

		if (r != 1)
			return r;
		has_claimed |= whose[i] == FREE;
	}
	return has_claimed && journey_save(j, e) == -1 ? -1 : 1;
}
