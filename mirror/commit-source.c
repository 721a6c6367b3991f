/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * commit-source - the source role: whose the disk is while it is mirrored, offered and given
 *
 *      begin -> owned e --offer--> offered e+1 --give--> given e+1 --RECLAIMED, RELEASED, ENDED--> owned e+2
 *                 ^                   |  withdrawn                     '--TAKEN--> given, taken: for good
 *                 '------ e+2 --------'
 *
 * What the far side says of its own record, in whatever answer, is read against ours (n: our record's epoch):
 *
 *                     owned n                 offered n                     given n
 *      receiving      n: it receives          n-1: it receives              -
 *                                             n+1: RECLAIMED                n+1: RECLAIMED
 *      eligible       n-1: to be told         n: COMMIT is durable          n: as it should be
 *      owned          -                       n: TAKEN                      n: TAKEN
 *      released       n: RELEASED             n+1: RELEASED                 n+1: RELEASED
 *      incomplete     ENDED                   n-1, n+1: ENDED               n+1: ENDED, after a RECLAIM
 *                                                                           (all else: CONFLICT, or nothing)
 *
 * A given disk whose far side says `receiving n-1` again met a volume that has lost its record: no word about the owner.
 *
 * Can fail: nothing.  Invariant: whenever COMMIT may be under way, the record is offered, or above it by a withdrawal.
 */
#include <string.h>

#include "mirror/commit-private.h"

static struct commit_verdict refuse(const struct commit_record *r, enum commit_why why)
{
	return commit_verdict(r, COMMIT_REFUSE, why);
}

static struct commit_verdict allow(const struct commit_record *r)
{
	return commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);
}

/* --- the operation and its links */

struct commit_verdict commit_source_begin(const struct commit_record *r, const char *mirror)
{
	struct commit_verdict v = allow(r);
	struct commit_record *next = &v.next;

	assert(commit_mirror_is_valid(mirror));
	if (r->state == COMMIT_OFFERED)
		return refuse(r, COMMIT_WHY_OFFERED);
	if (r->state != COMMIT_OWNED || r->epoch > COMMIT_EPOCH_MAX)
		return refuse(r, COMMIT_WHY_NOT_OWNED);
	next->role = COMMIT_ROLE_SOURCE;
	memset(next->mirror, 0, sizeof(next->mirror));
	memcpy(next->mirror, mirror, strlen(mirror));
	next->generation = next->since = 0;
	next->is_unfenced = next->is_told = next->is_raised = next->is_ended = next->is_taken = false;
	next->lost_s = 0;
	v.shuts_out = r->role == COMMIT_ROLE_FAR; /* who waits here for news of an older mirror has had it, or asks anew */
	return commit_changed(v, r);
}

struct commit_verdict commit_source_connect(const struct commit_record *r, struct commit_link *link)
{
	struct commit_verdict v = allow(r);

	if (!commit_is_source(r))
		return refuse(r, COMMIT_WHY_NO_OPERATION);
	v.next.generation++;
	memcpy(link->mirror, r->mirror, sizeof(link->mirror));
	link->generation = v.next.generation;
	link->epoch = r->state == COMMIT_OWNED ? r->epoch : r->epoch - 1;
	return commit_changed(v, r);
}

struct commit_verdict commit_source_unfenced(const struct commit_record *r)
{
	struct commit_verdict v = allow(r);

	if (!commit_is_source(r) || r->state != COMMIT_OWNED)
		return refuse(r, COMMIT_WHY_NO_OPERATION);
	v.next.is_unfenced = true;
	return commit_changed(v, r);
}

struct commit_verdict commit_source_lost(const struct commit_record *r, int64_t now_s)
{
	struct commit_verdict v = allow(r);

	if (commit_is_source(r) && r->lost_s == 0)
		v.next.lost_s = MAX(now_s, 1);
	return commit_changed(v, r);
}

struct commit_verdict commit_source_linked(const struct commit_record *r)
{
	struct commit_verdict v = allow(r);

	if (commit_is_source(r))
		v.next.lost_s = 0;
	return commit_changed(v, r);
}

struct commit_verdict commit_source_tell(const struct commit_record *r)
{
	struct commit_verdict v = allow(r);

	if (!commit_is_source(r) || commit_is_over(r) || r->state == COMMIT_OFFERED)
		return refuse(r, COMMIT_WHY_NO_OPERATION);
	v.next.is_told = true;
	return commit_changed(v, r);
}

struct commit_verdict commit_source_settle(const struct commit_record *r)
{
	struct commit_verdict v = allow(r);

	if (!commit_is_source(r))
		return v;
	if (commit_is_in_doubt(r))
		return commit_verdict(r, COMMIT_ASK_GROUP, COMMIT_WHY_GROUP);
	if (r->state == COMMIT_OFFERED) {
		commit_own(&v.next, r->epoch + 1);
		v.why = COMMIT_WHY_WITHDRAWN;
	}
	commit_settle(&v.next);
	return commit_changed(v, r);
}

