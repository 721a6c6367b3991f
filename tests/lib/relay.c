/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay - what connects to a TCP port of this machine is connected to a unix socket: relay PORT SOCKET
 *
 * A process for each connection. For machines that have nothing else (tests/e2e/machine.sh).
 */
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/compiler.h"

static int listen_at(uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1 ||
	    bind(fd, (struct sockaddr *)&in, sizeof(in)) == -1 || listen(fd, 16) == -1) {
		perror("relay: listen");
		exit(1);
	}
	return fd;
}

static int connect_to(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	if (fd == -1 || connect(fd, (struct sockaddr *)&un, sizeof(un)) == -1) {
		perror("relay: connect");
		exit(1);
	}
	return fd;
}

/* False: that was all. */
static bool pass_on(int from, int to)
{
	char bytes[65536];
	ssize_t n = read(from, bytes, sizeof(bytes));

	for (ssize_t done = 0, step; done < n; done += step) {
		step = write(to, bytes + done, (size_t)(n - done));
		if (step <= 0)
			return false;
	}
	return n > 0;
}

static void relay(int client, int server)
{
	struct pollfd p[2] = { { .fd = client, .events = POLLIN }, { .fd = server, .events = POLLIN } };

	while (poll(p, 2, -1) > 0)
		for (int i = 0; i < 2; i++)
			if (p[i].revents && !pass_on(p[i].fd, p[1 - i].fd))
				return;
}

int main(int argc, char **argv)
{
	int listener;

	if (argc != 3) {
		fprintf(stderr, "usage: relay PORT SOCKET\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	listener = listen_at((uint16_t)atoi(argv[1]));
	for (;;) {
		int client = accept(listener, NULL, NULL);

		if (client == -1)
			continue;
		if (fork() == 0) {
			relay(client, connect_to(argv[2]));
			_exit(0);
		}
		close(client);
	}
}
