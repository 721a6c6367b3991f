/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * migrate-options - what `sxm migrate` was called with
 */
#ifndef SXM_CMD_MIGRATE_OPTIONS_H
#define SXM_CMD_MIGRATE_OPTIONS_H

#include "migrate/journey.h"

enum migrate_status { MIGRATE_REFUSED = 1, MIGRATE_USAGE = 2 };
enum migrate_action {
	MIGRATE_MOVE, MIGRATE_RESUME, MIGRATE_ABORT, MIGRATE_GO, MIGRATE_RELEASE, MIGRATE_CHANGE, MIGRATE_LIST
};

struct migrate_options {
	enum migrate_action action;
	const char *id;               /* borrowed; NULL with MIGRATE_RELEASE: all that are due */
	const char *const *sources;   /* borrowed */
	size_t count;
	char *user, *host, *sr;       /* owned */
	const char *domain, *carrier, *config; /* borrowed; NULL: not said */
	const char *qemu_qmp, *qemu_dest;      /* borrowed; NULL: not said */
	unsigned port;
	const char *switchover;       /* auto, manual, at */
	int64_t at_s;
	struct jsonspec_list via, on_pause, on_resume; /* owned */
	uint64_t bandwidth_bytes_s;
	bool has_bandwidth;
	int64_t keep_s, patience_s;
	const char *transport, *address, *certificates; /* borrowed; NULL: not said */
	bool is_plan, is_json, is_quiet, is_forced, will_verify, is_insecure, is_squeezed;
};

/* 0; or an exit status, CMD_USAGE too. */
int migrate_parse(int argc, char **argv, struct migrate_options *o);
void migrate_options_clear(struct migrate_options *o);

/* A new journey's; its disks have no names yet. */
int migrate_make_record(const struct migrate_options *o, struct journey_record *r, struct error *e);
/* What may be said anew when it is resumed. */
void migrate_change_record(const struct migrate_options *o, struct journey_record *r);

#endif
