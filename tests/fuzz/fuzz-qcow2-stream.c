/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A stream as a stranger may send it to `sxm import`: whatever it is, nothing outside a cluster is read, and what is accepted is
 * what would be written for it. The input is the beginning of each cluster: a number of bytes, and those.
 */
#include <stdlib.h>
#include <string.h>

#include "qcow2/qcow2-stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
extern const char *const fuzz_words[];

const char *const fuzz_words[] = { "QFI\xfb", "\xe2\x79\x2a\xca", "SxM1", "raw", "\x80", "\xff", NULL };

static uint8_t cluster[65536];
static uint64_t emitted;

static bool next(const uint8_t **data, size_t *bytes)
{
	size_t take;

	if (*bytes < 2)
		return false;
	take = MIN((size_t)((*data)[0] << 8 | (*data)[1]), *bytes - 2);
	memset(cluster, 0, sizeof(cluster));
	memcpy(cluster, *data + 2, take);
	*data += 2 + take;
	*bytes -= 2 + take;
	return true;
}

static int count(void *arg, const void *what, struct error *e)
{
	(void)arg;
	(void)what;
	(void)e;
	emitted++;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct qcow2_stream_reader r;
	struct qcow2_stream s;
	struct error e = { 0 };
	uint64_t taken = 1;
	int took = 0;

	if (!next(&data, &bytes) || qcow2_stream_read(&r, &s, cluster, &e) == -1)
		return 0;
	while (took == 0 && next(&data, &bytes)) {
		took = qcow2_stream_take(&r, cluster, &e);
		taken++;
	}
	if (took == -1 && (!e.err || !*e.text))
		abort();
	if (s.size_bytes > QCOW2_STREAM_SIZE_MAX || (*s.base && !qcow2_stream_is_id(s.base)))
		abort();
	if (took == 1) {
		emitted = 0;
		if (qcow2_stream_write_head(&s, count, NULL, &e) == -1 || emitted != taken)
			abort();
	}
	qcow2_stream_reader_fini(&r);
	qcow2_stream_fini(&s);
	return 0;
}
