/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * plan - what a move will do, how long it may take, and why it would be refused: from what both hosts say of themselves
 *
 * Pure. A plan is for people and programs to read before anything is done; what the journey does is the same list of steps.
 */
#ifndef SXM_MIGRATE_PLAN_H
#define SXM_MIGRATE_PLAN_H

#include "base/compiler.h"
#include "base/error.h"
#include "base/jsonspec.h"

/* --- the inventories: PROTOCOL.relay's volume.find and sr.find */

struct plan_user {
	char *domain;
	bool active, read_only;
};
struct plan_volume {
	char *sr, *key, *name, *description, *uri, *path, *id, *format, *owner, *operation;
	int64_t size_bytes, allocated_bytes;
	bool read_write, sharable, cbt, operation_failed;
	struct jsonspec_map keys;
	struct jsonspec_records domains; /* struct plan_user */
};
struct plan_sr {
	char *sr, *dir, *uuid, *name, *type, *format, *health;
	int64_t free_bytes, total_bytes;
	bool shared;
};
extern const struct jsonspec plan_volume_spec, plan_sr_spec;

/* Who writes to it: the domain, borrowed; NULL: nobody. *count: how many. */
const char *plan_writer(const struct plan_volume *v, size_t *count);

/* --- the plan */

struct plan_host {
	const char *name, *version, *host, *run_dir; /* borrowed */
	int64_t round_trip_us;
	int64_t rate_bytes_s; /* as probed; 0: not */
};

struct plan_input {
	struct plan_host here, there;
	const struct plan_volume *volume; /* borrowed */
	size_t count;
	const struct plan_sr *sr;         /* there */
	const char *const *moving_in;     /* of each disk the id of another move that has it; NULL entries */
	const char *domain;               /* NULL: none is started there */
	uint64_t bandwidth_bytes_s;       /* 0: no limit */
	bool will_verify;
	int64_t keep_s;
	const char *transport, *address;  /* NULL: ssh; where the disks would listen there, "": not known */
	int64_t left_ms;                  /* until both sides are to be the same; 0: that was not said */
	const char *finish_by;            /* borrowed: when it is to be done, for people */
	const char *no_way;               /* why the bytes cannot go so; NULL: they can */
};

struct plan_step {
	char *step, *undo; /* sentences; undo "": nothing is to be undone */
};
struct plan {
	struct jsonspec_list refusals, warnings; /* sentences */
	struct jsonspec_records steps;           /* struct plan_step */
	int64_t bytes, duration_ms, downtime_ms; /* what is sent, and the estimates; -1: not known */
	int64_t round_trip_us, rate_bytes_s;
	char *transport, *address;               /* owned */
	bool is_possible;
};
extern const struct jsonspec plan_spec;

/* -1 + e: out of memory. */
int plan_make(const struct plan_input *in, struct plan *p, struct error *e);
void plan_clear(struct plan *p);

#endif
