/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ssh - the ssh program is the way: a master that is authenticated, and an `ssh` for each channel over it
 *
 *      open:     ssh -M -S SOCKET -f -N host              asks on the terminal what there is to ask; goes into the background
 *      channel:  ssh -S SOCKET host 'sxm relay'           in a process that a warden watches; hands its descriptors to the master
 *      free:     ssh -S SOCKET -O exit host               and a master that nobody uses ends by itself
 *
 * All arguments are fixed but for the host, the user, the port and two files' paths; names have only characters that are in
 * names, and the host comes after "--".  ~/.ssh/config is ssh's to follow; it is read here for two things only: whether it asks
 * for ciphers (if not, ours are those that cost least) and whether it asks for the strictest check of host keys (else unknown
 * ones are asked about: never taken without).
 * Can fail: no ssh, not reached, not let in, another host's key (ssh's own sentence is shown, and its last line is ours).
 * Invariant: after the first connection nobody is asked anything.
 */
#include "migrate/carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "migrate/carrier-ends.h"
#include "migrate/carrier-tty.h"
#include "migrate/carrier-warden.h"
#include "migrate/ssh-config.h"

#define ARGS_MAX 64u
#define SOCKET_MAX 80u /* ssh makes it under a longer name first, which must fit into 107 bytes */
#define LOST 255       /* ssh's own failures */
#define POLL_MS 20
#define QUIET_MS 300 /* ssh waits for a person, or for the network: what it said is shown */

struct ssh_carrier {
	struct carrier carrier;
	struct ssh_config config;
	struct carrier_ends ends;
	char *config_file; /* owned; NULL: ssh's own */
	char *user;        /* owned; NULL: the command line did not say */
	unsigned port;     /* 0: the same */
	char dir[SOCKET_MAX];        /* "": none was made */
	char socket[SOCKET_MAX + 4];
	pid_t *warden;     /* owned */
	size_t warden_count;
	bool is_doubtful;  /* what its files say is not known in full: the strictest is taken for said */
};

/* --- arguments */

struct args {
	char *at[ARGS_MAX]; /* borrowed; argv's type takes no constants */
	size_t count;
	char port[8];
};

static void add(struct args *a, const char *word)
{
	assert(a->count < ARGS_MAX - 1);
	a->at[a->count++] = (char *)(uintptr_t)word;
	a->at[a->count] = NULL;
}

static void add_option(struct args *a, const char *option)
{
	add(a, "-o");
	add(a, option);
}

static void begin_args(struct args *a, const struct ssh_carrier *s, bool is_silent)
{
	static const char *const fixed[] = {
		"ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "PermitLocalCommand=no", "RemoteCommand=none",
		"RequestTTY=no", "Tunnel=no", "EscapeChar=none", "Compression=no", "ServerAliveInterval=10",
		"ServerAliveCountMax=3", "TCPKeepAlive=yes",
	};

	*a = (struct args){ .count = 0 };
	add(a, "ssh");
	if (s->config_file) {
		add(a, "-F");
		add(a, s->config_file);
	}
	add(a, "-S");
	add(a, s->socket);
	for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
		add_option(a, fixed[i]);
	add_option(a, s->config.is_strict || s->is_doubtful ? "StrictHostKeyChecking=yes" : "StrictHostKeyChecking=ask");
	add_option(a, is_silent ? "BatchMode=yes" : "BatchMode=no");
	if (!s->config.connect_timeout_s)
		add_option(a, "ConnectTimeout=15");
	if (!s->config.ciphers && !s->is_doubtful) /* the usual ones, the order is what they cost where the processor knows AES */
		add_option(a, "Ciphers=aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,"
			      "aes192-ctr,aes256-ctr");
}

static void end_args(struct args *a, const struct ssh_carrier *s)
{
	snprintf(a->port, sizeof(a->port), "%u", s->port % 100000);
	if (s->port) {
		add(a, "-p");
		add(a, a->port);
	}
	if (s->user) {
		add(a, "-l");
		add(a, s->user);
	}
	add(a, "--");
	add(a, s->config.host);
}

/* --- a program that is waited for */

static void become_ssh(const struct args *a, int report)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setenv("SSH_ASKPASS_REQUIRE", "never", 1);
	unsetenv("DISPLAY");
	signal(SIGPIPE, SIG_DFL);
	if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0 && dup2(report, STDERR_FILENO) >= 0)
		execvp("ssh", a->at);
	dprintf(report, "run ssh: %s\n", strerror(errno));
	_exit(LOST);
}

/* The master keeps standard error open, perhaps: its end is not waited for, but the process's that went into the background. The
 * line with which it ends is held: who says that it failed says it. */
