/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tenure - see tenure.h
 *
 *      holder    begin ---- renew -------- renewed ...... renew ------------ (no answer)            until
 *                  |          |  success: until = renew's beginning + hold_ns                          |
 *                  '----------'------------------------------------------------------------ writes ----|  none
 *      watcher                    saw the name ................ the same ........................ the same: dead
 *                                   '------------------------ lost_ns --------------------------------'
 *
 * What the watcher saw was there before he looked away, so its renewal began before since_ns; and whoever takes the lease over
 * renames that very name, so no later renewal has succeeded.  Hence the holder's until is at most since_ns + hold_ns, and the
 * taking at least since_ns + lost_ns.
 *
 * A renewal whose outcome is not known counts for nothing: the holder looks, and goes on from what is there.
 * Can fail: nothing.
 */
#include "base/tenure.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/tenure-plant.h"

#define RENEW_MS 5000u
#define HOLD_MS 20000u
#define LOST_MS 60000u
#define LOCK_MS 40000u
#define MS_MAX 3600000ul

static uint64_t read_ms(const char *name, unsigned other)
{
	const char *text = getenv(name);
	unsigned long ms = text ? strtoul(text, NULL, 10) : 0;

	return (ms && ms <= MS_MAX ? ms : other) * NS_PER_MS;
}

struct tenure_spec tenure_spec_default(void)
{
	const struct tenure_spec usual = { RENEW_MS * NS_PER_MS, HOLD_MS * NS_PER_MS, LOST_MS * NS_PER_MS, LOCK_MS * NS_PER_MS };
	const struct tenure_spec given = {
		read_ms("SXM_LEASE_RENEW_MS", RENEW_MS), read_ms("SXM_LEASE_HOLD_MS", HOLD_MS),
		read_ms("SXM_LEASE_LOST_MS", LOST_MS), read_ms("SXM_LEASE_LOCK_MS", LOCK_MS),
	};

	return 2 * given.renew_ns <= given.hold_ns && 2 * given.hold_ns <= given.lost_ns ? given : usual;
}

/* --- who wants it */

enum tenure_verdict tenure_watch(struct tenure_watch *w, const struct tenure_spec *spec, const char *host,
				 const struct lease *seen, uint64_t now_ns)
{
	bool has_changed = !w->has_seen || !lease_is_equal(&w->seen, seen);
	bool is_first = !w->has_seen;

	if (seen->kind != LEASE_HELD)
		return TENURE_NONE;
	if (strcmp(seen->host, host) == 0)
		return TENURE_OURS;
	if (PLANTED(WATCH_COUNTS_FROM_FIRST) && !is_first && w->seen.generation == seen->generation)
		has_changed = false;
	if (has_changed) {
		*w = (struct tenure_watch){ .seen = *seen, .since_ns = now_ns, .has_seen = true };
		return is_first ? TENURE_WAIT : TENURE_ALIVE;
	}
	return now_ns - w->since_ns >= spec->lost_ns ? TENURE_DEAD : TENURE_WAIT;
}

/* --- who has it */

void tenure_begin(struct tenure *t, const struct tenure_spec *spec, const struct lease *taken, uint64_t began_ns)
{
	*t = (struct tenure){ .spec = *spec, .lease = *taken };
	t->until_ns = began_ns + spec->hold_ns;
	t->again_ns = began_ns + spec->renew_ns;
}

enum tenure_ask tenure_next(const struct tenure *t, uint64_t now_ns, uint64_t *wait_ns)
{
	*wait_ns = t->spec.renew_ns;
	if (t->is_lost)
		return TENURE_ASK_NOTHING;
	if (now_ns < t->again_ns) {
		*wait_ns = t->again_ns - now_ns;
		return TENURE_ASK_NOTHING;
	}
	return t->must_look ? TENURE_ASK_LOOK : TENURE_ASK_RENEW;
}

void tenure_ask(struct tenure *t, enum tenure_ask ask, uint64_t now_ns)
{
	if (ask == TENURE_ASK_RENEW)
		t->next = lease_renewed(&t->lease);
	t->asked_ns = now_ns;
}

/* From what was asked, so that renewals that take long do not come less often. */
static uint64_t next_time(const struct tenure *t, uint64_t now_ns)
{
	return MAX(t->asked_ns + t->spec.renew_ns, now_ns);
}

void tenure_renewed(struct tenure *t, int err, uint64_t now_ns)
{
	uint64_t began_ns = PLANTED(HOLD_FROM_ANSWER) ? now_ns : t->asked_ns;

	if (err && !(PLANTED(FAILURE_IS_SUCCESS) && err != ESTALE) && !(PLANTED(STALE_IS_SUCCESS) && err == ESTALE)) {
		t->must_look = true;
		t->again_ns = err == ESTALE ? now_ns : now_ns + t->spec.renew_ns / 4;
		return;
	}
	t->lease = t->next;
	t->until_ns = MAX(t->until_ns, began_ns + t->spec.hold_ns);
	t->again_ns = next_time(t, now_ns);
}

/* Another's, or nobody's: but not one from before ours, which is an old listing. */
static bool is_lost(const struct tenure *t, const struct lease *found)
{
	if (found->kind == LEASE_ABSENT || found->kind == LEASE_SHARABLE)
		return true;
	if (found->generation != t->lease.generation)
		return found->generation > t->lease.generation;
	return found->kind == LEASE_FREE || found->life != t->lease.life;
}

void tenure_looked(struct tenure *t, int err, const struct lease *found, uint64_t now_ns)
{
	t->again_ns = now_ns + t->spec.renew_ns / 4;
	if (err)
		return;
	if (is_lost(t, found)) {
		t->is_lost = true;
		t->found = *found;
		t->until_ns = 0;
	} else if (found->kind == LEASE_HELD && found->generation >= t->lease.generation) {
		t->lease = *found;
		t->must_look = false;
		t->again_ns = now_ns;
		if (PLANTED(LOOK_RENEWS))
			t->until_ns = now_ns + t->spec.hold_ns;
	}
}
