/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-rig - see disk-rig.h
 */
#include "disk-rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

void rig_file(char path[static 128], uint64_t bytes)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	snprintf(path, 128, "%.90s/sxm-disk-XXXXXX", dir && *dir ? dir : "/var/tmp");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

void rig_init(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->loop = loop_new();
	rig->pool = iobuf_pool_new(256 * MiB);
	assert_non_null(rig->loop);
	assert_non_null(rig->pool);
	req_init(rig->loop);
}

void rig_open(struct rig *rig, const struct disk_spec *spec, void (*adjust)(struct disk_file *f))
{
	struct error e = { 0 };
	struct disk_file *f = disk_open(spec, &e);

	if (!f)
		fail_msg("%s", e.text);
	if (adjust)
		adjust(f);
	rig->disk = disk_layer(rig->loop, f, &e);
	if (!rig->disk)
		fail_msg("%s", e.text);
}

void rig_fini(struct rig *rig)
{
	if (rig->disk)
		layer_close(rig->disk);
	rig_settle(rig);
	req_fini();
	iobuf_pool_free(rig->pool);
	loop_free(rig->loop);
	if (*rig->path)
		unlink(rig->path);
}

static void on_done(struct req *r)
{
	struct rig_io *io = r->arg;

	io->is_done = true;
	io->err = r->err;
	loop_stop(io->rig->loop);
	if (io->on_done)
		io->on_done(io);
}

void rig_submit(struct rig *rig, struct rig_io *io, enum req_op op, uint64_t offset, uint64_t length, uint8_t fill)
{
	struct req *r = io->req;

	/* The test may have filled in flags, extents, data_offset before. */
	if (!r)
		r = io->req = req_get();
	assert_non_null(r);
	io->rig = rig;
	io->is_done = false;
	r->op = op;
	r->range = (struct range){ offset, offset + length };
	r->done = on_done;
	r->arg = io;
	if ((op == REQ_READ || op == REQ_WRITE) && !r->data) {
		r->data = iobuf_get(rig->pool, length + r->data_offset);
		assert_non_null(r->data);
		memset(r->data->data, fill, r->data->capacity);
	}
	layer_submit(rig->disk, r);
}

uint8_t *rig_data(struct rig_io *io)
{
	return io->req->data->data + io->req->data_offset;
}

void rig_wait(struct rig *rig, const bool *flag)
{
	while (!*flag)
		loop_run(rig->loop);
}

struct stopper {
	struct loop_task task;
	struct loop *loop;
};

static void run_stopper(struct loop_task *t)
{
	struct stopper *s = container_of(t, struct stopper, task);

	loop_stop(s->loop);
}

void rig_settle(struct rig *rig)
{
	struct stopper s = { .task.run = run_stopper, .loop = rig->loop };

	loop_defer(rig->loop, &s.task);
	loop_run(rig->loop);
}

void rig_release(struct rig_io *io)
{
	assert_true(io->is_done);
	iobuf_return(io->req->data);
	req_put(io->req);
	io->req = NULL;
}

int rig_do(struct rig *rig, enum req_op op, uint64_t offset, uint64_t length, uint8_t fill)
{
	struct rig_io io = { 0 };

	rig_submit(rig, &io, op, offset, length, op == REQ_READ ? (uint8_t)~fill : fill);
	rig_wait(rig, &io.is_done);
	if (op == REQ_READ && io.err == 0)
		for (uint64_t i = 0; i < length; i++)
			if (rig_data(&io)[i] != fill)
				fail_msg("byte %llu reads %02x, not %02x", (unsigned long long)(offset + i),
					 rig_data(&io)[i], fill);
	rig_release(&io);
	return io.err;
}

static void hold(struct engine *g, struct engine_op *op)
{
	struct fake_engine *fake = container_of(g, struct fake_engine, engine);

	STAILQ_INSERT_TAIL(&fake->held, op, link);
	fake->count++;
}

static void let_go(struct engine *g)
{
	assert_int_equal(container_of(g, struct fake_engine, engine)->count, 0);
}

static const struct engine_ops fake_ops = { .name = "fake", .submit = hold, .free = let_go };

void fake_init(struct fake_engine *fake)
{
	fake->engine.ops = &fake_ops;
	fake->count = 0;
	STAILQ_INIT(&fake->held);
}

void rig_open_fake(struct rig *rig, struct fake_engine *fake, void (*adjust)(struct disk_file *f))
{
	struct error e = { 0 };
	struct disk_file *f = disk_open(&(struct disk_spec){ .path = rig->path }, &e);

	if (!f)
		fail_msg("%s", e.text);
	if (adjust)
		adjust(f);
	fake_init(fake);
	rig->disk = disk_layer_over(rig->loop, f, &fake->engine, &e);
	assert_non_null(rig->disk);
}

struct engine_op *fake_op(struct fake_engine *fake, unsigned i)
{
	struct engine_op *op;

	STAILQ_FOREACH(op, &fake->held, link)
		if (i-- == 0)
			return op;
	return NULL;
}

void fake_finish(struct fake_engine *fake, struct engine_op *op, int err)
{
	ssize_t n = (ssize_t)op->length;

	assert_non_null(op);
	STAILQ_REMOVE(&fake->held, op, engine_op, link);
	fake->count--;
	if (!err && op->opcode == ENGINE_READ)
		n = pread(op->fd, op->buffer, op->length, (off_t)op->offset);
	if (!err && op->opcode == ENGINE_WRITE)
		n = pwrite(op->fd, op->buffer, op->length, (off_t)op->offset);
	/* What the file system cannot do it says, as a real engine does. */
	if (!err && op->opcode == ENGINE_FALLOCATE && fallocate(op->fd, op->mode, (off_t)op->offset, (off_t)op->length) != 0)
		err = errno;
	assert_int_equal(n, op->length);
	op->done(op, err);
}
