/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * coalesce - see coalesce.h
 *
 *      find      B1 and B0: bases, B1 the only one that stands on B0, every leaf above B1 unused, or in use on this host
 *      commit    what B1 has is written into B0. Whoever reads B0 reads it through B1, so sees none of it: no one waits
 *      held      the leaves above B1, all at once
 *      rename    B0 to B1's name
 *      go on     the leaves are opened again, and B1's old file goes with its last reader
 *
 * How, and why it may be killed anywhere: merge.c. The locks are inherited by qemu-img: nobody takes them while one of a process
 * that was killed still writes.
 * Can fail: a full disk (B0 grows by what B1 has before B1 goes), a damaged image. Then that pair stays, and it is said.
 */
#include "plugins/coalesce.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/merge.h"
#include "plugins/program.h"
#include "plugins/vdi-id.h"

#define PATIENCE_MS 600000u /* with leaves that are in use elsewhere, all in all */
#define RETRY_MIN_MS 50u
#define RETRY_MAX_MS 5000u
#define STOP_TRIES 500u /* 10 s */
#define NOT_NOW_MAX 64u
#define IOPRIO_IDLE (3 << 13)

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static char *join(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static char *sr_lock_path(const char *dir)
{
	return join(dir, "sxm-sr.coalesce");
}

static char *host_path(const char *dir, const char *suffix)
{
	char id[VDI_ID_MAX], *path;

	vdi_id_of_path(dir, id);
	return asprintf(&path, "%s/coalesce/%s%s", proc_run_dir(), id, suffix) < 0 ? NULL : path;
}

/* Of this host's. Who holds it has written its pid into it. */
static char *host_lock_path(const char *dir)
{
	return host_path(dir, "");
}

/* There is something to look at, since the mark was removed. */
static char *mark_path(const char *dir)
{
	return host_path(dir, ".again");
}

/* --- the process */

struct worker {
	const char *dir;
	int host_lock, sr_lock;     /* owned */
	unsigned waited_ms, pause_ms;
	size_t left;                /* pairs that cannot be merged: so many of them are passed over */
	char left_upper[NOT_NOW_MAX][TREE_NAME_TEXT];
};

static void note(struct worker *w, const char *text)
{
	char line[512], host[64] = "";
	time_t now = time(NULL);
	struct tm tm;
	char when[32];
	int bytes;

	gethostname(host, sizeof(host) - 1);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	bytes = snprintf(line, sizeof(line), "%s, process %d on %s: %s\n", when, (int)getpid(), host, text);
	if (ftruncate(w->sr_lock, 0) == -1 ||
	    pwrite(w->sr_lock, line, (size_t)MIN(bytes, (int)sizeof(line) - 1), 0) < 0)
		log_debug("%s: %s", w->dir, strerror(errno));
}

/* The longer the last ones were in vain. False: that was long enough. */
static bool wait_a_while(struct worker *w)
{
	struct timespec pause;

	if (w->waited_ms >= PATIENCE_MS)
		return false;
	w->pause_ms = MIN(MAX(2 * w->pause_ms, RETRY_MIN_MS), RETRY_MAX_MS);
	w->waited_ms += w->pause_ms;
	pause = (struct timespec) { .tv_sec = w->pause_ms / 1000, .tv_nsec = w->pause_ms % 1000 * (long)NS_PER_MS };
	nanosleep(&pause, NULL);
	return true;
}

static bool is_left(const struct worker *w, const char *upper)
{
	for (size_t i = 0; i < w->left; i++)
		if (strcmp(w->left_upper[i], upper) == 0)
			return true;
	return false;
}

/* 1: there is none. */
static int find_pair(const struct worker *w, struct merge *p, struct error *e)
{
	CLEANUP_LOCK int lock = tree_lock(w->dir, e);
	struct tree t;
	int r = 1;

	if (lock < 0 || tree_scan(w->dir, &t, e) == -1)
		return -1;
	for (size_t i = 0; r == 1 && i < t.count; i++)
		if (merge_is_possible(&t, &t.node[i]) && !is_left(w, t.node[i].name)) {
			merge_init(p, &t, &t.node[i]);
			r = 0;
		}
	tree_clear(&t);
	return r;
}

/* Until it was done, failed, or waited for too long. */
static int insist(struct worker *w, const struct merge *p, merge_fn *fn, struct error *e)
{
	for (;;) {
		char text[384];
		int r = merge_held(w->dir, p, fn, e);

		if (r != 1) {
			w->pause_ms = 0;
			return r;
		}
		snprintf(text, sizeof(text), "%.100s is not merged yet: %.250s", p->upper, e->text);
		note(w, text);
		if (!wait_a_while(w))
			return -1;
	}
}

static int merge(struct worker *w, const struct merge *p, struct error *e)
{
	char text[256];

	snprintf(text, sizeof(text), "merging %s into %s", p->upper, p->lower);
	if (insist(w, p, p->lower_bytes < p->upper_bytes ? merge_make_longer : NULL, e) == -1)
		return -1;
	note(w, text);
	if (merge_commit(w->dir, p, e) == -1)
		return -1;
	return insist(w, p, merge_take_name, e);
}

static void leave(struct worker *w, const struct merge *p, const struct error *e)
{
	char text[400];

	snprintf(text, sizeof(text), "%.100s could not be merged: %.250s", p->upper, e->text);
	log_error("%s: %s", w->dir, text);
	note(w, text);
	strcpy(w->left_upper[w->left++], p->upper);
}

static void work(struct worker *w)
{
	struct merge p;
	struct error e;

	while (w->left < NOT_NOW_MAX) {
		int r = tree_collect(w->dir, &e) == -1 ? -1 : find_pair(w, &p, &e);

		if (r == -1)
			log_error("%s: %s", w->dir, e.text);
		if (r)
			return;
		if (merge(w, &p, &e) == 0)
			log_info("%s/%s is now part of %s", w->dir, p.lower, p.upper);
		else if (e.err != ESTALE)
			leave(w, &p, &e);
	}
}

/* Inherited by what this process runs. */
static int keep_lock(const char *path, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	int lock = fd < 0 ? error_errno(e, errno, "open %s", path) : lock_try(path, e);

	if (lock >= 0)
		fcntl(lock, F_SETFD, 0);
	return lock;
}

static int take_host_lock(const char *dir, struct error *e)
{
	CLEANUP_FREE char *path = host_lock_path(dir);

	return path ? keep_lock(path, e) : out_of_memory(e);
}

static int make_mark(const char *path, struct error *e)
{
	CLEANUP_FREE char *dir = strndup(path, (size_t)(strrchr(path, '/') - path));
	CLEANUP_CLOSE int fd = -1;

	if (!dir)
		return out_of_memory(e);
	if (proc_make_dir(proc_run_dir(), e) == -1 || proc_make_dir(dir, e) == -1)
		return -1;
	fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? error_errno(e, errno, "make %s", path) : 0;
}

static int write_pid(int fd, struct error *e)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) == -1 || pwrite(fd, pid, strlen(pid), 0) < 0)
		return error_errno(e, errno, "write to its lock");
	return 0;
}