/* --- the barrier */

struct commit_verdict commit_source_offer(const struct commit_record *r)
{
	struct commit_verdict v = allow(r);

	if (r->state == COMMIT_OFFERED)
		return v;
	if (r->state != COMMIT_OWNED || !commit_is_source(r) || r->is_unfenced || commit_is_over(r))
		return refuse(r, COMMIT_WHY_NO_OPERATION);
	v.next.state = COMMIT_OFFERED;
	v.next.epoch = r->epoch + 1;
	return commit_changed(v, r);
}

struct commit_verdict commit_source_offer_in(const struct commit_record *r, const char *group)
{
	struct commit_verdict v;

	assert(commit_mirror_is_valid(group)); /* the same characters */
	if (r->state == COMMIT_OFFERED)
		return strcmp(r->group, group) == 0 ? allow(r) : refuse(r, COMMIT_WHY_OFFERED);
	v = commit_source_offer(r);
	if (v.does == COMMIT_ALLOW && !PLANTED(BUG_GROUP_UNNAMED))
		memcpy(v.next.group, group, strlen(group));
	return v;
}

struct commit_verdict commit_source_withdraw(const struct commit_record *r)
{
	struct commit_verdict v = allow(r);

	if (r->state != COMMIT_OFFERED)
		return refuse(r, COMMIT_WHY_NO_OPERATION);
	commit_own(&v.next, r->epoch + 1);
	v.why = COMMIT_WHY_WITHDRAWN;
	return commit_changed(v, r);
}

struct commit_verdict commit_source_give(const struct commit_record *r, uint64_t epoch)
{
	struct commit_verdict v = allow(r);

	if (r->state == COMMIT_GIVEN && epoch == r->epoch)
		return v;
	if (r->state != COMMIT_OFFERED || epoch != r->epoch)
		return refuse(r, COMMIT_WHY_NO_OPERATION);
	v.next.state = COMMIT_GIVEN;
	return commit_changed(v, r);
}

struct commit_verdict commit_source_give_unfenced(const struct commit_record *r)
{
	struct commit_verdict v = allow(r);

	if (r->state != COMMIT_OWNED || !commit_is_source(r) || !r->is_unfenced)
		return refuse(r, COMMIT_WHY_NO_OPERATION);
	commit_settle(&v.next);
	return commit_changed(v, r);
}

/* From offered nobody knows whether COMMIT arrived: e+2 is an epoch that the far side cannot be given by it. */
struct commit_verdict commit_source_barrier_failed(const struct commit_record *r)
{
	struct commit_verdict v = allow(r);

	if (!commit_is_source(r) || r->state == COMMIT_GIVEN)
		return v;
	if (commit_is_in_doubt(r))
		return commit_verdict(r, COMMIT_ASK_GROUP, COMMIT_WHY_GROUP);
	if (r->state == COMMIT_OFFERED) {
		commit_own(&v.next, PLANTED(BUG_WITHDRAW_KEEPS_EPOCH) ? r->epoch - 1 : r->epoch + 1);
		v.why = COMMIT_WHY_WITHDRAWN;
	}
	if (r->is_told) {
		v.does = PLANTED(BUG_RAISE_NEVER) ? COMMIT_ALLOW : COMMIT_RAISE;
		v.next.is_raised = !PLANTED(BUG_RAISE_AGAIN);
	} else {
		v.next.is_ended = true;
	}
	return commit_changed(v, r);
}

static bool is_forgiven(const struct commit_record *r, int64_t now_s)
{
	int64_t limit_s = r->is_unfenced ? COMMIT_LOST_RAISES_FOREIGN_S : COMMIT_LOST_RAISES_S;

	return r->lost_s > 0 && now_s - r->lost_s >= limit_s;
}

struct commit_verdict commit_deactivate(const struct commit_record *r, bool is_live, int64_t now_s)
{
	if (!commit_is_source(r) || r->state == COMMIT_GIVEN || !r->is_told || commit_is_over(r))
		return allow(r);
	if (r->state == COMMIT_OWNED && is_forgiven(r, now_s))
		return allow(r);
	if (commit_is_in_doubt(r))
		return commit_verdict(r, COMMIT_ASK_GROUP, COMMIT_WHY_GROUP);
	return is_live ? commit_verdict(r, COMMIT_BARRIER, COMMIT_WHY_NONE) : commit_source_barrier_failed(r);
}

/* --- what the far side says */

enum commit_state commit_news_state(enum commit_news news)
{
	switch (news) {
	case COMMIT_NEWS_ENDED:
		return COMMIT_INCOMPLETE;
	case COMMIT_NEWS_TAKEN:
		return COMMIT_OWNED;
	case COMMIT_NEWS_RELEASED:
		return COMMIT_RELEASED;
	default:
		return 0;
	}
}

