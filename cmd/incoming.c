/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * incoming - see incoming.h
 *
 *      Volume.create, or Volume.clone of the base -> "NAME (incomplete)" -> served to a domain of ours -> NBD
 *      -> flush, let go of -> what its content is called elsewhere (content.h), NAME
 */
#include "cmd/incoming.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "cmd/content.h"
#include "plugins/datapath.h"
#include "plugins/doctor.h"
#include "plugins/meta.h"

#define BUFFER_BYTES (UINT64_C(1) << 20)
#define ZERO_BYTES (UINT64_C(64) << 20) /* of one request */

static char *content_of(const char *dir, const char *key)
{
	struct meta_volume m;
	struct error e;
	const char *found;
	char *id;

	if (meta_volume_read(dir, key, &m, &e) == -1)
		return NULL;
	found = jsonspec_map_get(&m.keys, "content_id");
	id = found ? strdup(found) : NULL;
	meta_volume_clear(&m);
	return id;
}

/* What was cloned of it is that content, if it is still called so: whoever begins to write to it gives it another content_id
 * first. Nor may anybody write to it who had begun before it was called so. */
static int check_base(const char *dir, const char *base_key, const char *content, struct error *e)
{
	CLEANUP_FREE char *name = NULL;
	struct place p;
	bool is_good;

	if (asprintf(&name, "%s/%s", dir, base_key) < 0) {
		name = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (place_find(&p, name, NULL, e) == -1)
		return -1;
	is_good = !datapath_has_writer(p.image) && content_is(dir, base_key, content);
	place_clear(&p);
	return is_good ? 0 : error_set(e, EBUSY, "the base %s is being written to", base_key);
}

static int make(struct incoming *in, const char *dir, const char *base_key, const char *content, const char *name,
		struct error *e)
{
	const struct target_wish wish = { .name = dir, .volume_name = name, .bytes = (int64_t)in->size_bytes };

	if (!base_key)
		return target_find(&in->target, &wish, e);
	if (target_clone(&in->target, dir, base_key, name, wish.bytes, e) == -1)
		return -1;
	return check_base(dir, base_key, content, e);
}

int incoming_open(struct incoming *in, const char *dir, const char *base_key, const char *content, const char *name,
		  uint64_t size_bytes, struct error *e)
{
	*in = (struct incoming) { .out = { .fd = -1 }, .size_bytes = size_bytes, .buffer = malloc(BUFFER_BYTES) };
	snprintf(in->domain, sizeof(in->domain), DOCTOR_COMMAND "%ld", (long)getpid());
	if (!in->buffer) {
		error_set(e, ENOMEM, "out of memory");
	} else if (make(in, dir, base_key, content, name, e) == 0 &&
		   served_begin(&in->served, &in->target.place, in->domain, false, e) == 0) {
		in->is_served = true;
		if (nbd_out_open(&in->out, in->served.socket, in->served.export_name, e) == 0)
			return 0;
	}
	incoming_close(in);
	return -1;
}

static int let_go(struct incoming *in, struct error *e)
{
	nbd_out_close(&in->out);
	if (!in->is_served)
		return 0;
	in->is_served = false;
	served_clear(&in->served);
	return served_end(&in->target.place, in->domain, e);
}

void incoming_close(struct incoming *in)
{
	struct error ignored;

	let_go(in, &ignored);
	target_close(&in->target, false);
	free(in->buffer);
	*in = (struct incoming) { .out = { .fd = -1 } };
}

/* --- bytes */

static int send_buffer(struct incoming *in, struct error *e)
{
	uint64_t bytes = in->filled;

	in->filled = 0;
	return bytes ? nbd_out_write(&in->out, in->at, in->buffer, (uint32_t)bytes, e) : 0;
}

int incoming_write(struct incoming *in, uint64_t at, const void *data, size_t bytes, struct error *e)
{
	if (at >= in->size_bytes)
		return 0;
	bytes = MIN(bytes, in->size_bytes - at);
	if ((in->filled && in->at + in->filled != at) || in->filled + bytes > BUFFER_BYTES)
		if (send_buffer(in, e) == -1)
			return -1;
	if (!in->filled)
		in->at = at;
	memcpy(in->buffer + in->filled, data, bytes);
	in->filled += bytes;
	return 0;
}

int incoming_zero(struct incoming *in, uint64_t at, uint64_t bytes, struct error *e)
{
	uint64_t end = MIN(at + bytes, in->size_bytes);

	while (at < end) {
		uint64_t now = MIN(end - at, ZERO_BYTES);

		if (nbd_out_zero(&in->out, at, (uint32_t)now, e) == -1)
			return -1;
		at += now;
	}
	return 0;
}

static int settle(struct incoming *in, const char *content, struct error *e)
{
	CLEANUP_FREE char *id = content_of(in->target.place.dir, in->target.place.key);
	CLEANUP_FREE char *mark = id ? content_mark(content, id) : NULL;

	if (!mark)
		return error_set(e, ENODATA, "the new volume has no content_id");
	return target_finish(&in->target, *content ? CONTENT_KEY : NULL, mark, e);
}

int incoming_finish(struct incoming *in, const char *content, char **key, struct error *e)
{
	if (send_buffer(in, e) == -1 || nbd_out_flush(&in->out, e) == -1 || let_go(in, e) == -1)
		return -1;
	*key = strdup(in->target.made_name);
	if (!*key)
		return error_set(e, ENOMEM, "out of memory");
	if (settle(in, content, e) == -1) {
		free(take_ptr(key));
		return -1;
	}
	target_close(&in->target, true);
	incoming_close(in);
	return 0;
}
