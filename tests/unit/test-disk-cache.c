/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-cache - a read that asks for the medium finds nothing in the page cache, and loses nothing of it
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk-rig.h"

#define PAGES 16u
#define TMPFS 0x01021994

static void use_cache(struct disk_file *f)
{
	fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) & ~O_DIRECT);
	f->is_direct = false;
	f->align = f->memory_align = 1;
}

/* How many pages of the file the page cache holds. */
static unsigned cached_pages(const char *path)
{
	unsigned char is_there[PAGES];
	unsigned count = 0;
	int fd = open(path, O_RDONLY);
	void *at = mmap(NULL, PAGES * 4096, PROT_READ, MAP_SHARED, fd, 0);

	assert_true(at != MAP_FAILED && mincore(at, PAGES * 4096, is_there) == 0);
	for (unsigned i = 0; i < PAGES; i++)
		count += is_there[i] & 1;
	munmap(at, PAGES * 4096);
	close(fd);
	return count;
}

static void fill_cache(const char *path, uint8_t fill)
{
	uint8_t page[4096];
	int fd = open(path, O_WRONLY);

	memset(page, fill, sizeof(page));
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(pwrite(fd, page, sizeof(page), i * 4096), sizeof(page));
	close(fd);
}

static void an_uncached_read_goes_to_the_medium(void **state)
{
	struct fake_engine fake;
	struct rig_io plain = { 0 }, uncached = { 0 };
	struct statfs fs;
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, PAGES * 4096);
	assert_int_equal(statfs(rig.path, &fs), 0);
	rig_open_fake(&rig, &fake, use_cache);
	fill_cache(rig.path, 0x5a); /* dirty pages */
	assert_int_equal(cached_pages(rig.path), PAGES);
	rig_submit(&rig, &plain, REQ_READ, 4 * 4096, 8 * 4096, 0);
	assert_int_equal(fake.count, 1);
	assert_int_equal(cached_pages(rig.path), PAGES);
	fake_finish(&fake, fake_op(&fake, 0), 0);
	rig_settle(&rig);
	rig_release(&plain);

	uncached.req = req_get();
	uncached.req->flags = REQ_UNCACHED;
	rig_submit(&rig, &uncached, REQ_READ, 4 * 4096, 8 * 4096, 0);
	assert_int_equal(fake.count, 0); /* the pool writes back first */
	while (!fake.count)
		rig_settle(&rig);
	if (fs.f_type != TMPFS)
		assert_int_equal(cached_pages(rig.path), PAGES - 8);
	fake_finish(&fake, fake_op(&fake, 0), 0);
	rig_settle(&rig);
	assert_true(uncached.is_done && uncached.err == 0);
	for (unsigned i = 0; i < 8 * 4096; i++)
		assert_int_equal(rig_data(&uncached)[i], 0x5a);
	rig_release(&uncached);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_uncached_read_goes_to_the_medium),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
