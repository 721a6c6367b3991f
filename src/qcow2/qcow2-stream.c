/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qcow2-stream - see qcow2-stream.h
 *
 * Where everything lies follows from two numbers, how many L2 tables there are and how many clusters with data:
 *
 *      0        1                 1 + T                 1 + T + B   ... + L1     ... + L2       total
 *      header   T: refers to B    B: counts of all      L1          L2 tables    data
 *
 *      B counts every cluster, its own too; T has an entry for each of B: both are enlarged until they suffice.
 *
 * Read: the header says size, T, and where L1 is, so B; L1 says which L2 tables there are, so where the data begins; L2 says
 * which clusters have data. Then the whole form is known, and T and B must be what they have to be. What is in T and B is not
 * looked at: it says nothing that the rest does not.
 *
 * Can fail: memory; of a stranger's stream everything. What is accepted is never more than what the stream itself is long, but
 * for bits of bitmaps, which cost only where they are set.
 */
#include "qcow2/qcow2-stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define MAGIC UINT32_C(0x514649fb)
#define VERSION 3u
#define CLUSTER_BITS 16u
#define HEADER_BYTES 104u
#define REFERENCE_ORDER 4u /* counts of 16 bits */
#define ENTRIES (QCOW2_STREAM_CLUSTER / 8)          /* of a table */
#define COUNTS (QCOW2_STREAM_CLUSTER / 2)           /* of a reference block */
#define TABLE_CLUSTERS_MAX 16u
#define COPIED (UINT64_C(1) << 63)
#define ZERO UINT64_C(1)

#define EXTENSION_BACKING_FORMAT UINT32_C(0xe2792aca)
#define EXTENSION_OURS UINT32_C(0x53784d31) /* "SxM1" */
#define OURS_BYTES 136u                     /* two ids of 64 bytes, and 8 that are 0 */
#define ID_BYTES 64u
#define BACKING_PREFIX "base-"
#define BACKING_SUFFIX ".raw"

struct layout {
	uint64_t tables, blocks, l1, l2, data; /* clusters of each */
	uint64_t l1_count;                     /* entries */
	uint64_t total;
};

/* --- what is in it */

static uint64_t divide_up(uint64_t n, uint64_t by)
{
	return (n + by - 1) / by;
}

uint64_t qcow2_stream_clusters(const struct qcow2_stream *s)
{
	return divide_up(s->size_bytes, QCOW2_STREAM_CLUSTER);
}

bool qcow2_stream_is_id(const char *text)
{
	size_t bytes = strnlen(text, QCOW2_STREAM_ID_MAX);

	return bytes && bytes < QCOW2_STREAM_ID_MAX &&
	       strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == bytes;
}

int qcow2_stream_init(struct qcow2_stream *s, uint64_t size_bytes, struct error *e)
{
	*s = (struct qcow2_stream) { .size_bytes = size_bytes };
	if (!size_bytes || size_bytes % 512)
		return error_set(e, EINVAL, "a disk of %llu bytes cannot be in such a stream", (unsigned long long)size_bytes);
	if (size_bytes > QCOW2_STREAM_SIZE_MAX)
		return error_set(e, EFBIG, "a disk of %llu bytes is too large for such a stream", (unsigned long long)size_bytes);
	s->data = bitmap_new(qcow2_stream_clusters(s));
	s->zero = bitmap_new(qcow2_stream_clusters(s));
	if (s->data && s->zero)
		return 0;
	qcow2_stream_fini(s);
	return error_set(e, ENOMEM, "out of memory");
}

void qcow2_stream_fini(struct qcow2_stream *s)
{
	bitmap_free(s->data);
	bitmap_free(s->zero);
	*s = (struct qcow2_stream) { 0 };
}

/* --- where it lies */

