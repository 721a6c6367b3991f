/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sxm-datapath - serves one virtual disk: options, the loop, the disk, its control socket
 *
 *      options -> control socket (descriptor 3, or bound here) -> [background] -> [keeper] -> serve -> exit 0 when empty
 *
 * The socket listens before the starter returns, so nobody waits for readiness.  Nothing of the starter is kept: not its
 * directory, terminal, signals, nor its standard output and error.
 *
 * Ends when nobody is attached, no operation runs and no client is connected; a client that says nothing is hung up on after
 * a second then.  One that was started and never asked anything goes after IDLE_START_MS.
 * SIGTERM: flush, close, exit 0; domains.json stays for a successor.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "block/req.h"
#include "config.h"
#include "control/dispatch.h"
#include "keeper.h"

#define CONTROL_FD 3
#define SILENT_MS 1000u
#define IDLE_START_MS 60000u
#define POOL_THREADS "8" /* calls that block; each costs a stack */
#define DESCRIPTORS 512 /* that no thread has to wait for: clients', and what a qemu is started with (disk-qcow2-server) */
#define OOM_SCORE "-900" /* a guest's disk is not what should be killed first */

struct options {
	const char *id, *path; /* borrowed from argv */
	bool is_kept, is_foreground;
};

struct process {
	const struct options *options;
	struct loop *loop;
	struct vdi *vdi;
	struct server *server;
	struct dispatch dispatch;
	struct loop_timer *timer;
	bool is_ending, is_told; /* told: SIGTERM */
	int status;
};

/* --- how it ends */

static void end_if_empty(struct process *p)
{
	if (!p->is_ending)
		return;
	if (!vdi_is_empty(p->vdi))
		p->is_ending = false;
	else if (server_is_quiet(p->server))
		loop_stop(p->loop);
	else
		loop_timer_set(p->timer, SILENT_MS);
}

static void on_empty(void *arg)
{
	struct process *p = arg;

	p->is_ending = true;
	end_if_empty(p);
}

/* Nothing is flushed, closed in order or written down: it is all another host's. */
static void on_lost(void *arg UNUSED)
{
	log_error("the process ends, as another host has the disk");
	_exit(1);
}

/* As if it were killed, which is what its successor takes it for. */
static void on_closed(void *arg UNUSED)
{
	_exit(1);
}

/* Whoever only asked (a status, a detach of nobody) leaves no job whose end would tell: look again in a while. */
static void on_quiet(void *arg)
{
	struct process *p = container_of(arg, struct process, dispatch);

	if (p->is_ending)
		end_if_empty(p);
	else
		loop_timer_set(p->timer, SILENT_MS);
}

static void on_timer(void *arg)
{
	struct process *p = arg;

	if (p->is_ending)
		server_hang_up_idle(p->server, SILENT_MS);
	p->is_ending = p->is_ending || vdi_is_empty(p->vdi);
	end_if_empty(p);
}

static void on_stopped(void *arg, const struct error *e)
{
	struct process *p = arg;

	if (e) {
		log_error("stop: %s", e->text);
		p->status = 1;
	}
	loop_stop(p->loop);
}

static void on_term(void *arg)
{
	struct process *p = arg;

	if (!p->is_told)
		vdi_stop(p->vdi, on_stopped, p);
	p->is_told = true;
}

/* --- serve */

static void on_resumed(void *arg UNUSED, const struct error *e)
{
	if (e)
		log_error("not everything is served again yet: %s", e->text);
}

static int start(struct process *p, const struct keeper_spec *k, struct error *e)
{
	const struct options *o = p->options;
	const struct vdi_spec vdi = {
		.loop = p->loop, .id = o->id, .path = o->path, .run_dir = k->run_dir, .on_empty = on_empty,
		.on_lost = on_lost, .on_closed = on_closed, .arg = p
	};
	const struct server_spec server = {
		.loop = p->loop, .fd = k->fd, .on_line = dispatch_line, .on_quiet = on_quiet, .on_gone = dispatch_gone,
		.arg = &p->dispatch
	};

	p->vdi = vdi_new(&vdi, e);
	if (!p->vdi)
		return -1;
	p->dispatch = (struct dispatch){ .vdi = p->vdi, .id = o->id, .path = o->path };
	p->server = server_new(&server, e);
	if (!p->server)
		return -1;
	p->timer = loop_timer_new(p->loop, on_timer, p);
	if (!p->timer || loop_on_signal(p->loop, SIGTERM, on_term, p) == -1 || loop_on_signal(p->loop, SIGINT, on_term, p) == -1)
		return error_set(e, ENOMEM, "out of memory");
	loop_timer_set(p->timer, IDLE_START_MS);
	vdi_resume(p->vdi, on_resumed, p);
	return 0;
}

/* is_told: it ended because it was told to, not because nothing was left. */
static int serve(const struct options *o, const struct keeper_spec *k, bool *is_told)
{
	struct process p = { .options = o };
	struct error e = { 0 };

	proc_make_room(DESCRIPTORS);
	proc_take_short_turns();
	p.loop = loop_new();
	if (!p.loop) {
		log_error("no event loop: out of memory or descriptors");
		return 1;
	}
	req_init(p.loop);
	if (start(&p, k, &e) == -1) {
		log_error("%s", e.text);
		p.status = 1;
	} else {
		loop_run(p.loop);
	}
	if (p.server)
		server_stop(p.server);
	vdi_free(p.vdi);
	if (p.server)
		server_free(p.server);
	loop_timer_free(p.timer);
	req_fini();
	loop_free(p.loop);
	*is_told = p.is_told;
	return p.status;
}

