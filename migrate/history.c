/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * history - see history.h
 *
 *      look --view_encode()--> a line, one write at the end of the file
 *                                 |  the file is larger than it may be
 *                                 v
 *      thinned: of the time so far at most so many lines, evenly; those where the phase changes, while the guest is held, the
 *      first and the last stay. Into a new file that takes the old one's place
 *
 * Evenly in time, not each second line: what was thinned once is not made sparser than what comes after it.
 * Can fail: a full disk, and then the next look is tried again.
 */
#include "migrate/history.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "migrate/view-json.h"

#define ID_MAX 63u
#define READ_MAX_BYTES (UINT64_C(64) << 20)
#define ID_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

struct history {
	char *path; /* owned */
	int fd;     /* owned */
	uint64_t bytes, most_bytes;
};

bool history_is_id(const char *id)
{
	size_t bytes = strlen(id);

	return bytes && bytes <= ID_MAX && *id != '.' && strspn(id, ID_CHARS) == bytes;
}

char *history_path(const char *id)
{
	char *path;

	return asprintf(&path, "%s/journeys/%s.history", proc_state_dir(), id) < 0 ? NULL : path;
}

static int open_file(struct history *h, struct error *e)
{
	struct stat st;

	h->fd = open(h->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (h->fd < 0 || fstat(h->fd, &st) == -1)
		return error_errno(e, errno, "open %s", h->path);
	h->bytes = (uint64_t)st.st_size;
	return 0;
}

/* What a crash has left of a line is not to be the beginning of the next one. */
static void end_last_line(struct history *h)
{
	char last = '\n';

	if (h->bytes && pread(h->fd, &last, 1, (off_t)h->bytes - 1) == 1 && last != '\n' && write(h->fd, "\n", 1) == 1)
		h->bytes++;
}

struct history *history_open(const char *path, uint64_t most_bytes, struct error *e)
{
	struct history *h = calloc(1, sizeof(*h));

	if (!h || !(h->path = strdup(path))) {
		error_set(e, ENOMEM, "out of memory");
		free(h);
		return NULL;
	}
	h->most_bytes = most_bytes ? most_bytes : HISTORY_MAX_BYTES;
	h->fd = -1;
	if (open_file(h, e) == -1) {
		history_close(h);
		return NULL;
	}
	end_last_line(h);
	return h;
}

void history_close(struct history *h)
{
	if (!h)
		return;
	if (h->fd >= 0)
		close(h->fd);
	free(h->path);
	free(h);
}

/* --- thinner */

struct moment {
	char *phase;
	int64_t time, held, released;
};
static const struct jsonspec_field moment_fields[] = {
	{ "time", JS_INT64, offsetof(struct moment, time) },
	{ "phase", JS_STRING, offsetof(struct moment, phase) },
	{ "held", JS_INT64, offsetof(struct moment, held), .is_optional = true },
	{ "released", JS_INT64, offsetof(struct moment, released), .is_optional = true },
	{ NULL },
};
static const struct jsonspec moment_spec = { "look", sizeof(struct moment), moment_fields };

struct line {
	const char *at; /* borrowed */
	size_t bytes;   /* with its end */
	int64_t time;
	bool is_mark;   /* stays in any case */
};

/* Of the file's text, which is borrowed; heap. NULL: out of memory. */
static struct line *take_lines(const char *text, size_t *count)
{
	char phase[VIEW_PHASE_MAX] = "";
	size_t all = 0;
	struct line *l;

	for (const char *p = text; (p = strchr(p, '\n')); p++)
		all++;
	*count = 0;
	l = calloc(all + 1, sizeof(*l));
	for (const char *p = text, *end; l && (end = strchr(p, '\n')); p = end + 1) {
		struct moment m;
		struct error e;

		if (jsonspec_decode(&moment_spec, p, (size_t)(end - p), &m, &e) == -1)
			continue;
		l[*count] = (struct line){ p, (size_t)(end - p) + 1, m.time,
					   strncmp(phase, m.phase, sizeof(phase) - 1) != 0 || (m.held && !m.released) };
		if (l[*count].is_mark && *count)
			l[*count - 1].is_mark = true;
		snprintf(phase, sizeof(phase), "%s", m.phase);
		jsonspec_clear(&moment_spec, &m);
		(*count)++;
	}
	return l;
}

/* The lines that stay, one after the other in place; how many bytes. */
static size_t keep_some(char *to, const struct line *l, size_t count, size_t most_lines)
{
	int64_t step = count ? (l[count - 1].time - l[0].time) / (int64_t)MAX(most_lines, (size_t)1) : 0, next = 0;
	size_t bytes = 0;

	for (size_t i = 0; i < count; i++) {
		if (i && i + 1 < count && !l[i].is_mark && l[i].time < next)
			continue;
		memmove(to + bytes, l[i].at, l[i].bytes);
		bytes += l[i].bytes;
		if (l[i].time >= next)
			next = l[i].time + step;
	}
	return bytes;
}

static int thin(struct history *h, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE struct line *l = NULL;
	size_t bytes, count;

	text = proc_read_own_file(h->path, READ_MAX_BYTES, &bytes, e);
	if (!text)
		return -1;
	l = take_lines(text, &count);
	if (!l)
		return error_set(e, ENOMEM, "out of memory");
	bytes = keep_some(text, l, count, count * (h->most_bytes / 2) / MAX(bytes, (size_t)1));
	if (proc_replace_file(h->path, text, bytes, 0600, e) == -1)
		return -1;
	close(h->fd);
	h->fd = -1;
	return open_file(h, e);
}

int history_append(struct history *h, const struct move_view *v, struct error *e)
{
	CLEANUP_FREE char *text = view_encode(v);
	CLEANUP_FREE char *line = NULL;
	int bytes = text ? asprintf(&line, "%s\n", text) : -1;
	ssize_t n;

	if (bytes < 0) {
		line = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (h->fd < 0 && open_file(h, e) == -1)
		return -1;
	n = write(h->fd, line, (size_t)bytes);
	if (n < 0)
		return error_errno(e, errno, "write to %s", h->path);
	h->bytes += (uint64_t)n;
	if (n < bytes) {
		end_last_line(h);
		return error_set(e, ENOSPC, "%s cannot be written to the end", h->path);
	}
	return h->bytes > h->most_bytes ? thin(h, e) : 0;
}

/* --- read */

int history_read(const char *path, void (*fn)(const struct move_view *v, void *arg), void *arg, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	unsigned good = 0;
	size_t bytes;

	text = proc_read_file(path, READ_MAX_BYTES, &bytes, e);
	if (!text)
		return -1;
	for (char *p = text, *end; *p; p = end) {
		char phase[VIEW_PHASE_MAX];
		struct move_view v;
		struct error why;

		end = p + strcspn(p, "\n");
		if (end > p && view_decode(p, (size_t)(end - p), &v, phase, &why) == 0) {
			fn(&v, arg);
			view_clear(&v);
			good++;
		}
		end += *end == '\n';
	}
	return good ? 0 : error_set(e, EBADMSG, "%s is no history of a move", path);
}
