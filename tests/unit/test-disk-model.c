/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-model - the disk is an array of bytes, whatever the engine, the alignment and the neighbours in flight
 *
 * Many requests of any bytes are under way at once.  They never share a byte with a write under way (that order would be
 * nobody's), but blocks all the time: what one writes back over another shows as a difference from the array.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk-rig.h"
#include "tests/lib/fake-nbd.h"

#define SLOTS 24
#define OPS 4000
#define NARROW_BYTES (48 * KiB) /* where the crowd is */

struct setting {
	const char *name;
	enum disk_engine engine;
	bool no_direct;
	uint64_t size_bytes;
	void (*adjust)(struct disk_file *f);
	bool no_fallocate; /* as if the kernel had said so: zeroes are written */
	const struct fake_nbd_plan *server; /* has the bytes; NULL: the file has */
};

struct model {
	struct rig rig;
	struct fake_nbd server;
	uint8_t *bytes;
	uint64_t size;
	unsigned submitted;
	bool is_over;
	struct slot {
		struct rig_io io; /* first */
		bool is_busy;
	} slot[SLOTS];
};

static struct model model;

static void force_4k(struct disk_file *f)
{
	struct error e = { 0 };

	if (!f->is_direct)
		return; /* $TMPDIR has no O_DIRECT: the buffered way is tried once more */
	f->align = f->memory_align = 4096;
	assert_int_equal(disk_file_measure(f, &e), 0);
}

/* A device takes whole blocks in fallocate() too: the edges are written. */
static void like_device(struct disk_file *f)
{
	f->is_block_device = true;
	f->fallocate_align = 512;
}

static bool is_writer(enum req_op op)
{
	return op == REQ_WRITE || op == REQ_ZERO || op == REQ_TRIM;
}

static bool is_free(struct range range, enum req_op op)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct slot *s = &model.slot[i];

		if (s->is_busy && range_overlaps(s->io.req->range, range) && (is_writer(op) || is_writer(s->io.req->op)))
			return false;
	}
	return true;
}

static uint64_t below(uint64_t n)
{
	return n ? (uint64_t)random() % n : 0;
}

/* Mostly small and crowded, sometimes at the end, sometimes long, sometimes aligned. */
static struct range pick_range(void)
{
	uint64_t window = MIN(model.size, NARROW_BYTES), start = below(window), length = 1 + below(below(4) ? 700 : 20000);

	if (below(4) == 0)
		start = model.size - 1 - below(MIN(model.size, UINT64_C(9000)));
	if (below(16) == 0)
		length = 1 + below(model.size);
	if (below(3) == 0) {
		uint64_t unit = below(2) ? 512 : 4096;

		start &= ~(unit - 1);
		length = (length + unit - 1) & ~(unit - 1);
	}
	return (struct range){ start, MIN(start + length, model.size) };
}

static void apply(struct rig_io *io, enum req_op op, struct range range)
{
	uint64_t length = range_length(range);

	if (op == REQ_WRITE) {
		for (uint64_t i = 0; i < length; i++)
			rig_data(io)[i] = (uint8_t)random();
		memcpy(model.bytes + range.start, rig_data(io), length);
	} else if (op == REQ_ZERO || op == REQ_TRIM) {
		memset(model.bytes + range.start, 0, length);
	}
}

static void start(struct slot *s);

static void check(struct rig_io *io)
{
	struct slot *s = container_of(io, struct slot, io);
	struct req *r = io->req;

	assert_int_equal(io->err, 0);
	if (r->op == REQ_READ && memcmp(rig_data(io), model.bytes + r->range.start, range_length(r->range)) != 0) {
		for (uint64_t i = 0; i < range_length(r->range); i++)
			if (rig_data(io)[i] != model.bytes[r->range.start + i])
				fail_msg("byte %llu (request %u): %02x on disk, %02x in the model",
					 (unsigned long long)(r->range.start + i), model.submitted, rig_data(io)[i],
					 model.bytes[r->range.start + i]);
	}
	rig_release(io);
	s->is_busy = false;
	start(s);
}

static enum req_op pick_op(void)
{
	static const enum req_op op[] = {
		REQ_READ, REQ_READ, REQ_READ, REQ_WRITE, REQ_WRITE, REQ_WRITE, REQ_WRITE, REQ_ZERO, REQ_TRIM,
	};

	if (below(100) == 0)
		return REQ_FLUSH;
	return op[below(model.rig.disk->geometry.trim_reads_zero ? ARRAY_LEN(op) : ARRAY_LEN(op) - 1)];
}

