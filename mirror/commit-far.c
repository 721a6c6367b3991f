/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * commit-far - the far role: what a link may ask of the volume it writes to
 *
 *                    HELLO of our mirror              HELLO of another                 COMMIT      RECLAIM     END
 *      owned         never written: receiving         the same                         -           -           -
 *      receiving     older generation: STALE          live link: NOT_YOURS, else ours  eligible    receiving   incomplete
 *      eligible      the same; a newer epoch: RECLAIM NOT_YOURS                        OK again    receiving   -
 *      taken         BAD_STATE: it is TAKEN           NOT_YOURS                        -           -           -
 *      incomplete    BAD_STATE: it has ENDED          ours                             -           -           OK again
 *      released      OK: it is RELEASED               acknowledged: ours               -           -           -
 *                                                                                      (-: BAD_STATE)
 *
 * A request counts only on a link of the record's mirror and generation; COMMIT and RECLAIM only in the link's epoch.
 *
 * Can fail: nothing.  Never happens: a state changes without its epoch or its mirror changing too, but for receiving that
 * becomes incomplete, and eligible that is taken.
 */
#include <string.h>

#include "mirror/commit-private.h"

static struct commit_verdict answer(const struct commit_record *r, enum commit_status status)
{
	struct commit_verdict v = commit_verdict(r, status == COMMIT_STATUS_OK ? COMMIT_ALLOW : COMMIT_REFUSE, COMMIT_WHY_NONE);

	v.status = status;
	if (status != COMMIT_STATUS_OK)
		v.why = COMMIT_WHY_NO_OPERATION;
	return v;
}

/* --- HELLO */

static bool is_link_valid(const struct commit_link *link)
{
	return commit_mirror_is_valid(link->mirror) && link->generation > 0 && link->epoch > 0 && link->epoch <= COMMIT_EPOCH_MAX;
}

/* May a mirror that is not the record's have the volume? */
static bool is_free(const struct commit_record *r, bool other_is_linked)
{
	switch (r->state) {
	case COMMIT_OWNED:
		return r->role != COMMIT_ROLE_SOURCE && (!r->was_written || PLANTED(BUG_HELLO_TAKES_WRITTEN)) && !other_is_linked;
	case COMMIT_RECEIVING:
	case COMMIT_INCOMPLETE:
		return !other_is_linked;
	case COMMIT_RELEASED:
		return r->is_acknowledged && !other_is_linked;
	case COMMIT_ELIGIBLE:
		return PLANTED(BUG_HELLO_TAKES_ELIGIBLE);
	case COMMIT_OFFERED:
	case COMMIT_GIVEN:
		break;
	}
	return false;
}

static struct commit_verdict hello_another(const struct commit_record *r, const struct commit_link *link, bool other_is_linked)
{
	struct commit_verdict v;
	uint64_t since = PLANTED(BUG_HELLO_KEEPS_SINCE) && r->since ? r->since : link->generation;

	if (!is_free(r, other_is_linked))
		return answer(r, COMMIT_STATUS_NOT_YOURS);
	v = answer(r, COMMIT_STATUS_OK);
	commit_record_init(&v.next);
	v.next.volume = r->volume;
	v.next.state = COMMIT_RECEIVING;
	v.next.role = COMMIT_ROLE_FAR;
	v.next.epoch = v.link_epoch = link->epoch;
	memcpy(v.next.mirror, link->mirror, sizeof(v.next.mirror));
	v.next.generation = link->generation;
	v.next.since = MIN(since, link->generation);
	v.shuts_out = true;
	return commit_changed(v, r);
}

/* The name's epoch is where the source was when it connected: this volume may be one step ahead of it, or two. */
static bool is_epoch_near(const struct commit_record *r, uint64_t epoch)
{
	switch (r->state) {
	case COMMIT_RECEIVING:
		return epoch == r->epoch || epoch + 2 == r->epoch;
	case COMMIT_ELIGIBLE:
		return epoch + 1 == r->epoch;
	default:
		return true; /* released: no link writes, none can change it */
	}
}

static void hello_again(struct commit_verdict *v, const struct commit_link *link)
{
	struct commit_record *next = &v->next;

	v->shuts_out = next->generation != link->generation;
	next->generation = link->generation;
	if (PLANTED(BUG_HELLO_REOPENS) && next->state == COMMIT_ELIGIBLE) {
		next->state = COMMIT_RECEIVING;
		next->epoch = link->epoch;
	}
	if (link->epoch > next->epoch && next->state != COMMIT_RELEASED) { /* what was offered was withdrawn */
		next->state = COMMIT_RECEIVING;
		next->epoch = link->epoch;
	}
	v->link_epoch = link->epoch;
}

struct commit_verdict commit_far_hello(const struct commit_record *r, const struct commit_link *link, bool other_is_linked)
{
	struct commit_verdict v;

	if (!is_link_valid(link))
		return answer(r, COMMIT_STATUS_NOT_YOURS);
	if (!commit_is_of(r, link))
		return hello_another(r, link, other_is_linked);
	if (r->state == COMMIT_OWNED || r->state == COMMIT_INCOMPLETE)
		return answer(r, COMMIT_STATUS_BAD_STATE);
	if (link->generation < r->generation && !PLANTED(BUG_HELLO_TAKES_OLDER))
		return answer(r, COMMIT_STATUS_STALE);
	if (link->epoch < r->epoch && !is_epoch_near(r, link->epoch))
		return answer(r, COMMIT_STATUS_STALE);
	v = answer(r, COMMIT_STATUS_OK);
	hello_again(&v, link);
	return commit_changed(v, r);
}

/* --- what an admitted link asks */

