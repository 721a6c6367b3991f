/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * overlay-layer - sectors that are kept apart from the disk they belong to
 *
 *      frontends -> gate -> [mirror] -> [cbt] -> overlay -> disk
 *                                                   '-----> data (owned)
 *
 *      COLLECTING   writes go to the data, whole sectors only; ZERO and TRIM are not offered
 *      SEALED       nothing is written any more
 *      MERGING      what is here goes to the disk, piece by piece, while all may be read and written; held: not yet
 *      MERGED       it forwards, and its files are gone
 *
 * What is here is read from here. A FLUSH flushes both.
 */
#ifndef SXM_OVERLAY_OVERLAY_LAYER_H
#define SXM_OVERLAY_OVERLAY_LAYER_H

#include "block/layer.h"
#include "overlay/overlay-file.h"

enum overlay_mode { OVERLAY_COLLECTING, OVERLAY_SEALING, OVERLAY_MERGING, OVERLAY_MERGED };

struct overlay_spec {
	struct loop *loop;         /* borrowed */
	struct layer *below;       /* borrowed: the disk */
	struct layer *data;        /* taken, also when it fails */
	struct overlay_file *file; /* likewise */
	const char *image;         /* copied: whose files go when all is merged */
	enum overlay_mode mode;    /* COLLECTING; MERGING: at once, unless below is read-only, or it is held */
	bool is_held;
	void (*on_merged)(void *arg); /* once, from the loop; may be NULL */
	void *arg;
};
/* NULL: out of memory. */
struct layer *overlay_new(const struct overlay_spec *spec);

enum overlay_mode overlay_mode(const struct layer *l);
uint64_t overlay_bytes(const struct layer *l); /* how much is here */
struct layer *overlay_data(const struct layer *l);
/* COLLECTING, nothing in flight, flushed: nobody writes any more. The second is for a pool thread. */
void overlay_stop_collecting(struct layer *l);
int overlay_seal(struct layer *l, struct error *e);
/* One that is held merges from now on; any may be asked. */
void overlay_go(struct layer *l);
bool overlay_is_held(const struct layer *l);
/* Merging begins nothing new; done() when nothing of it is under way. For good: before it is closed. */
void overlay_rest(struct layer *l, void (*done)(void *arg), void *arg);

#endif