/* Another host's process may have it. */
static int take_sr_lock(struct worker *w, struct error *e)
{
	CLEANUP_FREE char *path = sr_lock_path(w->dir);

	if (!path)
		return out_of_memory(e);
	for (;;) {
		w->sr_lock = keep_lock(path, e);
		if (w->sr_lock >= 0)
			return 0;
		if (e->err != EBUSY || !wait_a_while(w))
			return -1;
	}
}

static int work_locked(struct worker *w)
{
	struct error e;

	if (write_pid(w->host_lock, &e) == -1 || take_sr_lock(w, &e) == -1) {
		log_error("%s is not coalesced: %s", w->dir, e.text);
		return 1;
	}
	note(w, "looking for what can be merged");
	work(w);
	if (!w->left)
		note(w, "has ended: nothing is left to merge");
	close(w->sr_lock);
	return w->left ? 1 : 0;
}

int coalesce_main(const char *dir, int lock)
{
	CLEANUP_FREE char *mark = mark_path(dir);
	struct worker w = { .dir = dir, .host_lock = lock, .sr_lock = -1 };
	struct error e;
	int status = 0;

	umask(077);
	if (nice(19) == -1 || syscall(SYS_ioprio_set, 1, 0, IOPRIO_IDLE) == -1)
		log_debug("the priority stays: %s", strerror(errno));
	while (mark && (w.host_lock >= 0 || (w.host_lock = take_host_lock(dir, &e)) >= 0)) {
		unlink(mark);
		status = work_locked(&w);
		close(w.host_lock);
		w.host_lock = -1;
		if (access(mark, F_OK) == -1) /* made before its maker found the lock taken */
			break;
	}
	return status;
}

/* --- started, stopped */

/* Never returns. */
static void become_worker(const char *program, const char *dir, int lock)
{
	char *const argv[] = { (char *)(uintptr_t)"sxm-smapi", (char *)(uintptr_t)"--coalesce", (char *)(uintptr_t)dir,
			       (char *)(uintptr_t)"3", NULL };
	CLEANUP_FREE char *log = log_is_on_stderr() ? host_path(dir, ".log") : NULL;
	int null = open("/dev/null", O_RDWR);
	int to = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600) : -1;

	for (int fd = 0; fd <= 2; fd++)
		dup2(fd == 2 && to >= 0 ? to : null, fd);
	if (lock != 3)
		dup2(lock, 3);
	syscall(SYS_close_range, 4u, ~0u, 0u);
	signal(SIGPIPE, SIG_DFL);
	if (chdir("/") == 0)
		execv(program, argv);
	_exit(127);
}

