/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Opens a carrier and does with it what the tests ask for.
 *
 *      carrier-try [--kind K] [--user U] [--port P] [--config F] [--silent] HOST pump      standard input to a channel, and back
 *      carrier-try ... HOST talk                                                           commands on standard input:
 *
 *      open            -> "N", a channel           say N TEXT  -> the line that comes back, or why the channel ended
 *      close N         -> "closed"                 alive       -> "yes" or "no"
 *
 * Exit status: 1: the carrier could not be opened, or a channel of pump's ended with nothing; the sentence is on standard error.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "migrate/carrier.h"

#define CHUNK_BYTES (256u * 1024)

/* --- pump */

struct flow {
	char buffer[CHUNK_BYTES];
	size_t used, sent;
	bool has_ended;
};

/* False: over, or failed. */
static bool fill(struct flow *f, int from)
{
	ssize_t n = read(from, f->buffer, sizeof(f->buffer));

	f->used = n > 0 ? (size_t)n : 0;
	f->sent = 0;
	return n > 0;
}

static bool drain(struct flow *f, int to, int flags)
{
	const char *at = f->buffer + f->sent;
	ssize_t n = flags ? send(to, at, f->used - f->sent, flags) : write(to, at, f->used - f->sent);

	if (n < 0 && errno == EAGAIN)
		return true;
	f->sent += n > 0 ? (size_t)n : 0;
	return n >= 0;
}

static int pump(struct carrier *c)
{
	static struct flow out, in;
	struct error e = { 0 };
	CLEANUP_CLOSE int channel = carrier_channel(c, &e);
	uint64_t received = 0;

	if (channel < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	for (;;) {
		struct pollfd p[2] = { { .fd = out.has_ended || out.sent < out.used ? -1 : STDIN_FILENO, .events = POLLIN },
				       { .fd = channel, .events = (short)(POLLIN | (out.sent < out.used ? POLLOUT : 0)) } };

		if (poll(p, 2, -1) == -1)
			return 1;
		if (p[0].revents && !fill(&out, STDIN_FILENO)) {
			out.has_ended = true;
			shutdown(channel, SHUT_WR);
		}
		if ((p[1].revents & POLLOUT) && !drain(&out, channel, MSG_NOSIGNAL | MSG_DONTWAIT))
			out.sent = out.used;
		if (p[1].revents & (POLLIN | POLLHUP | POLLERR)) {
			if (!fill(&in, channel))
				break;
			received += in.used;
			while (in.sent < in.used)
				if (!drain(&in, STDOUT_FILENO, 0))
					return 1;
		}
	}
	carrier_why(c, channel, &e);
	if (!received || e.err == ENOLINK)
		fprintf(stderr, "%s\n", e.text);
	return received && e.err != ENOLINK ? 0 : 1;
}

/* --- talk */

static void say(struct carrier *c, int channel, const char *text)
{
	struct error e = { 0 };
	char c1, line[256];
	size_t used = 0;
	ssize_t n;

	if (send(channel, text, strlen(text), MSG_NOSIGNAL) < 0 || send(channel, "\n", 1, MSG_NOSIGNAL) < 0)
		n = 0;
	else
		while ((n = read(channel, &c1, 1)) == 1 && c1 != '\n' && used < sizeof(line) - 1)
			line[used++] = c1;
	line[used] = '\0';
	if (n == 1) {
		printf("%s\n", line);
		return;
	}
	carrier_why(c, channel, &e);
	printf("ended %s: %s\n", error_name(e.err), e.text);
}

static int talk(struct carrier *c)
{
	char line[512], text[512];
	int channel;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		struct error e = { 0 };

		if (strcmp(line, "open\n") == 0) {
			channel = carrier_channel(c, &e);
			if (channel < 0)
				printf("failed %s: %s\n", error_name(e.err), e.text);
			else
				printf("%d\n", channel);
		} else if (sscanf(line, "say %d %500[^\n]", &channel, text) == 2) {
			say(c, channel, text);
		} else if (sscanf(line, "close %d", &channel) == 1) {
			close(channel);
			printf("closed\n");
		} else {
			printf("%s\n", carrier_is_alive(c) ? "yes" : "no");
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "kind", required_argument, NULL, 'k' }, { "user", required_argument, NULL, 'u' },
		{ "port", required_argument, NULL, 'p' }, { "config", required_argument, NULL, 'c' },
		{ "silent", no_argument, NULL, 's' }, { NULL, 0, NULL, 0 },
	};
	struct carrier_spec spec = { 0 };
	struct error e = { 0 };
	struct carrier *c;
	int o, status;

	log_init("carrier-try");
	signal(SIGPIPE, SIG_IGN);
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 'k')
			spec.kind = optarg;
		else if (o == 'u')
			spec.user = optarg;
		else if (o == 'p')
			spec.port = (unsigned)atoi(optarg);
		else if (o == 'c')
			spec.config = optarg;
		else if (o == 's')
			spec.is_silent = true;
	}
	if (argc - optind != 2)
		return 2;
	spec.host = argv[optind];
	c = carrier_open(&spec, &e);
	if (!c) {
		fprintf(stderr, "%s: %s\n", error_name(e.err), e.text);
		return 1;
	}
	status = strcmp(argv[optind + 1], "pump") == 0 ? pump(c) : talk(c);
	carrier_free(c);
	return status;
}