/* The first L2 table at or after number `from` that there is; UINT64_MAX: none. */
static uint64_t next_table(const struct qcow2_stream *s, uint64_t from)
{
	uint64_t clusters = qcow2_stream_clusters(s), at = from * ENTRIES;

	if (at < clusters)
		at = MIN(bitmap_next(s->data, at), bitmap_next(s->zero, at));
	return at < clusters ? at / ENTRIES : UINT64_MAX;
}

static void enlarge(struct layout *l)
{
	uint64_t blocks;

	do {
		blocks = l->blocks;
		l->total = 1 + l->tables + l->blocks + l->l1 + l->l2 + l->data;
		l->blocks = divide_up(l->total, COUNTS);
		l->tables = divide_up(l->blocks, ENTRIES);
	} while (l->blocks != blocks);
	l->total = 1 + l->tables + l->blocks + l->l1 + l->l2 + l->data;
}

static struct layout layout_of(const struct qcow2_stream *s)
{
	struct layout l = { .data = bitmap_count(s->data), .tables = 1,
			    .l1_count = divide_up(qcow2_stream_clusters(s), ENTRIES) };

	l.l1 = divide_up(l.l1_count, ENTRIES);
	for (uint64_t i = next_table(s, 0); i != UINT64_MAX; i = next_table(s, i + 1))
		l.l2++;
	enlarge(&l);
	return l;
}

uint64_t qcow2_stream_total_bytes(const struct qcow2_stream *s)
{
	return layout_of(s).total * QCOW2_STREAM_CLUSTER;
}

/* --- written */

static void put_id(struct bytes_writer *w, const char *id)
{
	size_t bytes = strnlen(id, ID_BYTES);

	bytes_put(w, id, bytes);
	bytes_put_zeros(w, ID_BYTES - bytes);
}

static void put_extensions(struct bytes_writer *w, const struct qcow2_stream *s)
{
	if (*s->base) {
		bytes_put_u32(w, EXTENSION_BACKING_FORMAT);
		bytes_put_u32(w, 3);
		bytes_put(w, "raw\0\0\0\0", 8);
	}
	bytes_put_u32(w, EXTENSION_OURS);
	bytes_put_u32(w, OURS_BYTES);
	put_id(w, s->content);
	put_id(w, s->base);
	bytes_put_zeros(w, 8);
	bytes_put_u64(w, 0);
}

/* The extensions' place does not depend on what is in the fields before them. */
static void put_header(uint8_t *cluster, const struct qcow2_stream *s, const struct layout *l, uint64_t backing_at)
{
	struct bytes_writer w = bytes_writer(cluster, QCOW2_STREAM_CLUSTER);
	size_t name_bytes = *s->base ? strlen(BACKING_PREFIX) + strlen(s->base) + strlen(BACKING_SUFFIX) : 0;

	bytes_put_u32(&w, MAGIC);
	bytes_put_u32(&w, VERSION);
	bytes_put_u64(&w, name_bytes ? backing_at : 0);
	bytes_put_u32(&w, (uint32_t)name_bytes);
	bytes_put_u32(&w, CLUSTER_BITS);
	bytes_put_u64(&w, s->size_bytes);
	bytes_put_u32(&w, 0); /* encryption */
	bytes_put_u32(&w, (uint32_t)l->l1_count);
	bytes_put_u64(&w, (1 + l->tables + l->blocks) * QCOW2_STREAM_CLUSTER);
	bytes_put_u64(&w, QCOW2_STREAM_CLUSTER);
	bytes_put_u32(&w, (uint32_t)l->tables);
	bytes_put_zeros(&w, 4 + 8 + 3 * 8); /* snapshots; features: incompatible, compatible, autoclear */
	bytes_put_u32(&w, REFERENCE_ORDER);
	bytes_put_u32(&w, HEADER_BYTES);
	put_extensions(&w, s);
	if (name_bytes) {
		bytes_put(&w, BACKING_PREFIX, strlen(BACKING_PREFIX));
		bytes_put(&w, s->base, strlen(s->base));
		bytes_put(&w, BACKING_SUFFIX, strlen(BACKING_SUFFIX));
	}
	bytes_put_zeros(&w, bytes_room(&w));
}

