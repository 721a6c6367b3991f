/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * commit - who owns a disk, and how it is handed over
 *
 * Two hosts, two records, a network that loses answers.  A step is durable on one side before the other hears of it, so each
 * record may trail the other by one step and never by two, and what a side may do follows from its own record alone.
 *
 *      source (e: the epoch it owns)                            far side
 *
 *      owned e                                                  owned, not written --HELLO--> receiving e
 *         |  barrier: hold, drain, send, flush                                                   |        |
 *      offered e+1   writes are held                                                             |       END, MIR* goes
 *         |  ---------------- PREPARE, COMMIT ------------------------------------------------>  |        v
 *         |  <------------------------------------------------- OK ----------------------- eligible e+1   incomplete e
 *      given e+1     writes are refused; the verb succeeds                                  |    |    |
 *         |  <------------------------------------------------- TAKEN ---- activation: owned e+1 |    |
 *         |  ---------------- RECLAIM (the guest is back here) ---------------> receiving e+2 <--'    |
 *         |  <------------------------------------------------- RELEASED ---- destroy: released e+2 <-'
 *         v
 *      owned e+2     after RECLAIM's answer, after the news RELEASED, or by an admin's word
 *
 *      offered e+1 with a group: what the group's decision says (base/decision.h), and nothing else.
 *      offered e+1 --the barrier failed, or a guest is activated: withdrawn--> owned e+2, and RECLAIM where there is a link.
 *                    A link of the name e+2 is as good as RECLAIM: its name says that the source owns e+2.
 *      any far state --an admin forces it--> owned, of no mirror
 *
 * Where the laws leave it open, the safest reading:
 *
 *   - HELLO takes over receiving and incomplete of a dead mirror, never eligible, given, or released and not acknowledged: each
 *     may be the only copy.  `since` says from which generation on this mirror's bytes are here; a source whose map is older
 *     sends everything.
 *   - `incomplete` is final for its mirror: else an ENDED that was lost would let the far side start what nobody sends to.
 *   - COMMIT and RECLAIM are compare-and-set on the epoch of the link that asks: one that was overtaken changes nothing.
 *   - RECLAIM of what is still receiving makes it e+2 too: a COMMIT that is under way finds another epoch.
 *   - What was forced is of no mirror: the source must not take it for TAKEN.
 *   - Any writer but MIR* takes an eligible volume, dom0's too.  Read-only activation changes nothing and is refused only for a
 *     guest on what is receiving or incomplete.
 *   - A volume whose mirror had been complete and was never settled is not destroyed, raised, ended or not.
 *
 * Can fail: nothing.  Never happens: two records of one mirror that let guests write in one epoch.
 */
#include <string.h>

#include "mirror/commit-private.h"

/* --- the record */

void commit_record_init(struct commit_record *r)
{
	memset(r, 0, sizeof(*r));
	r->state = COMMIT_OWNED;
	r->epoch = 1;
}

static bool is_id_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool commit_mirror_is_valid(const char *id)
{
	size_t n = strnlen(id, COMMIT_MIRROR_MAX);

	if (n == 0 || n == COMMIT_MIRROR_MAX || id[0] == '.')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_id_char(id[i]))
			return false;
	return true;
}

static enum commit_role role_of(const struct commit_record *r)
{
	switch (r->state) {
	case COMMIT_OFFERED:
	case COMMIT_GIVEN:
		return COMMIT_ROLE_SOURCE;
	case COMMIT_RECEIVING:
	case COMMIT_ELIGIBLE:
	case COMMIT_INCOMPLETE:
	case COMMIT_RELEASED:
		return COMMIT_ROLE_FAR;
	case COMMIT_OWNED:
		break;
	}
	return r->role;
}

bool commit_record_is_valid(const struct commit_record *r)
{
	if (r->state < COMMIT_OWNED || r->state > COMMIT_RELEASED || r->epoch == 0 || r->epoch > COMMIT_EPOCH_MAX + 2)
		return false;
	if (r->role > COMMIT_ROLE_FAR || r->role != role_of(r))
		return false;
	if (r->role == COMMIT_ROLE_NONE ? r->mirror[0] != '\0' : !commit_mirror_is_valid(r->mirror))
		return false;
	if ((r->state == COMMIT_OFFERED || r->state == COMMIT_GIVEN) && (r->epoch < 2 || r->is_unfenced))
		return false;
	if (r->group[0] && ((r->state != COMMIT_OFFERED && r->state != COMMIT_GIVEN) || !commit_mirror_is_valid(r->group)))
		return false;
	return r->since <= r->generation && r->lost_s >= 0;
}

