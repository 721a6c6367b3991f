/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-moved - see cbt-moved.h: the pure half
 *
 *      a log's bytes:   | header | page 0 | page 1 | ...          as in its file (cbt-log.c); the header first
 *      sent:            header, and pieces of up to 1 MiB from the first page in them that has something new to the last
 *
 * What comes from outside can make bits that are not true, of the disk whose content comes from there, too. It can do nothing
 * else: a size larger than the disk's, a log out of order, another log in the place of one that came before, are refused.
 */
#include "cbt/cbt-moved.h"

#include <errno.h>
#include <string.h>

#define PART_PAGES (CBT_MOVED_PART_BYTES / CBT_PAGE_BYTES)

void cbt_moved_clear(struct cbt_moved *m)
{
	for (unsigned i = 0; i < m->count; i++)
		cbt_log_clear(&m->log[i]);
	*m = (struct cbt_moved){ 0 };
}

bool cbt_moved_is_same(const struct cbt_moved *a, const struct cbt_moved *b)
{
	if (a->count != b->count)
		return false;
	for (unsigned i = 0; i < a->count; i++)
		if (a->log[i].header.id != b->log[i].header.id || a->log[i].header.size_bytes != b->log[i].header.size_bytes)
			return false;
	return true;
}

/* --- sent */

/* Page p of the file: 0 is the header. */
static bool is_new(const struct cbt_log *l, const struct cbt_log *sent, uint64_t p)
{
	uint64_t first = (p - 1) * CBT_PAGE_REGIONS * CBT_REGION_WORDS;
	uint64_t end = MIN(first + CBT_PAGE_REGIONS * CBT_REGION_WORDS, l->regions * CBT_REGION_WORDS);

	if (p == 0)
		return !sent;
	for (uint64_t w = first; w < end; w++)
		if (l->bits[w] != (sent ? sent->bits[w] : 0))
			return true;
	return false;
}

static void encode(const struct cbt_moved *m, unsigned i, uint64_t p, uint8_t *page)
{
	const struct cbt_log *l = &m->log[i];
	struct cbt_header h = l->header;

	if (p) {
		cbt_page_encode(l->bits, NULL, l->regions, p - 1, page);
		return;
	}
	h.session = 0;
	h.is_sealed = i > 0;
	h.parent[0] = '\0';
	cbt_header_encode(&h, page);
}

/* The pages [*p, *end) of log i, of those from *p on that go together; false: none of it is new. */
static bool find_piece(const struct cbt_log *l, const struct cbt_log *sent, uint64_t *p, uint64_t *end)
{
	uint64_t pages = 1 + cbt_pages(l->header.size_bytes), limit;

	while (*p < pages && !is_new(l, sent, *p))
		++*p;
	if (*p >= pages)
		return false;
	limit = MIN(pages, *p + PART_PAGES);
	*end = *p + 1;
	for (uint64_t n = *p + 1; n < limit; n++)
		if (is_new(l, sent, n))
			*end = n + 1;
	return true;
}

size_t cbt_moved_part(const struct cbt_moved *m, const struct cbt_moved *sent, uint64_t *cursor, uint8_t *buffer, uint64_t *at)
{
	for (unsigned i = (unsigned)(*cursor / CBT_MOVED_WINDOW); i < m->count; i++) {
		uint64_t p = *cursor % CBT_MOVED_WINDOW / CBT_PAGE_BYTES, end;

		*cursor = (i + 1) * CBT_MOVED_WINDOW;
		if ((sent && i > 0) || !find_piece(&m->log[i], sent ? &sent->log[i] : NULL, &p, &end))
			continue;
		*at = i * CBT_MOVED_WINDOW + p * CBT_PAGE_BYTES;
		*cursor = i * CBT_MOVED_WINDOW + end * CBT_PAGE_BYTES;
		for (uint64_t n = p; n < end; n++)
			encode(m, i, n, buffer + (n - p) * CBT_PAGE_BYTES);
		return (end - p) * CBT_PAGE_BYTES;
	}
	return 0;
}

/* --- received */

static int take_header(struct cbt_moved *m, uint64_t disk_bytes, uint64_t i, const uint8_t *page)
{
	struct cbt_header h;
	struct error e = { 0 };
	uint64_t bytes;

	if (i >= CBT_MOVED_MAX || i > m->count || cbt_header_decode(page, CBT_PAGE_BYTES, &h, &e) == -1)
		return EINVAL;
	if (h.session || h.parent[0] || h.is_sealed != (i > 0) || !h.origin[0] != (i == 0) || h.size_bytes > disk_bytes)
		return EINVAL;
	if (i < m->count)
		return h.id == m->log[i].header.id && h.size_bytes == m->log[i].header.size_bytes ? 0 : EINVAL;
	bytes = cbt_pages(h.size_bytes) * CBT_PAGE_BYTES;
	if (bytes > CBT_MOVED_BYTES - m->bytes)
		return ENOSPC;
	if (cbt_log_init(&m->log[i], h.size_bytes, &e) == -1)
		return e.err;
	m->log[i].header = h;
	m->key[i][0] = '\0';
	m->bytes += bytes;
	m->count++;
	return 0;
}

static int take_page(struct cbt_moved *m, uint64_t i, uint64_t n, const uint8_t *page)
{
	struct cbt_log *l = i < m->count ? &m->log[i] : NULL;

	if (!l || n >= cbt_pages(l->header.size_bytes))
		return EINVAL;
	cbt_page_decode(page, n, l->regions, l->bits, l->marks); /* marks mean nothing: nobody has it open */
	return 0;
}

int cbt_moved_take(struct cbt_moved *m, uint64_t disk_bytes, uint64_t at, const uint8_t *data, size_t bytes)
{
	int err = 0;

	if (!bytes || at % CBT_PAGE_BYTES || bytes % CBT_PAGE_BYTES || at >= CBT_MOVED_MAX * CBT_MOVED_WINDOW)
		return EINVAL;
	for (size_t done = 0; done < bytes && !err; done += CBT_PAGE_BYTES) {
		uint64_t i = (at + done) / CBT_MOVED_WINDOW, p = (at + done) % CBT_MOVED_WINDOW / CBT_PAGE_BYTES;

		err = p ? take_page(m, i, p - 1, data + done) : take_header(m, disk_bytes, i, data + done);
	}
	return err;
}
