/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pump - see pump.h
 *
 *      a.in ==way==> b.out          two of these, one thread, one poll()
 *      b.in ==way==> a.out
 *
 * Can fail: memory; an end that breaks, which ends both ways: half a connection is of no use to anybody here.
 */
#include "migrate/pump.h"

#include <errno.h>
#include <poll.h>

#include "migrate/pump-way.h"

static int run(struct pump_way way[static 2], struct error *e)
{
	while (!way[0].is_over || !way[1].is_over) {
		struct pollfd fds[4];

		for (int i = 0; i < 2; i++)
			if (pump_way_move(&way[i], e) == -1)
				return -1;
		pump_way_watch(&way[0], &fds[0], &fds[1]);
		pump_way_watch(&way[1], &fds[2], &fds[3]);
		if ((!way[0].is_over || !way[1].is_over) && poll(fds, ARRAY_LEN(fds), -1) == -1 && errno != EINTR)
			return error_errno(e, errno, "wait for a stream");
	}
	return 0;
}

int pump_run(const struct pump_end *a, const struct pump_end *b, const void *first, size_t first_bytes, struct error *e)
{
	bool is_coded = a->is_squeezed != b->is_squeezed;
	struct pump_way way[2];
	int r;

	pump_way_init(&way[0], a->in, b->out);
	pump_way_init(&way[1], b->in, a->out);
	r = pump_way_open(&way[0], first, first_bytes, is_coded, a->is_squeezed ? SQUEEZE_LONGER : SQUEEZE_SHORTER, e);
	if (r == 0)
		r = pump_way_open(&way[1], NULL, 0, is_coded, b->is_squeezed ? SQUEEZE_LONGER : SQUEEZE_SHORTER, e);
	if (r == 0)
		r = run(way, e);
	pump_way_close(&way[0]);
	pump_way_close(&way[1]);
	return r;
}
