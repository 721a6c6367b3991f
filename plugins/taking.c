/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * taking - see taking.h
 *
 *      taking_raw, taking_qcow2   the steps
 *      taking_alone             one image, whoever writes to it
 *      snapshot-group         several
 */
#include "plugins/taking.h"

#include <errno.h>

#include "base/cleanup.h"
#include "plugins/hold.h"

static int cut(const struct taking_steps *steps, void *state, const struct image_taking *t, struct error *e)
{
	int err;

	if (!steps->cut)
		return 0;
	if (steps->cut(state, e) == 0) {
		err = image_sync_dir(t->from.dir);
		if (!err)
			return 0;
		error_errno(e, err, "make the new %s durable", t->from.key);
	}
	steps->back(state);
	return -1;
}

int taking_alone(const struct taking_steps *steps, struct image_taking *t, struct error *e)
{
	CLEANUP_FREE void *state = calloc(1, steps->bytes);
	int r;

	if (!state)
		return error_set(e, ENOMEM, "out of memory");
	r = steps->prepare(state, t, e);
	if (r == 0) {
		steps->ask(state, HOLD_WAIT_MS);
		r = steps->wait(state, e);
	}
	if (r == 0)
		r = cut(steps, state, t, e);
	if (r == 0) {
		steps->go(state, true);
		r = steps->finish(state, e);
	}
	steps->end(state);
	return r;
}