static enum commit_meaning heard_in_owned(const struct commit_record *r, enum commit_state state, uint64_t epoch)
{
	switch (state) {
	case COMMIT_RECEIVING:
		if (epoch < r->epoch)
			return COMMIT_MEANS_NOTHING; /* it has not heard of the withdrawal yet */
		return epoch == r->epoch ? COMMIT_MEANS_RECEIVING : COMMIT_MEANS_CONFLICT;
	case COMMIT_ELIGIBLE:
		return epoch < r->epoch ? COMMIT_MEANS_ELIGIBLE : COMMIT_MEANS_CONFLICT;
	case COMMIT_RELEASED:
		return epoch <= r->epoch ? COMMIT_MEANS_RELEASED : COMMIT_MEANS_CONFLICT;
	case COMMIT_INCOMPLETE:
		return COMMIT_MEANS_ENDED;
	case COMMIT_OWNED:
		return COMMIT_MEANS_CONFLICT;
	default:
		return COMMIT_MEANS_NOTHING;
	}
}

static enum commit_meaning heard_in_offered(const struct commit_record *r, enum commit_state state, uint64_t epoch)
{
	switch (state) {
	case COMMIT_RECEIVING:
		if (epoch + 1 == r->epoch)
			return COMMIT_MEANS_RECEIVING;
		return epoch == r->epoch + 1 ? COMMIT_MEANS_RECLAIMED : COMMIT_MEANS_CONFLICT;
	case COMMIT_ELIGIBLE:
		return epoch == r->epoch ? COMMIT_MEANS_ELIGIBLE : COMMIT_MEANS_CONFLICT;
	case COMMIT_OWNED:
		return epoch == r->epoch ? COMMIT_MEANS_TAKEN : COMMIT_MEANS_CONFLICT;
	case COMMIT_RELEASED:
		return epoch == r->epoch + 1 ? COMMIT_MEANS_RELEASED : COMMIT_MEANS_CONFLICT;
	case COMMIT_INCOMPLETE:
		return epoch + 1 == r->epoch || epoch == r->epoch + 1 ? COMMIT_MEANS_ENDED : COMMIT_MEANS_CONFLICT;
	default:
		return COMMIT_MEANS_NOTHING;
	}
}

static enum commit_meaning heard_in_given(const struct commit_record *r, enum commit_state state, uint64_t epoch)
{
	bool is_back = epoch == r->epoch + 1;

	if (r->is_taken) /* final: what else is heard is older, and was overtaken by the news */
		return state == COMMIT_OWNED && epoch == r->epoch ? COMMIT_MEANS_TAKEN : COMMIT_MEANS_NOTHING;
	switch (state) {
	case COMMIT_RECEIVING:
		return is_back ? COMMIT_MEANS_RECLAIMED : COMMIT_MEANS_CONFLICT;
	case COMMIT_ELIGIBLE:
		return epoch == r->epoch ? COMMIT_MEANS_ELIGIBLE : COMMIT_MEANS_CONFLICT;
	case COMMIT_OWNED:
		return epoch == r->epoch ? COMMIT_MEANS_TAKEN : COMMIT_MEANS_CONFLICT;
	case COMMIT_RELEASED:
		return is_back ? COMMIT_MEANS_RELEASED : COMMIT_MEANS_CONFLICT;
	case COMMIT_INCOMPLETE:
		return is_back ? COMMIT_MEANS_ENDED : COMMIT_MEANS_CONFLICT;
	default:
		return COMMIT_MEANS_NOTHING;
	}
}

static enum commit_meaning hear(const struct commit_record *r, enum commit_state state, uint64_t epoch)
{
	switch (r->state) {
	case COMMIT_OWNED:
		return heard_in_owned(r, state, epoch);
	case COMMIT_OFFERED:
		return heard_in_offered(r, state, epoch);
	case COMMIT_GIVEN:
		return heard_in_given(r, state, epoch);
	default:
		return COMMIT_MEANS_NOTHING;
	}
}

struct commit_verdict commit_source_heard(const struct commit_record *r, enum commit_status status, enum commit_state state,
					  uint64_t epoch, enum commit_meaning *meaning)
{
	struct commit_verdict v = allow(r);
	bool is_word = status == COMMIT_STATUS_OK || status == COMMIT_STATUS_BAD_STATE;

	*meaning = is_word && commit_is_source(r) ? hear(r, state, epoch) : COMMIT_MEANS_NOTHING;
	switch (*meaning) {
	case COMMIT_MEANS_RECLAIMED:
	case COMMIT_MEANS_RELEASED:
	case COMMIT_MEANS_ENDED:
		if (r->state != COMMIT_OWNED)
			commit_own(&v.next, r->epoch + 1);
		v.next.is_ended = *meaning != COMMIT_MEANS_RECLAIMED || r->is_ended;
		break;
	case COMMIT_MEANS_TAKEN:
		v.next.state = COMMIT_GIVEN;
		v.next.is_taken = true;
		break;
	default:
		break;
	}
	return commit_changed(v, r);
}
