/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qcow2-stream - a qcow2 image that is written, and read, from its beginning to its end. Pure.
 *
 *      | header | table of reference blocks | reference blocks | L1 | L2 ... | data, in the order of the disk |
 *        1        in clusters of 64 KiB; all but the data is known as soon as it is known which clusters have any
 *
 * It is an image like any other, version 3, which qemu reads; and as there is one form only for what it holds, it is read without
 * trusting any of its offsets: each must be what it has to be. A header extension of our own says whose content it is, and, of a
 * delta, which content has to be below it: there, what is in no cluster is as it is in that.
 */
#ifndef SXM_QCOW2_QCOW2_STREAM_H
#define SXM_QCOW2_QCOW2_STREAM_H

#include "base/bitmap.h"
#include "base/error.h"

#define QCOW2_STREAM_CLUSTER UINT64_C(65536)
#define QCOW2_STREAM_ID_MAX 65 /* bytes of a content's id, with the NUL */
#define QCOW2_STREAM_SIZE_MAX (UINT64_C(1) << 46)

struct qcow2_stream {
	uint64_t size_bytes;               /* of the disk: a multiple of 512 */
	struct bitmap *data, *zero;        /* owned; of its clusters: has bytes; reads as zeros. Neither: of a delta, as below */
	char content[QCOW2_STREAM_ID_MAX]; /* "": not said */
	char base[QCOW2_STREAM_ID_MAX];    /* of a delta; "": it is none */
};

/* Nothing is in it yet. -1 + e: EFBIG, EINVAL, ENOMEM. */
int qcow2_stream_init(struct qcow2_stream *s, uint64_t size_bytes, struct error *e);
void qcow2_stream_fini(struct qcow2_stream *s); /* zeroed: good, too */
uint64_t qcow2_stream_clusters(const struct qcow2_stream *s); /* of the disk */
/* May it be a content's id? A-Z a-z 0-9 . _ -, 1 to QCOW2_STREAM_ID_MAX - 1 of them. */
bool qcow2_stream_is_id(const char *text);
uint64_t qcow2_stream_total_bytes(const struct qcow2_stream *s); /* of the whole stream */

/* All before the data, cluster by cluster; emit: -1 + e ends it. Then come the clusters of s->data, in their order. */
typedef int qcow2_stream_emit(void *arg, const void *cluster, struct error *e);
int qcow2_stream_write_head(const struct qcow2_stream *s, qcow2_stream_emit *emit, void *arg, struct error *e);

/* The reader is given one cluster after the other. */
struct qcow2_stream_reader {
	struct qcow2_stream *stream; /* borrowed: filled */
	struct bitmap *tables;       /* owned: which L2 tables there are */
	uint64_t at;                 /* clusters taken */
	uint64_t l1_first, l1_clusters, l1_count, table_clusters;
	uint64_t l2_next;            /* the table that comes */
	uint64_t data_count;         /* clusters with data met so far */
};
/* The first cluster. -1 + e: EINVAL, it is none of ours; EOPNOTSUPP. Nothing is to be freed then. */
int qcow2_stream_read(struct qcow2_stream_reader *r, struct qcow2_stream *s, const void *cluster, struct error *e);
/* The next. 1: that was the last before the data; 0: more of them come. -1 + e. */
int qcow2_stream_take(struct qcow2_stream_reader *r, const void *cluster, struct error *e);
void qcow2_stream_reader_fini(struct qcow2_stream_reader *r); /* the stream stays */

#endif