static int wait_for(pid_t pid, int from, struct carrier_lines *lines)
{
	struct pollfd p = { .fd = from, .events = POLLIN };
	int status = LOST;
	bool is_over = false;

	for (int quiet_ms = 0; !is_over; quiet_ms += POLL_MS) {
		char buffer[1024];
		ssize_t n;

		is_over = waitpid(pid, &status, WNOHANG) != 0;
		while (poll(&p, 1, is_over ? 0 : POLL_MS) > 0) {
			n = read(from, buffer, sizeof(buffer));
			quiet_ms = 0;
			if (n > 0) {
				carrier_lines_add(lines, buffer, (size_t)n);
				continue;
			}
			p.fd = -1;
			if (!is_over)
				waitpid(pid, &status, 0);
			is_over = true;
		}
		if (quiet_ms >= QUIET_MS)
			carrier_lines_show(lines);
	}
	carrier_lines_end(lines);
	return WIFEXITED(status) ? WEXITSTATUS(status) : LOST;
}

static int run_ssh(const struct args *a, struct carrier_lines *lines, struct error *e)
{
	int report[2], status;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC) == -1)
		return error_errno(e, errno, "make a pipe");
	pid = fork();
	if (pid == 0)
		become_ssh(a, report[1]);
	close(report[1]);
	status = pid < 0 ? LOST : wait_for(pid, report[0], lines);
	close(report[0]);
	return pid < 0 ? error_errno(e, errno, "fork") : status;
}

/* --- the master */

static bool is_ssh_alive(struct carrier *c)
{
	struct ssh_carrier *s = container_of(c, struct ssh_carrier, carrier);
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", s->socket);
	return fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
}

/* Which of the sentences' codes ssh's last line is about. */
static int say_refused(const struct ssh_carrier *s, const char *line, struct error *e)
{
	bool is_other = strstr(line, "Host key verification failed") || strstr(line, "REMOTE HOST IDENTIFICATION");
	bool is_denied = strstr(line, "Permission denied") || strstr(line, "Too many authentication failures");

	return error_set(e, is_other ? EKEYREJECTED : is_denied ? EACCES : EHOSTUNREACH, "%s %s: %s",
			 is_other ? "who answers is not known to be" : is_denied ? "not let in by" : "there is no way to",
			 s->carrier.name, *line ? line : "ssh says nothing about it");
}

static int start_master(struct ssh_carrier *s, bool is_silent, struct error *e)
{
	struct carrier_lines lines = { .name = "ssh", .will_hold = true };
	struct args a;
	int status;

	unlink(s->socket);
	begin_args(&a, s, is_silent);
	add(&a, "-M");
	add(&a, "-f");
	add(&a, "-N");
	add_option(&a, "ControlPersist=600"); /* what carrier_free() did not end, as nobody was there to call it */
	end_args(&a, s);
	status = run_ssh(&a, &lines, e);
	if (status == -1)
		return -1;
	if (status || !is_ssh_alive(&s->carrier))
		return say_refused(s, lines.last, e);
	carrier_lines_show(&lines);
	return 0;
}

