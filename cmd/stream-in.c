/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * stream-in - see stream-in.h
 */
#include "cmd/stream-in.h"

#include <errno.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/signals.h"

#define PATIENCE_MS 200 /* between two looks for Ctrl-C */

static int wait_for_more(struct error *e)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

	for (;;) {
		int n = poll(&p, 1, PATIENCE_MS);

		if (signals_came(0))
			return error_set(e, EINTR, "it was cancelled");
		if (n == 1 || (n == -1 && errno != EINTR))
			return 0; /* read says what is wrong */
	}
}

/* 0: the end. */
static ssize_t read_some(void *to, size_t bytes, struct error *e)
{
	for (;;) {
		ssize_t n;

		if (wait_for_more(e) == -1)
			return -1;
		n = read(STDIN_FILENO, to, bytes);
		if (n >= 0)
			return n;
		if (errno != EINTR && errno != EAGAIN)
			return error_errno(e, errno, "read the stream");
	}
}

int stream_in_read(void *to, size_t bytes, struct error *e)
{
	char *at = to;

	while (bytes) {
		ssize_t n = read_some(at, bytes, e);

		if (n < 0)
			return -1;
		if (n == 0)
			return error_set(e, ENODATA, "the stream was cut off");
		at += n;
		bytes -= (size_t)n;
	}
	return 0;
}

int stream_in_check_end(struct error *e)
{
	char more;
	ssize_t n = read_some(&more, 1, e);

	return n < 0 ? -1 : n == 0 ? 0 : error_set(e, EINVAL, "the stream goes on after the end of the disk");
}

int64_t stream_in_bytes(void)
{
	off_t at = lseek(STDIN_FILENO, 0, SEEK_CUR);
	struct stat st;

	if (fstat(STDIN_FILENO, &st) == -1 || !S_ISREG(st.st_mode) || at < 0 || at > st.st_size)
		return -1;
	return st.st_size - at;
}