static const char *const state_names[] = {
	[COMMIT_OWNED] = "owned",         [COMMIT_OFFERED] = "offered",       [COMMIT_GIVEN] = "given",
	[COMMIT_RECEIVING] = "receiving", [COMMIT_ELIGIBLE] = "eligible",     [COMMIT_INCOMPLETE] = "incomplete",
	[COMMIT_RELEASED] = "released",
};

const char *commit_state_name(enum commit_state s)
{
	return s >= COMMIT_OWNED && s <= COMMIT_RELEASED ? state_names[s] : "unknown";
}

bool commit_state_by_name(const char *name, enum commit_state *s)
{
	for (enum commit_state i = COMMIT_OWNED; i <= COMMIT_RELEASED; i++) {
		if (strcmp(name, state_names[i]) == 0) {
			*s = i;
			return true;
		}
	}
	return false;
}

static const char *const why_texts[COMMIT_WHY_COUNT] = {
	[COMMIT_WHY_NONE] = "nothing is in the way",
	[COMMIT_WHY_RECEIVING] = "it is receiving a mirror and is not complete; wait for the move to end, or force it",
	[COMMIT_WHY_INCOMPLETE] = "the mirror into it ended before it was complete; use the source, or force it",
	[COMMIT_WHY_RELEASED] = "it was given back to its source; use that one, or force it",
	[COMMIT_WHY_TAKEN] = "it was moved to another host and runs there",
	[COMMIT_WHY_GIVEN] = "it was moved to another host, which cannot be asked now; if it does not run there: sxm epoch take",
	[COMMIT_WHY_PENDING] = "it is being handed over at this moment",
	[COMMIT_WHY_OFFERED] = "its handover to another host was begun and not ended; deactivate or activate it first",
	[COMMIT_WHY_NOT_OWNED] = "it is not owned here: only its owner can mirror it",
	[COMMIT_WHY_UNRESOLVED] = "a mirror of it had been complete and failed: this may be the only good copy; "
				  "activate it, or destroy the operation first",
	[COMMIT_WHY_ONLY_COPY] = "its source cannot be asked, and this may be the only copy; wait a day, or force it",
	[COMMIT_WHY_UNACKNOWLEDGED] = "it was given back, and its source has not said yet that it has it",
	[COMMIT_WHY_OWNED] = "it is owned here already",
	[COMMIT_WHY_STARTED] = "a guest was started from it since it was handed over",
	[COMMIT_WHY_NOT_GIVEN] = "it was not given away: only the source of a move that is over may be written over",
	[COMMIT_WHY_NO_OPERATION] = "no mirror of it is in a state for this",
	[COMMIT_WHY_UNVERIFIED] = "a foreign source wrote it, which cannot say whether it was complete",
	[COMMIT_WHY_FORCED] = "by force",
	[COMMIT_WHY_GROUP] = "it is being handed over together with other disks, and that is not settled yet; try again, or run "
			     "sxm-handover again",
	[COMMIT_WHY_WITHDRAWN] = "its handover was withdrawn, and the far side may not know: do not start it there",
};

const char *commit_why_text(enum commit_why why)
{
	return why < COMMIT_WHY_COUNT ? why_texts[why] : "unknown";
}

/* --- verdicts */

struct commit_verdict commit_verdict(const struct commit_record *r, enum commit_does does, enum commit_why why)
{
	return (struct commit_verdict){ .does = does, .why = why, .next = *r };
}

static bool is_same(const struct commit_record *a, const struct commit_record *b)
{
	return a->state == b->state && a->role == b->role && a->epoch == b->epoch && strcmp(a->mirror, b->mirror) == 0 &&
	       a->generation == b->generation && a->was_written == b->was_written && a->since == b->since &&
	       a->is_acknowledged == b->is_acknowledged && a->is_unverified == b->is_unverified &&
	       a->is_unfenced == b->is_unfenced && a->is_told == b->is_told && a->is_raised == b->is_raised &&
	       a->is_ended == b->is_ended && a->is_taken == b->is_taken && a->lost_s == b->lost_s &&
	       strcmp(a->group, b->group) == 0;
}

