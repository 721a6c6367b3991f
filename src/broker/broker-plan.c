/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * broker-plan - what is to be done next with one device, by what is known of it
 *
 *      dirty? --> READ
 *      somebody was told to whom it does not belong? --> DROP
 *      a volume is activated for it that is not its own? --> RELEASE
 *      it has one, not activated? --> TAKE (another device has it: not yet)
 *      its process has not said that it serves it? --> SERVE
 *      nobody serves it, and its guest is gone? --> CLEAN
 *
 * Others may tell a process, too (a person, `sxm vbd attach`), before they make the device, or of one whose params say nothing to
 * us: such a one is let alone.
 *
 * In this order: nobody new is told before everybody else has let go, so that no two serve it, whatever was missed.  What failed
 * is tried again after a pause that grows, and not before it was read again.  An event, which may be for nothing, reads at once,
 * and what is read decides.
 * Never happens: more than READS_PER_WINDOW questions a second about one device, whatever happens to it how often.
 */
#include <errno.h>
#include <string.h>

#include "broker/broker-private.h"

#define WINDOW_MS 1000u
#define READS_PER_WINDOW 16u
#define RETRY_FIRST_MS 100u
#define RETRY_MAX_MS 5000u
#define END_LOOK_MS 500u /* it ends, and nobody tells when its guest's side went */

static bool is_wanted(const struct broker_device *d)
{
	const struct broker_facts *f = &d->facts;

	return f->is_there && f->is_alive && f->kind > BROKER_EMPTY;
}

/* Activated for what it is wanted for: the toolstack may not yet have said so when it was. */
static bool has_own_volume(const struct broker_device *d)
{
	return *d->taken && is_wanted(d) && d->facts.kind == BROKER_VOLUME && strcmp(d->taken, d->facts.name) == 0 &&
	       d->is_taken_to_read == d->facts.is_read_only;
}

/* An earlier broker activated it, and which process has it then was not written down. */
static bool must_ask_again(const struct broker_device *d)
{
	return has_own_volume(d) && !*d->taken_id;
}

/* Once begun, it goes on until the toolstack has taken it away: closing takes the process, too. */
const char *plan_process(const struct broker_device *d)
{
	if (!is_wanted(d))
		return "";
	if (d->facts.kind == BROKER_VOLUME)
		return has_own_volume(d) ? d->taken_id : "";
	return d->facts.is_online || plan_was_told(d, d->facts.name) ? d->facts.name : "";
}

bool plan_was_told(const struct broker_device *d, const char *id)
{
	for (unsigned i = 0; i < d->tolds; i++)
		if (strcmp(d->told[i], id) == 0)
			return true;
	return false;
}

void plan_tell(struct broker_device *d, const char *id)
{
	size_t bytes = strlen(id);

	if (plan_was_told(d, id) || d->tolds == BROKER_TOLD_MAX || bytes >= BROKER_ID_MAX)
		return;
	memcpy(d->told[d->tolds++], id, bytes + 1);
}

/* Whoever serves it then is asked: it may have been the one that it belongs to, and may be again. */
void plan_untell(struct broker_device *d, const char *id)
{
	d->is_served = false;
	for (unsigned i = 0; i < d->tolds; i++)
		if (strcmp(d->told[i], id) == 0) {
			memmove(d->told[i], d->told[d->tolds - 1], BROKER_ID_MAX);
			d->tolds--;
			return;
		}
}

const char *plan_stray(const struct broker_device *d)
{
	const char *own = plan_process(d);

	if (must_ask_again(d))
		return NULL; /* not known yet */
	if (d->facts.is_there && d->facts.is_alive && d->facts.kind <= BROKER_EMPTY && !d->was_told)
		return NULL; /* it says nothing, and whoever told the process knows why */
	for (unsigned i = 0; i < d->tolds; i++)
		if (strcmp(d->told[i], own) != 0)
			return d->told[i];
	return NULL;
}

const char *plan_whom(const struct broker_device *d, enum broker_do what)
{
	switch (what) {
	case BROKER_SERVE:
		return plan_process(d);
	case BROKER_DROP:
		return plan_stray(d);
	case BROKER_TAKE:
		return d->facts.name;
	case BROKER_RELEASE:
		return d->taken;
	default:
		return "";
	}
}

/* Where one of the two may write. It is as between two hosts, where the image's lease says so: a guest that xl moves, to this
 * same host, say, has its disk when the domain that it was is gone. */
bool plan_is_held(const struct broker_device *d, const struct broker_device *other)
{
	return !*d->taken && is_wanted(d) && d->facts.kind == BROKER_VOLUME && strcmp(d->facts.name, other->taken) == 0 &&
	       !(d->facts.is_read_only && other->is_taken_to_read);
}

