/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ssh2 - the caller's side of the carrier that is libssh2
 *
 *      caller                                 child, a process of its own
 *      open       ---- fork --------------->  connect, check the host, log in (asks on the terminal)
 *                 <--- done, or a sentence -  goes into a session of its own: Ctrl-C is the caller's
 *      channel    ---- two descriptors ---->  opens a channel, execs the relay, pumps
 *                 <--- done, or a sentence -  first connecting anew, with what was typed, where the link was lost
 *      free, or death: the socket's end --->  closes all, wipes, ends
 *
 * A process of its own: the caller may block wherever he likes, secrets are in no memory of his, and what is wrong in a library
 * that reads what strangers send is not in his process.
 */
#include "migrate/carrier-ssh2-private.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/carrier-tty.h"

#define CONNECT_DEFAULT_S 15u
#define DEAD_MS 20000u
#define AGENT_MS 30000u /* it may ask a person */
#define JUMPS_MAX 8u

struct ssh2_carrier {
	struct carrier carrier;
	struct carrier_ends ends;
	int control; /* owned */
	pid_t child;
};

/* --- where to */

static void free_way(struct ssh2_way *w)
{
	carrier_free(w->over);
	ssh2_secrets_free(w->secrets);
	ssh_config_fini(&w->config);
	free(w->name);
	free(w->jump);
	free(w->key);
	free(w);
}

static unsigned number_from(const char *variable, unsigned otherwise)
{
	const char *text = getenv(variable);
	int value = text ? atoi(text) : 0;

	return value > 0 ? (unsigned)value : otherwise;
}

static int fill_way(struct ssh2_way *w, const struct carrier_spec *spec, const char *jump, struct error *e)
{
	const struct ssh_config *c = &w->config;

	if (ssh_config_init(&w->config, spec->host, spec->user, spec->port, e) == -1 ||
	    ssh_config_load(&w->config, spec->config, e) == -1)
		return -1;
	if (*c->cannot)
		return error_set(e, ENOTSUP, "%s", c->cannot);
	for (size_t i = 0; i < c->note_count; i++)
		dprintf(STDERR_FILENO, "%s: %s\n", spec->host, c->notes[i]);
	jump = jump ? jump : c->jump && strcmp(c->jump, "none") != 0 ? c->jump : "";
	w->name = strdup(spec->host);
	w->jump = *jump ? strdup(jump) : NULL;
	if (!w->name || (*jump && !w->jump))
		return error_set(e, ENOMEM, "out of memory");
	w->may_ask = !spec->is_silent && carrier_tty_is_there();
	w->connect_ms = (c->connect_timeout_s ? c->connect_timeout_s : CONNECT_DEFAULT_S) * 1000;
	w->dead_ms = number_from("SXM_SSH_DEAD_MS", DEAD_MS);
	w->agent_ms = number_from("SXM_SSH_AGENT_MS", AGENT_MS);
	return 0;
}

/* [user@]host[:port], the last of those that are separated by commas; it is gone from w->jump. */
static int split_jump(struct ssh2_way *w, struct carrier_spec *spec, char hop[static 600], struct error *e)
{
	char *comma = strrchr(w->jump, ','), *at, *colon;
	int n = snprintf(hop, 600, "%s", comma ? comma + 1 : w->jump);

	if (comma)
		*comma = '\0';
	else
		*w->jump = '\0';
	at = strrchr(hop, '@');
	if (at)
		*at = '\0';
	spec->user = at ? hop : NULL;
	spec->host = at ? at + 1 : hop;
	colon = strrchr(spec->host, ':');
	if (*spec->host == '[' && strchr(spec->host, ']')) {
		char *end = strchr(spec->host, ']');

		colon = end[1] == ':' ? end + 1 : NULL;
		*end = '\0';
		spec->host++;
	}
	if (colon)
		*colon = '\0';
	spec->port = colon ? (unsigned)atoi(colon + 1) : 0;
	if (n >= 600 || !ssh_config_is_host(spec->host) || (colon && (!spec->port || spec->port > 65535)))
		return error_set(e, EINVAL, "\"%.100s\" is no host to jump over; use --carrier ssh", hop);
	return 0;
}

/* The child's: before it connects itself. A host that is to be reached over itself is reached straight. */
static int open_jump(struct ssh2_way *w, const struct carrier_spec *spec, struct error *e)
{
	static unsigned depth; /* a child's child goes on counting */
	struct carrier_spec first = *spec;
	char hop[600];

	if (!w->jump)
		return 0;
	if (split_jump(w, &first, hop, e) == -1)
		return -1;
	if (strcmp(first.host, w->config.host) == 0 && !*w->jump)
		return 0;
	if (++depth > JUMPS_MAX)
		return error_set(e, ELOOP, "there are more than %u hosts to jump over", JUMPS_MAX);
	/* What jumps itself says where its own jump leads; ours says it where there are several. */
	w->over = ssh2_open(&first, *w->jump ? w->jump : NULL, e);
	return w->over ? 0 : error_prefix(e, "on the way to %s", w->name);
}

/* --- the child's first moments */

