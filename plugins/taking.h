/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * taking - an image is taken (image.h) step by step, so that several can be at one moment
 *
 *      prepare, of each     what may be slow and hurts nobody: files are made, what nobody has open is locked
 *      ask, of each         whoever has it open is to hold its guests
 *      wait, of each        it is held: nobody writes to it.  When all are, that is the moment
 *      cut, of each         what must be done before guests go on; then the directory made durable
 *      go, of each          guests go on
 *      finish, of each      the passing file is whole and durable
 *      end, of each         always, whatever failed: nothing is held then, and of what was not finished nothing is left
 *
 * Why it is one moment: from the last wait to the first go nobody writes to any of them, and each is taken as it was then.  A
 * write that was answered before another one was begun is in the first image, if that one is in the second.
 *
 * With the format's lock (image_ops.lock) from before prepare until after finish.
 */
#ifndef SXM_PLUGINS_TAKING_H
#define SXM_PLUGINS_TAKING_H

#include <stdint.h>

#include "plugins/image.h"

#define TAKING_HELD_MS 10000u /* a hold lasts no longer, whoever is stopped or killed */
#define TAKING_WAIT_MS 5000u  /* until all of several are held: else none is taken */

struct taking_steps {
	size_t bytes; /* of its state, which is zeroed before prepare */
	int (*prepare)(void *state, struct image_taking *t, struct error *e);
	void (*ask)(void *state, unsigned wait_ms);
	int (*wait)(void *state, struct error *e);
	/* NULL: nothing is to be done, and no name is changed. */
	int (*cut)(void *state, struct error *e);
	void (*back)(void *state); /* after a cut, good or not, and before go: it is as before */
	void (*go)(void *state, bool is_wanted); /* else it will not be finished */
	int (*finish)(void *state, struct error *e);
	void (*end)(void *state);
	/* After finish: how long its guests were held; 0: it had none. */
	uint64_t (*held_us)(const void *state);
};
extern const struct taking_steps taking_raw, taking_qcow2;

/* All steps, of one. */
int taking_alone(const struct taking_steps *steps, struct image_taking *t, struct error *e);

#endif
