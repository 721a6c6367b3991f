/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qcow2 images: what may be opened of a directory that anybody may have filled, and what is refused, with which word.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "qcow2/qcow2-chain.h"

/* --- images made here: only what is read */

struct image {
	uint32_t version, cluster_bits, crypt, l1_count;
	uint64_t size_bytes, incompatible, l1_offset;
	const char *backing, *format;
	uint32_t extension; /* one more, of no bytes */
};

static const struct image plain = { .version = 3, .cluster_bits = 16, .l1_count = 2, .size_bytes = GiB, .l1_offset = 0x30000 };

static size_t build(const struct image *m, uint8_t *head, size_t room)
{
	struct bytes_writer w = bytes_writer(head, room);
	uint32_t format_bytes = m->format ? (uint32_t)strlen(m->format) : 0;
	uint32_t header_bytes = m->version == 3 ? 104 : 72;
	uint32_t backing_at = header_bytes + (m->format ? 8 + (format_bytes + 7) / 8 * 8 : 0) + (m->extension ? 8 : 0) + 8;

	bytes_put_u32(&w, 0x514649fb);
	bytes_put_u32(&w, m->version);
	bytes_put_u64(&w, m->backing ? backing_at : 0);
	bytes_put_u32(&w, m->backing ? (uint32_t)strlen(m->backing) : 0);
	bytes_put_u32(&w, m->cluster_bits);
	bytes_put_u64(&w, m->size_bytes);
	bytes_put_u32(&w, m->crypt);
	bytes_put_u32(&w, m->l1_count);
	bytes_put_u64(&w, m->l1_offset);
	bytes_put_u64(&w, 0x10000);
	bytes_put_u32(&w, 1);
	bytes_put_zeros(&w, 12);
	if (m->version == 3) {
		bytes_put_u64(&w, m->incompatible);
		bytes_put_zeros(&w, 16);
		bytes_put_u32(&w, 4);
		bytes_put_u32(&w, header_bytes);
	}
	if (m->format) {
		bytes_put_u32(&w, 0xe2792aca);
		bytes_put_u32(&w, format_bytes);
		bytes_put(&w, m->format, format_bytes);
		bytes_put_zeros(&w, (8 - format_bytes % 8) % 8);
	}
	if (m->extension) {
		bytes_put_u32(&w, m->extension);
		bytes_put_u32(&w, 0);
	}
	bytes_put_zeros(&w, 8);
	if (m->backing)
		bytes_put(&w, m->backing, strlen(m->backing));
	bytes_put_zeros(&w, bytes_room(&w));
	return bytes_written(&w);
}

static int parse(const struct image *m, struct qcow2_header *h, struct error *e)
{
	uint8_t head[4096];

	*e = (struct error){ 0 };
	return qcow2_header_parse(head, build(m, head, sizeof(head)), h, e);
}

static void refused(const struct image *m, int err, const char *words)
{
	struct qcow2_header h;
	struct error e;

	assert_int_equal(parse(m, &h, &e), -1);
	if (e.err != err || !strstr(e.text, words))
		fail_msg("error %d, \"%s\"; wanted %d, \"...%s...\"", e.err, e.text, err, words);
}

/* --- the header */

static void sound_images_are_read(void **state)
{
	struct image m = plain;
	struct qcow2_header h;
	struct error e;

	(void)state;
	assert_int_equal(parse(&m, &h, &e), 0);
	assert_int_equal(h.size_bytes, GiB);
	assert_int_equal(h.cluster_bits, 16);
	assert_string_equal(h.backing, "");
	m.backing = "0f-1.base.qcow2";
	m.format = "qcow2";
	m.incompatible = 1 | 8 | 16;
	assert_int_equal(parse(&m, &h, &e), 0);
	assert_string_equal(h.backing, "0f-1.base.qcow2");
	assert_true(h.is_dirty);
	m.version = 2;
	assert_int_equal(parse(&m, &h, &e), 0);
	assert_string_equal(h.backing, "0f-1.base.qcow2");
	assert_false(h.is_dirty);
}

