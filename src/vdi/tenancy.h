/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tenancy - this disk's lease, where its image has one (base/lease.h, OWNERSHIP): taken when it is opened for writing, renewed,
 * given back when it is closed
 */
#ifndef SXM_VDI_TENANCY_H
#define SXM_VDI_TENANCY_H

#include <stdatomic.h>

#include "base/tenure.h"
#include "disk/disk.h"
#include "loop/offload.h"

struct tenancy {
	struct tenure_spec spec;
	char host[LEASE_HOST_MAX];
	struct tenure tenure;
	bool is_taken;                /* on record; ours until given back or lost */
	bool was_dead;                /* the pool's: the one who had it */
	bool is_new;                  /* likewise: it was taken for this opening */
	struct lease seen;            /* likewise: what was there before */
	atomic_bool is_cancelled;     /* whoever waits in the pool gives up */
	_Atomic uint64_t until_ns;    /* tenure's, for the pool */

	struct loop_timer *timer;     /* owned */
	struct offload offload;
	bool is_asking, is_ending;
	enum tenure_ask ask;
	struct lease from, to, found; /* the pool's while is_asking */
	struct error why;
};

/* Blocks, as long as it takes to see whether who has it is alive. Completes the spec of an image that is about to be opened.
 * -1 + e: EREMOTE: another host has it, and lives. */
int tenancy_wait(struct tenancy *t, const char *image, struct disk_spec *spec, struct error *e);
/* Blocks. The image is open and locked. -1 + e: ESTALE: it was changed meanwhile: close, and wait anew. */
int tenancy_take(struct tenancy *t, const char *image, const struct disk_spec *spec, struct error *e);
/* Blocks. It could not be opened after all. */
void tenancy_undo(struct tenancy *t, const char *image);
struct vdi_status;
void tenancy_status(const struct tenancy *t, struct vdi_status *out);
/* From the pool: writing beside the image is allowed now. -1 + e. */
int tenancy_check(const struct tenancy *t, struct error *e);

#endif
