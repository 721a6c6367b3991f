/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The overlay: what is mirrored to a leaf is kept to the sector, and merged into another disk while that is used; whenever it is
 * cut short, and whatever is torn off its map, each sector reads as it should.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "block/extents.h"
#include "overlay/overlay-layer.h"
#include "tests/lib/memory-layer.h"

#define SIZE_BYTES (4 * MiB)
#define SECTORS (SIZE_BYTES / OVERLAY_SECTOR_BYTES)
#define IMAGE "overlay-image"
#define MAP IMAGE OVERLAY_MAP_SUFFIX

static struct {
	struct loop *loop;
	struct iobuf_pool *pool;
	struct layer *disk, *overlay;
	uint8_t want[SIZE_BYTES], data[SIZE_BYTES]; /* what is to be read; the data layer's bytes between two lives */
	unsigned in_flight, merged;
	int err;
	unsigned seed;
} t;

static unsigned draw(unsigned below)
{
	return (unsigned)rand_r(&t.seed) % below;
}

static void on_done(struct req *r)
{
	if (r->op == REQ_READ && !r->err)
		assert_memory_equal(r->data->data, t.want + r->range.start, range_length(r->range));
	if (r->err)
		t.err = r->err;
	iobuf_return(r->data);
	req_put(r);
	if (--t.in_flight == 0)
		loop_stop(t.loop);
}

static struct req *request(enum req_op op, uint64_t at, uint64_t bytes)
{
	struct req *r = req_get();

	r->op = op;
	r->range = (struct range){ at, at + bytes };
	r->data = op == REQ_READ || op == REQ_WRITE ? iobuf_get(t.pool, bytes) : NULL;
	r->done = on_done;
	t.in_flight++;
	return r;
}

static void wait_all(void)
{
	while (t.in_flight)
		loop_run(t.loop);
}

static int do_one(enum req_op op, uint64_t at, uint64_t bytes, uint8_t value)
{
	struct req *r = request(op, at, bytes);

	if (op == REQ_WRITE)
		memset(r->data->data, value, bytes);
	t.err = 0;
	layer_submit(t.overlay, r);
	wait_all();
	if (!t.err && op == REQ_WRITE)
		memset(t.want + at, value, bytes);
	if (!t.err && (op == REQ_ZERO || op == REQ_TRIM))
		memset(t.want + at, 0, bytes);
	return t.err;
}

static void on_merged(void *arg)
{
	(void)arg;
	t.merged++;
	if (!t.in_flight)
		loop_stop(t.loop);
}

static void begin(enum overlay_mode mode)
{
	struct error e = { 0 };
	struct overlay_spec spec = { .loop = t.loop, .below = t.disk, .image = IMAGE, .mode = mode, .on_merged = on_merged };

	spec.data = memory_layer_new(SIZE_BYTES);
	memcpy(memory_layer_bytes(spec.data), t.data, SIZE_BYTES);
	spec.file = mode == OVERLAY_COLLECTING ? overlay_file_make(IMAGE, SIZE_BYTES, &e) : overlay_file_load(IMAGE, &e);
	assert_non_null(spec.file);
	t.overlay = overlay_new(&spec);
	assert_non_null(t.overlay);
}

static void on_rested(void *arg)
{
	*(bool *)arg = true;
	loop_stop(t.loop);
}

static void end(void)
{
	bool has_rested = false;

	overlay_rest(t.overlay, on_rested, &has_rested);
	while (!has_rested)
		loop_run(t.loop);
	memcpy(t.data, memory_layer_bytes(overlay_data(t.overlay)), SIZE_BYTES);
	layer_close(t.overlay);
	t.overlay = NULL;
}

/* A parent: its bytes are nowhere zero. */
static void give_parent(void)
{
	FILE *other = fopen(IMAGE ".other", "w");

	assert_non_null(other);
	fclose(other);
	for (size_t i = 0; i < SIZE_BYTES; i++)
		memory_layer_bytes(t.disk)[i] = (uint8_t)(1 + i / 512 % 200);
	for (size_t i = 0; i < SECTORS; i++)
		if (memcmp(t.want + i * 512, (uint8_t[512]){ 0 }, 512) == 0 && !t.data[i * 512])
			memcpy(t.want + i * 512, memory_layer_bytes(t.disk) + i * 512, 512);
	assert_int_equal(rename(IMAGE ".other", IMAGE), 0);
}