static void start(struct slot *s)
{
	static const uint32_t offsets[] = { 0, 0, 0, 0, 512, 1, 4095 };
	enum req_op op = pick_op();
	struct range range = pick_range();

	if (model.submitted == OPS)
		return;
	for (unsigned tries = 0; op != REQ_FLUSH && !is_free(range, op); tries++) {
		if (tries == 200)
			return; /* too crowded; whoever ends next starts again */
		range = pick_range();
	}
	model.submitted++;
	s->io = (struct rig_io){ .on_done = check, .rig = &model.rig };
	s->io.req = req_get();
	s->is_busy = true;
	if (op != REQ_READ && below(50) == 0)
		s->io.req->flags |= REQ_FUA;
	if (op == REQ_ZERO && below(2))
		s->io.req->flags |= REQ_MAY_TRIM;
	if (op == REQ_READ || op == REQ_WRITE) {
		s->io.req->data_offset = offsets[below(ARRAY_LEN(offsets))];
		s->io.req->data = iobuf_get(model.rig.pool, range_length(range) + 4096);
		assert_non_null(s->io.req->data);
	}
	apply(&s->io, op, range);
	rig_submit(&model.rig, &s->io, op, range.start, op == REQ_FLUSH ? 0 : range_length(range), 0);
}

static void run_crowd(void)
{
	for (;;) {
		unsigned busy = 0;

		for (unsigned i = 0; i < SLOTS; i++) {
			if (!model.slot[i].is_busy)
				start(&model.slot[i]);
			busy += model.slot[i].is_busy;
		}
		if (!busy)
			return;
		loop_run(model.rig.loop);
	}
}

/* Past our own code, through the page cache. */
static void compare_file(void)
{
	uint8_t *seen = malloc(model.size + 1);
	int fd = open(model.rig.path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	assert_true(fd >= 0 && seen);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, model.size);
	assert_int_equal(pread(fd, seen, model.size + 1, 0), model.size);
	assert_memory_equal(seen, model.bytes, model.size);
	close(fd);
	free(seen);
}

/* Puts a server in the place of the file. */
static void serve(const struct fake_nbd_plan *plan)
{
	struct fake_nbd_plan sized = *plan;
	char path[sizeof(model.rig.path)];
	FILE *f;

	sized.size_bytes = model.size;
	fake_nbd_start(&model.server, &sized, 0);
	snprintf(path, sizeof(path), "%.*s.nbd", (int)sizeof(path) - 5, model.rig.path);
	assert_int_equal(rename(model.rig.path, path), 0);
	memcpy(model.rig.path, path, sizeof(path));
	f = fopen(path, "we");
	assert_non_null(f);
	fprintf(f, "%s\nkeeps-writes\n", model.server.uri); /* its memory outlives its connections */
	assert_int_equal(fclose(f), 0);
}

static void the_disk_is_an_array_of_bytes(void **state)
{
	const struct setting *setting = *state;
	struct disk_spec spec = { .path = model.rig.path, .engine = setting->engine, .no_direct = setting->no_direct,
				  .lock_wait_ms = 5000 };
	const char *seed = getenv("SXM_TEST_SEED");
	unsigned number = seed ? (unsigned)strtoul(seed, NULL, 10) : (unsigned)getpid();

	print_message("%s, SXM_TEST_SEED=%u\n", setting->name, number);
	srandom(number);
	memset(&model, 0, sizeof(model));
	rig_init(&model.rig);
	rig_file(model.rig.path, setting->size_bytes);
	model.size = setting->size_bytes;
	model.bytes = calloc(1, model.size);
	assert_non_null(model.bytes);
	if (setting->server)
		serve(setting->server);
	rig_open(&model.rig, &spec, setting->adjust);
	disk_of(model.rig.disk)->no_punch = disk_of(model.rig.disk)->no_zero_range = setting->no_fallocate;
	if (setting->engine == DISK_ENGINE_POOL)
		assert_string_equal(disk_engine_name(model.rig.disk), "threads");
	run_crowd();
	assert_int_equal(model.submitted, OPS);
	if (setting->server)
		assert_memory_equal(model.server.disk, model.bytes, model.size);
	else
		compare_file();
	rig_fini(&model.rig);
	if (setting->server)
		fake_nbd_stop(&model.server);
	free(model.bytes);
}

static bool has_uring(void)
{
	struct loop *l = loop_new();
	struct error e = { 0 };
	struct engine *g = engine_uring_new(l, &e);

	if (g)
		g->ops->free(g);
	else
		print_message("io_uring is left out: %s\n", e.text);
	loop_free(l);
	return g != NULL;
}

