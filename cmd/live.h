/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * live - what the datapath process of a disk says of it, as far as the commands need it
 */
#ifndef SXM_CMD_LIVE_H
#define SXM_CMD_LIVE_H

#include "base/error.h"
#include "base/jsonspec.h"

struct live_user {
	char *domain, *socket;
	char *backend; /* NULL or "": it is no Xen guest's device */
	char *had;     /* NULL or "", or the one that it was, and nobody has said yet that this is over */
	bool is_active, is_read_only, is_connected;
	int64_t clients;
};
struct live_operation {
	char *id, *state, *why, *remote;
	bool is_copy, is_failed, is_complete, is_ended;
	double progress;
	int64_t total_bytes, dirty_bytes, copied_bytes, sent_bytes, rate_bytes, eta_ms, allocated_bytes;
};
struct live {
	char *id, *path;
	char *owner; /* its state: "owned", "receiving", ...; "" where it is on no record */
	int64_t pid, size_bytes;
	bool is_open;
	struct jsonspec_records users;      /* struct live_user */
	struct jsonspec_records operations; /* struct live_operation, oldest first */
};

/* image: canonical. -1 + e: ESRCH, no process has it here. */
int live_ask(const char *image, unsigned wait_ms, struct live *l, struct error *e);
int live_ask_id(const char *id, unsigned wait_ms, struct live *l, struct error *e); /* by the process' id */
void live_clear(struct live *l);
/* What is worth a word: the one that runs, else the last, where that failed. NULL: none. */
const struct live_operation *live_current(const struct live *l);
/* Of an image no process has: what its file says of whose it is; heap. NULL: nothing. */
char *live_owner_on_record(const char *image);
/* That file goes where it says no more than one that is not there would: the disk is its owner's, and was never mirrored. */
void live_drop_owner(const char *image);

#endif