static enum overlay_state state(void)
{
	enum overlay_state s;
	struct error e = { 0 };

	assert_int_equal(overlay_state(IMAGE, &s, &e), 0);
	return s;
}

/* Some sectors mirrored, each of a value that is not zero. */
static void collect(unsigned writes)
{
	struct error e = { 0 };

	begin(OVERLAY_COLLECTING);
	assert_int_equal(state(), OVERLAY_OPEN);
	for (unsigned i = 0; i < writes; i++) {
		unsigned sectors = 1 + draw(16);

		assert_int_equal(do_one(REQ_WRITE, (uint64_t)draw(SECTORS - sectors) * 512, sectors * 512ull, (uint8_t)(201 + draw(50))), 0);
	}
	assert_int_equal(do_one(REQ_READ, 0, SIZE_BYTES, 0), 0);
	assert_int_equal(do_one(REQ_FLUSH, 0, 0, 0), 0);
	overlay_stop_collecting(t.overlay);
	assert_int_equal(overlay_seal(t.overlay, &e), 0);
	assert_int_equal(do_one(REQ_WRITE, 0, 512, 1), EPERM);
	end();
	assert_int_equal(state(), OVERLAY_SEALED);
}

/* One after the other, as two that overlap have no order; the merging goes on between and beside them. */
static void use(unsigned requests)
{
	static const enum req_op ops[] = { REQ_READ, REQ_READ, REQ_WRITE, REQ_WRITE, REQ_ZERO, REQ_FLUSH };

	for (unsigned i = 0; i < requests; i++) {
		uint64_t bytes = draw(3) ? 512ull * (1 + draw(64)) : 1 + draw(5000), at = draw((unsigned)(SIZE_BYTES - bytes));

		assert_int_equal(do_one(ops[draw(6)], at, bytes, (uint8_t)draw(256)), 0);
	}
}

static void await_merged(void)
{
	while (!t.merged)
		loop_run(t.loop);
}

static void what_was_mirrored_is_merged_under_use_and_kills(void **state_)
{
	(void)state_;
	for (unsigned seed = 1; seed <= 30; seed++) {
		unsigned lives;

		t.seed = seed;
		lives = 1 + draw(4);

		collect(draw(400));
		give_parent();
		assert_int_equal(state(), OVERLAY_COMPOSED);
		t.merged = 0;
		for (unsigned i = 0; i < lives && !t.merged; i++) {
			begin(OVERLAY_MERGING);
			use(draw(60));
			if (i + 1 == lives)
				await_merged();
			else
				end();
		}
		if (t.overlay) {
			use(20);
			end();
		}
		assert_int_equal(state(), OVERLAY_NONE);
		assert_int_equal(access(IMAGE OVERLAY_SUFFIX, F_OK), -1);
		assert_memory_equal(memory_layer_bytes(t.disk), t.want, SIZE_BYTES);
		memset(memory_layer_bytes(t.disk), 0, SIZE_BYTES);
		memset(t.want, 0, SIZE_BYTES);
		memset(t.data, 0, SIZE_BYTES);
	}
}

static void sectors_of_zeros_count(void **state_)
{
	struct error e = { 0 };

	(void)state_;
	begin(OVERLAY_COLLECTING);
	assert_int_equal(do_one(REQ_WRITE, 512, 1024, 0), 0);
	assert_int_equal(overlay_bytes(t.overlay), 1024);
	overlay_stop_collecting(t.overlay);
	assert_int_equal(overlay_seal(t.overlay, &e), 0);
	end();
	give_parent();
	memset(t.want + 512, 0, 1024);
	begin(OVERLAY_MERGING);
	assert_int_equal(do_one(REQ_READ, 0, 8192, 0), 0);
	await_merged();
	end();
	assert_memory_equal(memory_layer_bytes(t.disk), t.want, SIZE_BYTES);
}

static void parts_of_sectors_and_zeroing_are_refused_while_collecting(void **state_)
{
	(void)state_;
	begin(OVERLAY_COLLECTING);
	assert_int_equal(do_one(REQ_WRITE, 1, 512, 1), EINVAL);
	assert_int_equal(do_one(REQ_WRITE, 0, 100, 1), EINVAL);
	assert_int_equal(do_one(REQ_ZERO, 0, 512, 0), EOPNOTSUPP);
	assert_false(t.overlay->geometry.can_zero || t.overlay->geometry.can_trim);
	assert_int_equal(overlay_bytes(t.overlay), 0);
	end();
	assert_int_equal(state(), OVERLAY_OPEN);
}

