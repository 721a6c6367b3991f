/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * timed - the mirror's core in virtual time, with a guest and a far side that take time
 *
 *      guest (depth writes in flight) --local 80 us--> answered after its delay --> next write
 *      far side: requests are served one after another at `rate`, each takes `latency` more, `per_op` is the least each costs
 */
#ifndef SXM_TESTS_SIM_TIMED_H
#define SXM_TESTS_SIM_TIMED_H

#include "mirror/core.h"

#define TIMED_DISK (256 * MiB)
#define TIMED_ITEMS_MAX 4096u
#define TIMED_OPS_MAX 16384u
#define TIMED_LOCAL_US 80u
#define TIMED_TOOK_MAX_US 20100u
#define TIMED_TOOK_STEP_US 10u

struct timed_scene {
	const char *name;
	uint64_t rate, latency_us, per_op_us; /* of the far side */
	unsigned depth, write_kib;            /* of the guest; depth 0: there is none */
	unsigned think_us;                    /* between an answer and the next write */
	uint64_t hot_bytes;                   /* where it writes */
	double most_s;                        /* until "complete" */
	bool may_hold;                        /* is pacing to be expected? */
	unsigned most_debt_ms;                /* the worst after "complete" */
	unsigned least_iops;                  /* from a second after it on; a guest like this is smoothly served, too */
	uint64_t hot_from, size_bytes;        /* where that begins; of the disk, 0: TIMED_DISK */
};

enum timed_kind { LOCAL, READ, FAR_LEG, FLUSHED_FAR, NEXT_WRITE, TICKS };
struct timed_item {
	uint64_t at_ns;
	enum timed_kind kind;
	struct core_op *op;
};

struct timed {
	const struct timed_scene *scene;
	struct core *core;
	uint64_t now_ns, far_free_ns, dice;
	uint64_t rate;            /* the scene's; may be changed */
	unsigned think_us;        /* likewise */
	unsigned depth, writing;  /* so many writes are to be about, and are */
	struct timed_item heap[TIMED_ITEMS_MAX];
	unsigned count;
	struct core_op ops[TIMED_OPS_MAX], *idle[TIMED_OPS_MAX];
	unsigned idle_count;
	struct core_status status;
	uint64_t written, held_us, synced_ns;
	uint32_t worst_us;
	uint64_t worst_debt_ms;
	unsigned took[TIMED_TOOK_MAX_US / TIMED_TOOK_STEP_US + 1]; /* so many writes, from a second after "complete" on */
};

void timed_start(struct timed *w, const struct timed_scene *scene);
/* The next thing that happens; now_ns and status are then of that moment. */
void timed_happen(struct timed *w);
/* More writes in flight, or fewer as they end. */
void timed_set_depth(struct timed *w, unsigned depth);
/* So many bytes a second at most; 0: no limit. */
void timed_set_limit(struct timed *w, uint64_t bytes_s);
void timed_stop(struct timed *w);

#endif
