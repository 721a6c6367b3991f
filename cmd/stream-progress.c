/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * stream-progress - see stream-progress.h
 *
 *      bytes -> a view with one disk (migrate/view) -> migrate/progress
 *
 * Whoever draws holds the terminal's lock, with a descriptor of its own: who comes second, as in `sxm export | sxm import`, is
 * silent. A stream that is through at once is not shown on a terminal.
 * Can fail: nothing that would be worth to stop a stream for.
 */
#include "cmd/stream-progress.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/progress.h"

#define FIRST_MS 400
#define INTERVAL_MS 200

struct stream_progress {
	struct move_view view;
	struct progress *progress; /* owned */
	int terminal;              /* owned: its lock is ours; -1: it is no terminal */
	int64_t shown_ms;
	bool was_shown, wants_all;
};

static int64_t unix_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / (long)NS_PER_MS;
}

/* False: another one draws there. One that cannot be opened anew has nobody to share with. */
static bool take_terminal(struct stream_progress *p)
{
	p->terminal = open("/proc/self/fd/2", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	return p->terminal < 0 || flock(p->terminal, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

static bool begin(struct stream_progress *p, const char *name, uint64_t total_bytes)
{
	struct error e;
	struct move_disk *d = view_add_disk(&p->view, name, &e);

	p->progress = d ? progress_new(STDERR_FILENO, p->wants_all ? PROGRESS_STEADY : PROGRESS_AUTO, &e) : NULL;
	if (!p->progress)
		return false;
	memcpy(d->operation, "stream", sizeof("stream"));
	memcpy(d->state, "syncing", sizeof("syncing"));
	d->is_linked = d->is_stream = true;
	d->size_bytes = d->total_bytes = d->dirty_bytes = total_bytes;
	p->view.started_ms = p->view.now_ms = p->shown_ms = unix_ms();
	view_advance(&p->view);
	return true;
}

static void drop(struct stream_progress *p)
{
	progress_free(p->progress);
	view_clear(&p->view);
	if (p->terminal >= 0)
		close(p->terminal);
	free(p);
}

struct stream_progress *stream_progress_new(const char *phase, const char *name, uint64_t total_bytes, bool wants_lines)
{
	bool is_terminal = isatty(STDERR_FILENO);
	struct stream_progress *p = is_terminal || wants_lines ? calloc(1, sizeof(*p)) : NULL;

	if (!p)
		return NULL;
	*p = (struct stream_progress){ .view = { .phase = phase }, .terminal = -1, .wants_all = !is_terminal };
	if ((!is_terminal || take_terminal(p)) && begin(p, name, total_bytes))
		return p;
	drop(p);
	return NULL;
}

static void show(struct stream_progress *p)
{
	p->view.now_ms = p->shown_ms = unix_ms();
	view_advance(&p->view);
	progress_show(p->progress, &p->view);
	p->was_shown = true;
}

void stream_progress_add(struct stream_progress *p, uint64_t bytes)
{
	struct move_disk *d;

	if (!p)
		return;
	d = p->view.disk;
	bytes = MIN(bytes, d->dirty_bytes);
	d->done_bytes += bytes;
	d->dirty_bytes -= bytes;
	d->figures.sent_bytes = d->done_bytes;
	if (unix_ms() - p->shown_ms >= (p->was_shown ? INTERVAL_MS : FIRST_MS))
		show(p);
}

void stream_progress_end(struct stream_progress *p, bool is_whole)
{
	struct move_disk *d;

	if (!p)
		return;
	d = p->view.disk;
	d->is_linked = false;
	d->is_complete = is_whole;
	d->is_failed = !is_whole;
	d->is_ended = true;
	memcpy(d->state, "finished", sizeof("finished"));
	p->view.ended_ms = unix_ms();
	if (p->was_shown || p->wants_all)
		show(p);
	drop(p);
}