static void extents_tell_what_is_here_as_data(void **state_)
{
	struct extents x;
	struct req *r;

	(void)state_;
	begin(OVERLAY_COLLECTING);
	do_one(REQ_WRITE, 8192, 512, 7);
	for (uint64_t at = 8192; at >= 4096; at -= 4096) {
		extents_init(&x, 0);
		r = request(REQ_EXTENTS, at, 64 * KiB);
		r->extents = &x;
		layer_submit(t.overlay, r);
		wait_all();
		assert_true(x.count >= 1);
		assert_int_equal(x.item[x.count - 1].range.end, at == 8192 ? 8192 + 512 : 8192);
		if (at == 8192)
			assert_int_equal(x.item[0].type, 0);
		extents_fini(&x);
	}
	end();
}

/* --- the map */

static off_t map_bytes(void)
{
	struct stat st;

	return stat(MAP, &st) == 0 ? st.st_size : -1;
}

static bool can_load(void)
{
	struct error e = { 0 };
	struct overlay_file *f = overlay_file_load(IMAGE, &e);

	overlay_file_free(f);
	return f != NULL;
}

static void damaged_map_is_not_taken(void **state_)
{
	static const off_t places[] = { 0, 9, 13, 20, 40, 512, 520, 527 };

	(void)state_;
	collect(30);
	assert_true(can_load());
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		FILE *f = fopen(MAP, "r+");
		int byte;

		fseeko(f, places[i], SEEK_SET);
		byte = fgetc(f);
		fseeko(f, places[i], SEEK_SET);
		fputc(byte ^ 0x40, f);
		fflush(f);
		assert_false(can_load());
		fseeko(f, places[i], SEEK_SET);
		fputc(byte, f);
		fclose(f);
	}
	assert_true(can_load());
	assert_int_equal(truncate(MAP, map_bytes() - 1), 0);
	assert_false(can_load());
}

/* Of two appended records the first is torn: the second takes nothing away, not now and not after the next append. */
static void what_follows_a_torn_record_is_gone(void **state_)
{
	const struct range r[] = { { 0, 512 }, { 512, 1024 } };
	struct error e = { 0 };
	struct overlay_file *f;
	off_t sealed;
	FILE *map;

	(void)state_;
	begin(OVERLAY_COLLECTING);
	do_one(REQ_WRITE, 0, 2048, 9);
	overlay_stop_collecting(t.overlay);
	overlay_seal(t.overlay, &e);
	end();
	sealed = map_bytes();
	f = overlay_file_load(IMAGE, &e);
	assert_int_equal(overlay_file_clear(f, r, 2, &e), 0);
	overlay_file_free(f);
	map = fopen(MAP, "r+");
	fseeko(map, sealed + 3, SEEK_SET);
	fputc(0x55, map);
	fclose(map);
	f = overlay_file_load(IMAGE, &e);
	assert_int_equal(bitmap_count(f->sectors), 4);
	assert_int_equal(overlay_file_clear(f, r, 1, &e), 0);
	overlay_file_free(f);
	f = overlay_file_load(IMAGE, &e);
	assert_int_equal(bitmap_count(f->sectors), 3);
	overlay_file_free(f);
}

static int set_up(void **state_)
{
	struct error e = { 0 };
	FILE *image;

	(void)state_;
	memset(&t, 0, sizeof(t));
	t.seed = 1;
	overlay_remove(IMAGE, &e);
	image = fopen(IMAGE, "w");
	assert_non_null(image);
	fclose(image);
	t.loop = loop_new();
	req_init(t.loop);
	t.pool = iobuf_pool_new(SIZE_BYTES * 2);
	t.disk = memory_layer_new(SIZE_BYTES);
	return 0;
}

static int tear_down(void **state_)
{
	struct error e = { 0 };

	(void)state_;
	layer_close(t.disk);
	loop_free(t.loop);
	req_fini();
	iobuf_pool_free(t.pool);
	overlay_remove(IMAGE, &e);
	unlink(IMAGE);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_mirrored_is_merged_under_use_and_kills),
		TEST(sectors_of_zeros_count),
		TEST(parts_of_sectors_and_zeroing_are_refused_while_collecting),
		TEST(extents_tell_what_is_here_as_data),
		TEST(damaged_map_is_not_taken),
		TEST(what_follows_a_torn_record_is_gone),
	};

	log_init("test-overlay");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
