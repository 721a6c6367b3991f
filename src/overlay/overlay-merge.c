/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * overlay-merge - what is kept apart goes to the disk it belongs to, a batch at a time
 *
 *      read some of what is here -> write it to the disk -> flush the disk -> on record (pool) -> it is not here any more
 *
 * Each step waits for all of the one before.  So what is taken away is on the disk, durable, before the record says so, and the
 * record is durable before anybody writes to the disk there.
 *
 * Can fail: reading the data, writing the disk (full), the record: nothing is taken away, and it is tried again in AGAIN_MS.
 * Guests go on meanwhile.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "overlay/overlay-private.h"

#define BATCH_BYTES (1u << 20)
#define ITEM_BYTES (256u << 10)
#define AGAIN_MS 1000u

static void end_batch(struct overlay *o)
{
	for (size_t i = 0; i < o->items; i++)
		iobuf_return(o->item[i].data);
	o->items = 0;
	o->is_batch = false;
	o->turns = 0;
	overlay_look(o);
}

static void fail_batch(struct overlay *o, int err, const char *what)
{
	static struct log_limit limit = LOG_LIMIT(5);

	if (log_allowed(&limit))
		log_error("%s: %s while it is merged: %s; it is tried again", o->image, what, strerror(err));
	o->is_waiting = true;
	loop_timer_set(o->again, AGAIN_MS);
	end_batch(o);
}

static void work_on_record(struct offload *f)
{
	struct overlay *o = container_of(f, struct overlay, offload);

	error_clear(&o->error);
	overlay_file_clear(o->file, o->done, o->items, &o->error);
}

static void on_record(struct offload *f)
{
	struct overlay *o = container_of(f, struct overlay, offload);

	if (o->error.err) {
		fail_batch(o, o->error.err, "writing its map");
		return;
	}
	for (size_t i = 0; i < o->items; i++)
		bitmap_clear(o->file->sectors, o->done[i].start / OVERLAY_SECTOR_BYTES, o->done[i].end / OVERLAY_SECTOR_BYTES);
	end_batch(o);
}

static void on_batch_flushed(struct req *r)
{
	struct overlay *o = r->arg;
	int err = r->err;

	req_put(r);
	for (size_t i = 0; i < o->items; i++)
		o->done[i] = o->item[i].range;
	o->offload = (struct offload){ .work = work_on_record, .done = on_record };
	if (!err && offload_submit(o->loop, &o->offload) == -1)
		err = ENOMEM;
	if (err)
		fail_batch(o, err, "flushing the disk");
}

static void flush_batch(struct overlay *o)
{
	struct req *r = o->err ? NULL : req_get();

	if (!r) {
		fail_batch(o, o->err ? o->err : ENOMEM, "moving data");
		return;
	}
	r->op = REQ_FLUSH;
	r->done = on_batch_flushed;
	r->arg = o;
	layer_submit(o->layer.below, r);
}

static void end_item(struct overlay *o, int err)
{
	if (err && !o->err)
		o->err = err;
	if (--o->left == 0)
		flush_batch(o);
}

static void on_item_written(struct req *r)
{
	struct overlay_item *i = r->arg;
	int err = r->err;

	req_put(r);
	end_item(i->overlay, err);
}

static int submit_item(struct overlay_item *i, enum req_op op, struct layer *to, req_done_fn *done)
{
	struct req *r = req_get();

	if (!r)
		return -1;
	r->op = op;
	r->flags = op == REQ_ZERO ? REQ_MAY_TRIM : 0;
	r->range = i->range;
	r->data = i->data;
	r->done = done;
	r->arg = i;
	layer_submit(to, r);
	return 0;
}

static void on_item_read(struct req *r)
{
	struct overlay_item *i = r->arg;
	struct overlay *o = i->overlay;
	bool is_zero = !r->err && o->layer.below->geometry.can_zero &&
		       iobuf_is_zero(i->data->data, (size_t)range_length(i->range));
	int err = r->err;

	req_put(r);
	if (!err && submit_item(i, is_zero ? REQ_ZERO : REQ_WRITE, o->layer.below, on_item_written) == -1)
		err = ENOMEM;
	if (err)
		end_item(o, err);
}

/* False: there is nothing any more from here to the end. */
static bool add_item(struct overlay *o)
{
	struct overlay_item *i = &o->item[o->items];
	uint64_t bits = bitmap_bits(o->file->sectors), first = bitmap_next(o->file->sectors, o->cursor), end;

	if (first >= bits)
		return false;
	end = MIN(bitmap_next_clear(o->file->sectors, first), first + ITEM_BYTES / OVERLAY_SECTOR_BYTES);
	*i = (struct overlay_item){ .overlay = o,
			    .range = { first * OVERLAY_SECTOR_BYTES, end * OVERLAY_SECTOR_BYTES } };
	i->data = iobuf_get(o->pool, (size_t)range_length(i->range));
	if (!i->data)
		return false;
	o->cursor = end;
	o->items++;
	return true;
}

void overlay_begin_batch(struct overlay *o)
{
	uint64_t bytes = 0;

	o->is_batch = true;
	o->err = 0;
	while (o->items < OVERLAY_BATCH_ITEMS && bytes < BATCH_BYTES && add_item(o))
		bytes += range_length(o->item[o->items - 1].range);
	if (!o->items) /* the next round is from the beginning; or there is no memory, then it is so a little later */
		o->cursor = 0;
	if (!o->items && !add_item(o)) {
		fail_batch(o, ENOMEM, "beginning");
		return;
	}
	o->left = o->items;
	for (size_t i = 0, items = o->items; i < items; i++)
		if (submit_item(&o->item[i], REQ_READ, o->data, on_item_read) == -1)
			end_item(o, ENOMEM);
}

void overlay_on_again(void *arg)
{
	struct overlay *o = arg;

	o->is_waiting = false;
	o->cursor = 0;
	overlay_look(o);
}

/* --- all is merged */

static void work_on_end(struct offload *f)
{
	struct overlay *o = container_of(f, struct overlay, offload);

	error_clear(&o->error);
	overlay_remove(o->image, &o->error);
}

static void on_end(struct offload *f)
{
	struct overlay *o = container_of(f, struct overlay, offload);

	o->is_batch = false;
	if (o->error.err) { /* its map says that nothing is here: whoever opens it next removes it */
		log_error("%s", o->error.text);
		error_clear(&o->error);
	}
	log_info("%s: what was mirrored to it is merged", o->image);
	o->mode = OVERLAY_MERGED;
	overlay_look(o);
	if (o->on_merged)
		o->on_merged(o->arg);
}

void overlay_begin_end(struct overlay *o)
{
	o->is_batch = true;
	o->offload = (struct offload){ .work = work_on_end, .done = on_end };
	if (offload_submit(o->loop, &o->offload) == 0)
		return;
	o->is_batch = false;
	o->is_waiting = true;
	loop_timer_set(o->again, AGAIN_MS);
}