struct commit_verdict commit_changed(struct commit_verdict v, const struct commit_record *r)
{
	v.is_changed = !is_same(&v.next, r);
	return v;
}

void commit_own(struct commit_record *next, uint64_t epoch)
{
	next->state = COMMIT_OWNED;
	next->epoch = epoch;
	next->is_taken = false;
	memset(next->group, 0, sizeof(next->group));
}

void commit_settle(struct commit_record *next)
{
	next->is_told = false;
	next->is_ended = true;
	next->lost_s = 0;
}

bool commit_is_source(const struct commit_record *r)
{
	return r->role == COMMIT_ROLE_SOURCE;
}

bool commit_is_in_doubt(const struct commit_record *r)
{
	return r->state == COMMIT_OFFERED && r->group[0] && !PLANTED(BUG_DOUBT_FORGOTTEN);
}

bool commit_is_over(const struct commit_record *r)
{
	return r->is_raised || r->is_ended;
}

bool commit_is_of(const struct commit_record *r, const struct commit_link *link)
{
	return r->role == COMMIT_ROLE_FAR && strcmp(r->mirror, link->mirror) == 0;
}

/* --- activation */

static void force(struct commit_verdict *v)
{
	commit_own(&v->next, v->next.epoch + 1);
	v->next.role = COMMIT_ROLE_NONE;
	v->next.mirror[0] = '\0';
	v->next.generation = v->next.since = 0;
	v->next.is_acknowledged = false;
	v->next.was_written = true;
	v->shuts_out = true;
	v->why = COMMIT_WHY_FORCED;
}

static struct commit_verdict activate_or_force(const struct commit_record *r, const struct commit_activation *a,
					       enum commit_why why)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);

	if (!a->is_forced)
		return commit_verdict(r, COMMIT_REFUSE, why);
	force(&v);
	return commit_changed(v, r);
}

static struct commit_verdict activate_owned(const struct commit_record *r)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);

	if (r->is_unverified && !r->was_written)
		v.why = COMMIT_WHY_UNVERIFIED;
	v.next.was_written = true;
	if (commit_is_over(r))
		commit_settle(&v.next);
	return commit_changed(v, r);
}

/* A COMMIT may have been sent. Where the far side can be asked it is asked: it knows. */
static struct commit_verdict activate_offered(const struct commit_record *r, const struct commit_activation *a)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_WITHDRAWN);

	if (PLANTED(BUG_WITHDRAW_FORGOTTEN))
		return v;
	if (commit_is_in_doubt(r))
		return commit_verdict(r, COMMIT_ASK_GROUP, COMMIT_WHY_GROUP);
	if (a->is_pending)
		return commit_verdict(r, COMMIT_WAIT, COMMIT_WHY_PENDING);
	if (a->is_linked)
		return commit_verdict(r, COMMIT_ASK_RECLAIM, COMMIT_WHY_OFFERED);
	commit_own(&v.next, PLANTED(BUG_WITHDRAW_KEEPS_EPOCH) ? r->epoch - 1 : r->epoch + 1);
	v.next.was_written = true;
	return commit_changed(v, r);
}

static struct commit_verdict activate_given(const struct commit_record *r, const struct commit_activation *a)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);

	if (PLANTED(BUG_GIVEN_ACTIVATES)) {
		commit_own(&v.next, r->epoch + 1);
		return commit_changed(v, r);
	}
	if (r->is_taken)
		return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_TAKEN);
	if (a->is_linked)
		return commit_verdict(r, COMMIT_ASK_RECLAIM, COMMIT_WHY_GIVEN);
	return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_GIVEN);
}

static struct commit_verdict take_eligible(const struct commit_record *r)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);

	commit_own(&v.next, r->epoch);
	v.next.was_written = true;
	return commit_changed(v, r);
}

static struct commit_verdict activate_reader(const struct commit_record *r, const struct commit_activation *a)
{
	if (a->domain != COMMIT_GUEST || (r->state != COMMIT_RECEIVING && r->state != COMMIT_INCOMPLETE))
		return commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);
	if (a->is_forced)
		return commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_FORCED);
	return commit_verdict(r, COMMIT_REFUSE,
			      r->state == COMMIT_RECEIVING ? COMMIT_WHY_RECEIVING : COMMIT_WHY_INCOMPLETE);
}