static int emit_header(const struct qcow2_stream *s, const struct layout *l, uint8_t *cluster, qcow2_stream_emit *emit, void *arg,
		       struct error *e)
{
	put_header(cluster, s, l, HEADER_BYTES + 16 + 8 + OURS_BYTES + 8);
	return emit(arg, cluster, e);
}

/* Entries first, first + 1, ... in clusters: the offsets of the clusters that begin at `target`. */
static int emit_reference_tables(const struct layout *l, uint8_t *cluster, qcow2_stream_emit *emit, void *arg, struct error *e)
{
	for (uint64_t table = 0; table < l->tables; table++) {
		struct bytes_writer w = bytes_writer(cluster, QCOW2_STREAM_CLUSTER);

		for (uint64_t i = table * ENTRIES; i < (table + 1) * ENTRIES; i++)
			bytes_put_u64(&w, i < l->blocks ? (1 + l->tables + i) * QCOW2_STREAM_CLUSTER : 0);
		if (emit(arg, cluster, e) == -1)
			return -1;
	}
	for (uint64_t block = 0; block < l->blocks; block++) {
		struct bytes_writer w = bytes_writer(cluster, QCOW2_STREAM_CLUSTER);

		for (uint64_t i = block * COUNTS; i < (block + 1) * COUNTS; i++)
			bytes_put_u16(&w, i < l->total);
		if (emit(arg, cluster, e) == -1)
			return -1;
	}
	return 0;
}

static int emit_l1(const struct qcow2_stream *s, const struct layout *l, uint8_t *cluster, qcow2_stream_emit *emit, void *arg,
		   struct error *e)
{
	uint64_t next = 1 + l->tables + l->blocks + l->l1, table = next_table(s, 0);

	for (uint64_t first = 0; first < l->l1 * ENTRIES; first += ENTRIES) {
		struct bytes_writer w = bytes_writer(cluster, QCOW2_STREAM_CLUSTER);

		for (uint64_t i = first; i < first + ENTRIES; i++) {
			bytes_put_u64(&w, i == table ? COPIED | next++ * QCOW2_STREAM_CLUSTER : 0);
			if (i == table)
				table = next_table(s, i + 1);
		}
		if (emit(arg, cluster, e) == -1)
			return -1;
	}
	return 0;
}

static int emit_l2(const struct qcow2_stream *s, const struct layout *l, uint8_t *cluster, qcow2_stream_emit *emit, void *arg,
		   struct error *e)
{
	uint64_t next = l->total - l->data, clusters = qcow2_stream_clusters(s);

	for (uint64_t table = next_table(s, 0); table != UINT64_MAX; table = next_table(s, table + 1)) {
		struct bytes_writer w = bytes_writer(cluster, QCOW2_STREAM_CLUSTER);

		for (uint64_t i = table * ENTRIES; i < (table + 1) * ENTRIES; i++) {
			if (i < clusters && bitmap_test(s->data, i))
				bytes_put_u64(&w, COPIED | next++ * QCOW2_STREAM_CLUSTER);
			else
				bytes_put_u64(&w, i < clusters && bitmap_test(s->zero, i) ? ZERO : 0);
		}
		if (emit(arg, cluster, e) == -1)
			return -1;
	}
	return 0;
}

int qcow2_stream_write_head(const struct qcow2_stream *s, qcow2_stream_emit *emit, void *arg, struct error *e)
{
	const struct layout l = layout_of(s);
	CLEANUP_FREE uint8_t *cluster = malloc(QCOW2_STREAM_CLUSTER);

	if (!cluster)
		return error_set(e, ENOMEM, "out of memory");
	return emit_header(s, &l, cluster, emit, arg, e) == 0 && emit_reference_tables(&l, cluster, emit, arg, e) == 0 &&
	       emit_l1(s, &l, cluster, emit, arg, e) == 0 ? emit_l2(s, &l, cluster, emit, arg, e) : -1;
}

