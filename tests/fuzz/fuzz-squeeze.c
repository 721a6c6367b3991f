/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a stranger sends as a stream that was made shorter: it is refused, or gives bytes, which are the same when they are made
 * shorter and long again; never more than there is room for, and with no more memory than is said. First byte: how much room.
 */
#include <stdlib.h>
#include <string.h>

#include "migrate/squeeze.h"

#define MOST ((size_t)4 << 20) /* a few bytes may become very many */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char out[MOST], again[MOST], shorter[MOST + 65536];

/* How much came; -1: refused. */
static ssize_t make_longer(const char *in, size_t bytes, char *to, size_t step)
{
	struct squeeze *l;
	size_t taken = 0, given = 0;
	struct error e;
	int r = 0;

	l = squeeze_new(SQUEEZE_LONGER, &e);
	assert(l);
	while ((taken < bytes || r == 1) && r != -1 && given < MOST) {
		struct squeeze_piece p = { in + taken, bytes - taken, to + given, MIN(step, MOST - given) };

		r = squeeze_run(l, &p, SQUEEZE_MORE, &e);
		assert(r == -1 || (p.in_bytes <= bytes - taken && p.out_bytes <= step && (p.in_bytes || p.out_bytes || r == 0)));
		taken += p.in_bytes;
		given += p.out_bytes;
	}
	squeeze_free(l);
	return r == -1 ? -1 : (ssize_t)given;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct squeeze_piece p = { .in = out, .out = shorter, .out_bytes = sizeof(shorter) };
	struct squeeze *s;
	struct error e;
	ssize_t n;

	if (!squeeze_is_there() || !bytes)
		return 0;
	n = make_longer((const char *)data + 1, bytes - 1, out, (size_t)data[0] * 257 + 1);
	if (n < 0)
		return 0;
	p.in_bytes = (size_t)n;
	s = squeeze_new(SQUEEZE_SHORTER, &e);
	assert(s && squeeze_run(s, &p, SQUEEZE_END, &e) == 0 && p.in_bytes == (size_t)n);
	squeeze_free(s);
	assert(make_longer(shorter, p.out_bytes, again, 65536) == n && memcmp(out, again, (size_t)n) == 0);
	return 0;
}