static bool is_started_by_bug(const struct commit_record *r)
{
	return (PLANTED(BUG_RECEIVING_ACTIVATES) && r->state == COMMIT_RECEIVING) ||
	       (PLANTED(BUG_INCOMPLETE_ACTIVATES) && r->state == COMMIT_INCOMPLETE) ||
	       (PLANTED(BUG_RELEASED_ACTIVATES) && r->state == COMMIT_RELEASED);
}

struct commit_verdict commit_activate(const struct commit_record *r, const struct commit_activation *a)
{
	if (a->domain == COMMIT_MIRROR)
		return commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);
	if (a->is_read_only)
		return activate_reader(r, a);
	if (is_started_by_bug(r))
		return take_eligible(r);
	switch (r->state) {
	case COMMIT_OWNED:
		return activate_owned(r);
	case COMMIT_OFFERED:
		return activate_offered(r, a);
	case COMMIT_GIVEN:
		return activate_given(r, a);
	case COMMIT_ELIGIBLE:
		return take_eligible(r);
	case COMMIT_RECEIVING:
		return activate_or_force(r, a, COMMIT_WHY_RECEIVING);
	case COMMIT_INCOMPLETE:
		return activate_or_force(r, a, COMMIT_WHY_INCOMPLETE);
	case COMMIT_RELEASED:
		return activate_or_force(r, a, COMMIT_WHY_RELEASED);
	}
	return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_NO_OPERATION);
}

/* --- writes */

static enum commit_does write_local(const struct commit_record *r)
{
	if (r->state == COMMIT_OWNED)
		return COMMIT_ALLOW;
	if (r->state == COMMIT_OFFERED)
		return PLANTED(BUG_OFFERED_WRITES) ? COMMIT_ALLOW : COMMIT_WAIT;
	return PLANTED(BUG_GIVEN_WRITES) && r->state == COMMIT_GIVEN ? COMMIT_ALLOW : COMMIT_REFUSE;
}

/* Whatever the link's epoch: a source that has not heard of a RECLAIM sends nothing, its own record forbids it. */
static bool is_link_writing(const struct commit_record *r, const struct commit_link *link)
{
	return commit_is_of(r, link) && r->state == COMMIT_RECEIVING && r->generation == link->generation;
}

/* What was taken runs a guest, and a mirror's late connection has no business there. */
static bool is_foreign_writing(const struct commit_record *r)
{
	return (r->state == COMMIT_OWNED && r->role != COMMIT_ROLE_FAR) || r->state == COMMIT_INCOMPLETE;
}

enum commit_does commit_write(const struct commit_record *r, enum commit_writer who, const struct commit_link *link)
{
	switch (who) {
	case COMMIT_LOCAL:
		return write_local(r);
	case COMMIT_LINKED:
		return is_link_writing(r, link) ? COMMIT_ALLOW : COMMIT_REFUSE;
	case COMMIT_FOREIGN:
		return is_foreign_writing(r) ? COMMIT_ALLOW : COMMIT_REFUSE;
	}
	return COMMIT_REFUSE;
}

/* --- destruction and the admin's word */

static struct commit_verdict destroy_only_copy(const struct commit_record *r, const struct commit_destruction *d)
{
	if (d->is_forced || d->unlinked_s >= COMMIT_UNLINKED_DESTROY_S)
		return commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_FORCED);
	return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_ONLY_COPY);
}

static struct commit_verdict destroy_eligible(const struct commit_record *r, const struct commit_destruction *d)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_WAIT, COMMIT_WHY_UNACKNOWLEDGED);

	if (PLANTED(BUG_DESTROY_WITHOUT_RELEASE))
		return commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);
	if (!d->is_linked)
		return destroy_only_copy(r, d);
	v.next.state = COMMIT_RELEASED;
	v.next.epoch = r->epoch + 1;
	v.next.is_acknowledged = false;
	return commit_changed(v, r);
}