/* OK: the link is one of the record's mirror and generation. */
static enum commit_status check_link(const struct commit_record *r, const struct commit_link *link)
{
	if (!commit_is_of(r, link))
		return COMMIT_STATUS_NOT_YOURS;
	if (link->generation < r->generation)
		return COMMIT_STATUS_STALE;
	return link->generation == r->generation ? COMMIT_STATUS_OK : COMMIT_STATUS_BAD_STATE;
}

static bool is_receiving_for(const struct commit_record *r, const struct commit_link *link)
{
	return r->state == COMMIT_RECEIVING && (r->epoch == link->epoch || PLANTED(BUG_COMMIT_ANY_EPOCH));
}

struct commit_verdict commit_far_prepare(const struct commit_record *r, const struct commit_link *link)
{
	enum commit_status status = check_link(r, link);

	if (status == COMMIT_STATUS_OK && !is_receiving_for(r, link))
		status = COMMIT_STATUS_BAD_STATE;
	return answer(r, status);
}

struct commit_verdict commit_far_commit(const struct commit_record *r, const struct commit_link *link, bool is_flushed)
{
	struct commit_verdict v = answer(r, check_link(r, link));

	if (v.status != COMMIT_STATUS_OK || (r->state == COMMIT_ELIGIBLE && r->epoch == link->epoch + 1))
		return v;
	if (!is_receiving_for(r, link))
		return answer(r, COMMIT_STATUS_BAD_STATE);
	if (!is_flushed && !PLANTED(BUG_COMMIT_UNFLUSHED))
		return answer(r, COMMIT_STATUS_FAILED);
	v.next.state = COMMIT_ELIGIBLE;
	v.next.epoch = r->epoch + 1;
	return commit_changed(v, r);
}

/* Receiving in the link's own epoch: COMMIT has not come, and if it comes now, it comes too late. */
static bool is_reclaimable(const struct commit_record *r, const struct commit_link *link)
{
	if (r->state == COMMIT_RECEIVING)
		return r->epoch == link->epoch || r->epoch == link->epoch + 2;
	if (r->state == COMMIT_ELIGIBLE)
		return r->epoch == link->epoch + 1;
	return PLANTED(BUG_RECLAIM_OF_TAKEN) && r->state == COMMIT_OWNED;
}

struct commit_verdict commit_far_reclaim(const struct commit_record *r, const struct commit_link *link)
{
	struct commit_verdict v = answer(r, check_link(r, link));

	if (v.status != COMMIT_STATUS_OK)
		return v;
	if (!is_reclaimable(r, link))
		return answer(r, COMMIT_STATUS_BAD_STATE);
	v.next.state = COMMIT_RECEIVING;
	v.next.epoch = v.link_epoch = link->epoch + (PLANTED(BUG_RECLAIM_KEEPS_EPOCH) ? 0 : 2);
	return commit_changed(v, r);
}

static void end(struct commit_record *next)
{
	next->state = COMMIT_INCOMPLETE;
}

struct commit_verdict commit_far_end(const struct commit_record *r, const struct commit_link *link)
{
	struct commit_verdict v = answer(r, check_link(r, link));

	if (v.status != COMMIT_STATUS_OK || r->state == COMMIT_INCOMPLETE)
		return v;
	if (r->state != COMMIT_RECEIVING)
		return answer(r, COMMIT_STATUS_BAD_STATE);
	end(&v.next);
	return commit_changed(v, r);
}

struct commit_verdict commit_far_ping(const struct commit_record *r, const struct commit_link *link)
{
	return answer(r, check_link(r, link));
}

struct commit_verdict commit_far_acknowledged(const struct commit_record *r, const struct commit_link *link)
{
	struct commit_verdict v = answer(r, check_link(r, link));

	if (v.status != COMMIT_STATUS_OK)
		return v;
	if (r->state != COMMIT_RELEASED)
		return answer(r, COMMIT_STATUS_BAD_STATE);
	v.next.is_acknowledged = true;
	return commit_changed(v, r);
}

enum commit_news commit_far_news(const struct commit_record *r, const struct commit_link *link)
{
	if (!commit_is_of(r, link))
		return COMMIT_NEWS_NONE;
	switch (r->state) {
	case COMMIT_INCOMPLETE:
		return COMMIT_NEWS_ENDED;
	case COMMIT_OWNED:
		return COMMIT_NEWS_TAKEN;
	case COMMIT_RELEASED:
		return r->is_acknowledged ? COMMIT_NEWS_NONE : COMMIT_NEWS_RELEASED;
	default:
		return COMMIT_NEWS_NONE;
	}
}

/* --- what happens here */

struct commit_verdict commit_far_lost(const struct commit_record *r)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);

	if (PLANTED(BUG_DISC_IS_COMMIT) && r->state == COMMIT_RECEIVING) {
		v.next.state = COMMIT_ELIGIBLE;
		v.next.epoch = r->epoch + 1;
	}
	return commit_changed(v, r);
}

struct commit_verdict commit_far_give_up(const struct commit_record *r)
{
	struct commit_verdict v = commit_verdict(r, COMMIT_ALLOW, COMMIT_WHY_NONE);

	if (r->state == COMMIT_RECEIVING || (PLANTED(BUG_GIVE_UP_OF_ELIGIBLE) && r->state == COMMIT_ELIGIBLE))
		end(&v.next);
	return commit_changed(v, r);
}

struct commit_verdict commit_far_foreign(const struct commit_record *r)
{
	struct commit_verdict v = commit_verdict(r, commit_write(r, COMMIT_FOREIGN, NULL), COMMIT_WHY_NONE);

	if (v.does == COMMIT_ALLOW && r->state == COMMIT_OWNED)
		v.next.is_unverified = true;
	return commit_changed(v, r);
}