/* --- read */

static int refuse(struct error *e, const char *why)
{
	return error_set(e, EINVAL, "it is no stream of `sxm export`: %s", why);
}

static int take_id(struct bytes_reader *r, char id[static QCOW2_STREAM_ID_MAX], struct error *e)
{
	const uint8_t *text = bytes_get(r, ID_BYTES);

	if (!text)
		return refuse(e, "its header is cut short");
	memcpy(id, text, ID_BYTES);
	id[ID_BYTES] = '\0';
	for (size_t i = strlen(id); i < ID_BYTES; i++)
		if (text[i])
			return refuse(e, "a content's id has something after its end");
	return !*id || qcow2_stream_is_id(id) ? 0 : refuse(e, "a content's id has characters that none has");
}

static int read_extensions(struct bytes_reader *r, struct qcow2_stream *s, struct error *e)
{
	bool is_ours = false;

	while (bytes_left(r) >= 8) {
		uint32_t type = bytes_get_u32(r), bytes = bytes_get_u32(r);

		if (type == 0)
			break;
		if (type == EXTENSION_OURS && bytes == OURS_BYTES && !is_ours) {
			if (take_id(r, s->content, e) == -1 || take_id(r, s->base, e) == -1)
				return -1;
			bytes_get_u64(r);
			is_ours = true;
		} else if (type != EXTENSION_BACKING_FORMAT || bytes != 3 || bytes_get_u64(r) >> 40 != 0x726177) {
			return refuse(e, "its header has an extension that those have not");
		}
	}
	return is_ours && !r->is_short ? 0 : refuse(e, "its header does not say that it is one");
}

struct head {
	uint64_t size_bytes, l1_offset, table_offset, features[3];
	uint32_t cluster_bits, encryption, l1_count, table_clusters, snapshots, order, header_bytes;
};

static int read_header(struct bytes_reader *r, struct head *h, struct error *e)
{
	if (bytes_get_u32(r) != MAGIC)
		return refuse(e, "it does not begin like a qcow2 image");
	if (bytes_get_u32(r) != VERSION)
		return refuse(e, "it is of another version");
	bytes_get(r, 12); /* the base's file name, which is for others */
	h->cluster_bits = bytes_get_u32(r);
	h->size_bytes = bytes_get_u64(r);
	h->encryption = bytes_get_u32(r);
	h->l1_count = bytes_get_u32(r);
	h->l1_offset = bytes_get_u64(r);
	h->table_offset = bytes_get_u64(r);
	h->table_clusters = bytes_get_u32(r);
	h->snapshots = bytes_get_u32(r);
	bytes_get_u64(r);
	for (size_t i = 0; i < ARRAY_LEN(h->features); i++)
		h->features[i] = bytes_get_u64(r);
	h->order = bytes_get_u32(r);
	h->header_bytes = bytes_get_u32(r);
	if (h->cluster_bits != CLUSTER_BITS || h->encryption || h->snapshots || h->features[0] || h->features[1] ||
	    h->features[2] || h->order != REFERENCE_ORDER || h->header_bytes != HEADER_BYTES)
		return refuse(e, "it is a qcow2 image of another kind; `sxm copy` copies those");
	return 0;
}

static int place_tables(struct qcow2_stream_reader *r, const struct head *h, struct error *e)
{
	uint64_t first = h->l1_offset / QCOW2_STREAM_CLUSTER;

	r->l1_count = divide_up(qcow2_stream_clusters(r->stream), ENTRIES);
	r->l1_clusters = divide_up(r->l1_count, ENTRIES);
	r->table_clusters = h->table_clusters;
	r->l1_first = first;
	if (h->table_offset != QCOW2_STREAM_CLUSTER || !h->table_clusters || h->table_clusters > TABLE_CLUSTERS_MAX ||
	    h->l1_offset % QCOW2_STREAM_CLUSTER || first <= 1 + h->table_clusters ||
	    first > 1 + h->table_clusters * (1 + ENTRIES) || h->l1_count != r->l1_count)
		return refuse(e, "its tables are not where those have them; `sxm copy` copies any qcow2 image");
	return 0;
}

