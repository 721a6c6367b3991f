/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * view - what is seen of a move at one moment
 *
 *      struct move_view v = { .started_ms = now };
 *      view_set_id(&v, "7f3a");
 *      view_add_disk(&v, "root", &e);                          once for each disk
 *
 *      each interval:
 *              view_from_status(&v.disk[i], status, operation, &e)     or view_lost(&v.disk[i], why)
 *              v.phase = "syncing";  v.now_ms = now;
 *              view_advance(&v)                                rates, latencies and when it will be done, from what was before
 *              progress_show(p, &v);  history_append(h, &v)
 *
 * Texts are as others gave them: whoever shows them makes them fit for that.  Times are Unix time in ms; 0: not yet.
 */
#ifndef SXM_MIGRATE_VIEW_H
#define SXM_MIGRATE_VIEW_H

#include "base/compiler.h"
#include "base/error.h"

#define VIEW_TEXT_MAX 256u
#define VIEW_NAME_MAX 128u
#define VIEW_STATE_MAX 16u
#define VIEW_BUCKETS_MAX 128u
#define VIEW_UNKNOWN (-1) /* as ETA_UNKNOWN */
#define VIEW_DISKS_MAX 256u

/* How long requests took, since ever: so many took at most so long. Ascending. */
struct view_bucket {
	uint64_t us, count;
};
struct view_latency {
	unsigned count;
	struct view_bucket item[VIEW_BUCKETS_MAX];
};

/* What a status says, all of it since the operation (of the guest: its server) began. */
struct view_figures {
	uint64_t sent_bytes, zeroed_bytes, skipped_bytes, copied_bytes, overflow_bytes;
	uint64_t guest_writes, guest_written_bytes, guest_write_us, guest_reads, guest_read_bytes;
	struct view_latency guest; /* its writes */
};

struct move_disk {
	char name[VIEW_NAME_MAX];
	char operation[VIEW_NAME_MAX]; /* "": there is none */
	char remote[VIEW_TEXT_MAX];
	char state[VIEW_STATE_MAX]; /* the mirror's (PROTOCOL.control); "": there is none, "lost": nobody answers */
	char why[VIEW_TEXT_MAX];    /* the reason why it waits, or failed; "": it does not */
	bool is_copy, is_complete, is_failed, is_ended, is_linked, is_stalled, is_sync, is_remembered, is_given, is_verified;
	bool is_pace_at_limit;
	bool is_stream;             /* no mirror: bytes that go one way, and no guest beside them */

	uint64_t size_bytes;        /* of the disk */
	uint64_t total_bytes;       /* what was owed when it began */
	uint64_t done_bytes;        /* of that; never goes back while the operation is the same */
	uint64_t dirty_bytes, lag_bytes, limit_bytes;
	uint64_t core_rate_bytes;   /* what the far side takes a second, while it has something to do */
	int64_t pace_us, pace_ops;
	int64_t running_ms, ready_ms;
	int64_t link, links_lost;
	uint64_t far_latency_us, far_flush_us;
	struct view_figures figures;

	/* view_advance()'s: of the last interval, and from now on */
	uint64_t rate_bytes;        /* a second, towards the far side */
	uint64_t guest_rate_bytes, guest_rate_ops;
	int64_t guest_latency_us, guest_p99_us; /* of its writes; VIEW_UNKNOWN: none, or not measured */
	int64_t eta_ms;             /* until the sides are the same; VIEW_UNKNOWN; 0: they are */
	int64_t downtime_ms;        /* that a switchover now would cost this disk; VIEW_UNKNOWN */

	struct view_past *past;     /* view.c's own; owned */
};

struct move_view {
	char id[VIEW_NAME_MAX];
	const char *phase;          /* borrowed: a word, the journey's */
	char why[VIEW_TEXT_MAX];    /* what the move as a whole waits for; "" */
	int64_t started_ms, now_ms, ended_ms;
	int64_t finish_by_ms;       /* when it is to be done, where that was said; 0 */
	bool is_late;               /* it will not be */
	int64_t held_ms, released_ms; /* the guest was held, and went on: the downtime */
	bool is_failed;
	int64_t eta_ms, downtime_ms; /* of all disks together: view_advance()'s */
	struct move_disk *disk;     /* owned */
	unsigned disks;
};

void view_set_id(struct move_view *v, const char *id);
/* The new disk; moves v->disk. NULL + e: out of memory, or VIEW_DISKS_MAX are there. */
struct move_disk *view_add_disk(struct move_view *v, const char *name, struct error *e);
void view_remove_disk(struct move_view *v, unsigned i); /* those after it move up */
void view_clear(struct move_view *v);

/* text: the "ok" of the control verb `status`. operation: which one of it; NULL or "": the newest that is no copy, or else the
 * newest. Without such an operation the state is "", and 0 is returned. What view_advance() fills is left alone.
 * -1 + e: it is no status. */
int view_from_status(struct move_disk *d, const char *text, const char *operation, struct error *e);
/* Nobody answers for the disk: what was known stays, the state is "lost". */
void view_lost(struct move_disk *d, const char *why);
/* now_ms is set; each disk was filled. Intervals may be of any length; 0: nothing changes. */
void view_advance(struct move_view *v);
/* Of all disks together, a second: what they send, as eta_taken_bytes(); and what they have to, at least, for both sides to
 * be the same in so long, as eta_rate_for(). */
double view_taken_bytes(const struct move_view *v);
uint64_t view_rate_for(const struct move_view *v, int64_t left_ms);

#endif