bool plan_is_over(const struct broker_device *d)
{
	return !d->is_dirty && !d->facts.is_there && !d->tolds && !*d->taken;
}

void plan_count_read(struct broker_device *d, uint64_t now_ms)
{
	if (now_ms - d->window_ms >= WINDOW_MS) {
		d->window_ms = now_ms;
		d->reads = 0;
	}
	d->reads++;
	d->read_ms = now_ms;
}

static enum broker_do sleep_until(uint64_t ms, uint64_t *wake_ms)
{
	*wake_ms = ms;
	return BROKER_NOTHING;
}

static enum broker_do read_it(const struct broker_device *d, uint64_t now_ms, uint64_t *wake_ms)
{
	if (d->reads >= READS_PER_WINDOW && now_ms - d->window_ms < WINDOW_MS)
		return sleep_until(d->window_ms + WINDOW_MS, wake_ms);
	return BROKER_READ;
}

bool plan_must_settle(const struct broker_facts *f)
{
	if (!f->is_there || f->is_settled || f->kind == BROKER_NOBODYS)
		return false;
	return !f->is_alive || (!f->is_front_open && !(f->is_online && f->is_young));
}

/* Nobody serves it, or will. */
static enum broker_do plan_end(const struct broker_device *d, uint64_t now_ms, uint64_t *wake_ms)
{
	const struct broker_facts *f = &d->facts;

	if (d->tolds && !d->is_absent)
		return BROKER_NOTHING;
	if (plan_must_settle(f))
		return BROKER_CLEAN;
	if (!f->is_there || f->is_settled || f->is_online || f->kind == BROKER_NOBODYS)
		return BROKER_NOTHING;
	return now_ms - d->read_ms < END_LOOK_MS ? sleep_until(d->read_ms + END_LOOK_MS, wake_ms) : BROKER_READ;
}

static enum broker_do plan_service(const struct broker_device *d, uint64_t now_ms, uint64_t *wake_ms)
{
	const char *own = plan_process(d);

	if (is_wanted(d) && d->facts.kind == BROKER_VOLUME && !*d->taken_id && (d->facts.is_online || d->tolds))
		return BROKER_TAKE;
	if (*own && !d->is_served && (d->facts.is_front_open || !d->is_absent))
		return BROKER_SERVE;
	return *own && d->is_served ? BROKER_NOTHING : plan_end(d, now_ms, wake_ms);
}

enum broker_do plan_next(const struct broker_device *d, uint64_t now_ms, uint64_t *wake_ms)
{
	*wake_ms = UINT64_MAX;
	if (d->doing != BROKER_NOTHING)
		return BROKER_NOTHING;
	if (d->is_dirty)
		return read_it(d, now_ms, wake_ms);
	if (now_ms < d->retry_ms)
		return sleep_until(d->retry_ms, wake_ms);
	if (d->is_stale)
		return read_it(d, now_ms, wake_ms);
	if (plan_stray(d) && !d->was_there && now_ms < d->expect_ms)
		return sleep_until(d->expect_ms, wake_ms);
	if (plan_stray(d))
		return BROKER_DROP;
	if (*d->taken && !has_own_volume(d))
		return BROKER_RELEASE;
	return plan_service(d, now_ms, wake_ms);
}

/* --- what was learnt */

/* A name says its kind, and that it is there. */
static bool is_same_target(const struct broker_facts *a, const struct broker_facts *b)
{
	return a->is_alive == b->is_alive && a->is_online == b->is_online && strcmp(a->name, b->name) == 0;
}

/* What failed, has failed with what is no more so. */
void plan_begin_anew(struct broker_device *d)
{
	d->is_absent = false;
	d->failures = 0;
	d->retry_ms = 0;
}

void plan_learn(struct broker_device *d, const struct broker_facts *facts)
{
	bool is_new = !is_same_target(&d->facts, facts);

	if (is_new)
		plan_begin_anew(d);
	if (is_new && strcmp(d->facts.name, facts->name) != 0)
		d->is_served = false;
	d->facts = *facts;
	d->was_there |= facts->is_there;
}

void plan_fail(struct broker_device *d, uint64_t now_ms)
{
	uint64_t ms = d->failures < 6 ? RETRY_FIRST_MS << d->failures : RETRY_MAX_MS;

	d->failures++;
	d->is_stale = true;
	d->retry_ms = now_ms + ms;
}

void plan_served(struct broker_device *d, int err, uint64_t now_ms)
{
	if (err == ENOTCONN)
		plan_untell(d, d->doing_name);
	d->is_served = err == 0 && !d->must_ask_again;
	d->is_absent = err == ESRCH || err == ENOTCONN;
	if (err)
		plan_fail(d, now_ms);
	else
		d->failures = 0;
}
