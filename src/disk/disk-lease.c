/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-lease - what comes when the lease is over waits
 *
 *      submit -> in time? -> on its way -> engine: in time? -> the kernel
 *                  | no                          | no
 *                  '----------> parked <---------'     disk_set_lease() -> from the beginning
 *
 * Whether it is in time is asked twice: here, and by the engine just before its call, since between the two a process may be
 * stopped for an hour.  What waits is not failed: as a rule the storage does not answer, and a guest on such storage waits
 * anyway; when it answers again and nobody has taken the lease, nothing has happened.  If somebody has, this process ends
 * (vdi/tenancy).
 *
 * A request that was on its way begins anew, whatever pieces of it were written: its bytes are the same.
 * Reads wait, too: another host may be writing.
 */
#include "base/lease.h"
#include "base/log.h"
#include "disk/disk-raw.h"

static bool is_over(const struct disk *d)
{
	return lease_now_ns() >= atomic_load(&d->file->lease_until_ns);
}

bool disk_lease_parks(struct disk *d, struct req *r)
{
	if (LIKELY(TAILQ_EMPTY(&d->parked) && !is_over(d)))
		return false;
	disk_lease_park(d, r);
	return true;
}

void disk_lease_park(struct disk *d, struct req *r)
{
	if (TAILQ_EMPTY(&d->parked))
		log_warn("%s: the lease could not be renewed in time: nothing is read or written until it is", d->file->path);
	TAILQ_INSERT_TAIL(&d->parked, r, link);
}

void disk_set_lease(struct layer *l, uint64_t until_ns)
{
	struct disk *d = disk_of(l);
	struct req_list waited = TAILQ_HEAD_INITIALIZER(waited);
	struct req *r;

	atomic_store(&d->file->lease_until_ns, until_ns);
	if (TAILQ_EMPTY(&d->parked) || is_over(d))
		return;
	log_info("%s: the lease is renewed: what waited goes on", d->file->path);
	TAILQ_CONCAT(&waited, &d->parked, link);
	while ((r = TAILQ_FIRST(&waited))) {
		TAILQ_REMOVE(&waited, r, link);
		disk_submit(l, r);
	}
}
