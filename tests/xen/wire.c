/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * wire - joins two ends, for a machine that has nothing else
 *
 *      wire ask SOCKET TEXT            a line to a unix socket, and the line that comes back
 *      wire END END                    bytes both ways until both have ended
 *      wire END exec COMMAND...        the command, with the first as its standard input and output
 *
 * END: "-" (standard input and output), tcp:ADDRESS:PORT, unix:PATH, tcp-listen:PORT, unix-listen:PATH; of the last two: one
 * connection, ever.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct end {
	int in, out;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int join(const struct sockaddr *address, socklen_t bytes, bool is_listening, const char *name)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, listener = fd;

	if (fd == -1)
		die(name);
	if (!is_listening) {
		if (connect(fd, address, bytes) == -1)
			die(name);
		return fd;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, address, bytes) == -1 || listen(fd, 1) == -1)
		die(name);
	fd = accept(listener, NULL, NULL);
	if (fd == -1)
		die(name);
	close(listener);
	return fd;
}

static int join_unix(const char *path, bool is_listening)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	return join((struct sockaddr *)&un, sizeof(un), is_listening, path);
}

static int join_tcp(const char *where, bool is_listening)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	const char *colon = strrchr(where, ':');
	char address[64] = "0.0.0.0";
	int fd, on = 1;

	if (colon)
		snprintf(address, sizeof(address), "%.*s", (int)(colon - where), where);
	in.sin_port = htons((uint16_t)atoi(colon ? colon + 1 : where));
	inet_aton(address, &in.sin_addr);
	fd = join((struct sockaddr *)&in, sizeof(in), is_listening, where);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static struct end open_end(const char *name)
{
	static const struct {
		const char *word;
		bool is_listening;
		int (*join)(const char *where, bool is_listening);
	} kind[] = { { "tcp:", false, join_tcp }, { "tcp-listen:", true, join_tcp }, { "unix:", false, join_unix },
		     { "unix-listen:", true, join_unix } };

	if (strcmp(name, "-") == 0)
		return (struct end){ 0, 1 };
	for (unsigned i = 0; i < sizeof(kind) / sizeof(*kind); i++)
		if (strncmp(name, kind[i].word, strlen(kind[i].word)) == 0) {
			int fd = kind[i].join(name + strlen(kind[i].word), kind[i].is_listening);

			return (struct end){ fd, fd };
		}
	fprintf(stderr, "wire: %s is no end\n", name);
	exit(2);
}

static bool move_bytes(int from, int to)
{
	static char buffer[1 << 20];
	ssize_t got = read(from, buffer, sizeof(buffer)), put = 0, n;

	while (put < got && (n = write(to, buffer + put, (size_t)(got - put))) > 0)
		put += n;
	if (got > 0 && put == got)
		return true;
	if (shutdown(to, SHUT_WR) == -1)
		close(to);
	return false;
}

static void relay(const struct end end[2])
{
	struct pollfd poller[2] = { { .fd = end[0].in, .events = POLLIN }, { .fd = end[1].in, .events = POLLIN } };

	while (poller[0].fd >= 0 || poller[1].fd >= 0) {
		if (poll(poller, 2, -1) == -1)
			die("poll");
		for (int i = 0; i < 2; i++)
			if (poller[i].revents && !move_bytes(end[i].in, end[1 - i].out))
				poller[i].fd = -1;
	}
}

static int ask(const char *path, const char *text)
{
	FILE *stream = fdopen(join_unix(path, false), "r+");
	char *line = NULL;
	size_t bytes = 0;

	if (!stream || fprintf(stream, "%s\n", text) < 0 || fflush(stream) != 0)
		die(path);
	if (getline(&line, &bytes, stream) <= 0) {
		fprintf(stderr, "wire: %s: no answer\n", path);
		return 1;
	}
	fputs(line, stdout);
	return 0;
}

int main(int argc, char **argv)
{
	struct end end[2];

	signal(SIGPIPE, SIG_IGN);
	if (argc == 4 && strcmp(argv[1], "ask") == 0)
		return ask(argv[2], argv[3]);
	if (argc < 3) {
		fprintf(stderr, "usage: wire END END | wire END exec COMMAND... | wire ask SOCKET TEXT\n");
		return 2;
	}
	end[0] = open_end(argv[1]);
	if (argc > 3 && strcmp(argv[2], "exec") == 0) {
		dup2(end[0].in, 0);
		dup2(end[0].out, 1);
		execvp(argv[3], argv + 3);
		die(argv[3]);
	}
	end[1] = open_end(argv[2]);
	relay(end);
	return 0;
}
