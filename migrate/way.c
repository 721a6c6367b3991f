/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * way - see way.h
 *
 *      way_open: socket, bind, listen -> fork -> the child has nothing but that socket -> accept, the word, the end; or WAIT_MS
 *
 * Can fail: the address is not that host's, there is no route, something lets nobody through. What is heard is compared and
 * nothing else.
 */
#include "migrate/way.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define WAIT_MS 10000  /* for who connects */
#define PATIENCE_MS 3000 /* for a connection, and for the word */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static socklen_t parse(const char *text, uint16_t port, union address *a)
{
	memset(a, 0, sizeof(*a));
	if (inet_pton(AF_INET, text, &a->v4.sin_addr) == 1) {
		a->v4.sin_family = AF_INET;
		a->v4.sin_port = htons(port);
		return sizeof(a->v4);
	}
	if (inet_pton(AF_INET6, text, &a->v6.sin6_addr) != 1)
		return 0;
	a->v6.sin6_family = AF_INET6;
	a->v6.sin6_port = htons(port);
	return sizeof(a->v6);
}

bool way_is_address(const char *address)
{
	union address a;

	return parse(address, 0, &a) > 0;
}

/* --- there */

static int await(int fd, short events, int ms)
{
	struct pollfd poller = { .fd = fd, .events = events };
	int r;

	do
		r = poll(&poller, 1, ms);
	while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : -1;
}

/* Never returns. Whoever waits for the end of our standard output does not wait for this. */
static void answer(int fd, const char *word)
{
	int null = open("/dev/null", O_RDWR), conn;

	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; null >= 0 && i <= STDERR_FILENO; i++)
		dup2(null, i);
	if (null < 0 || await(fd, POLLIN, WAIT_MS) == -1)
		_exit(1);
	conn = accept(fd, NULL, NULL);
	if (conn >= 0 && write(conn, word, strlen(word)) < 0)
		_exit(1);
	_exit(0);
}

static int listen_at(const char *address, uint16_t *port, struct error *e)
{
	union address a;
	socklen_t bytes = parse(address, 0, &a);
	CLEANUP_CLOSE int fd = -1;

	if (!bytes)
		return error_set(e, EINVAL, "%.60s is no numeric address", address);
	fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, &a.any, bytes) == -1 || listen(fd, 1) == -1 || getsockname(fd, &a.any, &bytes) == -1)
		return error_errno(e, errno, "cannot listen at %s", address);
	*port = ntohs(a.v4.sin_port); /* which is where v6's is */
	return take_fd(&fd);
}

int way_open(const char *address, uint16_t *port, char word[static WAY_WORD_MAX], struct error *e)
{
	CLEANUP_CLOSE int fd = listen_at(address, port, e);
	uint8_t bytes[(WAY_WORD_MAX - 1) / 2];
	pid_t pid;

	if (fd < 0)
		return -1;
	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return error_errno(e, errno, "random numbers");
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(word + 2 * i, 3, "%02x", bytes[i]);
	pid = fork();
	if (pid < 0)
		return error_errno(e, errno, "fork");
	if (pid == 0 && fork() != 0)
		_exit(0); /* so that nobody has to wait for the other */
	if (pid == 0)
		answer(fd, word);
	while (waitpid(pid, NULL, 0) == -1 && errno == EINTR)
		;
	return 0;
}

/* --- here */

static int reach(const char *address, uint16_t port, struct error *e)
{
	union address a;
	socklen_t bytes = parse(address, port, &a), size = sizeof(int);
	CLEANUP_CLOSE int fd = -1;
	int err = 0;

	if (!bytes)
		return error_set(e, EINVAL, "%.60s is no numeric address", address);
	fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(e, errno, "make a socket");
	if (connect(fd, &a.any, bytes) == -1)
		err = errno;
	if (err == EINPROGRESS && await(fd, POLLOUT, PATIENCE_MS) == -1)
		err = ETIMEDOUT;
	else if (err == EINPROGRESS && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) == -1)
		err = errno;
	return err ? error_errno(e, err, "connect to %s port %u", address, port) : take_fd(&fd);
}

int way_try(const char *address, uint16_t port, const char *word, struct error *e)
{
	CLEANUP_CLOSE int fd = reach(address, port, e);
	char heard[WAY_WORD_MAX];
	size_t bytes = 0;
	ssize_t n = 1;

	if (fd < 0)
		return -1;
	while (bytes < sizeof(heard) - 1 && n > 0 && await(fd, POLLIN, PATIENCE_MS) == 0) {
		n = recv(fd, heard + bytes, sizeof(heard) - 1 - bytes, 0);
		bytes += n > 0 ? (size_t)n : 0;
	}
	heard[bytes] = '\0';
	return strcmp(heard, word) == 0 ? 0 : error_set(e, EPROTO, "what answers at %s port %u is not that host", address, port);
}