static struct commit_verdict destroy_released(const struct commit_record *r, const struct commit_destruction *d)
{
	if (r->is_acknowledged || PLANTED(BUG_DESTROY_UNACKNOWLEDGED))
		return commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);
	if (d->is_linked && !d->is_forced)
		return commit_verdict(r, COMMIT_WAIT, COMMIT_WHY_UNACKNOWLEDGED);
	return destroy_only_copy(r, d);
}

static struct commit_verdict destroy_source(const struct commit_record *r, const struct commit_destruction *d)
{
	bool is_unresolved = r->state == COMMIT_OFFERED || r->is_told;

	if (!is_unresolved || PLANTED(BUG_DESTROY_UNRESOLVED))
		return commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);
	return commit_verdict(r, d->is_forced ? COMMIT_ALLOW : COMMIT_REFUSE,
			      d->is_forced ? COMMIT_WHY_FORCED : COMMIT_WHY_UNRESOLVED);
}

struct commit_verdict commit_destroy(const struct commit_record *r, const struct commit_destruction *d)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);

	switch (r->state) {
	case COMMIT_OWNED:
	case COMMIT_OFFERED:
		return destroy_source(r, d);
	case COMMIT_RECEIVING:
		v.next.state = COMMIT_INCOMPLETE;
		return commit_changed(v, r);
	case COMMIT_ELIGIBLE:
		return destroy_eligible(r, d);
	case COMMIT_RELEASED:
		return destroy_released(r, d);
	case COMMIT_GIVEN:
	case COMMIT_INCOMPLETE:
		break;
	}
	return v;
}

/* offered and given: nobody may know any more whose it is. The operation is over with it. */
static struct commit_verdict take_source(const struct commit_record *r, bool is_forced)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_WITHDRAWN);

	if (commit_is_in_doubt(r) && !is_forced)
		return commit_verdict(r, COMMIT_ASK_GROUP, COMMIT_WHY_GROUP);
	if (r->is_taken && !is_forced)
		return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_TAKEN);
	commit_own(&v.next, r->epoch + 1);
	v.next.was_written = true;
	commit_settle(&v.next);
	return commit_changed(v, r);
}

struct commit_verdict commit_take(const struct commit_record *r, bool is_forced)
{
	struct commit_activation a = { .domain = COMMIT_GUEST, .is_forced = is_forced };

	switch (r->state) {
	case COMMIT_OWNED:
		return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_OWNED);
	case COMMIT_OFFERED:
	case COMMIT_GIVEN:
		return take_source(r, is_forced);
	default:
		return commit_activate(r, &a);
	}
}

struct commit_verdict commit_recall(const struct commit_record *r, const char *mirror, uint64_t epoch)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);
	bool is_later = r->epoch + (r->state == COMMIT_ELIGIBLE) > epoch; /* it was handed over since */

	if (r->role != COMMIT_ROLE_FAR || strcmp(r->mirror, mirror) != 0 || epoch > COMMIT_EPOCH_MAX)
		return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_NO_OPERATION);
	if (r->state == COMMIT_INCOMPLETE)
		return v;
	if (r->state == COMMIT_OWNED)
		return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_STARTED);
	if (is_later && !PLANTED(BUG_RECALL_ANY_EPOCH))
		return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_NO_OPERATION);
	if (r->state == COMMIT_RELEASED) {
		v.next.is_acknowledged = true;
	} else {
		v.next.state = COMMIT_INCOMPLETE;
		v.next.epoch = epoch;
	}
	v.shuts_out = true;
	return commit_changed(v, r);
}

/* Of the same mirror still, so that a late word of its far side finds that it has ended. */
struct commit_verdict commit_drop(const struct commit_record *r)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);

	if (r->state == COMMIT_INCOMPLETE && r->role == COMMIT_ROLE_FAR)
		return v;
	if (r->state != COMMIT_GIVEN)
		return commit_verdict(r, COMMIT_REFUSE, COMMIT_WHY_NOT_GIVEN);
	commit_record_init(&v.next);
	v.next.state = PLANTED(BUG_DROP_OWNS) ? COMMIT_OWNED : COMMIT_INCOMPLETE;
	v.next.role = COMMIT_ROLE_FAR;
	v.next.epoch = r->epoch;
	v.next.generation = r->generation;
	v.next.volume = r->volume;
	memcpy(v.next.mirror, r->mirror, sizeof(v.next.mirror));
	return commit_changed(v, r);
}