/* The lock is passed on: from here on coalesce_stop() finds it. Whoever has it looks for the mark when it has let go of it. */
void coalesce_start(const char *dir)
{
	CLEANUP_FREE char *mark = mark_path(dir);
	CLEANUP_LOCK int lock = -1;
	char program[PATH_MAX];
	struct error e = { 0 };
	pid_t pid = -1;

	if (mark && make_mark(mark, &e) == 0 && program_find("sxm-smapi", program, &e) == 0 &&
	    (lock = take_host_lock(dir, &e)) >= 0 && ftruncate(lock, 0) == 0) /* the last one's pid: it may be another's by now */
		pid = fork();
	if (pid == 0) {
		setsid();
		if (fork() == 0)
			become_worker(program, dir, lock);
		_exit(0);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) == -1 && errno == EINTR)
		;
	if (lock < 0 && e.err != EBUSY)
		log_warn("%s is not coalesced: %s", dir, e.text);
}

int coalesce_stop(const char *dir, struct error *e)
{
	CLEANUP_FREE char *path = host_lock_path(dir);

	if (!path)
		return out_of_memory(e);
	for (unsigned tries = 0; tries < STOP_TRIES; tries++) {
		CLEANUP_LOCK int lock = lock_try(path, e);
		CLEANUP_FREE char *pid = NULL;

		if (lock >= 0 || e->err == ENOENT)
			return 0;
		if (e->err != EBUSY)
			return -1;
		pid = proc_read_file(path, 64, NULL, e);
		if (pid && atoi(pid) > 1)
			kill(atoi(pid), SIGTERM); /* it has the lock, so it is that one */
		image_pause();
	}
	return error_set(e, ETIMEDOUT, "the process that merges images in %s does not end", dir);
}

/* --- what is to be told */

static void look_at_lock(const char *dir, struct coalesce_state *s)
{
	CLEANUP_FREE char *path = sr_lock_path(dir);
	CLEANUP_FREE char *text = NULL;
	CLEANUP_LOCK int lock = -1;
	struct error e = { 0 };

	if (!path)
		return;
	lock = lock_try_shared(path, &e);
	if (lock < 0 && e.err != EBUSY)
		return; /* it never ran */
	s->is_running = lock < 0;
	text = proc_read_file(path, 1024, NULL, &e);
	if (text)
		snprintf(s->last, sizeof(s->last), "%.*s", (int)strcspn(text, "\n"), text);
}

static void count(const struct tree *t, struct coalesce_state *s)
{
	for (size_t i = 0; i < t->count; i++) {
		s->bases += t->node[i].is_base;
		s->childless += t->node[i].is_base && !t->node[i].children;
		s->pairs += merge_is_possible(t, &t->node[i]);
	}
}

int coalesce_look(const char *dir, struct coalesce_state *s, struct error *e)
{
	CLEANUP_LOCK int lock = -1;
	struct tree t;

	*s = (struct coalesce_state) { 0 };
	if (!tree_has_bases(dir))
		return 0;
	lock = tree_lock(dir, e);
	if (lock < 0 || tree_scan(dir, &t, e) == -1)
		return -1;
	count(&t, s);
	tree_clear(&t);
	look_at_lock(dir, s);
	return 0;
}

static void report_state(const char *dir, FILE *to)
{
	struct coalesce_state s = { 0 };

	look_at_lock(dir, &s);
	if (*s.last)
		fprintf(to, "    coalescing %s: %s\n", s.is_running ? "runs" : "does not run; last", s.last);
}

void coalesce_report(const char *dir, FILE *to)
{
	struct coalesce_state s = { 0 };
	CLEANUP_LOCK int lock = -1;
	struct tree t;
	struct error e;

	if (!tree_has_bases(dir))
		return;
	lock = tree_lock(dir, &e);
	if (lock < 0 || tree_scan(dir, &t, &e) == -1) {
		fprintf(to, "    nothing can be coalesced or removed: %s\n", e.text);
		return;
	}
	count(&t, &s);
	for (size_t i = 0; i < t.count; i++)
		if (*t.node[i].on && t.node[i].parent == TREE_NONE)
			fprintf(to, "    %s/%s stands on %s, which is missing\n", dir, t.node[i].name, t.node[i].on);
	if (s.bases)
		fprintf(to, "    %zu images that others stand on; %zu can be merged, %zu can be removed\n", s.bases, s.pairs,
			s.childless);
	tree_clear(&t);
	report_state(dir, to);
}
