/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * transfer - a copy, or a comparison, that the datapath process of a disk does
 */
#ifndef SXM_CMD_TRANSFER_H
#define SXM_CMD_TRANSFER_H

#include "cmd/place.h"

#define TRANSFER_ID_MAX 64

/* What p's process may send, as long as the copy runs. */
struct transfer_limit {
	bool is_set;
	char *before; /* owned: what its file said until then; NULL: it was not there */
};
/* Of p's process, which serves p. limit_bytes: a second; 0: what that process may send. limit: to be given to
 * transfer_unlimit() when the copy is over, in any case. */
int transfer_copy(const struct place *p, const char *domain, const char *remote, uint64_t limit_bytes,
		   struct transfer_limit *limit, char id[static TRANSFER_ID_MAX], struct error *e);
void transfer_unlimit(const struct place *p, struct transfer_limit *limit);
struct transfer_figures {
	bool is_complete, is_failed;
	char why[256];
	double progress;
	uint64_t total_bytes, done_bytes, rate_bytes;
	int64_t eta_ms; /* -1: not known */
};
/* Waits for news, wait_ms at most. -1 + e: nobody knows it (any more). */
int transfer_look(const struct place *p, const char *id, unsigned wait_ms, struct transfer_figures *out, struct error *e);
/* Good where it has ended. */
int transfer_cancel(const struct place *p, const char *id, struct error *e);

/* Both are read back and compared. */
int transfer_compare(const struct place *p, const char *remote, uint64_t rate_bytes, char id[static TRANSFER_ID_MAX],
		      struct error *e);
struct transfer_verdict {
	bool is_over, is_same;
	char why[256];
	double progress;
	uint64_t total_bytes, done_bytes, different_bytes, unsettled_bytes, rate_bytes;
	uint64_t first_start, first_bytes; /* the first range that is different; 0 bytes: none */
};
int transfer_look_verdict(const struct place *p, const char *id, unsigned wait_ms, struct transfer_verdict *out,
			   struct error *e);
int transfer_stop_comparing(const struct place *p, const char *id, struct error *e);

#endif