int qcow2_stream_read(struct qcow2_stream_reader *r, struct qcow2_stream *s, const void *cluster, struct error *e)
{
	struct bytes_reader bytes = bytes_reader(cluster, QCOW2_STREAM_CLUSTER);
	struct head h = { 0 };

	*r = (struct qcow2_stream_reader) { .stream = s, .at = 1 };
	*s = (struct qcow2_stream) { 0 };
	if (read_header(&bytes, &h, e) == -1 || qcow2_stream_init(s, h.size_bytes, e) == -1)
		return -1;
	if (read_extensions(&bytes, s, e) == 0 && place_tables(r, &h, e) == 0) {
		r->tables = bitmap_new(r->l1_count);
		if (r->tables)
			return 0;
		error_set(e, ENOMEM, "out of memory");
	}
	qcow2_stream_fini(s);
	return -1;
}

void qcow2_stream_reader_fini(struct qcow2_stream_reader *r)
{
	bitmap_free(r->tables);
	r->tables = NULL;
}

static int take_l1(struct qcow2_stream_reader *r, struct bytes_reader bytes, struct error *e)
{
	uint64_t first = (r->at - r->l1_first) * ENTRIES;

	for (uint64_t i = first; i < first + ENTRIES; i++) {
		uint64_t entry = bytes_get_u64(&bytes), next = r->l1_first + r->l1_clusters + bitmap_count(r->tables);

		if (!entry)
			continue;
		if (i >= r->l1_count || entry != (COPIED | next * QCOW2_STREAM_CLUSTER))
			return refuse(e, "its first table leads elsewhere");
		bitmap_set(r->tables, i, i + 1);
	}
	return 0;
}

static int take_l2(struct qcow2_stream_reader *r, struct bytes_reader bytes, struct error *e)
{
	struct qcow2_stream *s = r->stream;
	uint64_t clusters = qcow2_stream_clusters(s), first, data;

	r->l2_next = bitmap_next(r->tables, r->l2_next);
	first = r->l2_next++ * ENTRIES;
	data = r->l1_first + r->l1_clusters + bitmap_count(r->tables);
	for (uint64_t i = first; i < first + ENTRIES; i++) {
		uint64_t entry = bytes_get_u64(&bytes);

		if (!entry)
			continue;
		if (i >= clusters || (entry != ZERO && entry != (COPIED | (data + r->data_count) * QCOW2_STREAM_CLUSTER)))
			return refuse(e, "its tables lead elsewhere");
		bitmap_set(entry == ZERO ? s->zero : s->data, i, i + 1);
		r->data_count += entry != ZERO;
	}
	return 0;
}

/* Now that all is known: are T and B as large as they have to be, and no L2 table empty? */
static int check_form(const struct qcow2_stream_reader *r, struct error *e)
{
	const struct layout l = layout_of(r->stream);

	if (l.tables != r->table_clusters || 1 + l.tables + l.blocks != r->l1_first || l.l2 != bitmap_count(r->tables))
		return refuse(e, "it is not as long as it has to be");
	return 1;
}

int qcow2_stream_take(struct qcow2_stream_reader *r, const void *cluster, struct error *e)
{
	const struct bytes_reader bytes = bytes_reader(cluster, QCOW2_STREAM_CLUSTER);
	const uint64_t l2_first = r->l1_first + r->l1_clusters;

	if (r->at >= r->l1_first && (r->at < l2_first ? take_l1(r, bytes, e) : take_l2(r, bytes, e)) == -1)
		return -1;
	r->at++;
	return r->at >= l2_first && r->at == l2_first + bitmap_count(r->tables) ? check_form(r, e) : 0;
}