static void backing_files_are_plain_bases(void **state)
{
	static const char *const bad[] = {
		"/etc/shadow", "json:{\"driver\":\"host_device\",\"filename\":\"/dev/sda\"}", "../x.base.qcow2", "a/b.base.qcow2",
		"nbd://host/x.base.qcow2", "x.qcow2", ".base.qcow2", ".x.base.qcow2", "x.base.qcow2 ", "x\n.base.qcow2",
		"file:x.base.qcow2", "x.base.raw", "\xc3\xa4.base.qcow2",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		refused(&(struct image){ .version = 3, .cluster_bits = 16, .size_bytes = GiB, .backing = bad[i], .format = "qcow2" },
			EPERM, "only a plain name");
}

static void the_backing_format_is_qcow2(void **state)
{
	struct image m = plain;

	(void)state;
	m.backing = "x.base.qcow2";
	refused(&m, EPERM, "does not say");
	m.format = "raw";
	refused(&m, EPERM, "does not say");
	m.format = "qcow2x";
	refused(&m, EPERM, "does not say");
}

static void what_is_not_known_is_refused(void **state)
{
	static const struct {
		struct image m;
		int err;
		const char *words;
	} bad[] = {
		{ { .version = 1, .cluster_bits = 16 }, EOPNOTSUPP, "version 1" },
		{ { .version = 4, .cluster_bits = 16 }, EOPNOTSUPP, "version 4" },
		{ { .version = 3, .cluster_bits = 8 }, EINVAL, "clusters" },
		{ { .version = 3, .cluster_bits = 22 }, EINVAL, "clusters" },
		{ { .version = 3, .cluster_bits = 16, .size_bytes = 1000 }, EINVAL, "size" },
		{ { .version = 3, .cluster_bits = 16, .size_bytes = UINT64_C(1) << 63 }, EINVAL, "size" },
		{ { .version = 3, .cluster_bits = 16, .l1_count = UINT32_MAX, .l1_offset = 0x30000 }, EINVAL, "first table" },
		{ { .version = 3, .cluster_bits = 16, .l1_count = 1, .l1_offset = 0x30001 }, EINVAL, "first table" },
		{ { .version = 3, .cluster_bits = 16, .l1_count = 1, .l1_offset = UINT64_MAX << 16 }, EINVAL, "first table" },
		{ { .version = 3, .cluster_bits = 16, .crypt = 1 }, EOPNOTSUPP, "encrypted" },
		{ { .version = 3, .cluster_bits = 16, .extension = 0x0537be77 }, EOPNOTSUPP, "encrypted" },
		{ { .version = 3, .cluster_bits = 16, .incompatible = 2 }, EINVAL, "corrupt" },
		{ { .version = 3, .cluster_bits = 16, .incompatible = 4 }, EPERM, "another file" },
		{ { .version = 3, .cluster_bits = 16, .extension = 0x44415441 }, EPERM, "another file" },
		{ { .version = 3, .cluster_bits = 16, .incompatible = 32 }, EOPNOTSUPP, "bits 0x20" },
		{ { .version = 3, .cluster_bits = 16, .incompatible = UINT64_C(1) << 63 }, EOPNOTSUPP, "not known" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		refused(&bad[i].m, bad[i].err, bad[i].words);
}

static void what_is_cut_short_is_refused(void **state)
{
	struct image m = plain;
	uint8_t head[4096];
	struct qcow2_header h;
	size_t needed;

	(void)state;
	m.backing = "x.base.qcow2";
	m.format = "qcow2";
	build(&m, head, sizeof(head));
	needed = 104 + 8 + 8 + 8 + strlen(m.backing);
	for (size_t bytes = 0; bytes < needed; bytes++)
		assert_int_equal(qcow2_header_parse(head, bytes, &h, NULL), -1);
	assert_int_equal(qcow2_header_parse(head, needed, &h, NULL), 0);
	assert_int_equal(qcow2_header_parse("#!/bin/sh\n", 10, &h, NULL), -1);
}

/* --- the chain */

static char dir[] = "/tmp/test-qcow2-XXXXXX";
static int dir_fd = -1;

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0;
}

static int remove_dir(void **state)
{
	char command[64];

	(void)state;
	close(dir_fd);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void put(const char *name, const char *backing)
{
	struct image m = plain;
	uint8_t head[4096];
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	m.backing = backing;
	m.format = backing ? "qcow2" : NULL;
	build(&m, head, sizeof(head));
	assert_true(fd >= 0);
	assert_int_equal(write(fd, head, sizeof(head)), sizeof(head));
	close(fd);
}

/* 0, or the error. */
static int open_chain(const char *name, struct qcow2_chain *c, struct error *e)
{
	int fd = qcow2_open(dir_fd, name, O_RDONLY, e), outcome;

	*c = (struct qcow2_chain){ 0 };
	if (fd < 0)
		return e->err;
	outcome = qcow2_chain_open(c, dir_fd, fd, name, e);
	close(fd);
	return outcome == -1 ? e->err : 0;
}

static void chain_refused(const char *name, int err, const char *words)
{
	struct qcow2_chain c;
	struct error e = { 0 };

	if (open_chain(name, &c, &e) != err || !strstr(e.text, words))
		fail_msg("%s: error %d, \"%s\"; wanted %d, \"...%s...\"", name, e.err, e.text, err, words);
	assert_int_equal(c.count, 0);
}

static void a_chain_is_opened_to_its_end(void **state)
{
	struct qcow2_chain c;
	struct error e = { 0 };

	(void)state;
	put("leaf.qcow2", "a.base.qcow2");
	put("a.base.qcow2", "b.base.qcow2");
	put("b.base.qcow2", NULL);
	assert_int_equal(open_chain("leaf.qcow2", &c, &e), 0);
	assert_int_equal(c.count, 2);
	assert_string_equal(c.base[0].name, "a.base.qcow2");
	assert_string_equal(c.base[1].name, "b.base.qcow2");
	qcow2_chain_close(&c);
	assert_int_equal(c.count, 0);
}

static void a_circle_is_refused_by_whatever_names(void **state)
{
	char path[64], other[64];

	(void)state;
	put("leaf.qcow2", "a.base.qcow2");
	put("a.base.qcow2", "b.base.qcow2");
	put("b.base.qcow2", "a.base.qcow2");
	chain_refused("leaf.qcow2", ELOOP, "a.base.qcow2");
	put("self.qcow2", "self.base.qcow2");
	snprintf(path, sizeof(path), "%s/self.qcow2", dir);
	snprintf(other, sizeof(other), "%s/self.base.qcow2", dir);
	assert_int_equal(link(path, other), 0);
	chain_refused("self.qcow2", ELOOP, "self.base.qcow2");
}

static void a_chain_has_its_bound(void **state)
{
	char name[64], next[64];
	struct qcow2_chain c;
	struct error e = { 0 };

	(void)state;
	put("d00.base.qcow2", NULL);
	for (unsigned i = 1; i <= 64; i++) {
		snprintf(next, sizeof(next), "d%02u.base.qcow2", i - 1);
		snprintf(name, sizeof(name), "d%02u.base.qcow2", i);
		put(name, next);
	}
	assert_int_equal(open_chain("d63.base.qcow2", &c, &e), 0);
	assert_int_equal(c.count, 63);
	qcow2_chain_close(&c);
	chain_refused("d64.base.qcow2", EMLINK, "more than 63");
}

static void only_regular_files_are_opened(void **state)
{
	(void)state;
	put("leaf.qcow2", "l.base.qcow2");
	assert_int_equal(symlinkat("/etc/passwd", dir_fd, "l.base.qcow2"), 0);
	chain_refused("leaf.qcow2", ELOOP, "symbolic link");
	assert_int_equal(unlinkat(dir_fd, "l.base.qcow2", 0), 0);
	chain_refused("leaf.qcow2", ENOENT, "l.base.qcow2");
	assert_int_equal(mkfifoat(dir_fd, "l.base.qcow2", 0600), 0);
	chain_refused("leaf.qcow2", EINVAL, "regular");
	assert_int_equal(symlinkat("leaf.qcow2", dir_fd, "link.qcow2"), 0);
	chain_refused("link.qcow2", ELOOP, "symbolic link");
}

static void a_blank_image_is_known(void **state)
{
	struct qcow2_header h;
	struct error e = { 0 };
	bool is_blank;
	int fd;

	(void)state;
	put("blank.qcow2", NULL);
	fd = qcow2_open(dir_fd, "blank.qcow2", O_RDWR, &e);
	assert_int_equal(qcow2_read_header(fd, "blank.qcow2", &h, &e), 0);
	assert_int_equal(qcow2_is_blank(fd, &h, &is_blank, &e), 0); /* the table is behind the file's end */
	assert_true(is_blank);
	assert_int_equal(ftruncate(fd, 0x30000 + 16), 0);
	assert_int_equal(qcow2_is_blank(fd, &h, &is_blank, &e), 0);
	assert_true(is_blank);
	assert_int_equal(pwrite(fd, "\x80", 1, 0x30008), 1);
	assert_int_equal(qcow2_is_blank(fd, &h, &is_blank, &e), 0);
	assert_false(is_blank);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_images_are_read),
		cmocka_unit_test(backing_files_are_plain_bases),
		cmocka_unit_test(the_backing_format_is_qcow2),
		cmocka_unit_test(what_is_not_known_is_refused),
		cmocka_unit_test(what_is_cut_short_is_refused),
		cmocka_unit_test(a_chain_is_opened_to_its_end),
		cmocka_unit_test(a_circle_is_refused_by_whatever_names),
		cmocka_unit_test(a_chain_has_its_bound),
		cmocka_unit_test(only_regular_files_are_opened),
		cmocka_unit_test(a_blank_image_is_known),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