/* --- how it begins */

static void usage(FILE *out)
{
	fprintf(out, "usage: sxm-datapath --id ID --path IMAGE [--keep] [--foreground]\n"
		     "Serves one virtual disk over NBD; told what to do at SXM_RUN_DIR/ID/control.\n"
		     "  --id ID        names the directory below SXM_RUN_DIR (default /run/sxm)\n"
		     "  --path IMAGE   a raw file, a block device, a *.qcow2, or a file *.nbd that names an NBD export\n"
		     "  --keep         start again after a crash\n"
		     "  --foreground   do not go to the background\n"
		     "  --help, --version\n"
		     "See sxm-datapath(8).\n");
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "id", required_argument, NULL, 'i' }, { "path", required_argument, NULL, 'p' },
		{ "keep", no_argument, NULL, 'k' }, { "foreground", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' }, { NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'i': o->id = optarg; break;
		case 'p': o->path = optarg; break;
		case 'k': o->is_kept = true; break;
		case 'f': o->is_foreground = true; break;
		case 'h': usage(stdout); exit(0);
		case 'V': printf("sxm-datapath %s\n", PACKAGE_VERSION); exit(0);
		default: usage(stderr); return -1;
		}
	}
	if (!o->id || !o->path || optind != argc || !*o->id || *o->id == '.' || strchr(o->id, '/') || *o->path != '/') {
		fprintf(stderr, "sxm-datapath: needs --id (no slash, no leading dot) and --path (absolute)\n");
		return -1;
	}
	return 0;
}

static bool is_listening(int fd)
{
	int domain = 0, is_accepting = 0;
	socklen_t a = sizeof(domain), b = sizeof(is_accepting);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &a) == 0 && domain == AF_UNIX &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_accepting, &b) == 0 && is_accepting;
}

static int take_socket(struct keeper_spec *k, struct error *e)
{
	int fd;

	if (is_listening(CONTROL_FD)) {
		k->fd = CONTROL_FD;
		return 0;
	}
	fd = keeper_bind(k, e);
	if (fd < 0)
		return -1;
	if (fd != CONTROL_FD && (dup2(fd, CONTROL_FD) < 0 || close(fd) == -1))
		return error_errno(e, errno, "descriptor %d", CONTROL_FD);
	k->fd = CONTROL_FD;
	return 0;
}

/* SXM_LOG=stderr without a terminal of our own: a file beside the directory. The starter's standard error is never kept. */
static void keep_log(const struct options *o)
{
	CLEANUP_FREE char *path = NULL;
	const char *log = getenv("SXM_LOG");
	CLEANUP_CLOSE int fd = -1;

	if (!log || strcmp(log, "stderr") != 0)
		return;
	if (asprintf(&path, "%s/%s.log", proc_run_dir(), o->id) == -1)
		path = NULL;
	if (path)
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		dup2(fd, STDERR_FILENO);
}

/* The starter gets its exit status and all its descriptors back. */
static int go_to_background(const struct options *o, struct error *e)
{
	pid_t pid = fork();

	if (pid < 0)
		return error_errno(e, errno, "fork");
	if (pid > 0)
		_exit(0);
	setsid();
	signal(SIGHUP, SIG_IGN);
	keep_log(o);
	return proc_settle(CONTROL_FD, CONTROL_FD + 1, e);
}

static void ask_to_be_spared(void)
{
	CLEANUP_CLOSE int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, OOM_SCORE, strlen(OOM_SCORE)) < 0)
		log_debug("oom_score_adj: %s", strerror(errno)); /* not root */
}

static int begin(const struct options *o, struct keeper_spec *k, struct error *e)
{
	umask(077);
	if (proc_make_dir(proc_run_dir(), e) == -1 || proc_make_dir(k->run_dir, e) == -1 || take_socket(k, e) == -1)
		return -1;
	if (fcntl(k->fd, F_SETFL, O_NONBLOCK) == -1 || fcntl(k->fd, F_SETFD, FD_CLOEXEC) == -1)
		return error_errno(e, errno, "control socket");
	if (!o->is_foreground && go_to_background(o, e) == -1)
		return -1;
	signal(SIGPIPE, SIG_IGN);
	ask_to_be_spared();
	setenv("UV_THREADPOOL_SIZE", POOL_THREADS, 1);
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_TRIM_THRESHOLD, 256 << 10);
	return 0;
}

int main(int argc, char **argv)
{
	CLEANUP_FREE char *run_dir = NULL;
	struct options o = { 0 };
	struct keeper_spec k = { .fd = -1, .is_needed = vdi_is_needed, .sweep = vdi_sweep };
	struct error e = { 0 };
	bool is_told = false;
	pid_t keeper;
	int status;

	if (parse(argc, argv, &o) == -1)
		return 2;
	log_init("sxm-datapath");
	log_vdi(o.id);
	if (asprintf(&run_dir, "%s/%s", proc_run_dir(), o.id) == -1)
		return 1;
	k.id = o.id;
	k.run_dir = run_dir;
	if (begin(&o, &k, &e) == -1) {
		fprintf(stderr, "sxm-datapath: %s\n", e.text);
		log_error("%s", e.text);
		return e.err != EADDRINUSE && vdi_is_needed(run_dir) ? 1 : 2;
	}
	proc_notify("READY=1"); /* the control socket listens: whoever asks is answered */
	keeper = getpid();
	if (o.is_kept)
		keeper_run(&k);
	do {
		status = serve(&o, &k, &is_told);
	} while (!status && !is_told && (!o.is_kept || getppid() != keeper) && keeper_close_door(&k));
	return status;
}