#define EVEN (192 * KiB)
#define ODD (192 * KiB + 4096 + 777)
#define ONE 1

static struct setting uring[] = {
	{ "io_uring, direct", DISK_ENGINE_URING, false, EVEN, NULL, false, NULL },
	{ "io_uring, direct, odd size", DISK_ENGINE_URING, false, ODD, NULL, false, NULL },
	{ "io_uring, direct, blocks of 4096", DISK_ENGINE_URING, false, EVEN, force_4k, false, NULL },
	{ "io_uring, direct, blocks of 4096, odd size", DISK_ENGINE_URING, false, ODD + 512, force_4k, false, NULL },
	{ "io_uring, direct, rules of a device", DISK_ENGINE_URING, false, EVEN, like_device, false, NULL },
	{ "io_uring, buffered, rules of a device", DISK_ENGINE_URING, true, EVEN, like_device, false, NULL },
	{ "io_uring, buffered", DISK_ENGINE_URING, true, ODD, NULL, false, NULL },
	{ "io_uring, direct, no fallocate", DISK_ENGINE_URING, false, ODD, NULL, true, NULL },
	{ "io_uring, one byte", DISK_ENGINE_URING, false, ONE, NULL, false, NULL },
};
static struct setting pool[] = {
	{ "threads, direct", DISK_ENGINE_POOL, false, EVEN, NULL, false, NULL },
	{ "threads, direct, odd size", DISK_ENGINE_POOL, false, ODD, NULL, false, NULL },
	{ "threads, direct, blocks of 4096", DISK_ENGINE_POOL, false, EVEN, force_4k, false, NULL },
	{ "threads, direct, blocks of 4096, odd size", DISK_ENGINE_POOL, false, ODD + 512, force_4k, false, NULL },
	{ "threads, direct, rules of a device", DISK_ENGINE_POOL, false, EVEN, like_device, false, NULL },
	{ "threads, buffered, rules of a device", DISK_ENGINE_POOL, true, EVEN, like_device, false, NULL },
	{ "threads, buffered", DISK_ENGINE_POOL, true, ODD, NULL, false, NULL },
	{ "threads, direct, no fallocate", DISK_ENGINE_POOL, false, ODD, NULL, true, NULL },
};

static const struct fake_nbd_plan any = { .can_zero = true, .can_fua = true };
static const struct fake_nbd_plan narrow = { .can_zero = true, .min_block = 4096, .max_block = 16384 };
static const struct fake_nbd_plan poor = { .min_block = 512, .max_block = 4096 };
static const struct fake_nbd_plan frail = { .can_zero = true, .min_block = 512, .max_block = 65536, .die_after = 300 };
static struct setting nbd[] = {
	{ "a server", DISK_ENGINE_AUTO, false, EVEN, NULL, false, &any },
	{ "a server, odd size", DISK_ENGINE_AUTO, false, ODD, NULL, false, &any },
	{ "a server, blocks of 4096", DISK_ENGINE_AUTO, false, EVEN, NULL, false, &narrow },
	{ "a server that can only read and write", DISK_ENGINE_AUTO, false, EVEN, NULL, false, &poor },
	{ "a server that cuts its connections", DISK_ENGINE_AUTO, false, EVEN, NULL, false, &frail },
};

int main(void)
{
	struct CMUnitTest tests[ARRAY_LEN(uring) + ARRAY_LEN(pool) + ARRAY_LEN(nbd)];
	char run_dir[] = "/tmp/sxm-disk-model-XXXXXX", command[64];
	size_t count = 0;
	int failed;

	if (!mkdtemp(run_dir))
		return 1;
	setenv("SXM_RUN_DIR", run_dir, 1);

	for (size_t i = 0; i < ARRAY_LEN(pool); i++)
		tests[count++] = (struct CMUnitTest){ pool[i].name, the_disk_is_an_array_of_bytes, NULL, NULL, &pool[i] };
	for (size_t i = 0; has_uring() && i < ARRAY_LEN(uring); i++)
		tests[count++] = (struct CMUnitTest){ uring[i].name, the_disk_is_an_array_of_bytes, NULL, NULL, &uring[i] };
	for (size_t i = 0; i < ARRAY_LEN(nbd); i++)
		tests[count++] = (struct CMUnitTest){ nbd[i].name, the_disk_is_an_array_of_bytes, NULL, NULL, &nbd[i] };
	failed = _cmocka_run_group_tests("disk against a model", tests, count, NULL, NULL);
	snprintf(command, sizeof(command), "rm -r %s", run_dir);
	return system(command) != 0 || failed;
}