static void become_child(struct ssh2_way *w, const struct carrier_spec *spec, int control)
{
	static const int plain[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGALRM, SIGUSR1, SIGUSR2, SIGCHLD };
	struct ssh2_answer answer = { 0 };
	struct error e = { 0 };
	sigset_t none;

	for (size_t i = 0; i < ARRAY_LEN(plain); i++)
		signal(plain[i], SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (carrier_close_others(&control, 1) == 0 && open_jump(w, spec, &e) == 0)
		ssh2_child_run(w, control);
	answer.err = e.err ? e.err : EMFILE;
	snprintf(answer.text, sizeof(answer.text), "%s", *e.text ? e.text : "the process that speaks SSH cannot begin");
	(void)!send(control, &answer, sizeof(answer), MSG_NOSIGNAL);
	free_way(w);
	_exit(1);
}

/* --- asking it */

static int read_answer(struct ssh2_carrier *s, struct error *e)
{
	struct ssh2_answer answer;
	ssize_t n;

	do {
		n = recv(s->control, &answer, sizeof(answer), 0);
	} while (n == -1 && errno == EINTR);
	if (n != (ssize_t)sizeof(answer))
		return error_set(e, ECANCELED, "the connection to %s was given up", s->carrier.name);
	answer.text[sizeof(answer.text) - 1] = '\0';
	return answer.err ? error_set(e, answer.err, "%s", answer.text) : 0;
}

static int ask(struct ssh2_carrier *s, const struct ssh2_request *r, const int fds[2], struct error *e)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)r, .iov_len = sizeof(*r) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fds) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(2 * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, 2 * sizeof(int));
	}
	if (sendmsg(s->control, &m, MSG_NOSIGNAL) != (ssize_t)sizeof(*r))
		return error_set(e, ENOLINK, "the process that speaks SSH with %s has died", s->carrier.name);
	return read_answer(s, e);
}

static int ask_stream(struct ssh2_carrier *s, const struct ssh2_request *r, struct error *e)
{
	int ours, fds[2] = { -1, -1 }, result;

	ours = carrier_ends_make(&s->ends, &fds[0], &fds[1], e);
	if (ours < 0)
		return -1;
	result = ask(s, r, fds, e);
	close(fds[0]);
	close(fds[1]);
	if (result == 0)
		return ours;
	carrier_ends_drop(&s->ends, ours);
	return -1;
}

int ssh2_forward(struct carrier *c, const char *host, unsigned port, struct error *e)
{
	struct ssh2_request r = { .verb = SSH2_FORWARD, .port = port };

	snprintf(r.host, sizeof(r.host), "%s", host);
	return ask_stream(container_of(c, struct ssh2_carrier, carrier), &r, e);
}

/* --- a carrier */

static void free_ssh2(struct carrier *c)
{
	struct ssh2_carrier *s = container_of(c, struct ssh2_carrier, carrier);

	if (s->control >= 0)
		close(s->control);
	while (s->child > 0 && waitpid(s->child, NULL, 0) == -1 && errno == EINTR)
		;
	carrier_ends_fini(&s->ends);
	free(s->carrier.name);
	free(s);
}

static int start_child(struct ssh2_carrier *s, const struct carrier_spec *spec, const char *jump, struct error *e)
{
	struct ssh2_way *w = calloc(1, sizeof(*w));
	int pair[2] = { -1, -1 };

	if (!w)
		return error_set(e, ENOMEM, "out of memory");
	if (fill_way(w, spec, jump, e) == -1 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == -1) {
		free_way(w);
		return e->err ? -1 : error_errno(e, errno, "make a pair of sockets");
	}
	s->control = pair[0];
	s->child = fork();
	if (s->child == 0)
		become_child(w, spec, pair[1]);
	close(pair[1]);
	free_way(w); /* the secrets are the child's: there are none yet */
	if (s->child < 0)
		return error_errno(e, errno, "fork");
	return read_answer(s, e);
}

struct carrier *ssh2_open(const struct carrier_spec *spec, const char *jump, struct error *e)
{
	struct ssh2_carrier *s = calloc(1, sizeof(*s));

	if (!s || !(s->carrier.name = strdup(spec->host ? spec->host : ""))) {
		free(s);
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	s->carrier.ops = &carrier_ssh2;
	s->control = -1;
	error_clear(e);
	if (start_child(s, spec, jump, e) == 0)
		return &s->carrier;
	free_ssh2(&s->carrier);
	return NULL;
}

static struct carrier *open_ssh2(const struct carrier_spec *spec, struct error *e)
{
	struct error own = { 0 };
	struct carrier *c = ssh2_open(spec, NULL, &own);

	if (!c)
		error_set(e, own.err, "%s", own.text);
	return c;
}

static int channel_ssh2(struct carrier *c, struct error *e)
{
	const struct ssh2_request r = { .verb = SSH2_CHANNEL };

	return ask_stream(container_of(c, struct ssh2_carrier, carrier), &r, e);
}

static bool is_ssh2_alive(struct carrier *c)
{
	const struct ssh2_request r = { .verb = SSH2_IS_ALIVE };

	return ask(container_of(c, struct ssh2_carrier, carrier), &r, NULL, NULL) == 0;
}

static int why_ssh2(struct carrier *c, int channel, struct error *e)
{
	struct ssh2_carrier *s = container_of(c, struct ssh2_carrier, carrier);

	return carrier_ends_why(&s->ends, channel, s->carrier.name, e);
}

static size_t descriptors_ssh2(struct carrier *c, int fds[static CARRIER_DESCRIPTORS_MAX])
{
	struct ssh2_carrier *s = container_of(c, struct ssh2_carrier, carrier);
	size_t count = carrier_ends_descriptors(&s->ends, fds);

	fds[count] = s->control;
	return count + 1;
}

const struct carrier_ops carrier_ssh2 = {
	.kind = "ssh2", .open = open_ssh2, .channel = channel_ssh2, .why = why_ssh2, .is_alive = is_ssh2_alive,
	.descriptors = descriptors_ssh2, .free = free_ssh2,
};
