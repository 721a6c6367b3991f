/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ends - see carrier-ends.h
 *
 * Which pipe belongs to which channel is found by the number of the caller's descriptor.  He may have closed it since, and may
 * have the number again for another channel: the newest counts.  When the table is full, the oldest is forgotten.
 */
#include "migrate/carrier-ends.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/printable.h"

#define TOLD_WAIT_MS 2000

/* --- the pair */

static void forget(struct carrier_ends *x, size_t i)
{
	close(x->channel[i].told);
	x->count--;
	memmove(&x->channel[i], &x->channel[i + 1], (x->count - i) * sizeof(x->channel[i]));
}

static void remember(struct carrier_ends *x, int stream, int told)
{
	for (size_t i = 0; i < x->count; i++)
		if (x->channel[i].stream == stream)
			forget(x, i--);
	if (x->count == CARRIER_CHANNELS_MAX)
		forget(x, 0);
	x->channel[x->count].stream = stream;
	x->channel[x->count++].told = told;
}

int carrier_ends_make(struct carrier_ends *x, int *stream_there, int *tell_there, struct error *e)
{
	int stream[2], tell[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) == -1)
		return error_errno(e, errno, "make a pair of sockets");
	if (pipe2(tell, O_CLOEXEC) == -1) {
		error_errno(e, errno, "make a pipe");
		close(stream[0]);
		close(stream[1]);
		return -1;
	}
	*stream_there = stream[1];
	*tell_there = tell[1];
	remember(x, stream[0], tell[0]);
	return stream[0];
}

void carrier_ends_drop(struct carrier_ends *x, int stream)
{
	for (size_t i = 0; i < x->count; i++)
		if (x->channel[i].stream == stream)
			forget(x, i--);
	close(stream);
}

size_t carrier_ends_descriptors(const struct carrier_ends *x, int *fds)
{
	for (size_t i = 0; i < x->count; i++)
		fds[i] = x->channel[i].told;
	return x->count;
}

void carrier_ends_fini(struct carrier_ends *x)
{
	while (x->count)
		forget(x, x->count - 1);
}

/* --- why it ended */

static int say_why(const struct carrier_said *said, const char *name, struct error *e)
{
	const char *colon = *said->line ? ": " : "";

	switch (said->end) {
	case CARRIER_END_EXIT:
		if (said->status == 127)
			return error_set(e, ENOENT, "there is no sxm on %s, or its PATH does not lead to it: install it "
					 "there%s%s", name, colon, said->line);
		if (said->status == 126)
			return error_set(e, EACCES, "%s cannot run its sxm%s%s", name, colon, said->line);
		if (said->status == 0)
			return error_set(e, EPIPE, "the relay on %s has ended%s%s", name, colon, said->line);
		return error_set(e, EPIPE, "the relay on %s ended with status %d%s%s", name, said->status, colon, said->line);
	case CARRIER_END_SIGNAL:
		return error_set(e, EPIPE, "the relay on %s was killed%s%s", name, colon, said->line);
	case CARRIER_END_RUN:
		return error_set(e, ENOEXEC, "%s", said->line);
	default:
		return error_set(e, ENOLINK, "the way to %s was lost%s%s", name, colon, said->line);
	}
}

int carrier_ends_why(struct carrier_ends *x, int stream, const char *name, struct error *e)
{
	struct carrier_said said = { 0 };

	for (size_t i = 0; i < x->count; i++) {
		struct pollfd p = { .fd = x->channel[i].told, .events = POLLIN };
		int r;

		if (x->channel[i].stream != stream)
			continue;
		r = poll(&p, 1, TOLD_WAIT_MS);
		if (r == 0)
			return error_set(e, EPIPE, "the connection to %s has ended, and nothing says why", name);
		if (r < 0 || read(p.fd, &said, sizeof(said)) != (ssize_t)sizeof(said))
			said = (struct carrier_said){ .end = CARRIER_END_LOST };
		said.line[sizeof(said.line) - 1] = '\0';
		return say_why(&said, name, e);
	}
	return error_set(e, EPIPE, "the connection to %s has ended", name);
}

/* --- lines from over there */

void carrier_lines_show(struct carrier_lines *l)
{
	if (l->is_held)
		dprintf(STDERR_FILENO, "%s: %s\n", l->name, l->last);
	l->is_held = false;
}

static void take_line(struct carrier_lines *l)
{
	l->line[l->used] = '\0';
	l->used = 0;
	printable_make(l->line, '?');
	if (!*l->line)
		return;
	carrier_lines_show(l);
	memcpy(l->last, l->line, sizeof(l->last));
	l->is_held = true;
	if (!l->will_hold)
		carrier_lines_show(l);
}

void carrier_lines_add(struct carrier_lines *l, const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		if (text[i] == '\n')
			take_line(l);
		else if (l->used < sizeof(l->line) - 1 && text[i] != '\r')
			l->line[l->used++] = text[i];
	}
}

void carrier_lines_end(struct carrier_lines *l)
{
	if (l->used)
		take_line(l);
}

/* --- a child's descriptors */

static bool is_kept(int fd, const int *keep, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (keep[i] == fd)
			return true;
	return fd == STDERR_FILENO;
}

int carrier_close_others(const int *keep, size_t count)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int null;

	if (!dir)
		return -1;
	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (*entry->d_name != '.' && fd != dirfd(dir) && !is_kept(fd, keep, count))
			close(fd);
	}
	closedir(dir);
	for (int fd = 0; fd <= STDOUT_FILENO; fd++) {
		if (is_kept(fd, keep, count))
			continue;
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null < 0 || (null != fd && dup2(null, fd) < 0))
			return -1;
		if (null > STDOUT_FILENO && !is_kept(null, keep, count))
			close(null);
	}
	return 0;
}