static void stop_master(struct ssh_carrier *s)
{
	struct args a;
	int report[2];
	pid_t pid;

	if (!is_ssh_alive(&s->carrier) || pipe2(report, O_CLOEXEC) == -1)
		return;
	begin_args(&a, s, true);
	add(&a, "-O");
	add(&a, "exit");
	end_args(&a, s);
	pid = fork();
	if (pid == 0)
		become_ssh(&a, report[1]); /* "Exit request sent." is nothing to show */
	close(report[1]);
	close(report[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

/* --- open, channel, free */

/* Where nobody else can reach it: in SXM_RUN_DIR, or in a directory of its own. ssh makes it, and removes it when it ends. */
static int name_socket(struct ssh_carrier *s, struct error *e)
{
	static unsigned number;
	int n = snprintf(s->socket, sizeof(s->socket), "%s/ssh-%ld-%u", proc_run_dir(), (long)getpid(), number++);

	if (n > 0 && (unsigned)n < SOCKET_MAX && proc_make_dir(proc_run_dir(), NULL) == 0)
		return 0;
	strcpy(s->dir, "/tmp/sxm-ssh-XXXXXX");
	if (!mkdtemp(s->dir)) {
		error_errno(e, errno, "make the directory %s", s->dir);
		*s->dir = '\0';
		return -1;
	}
	snprintf(s->socket, sizeof(s->socket), "%s/s", s->dir);
	return 0;
}

static void free_ssh(struct carrier *c)
{
	struct ssh_carrier *s = container_of(c, struct ssh_carrier, carrier);

	if (*s->socket) {
		stop_master(s);
		unlink(s->socket);
	}
	if (*s->dir)
		rmdir(s->dir);
	for (size_t i = 0; i < s->warden_count; i++)
		kill(s->warden[i], SIGTERM);
	while (s->warden_count)
		waitpid(s->warden[--s->warden_count], NULL, 0);
	carrier_ends_fini(&s->ends);
	ssh_config_fini(&s->config);
	free(s->warden);
	free(s->config_file);
	free(s->user);
	free(s->carrier.name);
	free(s);
}

static int set_up(struct ssh_carrier *s, const struct carrier_spec *spec, struct error *e)
{
	if (ssh_config_init(&s->config, spec->host, spec->user, spec->port, e) == -1)
		return -1;
	if (spec->config && *spec->config == '-')
		return error_set(e, EINVAL, "\"%.60s\" is no path of a file", spec->config);
	s->port = spec->port;
	s->is_doubtful = ssh_config_load(&s->config, spec->config, NULL) == -1 || s->config.note_count;
	s->carrier.name = strdup(spec->host);
	s->config_file = spec->config ? strdup(spec->config) : NULL;
	s->user = spec->user ? strdup(spec->user) : NULL;
	if (!s->carrier.name || (spec->config && !s->config_file) || (spec->user && !s->user))
		return error_set(e, ENOMEM, "out of memory");
	return name_socket(s, e);
}

/* Is there an ssh in PATH? */
static bool is_ssh_usable(void)
{
	const char *at = getenv("PATH");

	while (at && *at) {
		size_t bytes = strcspn(at, ":");
		char path[PATH_MAX];
		int n = snprintf(path, sizeof(path), "%.*s/ssh", (int)bytes, at);

		if (n > 0 && (size_t)n < sizeof(path) && access(path, X_OK) == 0)
			return true;
		at += bytes + (at[bytes] == ':');
	}
	return false;
}

static struct carrier *open_ssh(const struct carrier_spec *spec, struct error *e)
{
	struct ssh_carrier *s = calloc(1, sizeof(*s));

	if (!s) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	s->carrier.ops = &carrier_ssh;
	if (set_up(s, spec, e) == 0 && start_master(s, spec->is_silent || !carrier_tty_is_there(), e) == 0)
		return &s->carrier;
	free_ssh(&s->carrier);
	return NULL;
}

static void reap(struct ssh_carrier *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->warden_count; i++)
		if (waitpid(s->warden[i], NULL, WNOHANG) == 0)
			s->warden[kept++] = s->warden[i];
	s->warden_count = kept;
}

static int start_channel(struct ssh_carrier *s, int stream, int tell, struct error *e)
{
	struct args a;
	pid_t *more, pid;

	reap(s);
	more = realloc(s->warden, (s->warden_count + 1) * sizeof(*more));
	if (!more)
		return error_set(e, ENOMEM, "out of memory");
	s->warden = more;
	begin_args(&a, s, true);
	add_option(&a, "ControlMaster=no");
	end_args(&a, s);
	add(&a, "sxm relay");
	pid = carrier_warden_start(a.at, stream, tell, s->carrier.name, LOST, e);
	if (pid < 0)
		return -1;
	s->warden[s->warden_count++] = pid;
	return 0;
}

/* Where a person had to say a word it is not known to us: who begins anew is asked again. */
static int start_again(struct ssh_carrier *s, struct error *e)
{
	if (start_master(s, true, e) == 0)
		return 0;
	if (e->err == EACCES)
		error_prefix(e, "the connection to %s was lost, and cannot be made anew without somebody who logs in, as ssh "
			     "keeps no password and no passphrase; with a key, an agent or --carrier ssh2 it can",
			     s->carrier.name);
	return -1;
}

static int channel_ssh(struct carrier *c, struct error *e)
{
	struct ssh_carrier *s = container_of(c, struct ssh_carrier, carrier);
	CLEANUP_CLOSE int there = -1;
	CLEANUP_CLOSE int tell = -1;
	int ours;

	if (!is_ssh_alive(c) && start_again(s, e) == -1)
		return -1;
	ours = carrier_ends_make(&s->ends, &there, &tell, e);
	if (ours < 0 || start_channel(s, there, tell, e) == 0)
		return ours;
	carrier_ends_drop(&s->ends, ours);
	return -1;
}

static int why_ssh(struct carrier *c, int channel, struct error *e)
{
	struct ssh_carrier *s = container_of(c, struct ssh_carrier, carrier);

	return carrier_ends_why(&s->ends, channel, s->carrier.name, e);
}

static size_t descriptors_ssh(struct carrier *c, int fds[static CARRIER_DESCRIPTORS_MAX])
{
	return carrier_ends_descriptors(&container_of(c, struct ssh_carrier, carrier)->ends, fds);
}

const struct carrier_ops carrier_ssh = {
	.kind = "ssh", .is_usable = is_ssh_usable, .open = open_ssh, .channel = channel_ssh, .why = why_ssh,
	.is_alive = is_ssh_alive, .descriptors = descriptors_ssh, .free = free_ssh,
};
