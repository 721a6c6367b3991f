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
 * Can fail: a full disk (B0 grows by what B1 has before B1 goes), a damaged image, a leaf that is in use on another host. Then
 * that is tried again by the same process, less and less often; meanwhile it lets another host's have the directory, for whom it
 * may be possible. When that was in vain for ten minutes it ends.
 *
 *      SXM_RUN_DIR/coalesce/ID          the lock of who does it
 *                           ID.again    somebody asked for it: whoever has the lock looks once more
 *                           ID.doing    what was asked for is being done (modified in 1970), or was given up (when that was)
 *
 * So what a killed one left undone is known, and what was asked for while the qemu-img of a killed one still had the lock: the
 * next verb that has to do with the SR starts another one, and ten minutes after one gave up, too.
 */
#include "plugins/coalesce.h"

#include <dirent.h>
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

#define PATIENCE_MS 600000u /* with what cannot be done, all in all */
#define ROUND_MS 5000u      /* of that, without a longer pause */
#define RETRY_MIN_MS 50u
#define PAUSE_MIN_MS 1000u  /* between two rounds; each is twice as long as the last one */
#define PAUSE_MAX_MS 60000u
#define LOOK_MS 100u        /* while it pauses: is it asked for? */
#define REST_S 600          /* after one gave up */
#define STOP_TRIES 500u /* 10 s */
#define NOT_NOW_MAX 64u
#define COMMAND_LINE_BYTES 65536u
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
	return join(dir, COALESCE_SR_LOCK);
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

static char *doing_path(const char *dir)
{
	return host_path(dir, ".doing");
}

static void sleep_ms(unsigned ms)
{
	const struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * (long)NS_PER_MS };

	nanosleep(&pause, NULL);
}

/* --- the process */

struct worker {
	const char *dir;
	char *mark, *doing;                     /* owned */
	int host_lock, sr_lock;                 /* owned */
	unsigned waited_ms, round_ms, retry_ms; /* in vain; in this round; the last time */
	unsigned pause_ms;                      /* the last pause */
	struct merge committed;                 /* the last one that was: it need not be again when it could not be finished */
	size_t left;                            /* pairs that cannot be merged: so many of them are passed over in this round */
	char left_upper[NOT_NOW_MAX][TREE_NAME_TEXT];
};

enum outcome { DONE, LEFT, HOPELESS };

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

/* The longer the last ones were in vain. False: that was long enough for this round. */
static bool wait_a_while(struct worker *w)
{
	if (w->round_ms >= ROUND_MS)
		return false;
	w->retry_ms = MIN(MAX(2 * w->retry_ms, RETRY_MIN_MS), ROUND_MS);
	w->round_ms += w->retry_ms;
	w->waited_ms += w->retry_ms;
	sleep_ms(w->retry_ms);
	return true;
}

/* Before another round. False: that was in vain for too long. */
static bool pause_a_while(struct worker *w)
{
	if (w->waited_ms >= PATIENCE_MS)
		return false;
	w->pause_ms = MIN(MAX(2 * w->pause_ms, PAUSE_MIN_MS), PAUSE_MAX_MS);
	w->waited_ms += w->pause_ms;
	for (unsigned ms = 0; ms < w->pause_ms && access(w->mark, F_OK) == -1; ms += LOOK_MS)
		sleep_ms(LOOK_MS);
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
			w->retry_ms = 0;
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
	if (!merge_is_same(p, &w->committed) && merge_commit(w->dir, p, e) == -1)
		return -1;
	w->committed = *p;
	return insist(w, p, merge_take_name, e);
}

static void leave(struct worker *w, const struct merge *p, const struct error *e)
{
	char text[400];

	snprintf(text, sizeof(text), "%.100s is not merged yet: %.250s", p->upper, e->text);
	if (w->pause_ms == 0) /* it was not tried before */
		log_warn("%s: %s; it will be tried again", w->dir, text);
	note(w, text);
	strcpy(w->left_upper[w->left++], p->upper);
}

/* A file that is none of ours, or damaged: until somebody repairs that, nothing is known of what stands on what. */
static bool is_for_good(int err)
{
	return err == EINVAL || err == EOPNOTSUPP || err == EPERM || err == ELOOP || err == ENAMETOOLONG;
}

static enum outcome work(struct worker *w)
{
	struct merge p;
	struct error e;

	while (w->left < NOT_NOW_MAX) {
		int r = tree_collect(w->dir, &e) == -1 ? -1 : find_pair(w, &p, &e);

		if (r == -1) {
			log_error("%s: %s", w->dir, e.text);
			return is_for_good(e.err) ? HOPELESS : LEFT;
		}
		if (r)
			break;
		if (merge(w, &p, &e) == 0)
			log_info("%s/%s is now part of %s", w->dir, p.lower, p.upper);
		else if (e.err != ESTALE)
			leave(w, &p, &e);
	}
	if (merge_blank_leaves(w->dir, &e) == -1)
		log_error("%s: %s", w->dir, e.text);
	return w->left ? LEFT : DONE;
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

/* Once all there is, as far as that can be. */
static enum outcome work_locked(struct worker *w)
{
	enum outcome outcome;
	struct error e;

	w->round_ms = w->retry_ms = 0;
	w->left = 0;
	if (take_sr_lock(w, &e) == -1) {
		log_line(e.err == EBUSY ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "%s is not coalesced: %s", w->dir, e.text);
		return e.err == EBUSY ? LEFT : HOPELESS;
	}
	note(w, "looking for what can be merged");
	outcome = work(w);
	if (outcome == DONE)
		note(w, "has ended: nothing is left to merge");
	close(take_fd(&w->sr_lock));
	return outcome;
}

/* The time says whether it is being done, or when it was given up. */
static void date(const char *doing, time_t when)
{
	const struct timespec times[] = { { .tv_sec = when }, { .tv_sec = when } };

	if (utimensat(AT_FDCWD, doing, times, AT_SYMLINK_NOFOLLOW) == -1 && errno != ENOENT)
		log_debug("%s: %s", doing, strerror(errno));
}

/* With the host's lock. */
static enum outcome work_until_done(struct worker *w)
{
	for (;;) {
		enum outcome outcome;

		if (rename(w->mark, w->doing) == 0)
			w->waited_ms = w->pause_ms = 0;
		date(w->doing, 0);
		outcome = work_locked(w);
		if (outcome == DONE) {
			unlink(w->doing);
			return outcome;
		}
		if (outcome == LEFT && pause_a_while(w))
			continue;
		date(w->doing, time(NULL));
		log_error("%s is not coalesced for now", w->dir);
		return outcome;
	}
}

static int run(struct worker *w)
{
	enum outcome outcome = DONE;
	struct error e;

	while (w->host_lock >= 0 || (w->host_lock = take_host_lock(w->dir, &e)) >= 0) {
		outcome = HOPELESS;
		if (write_pid(w->host_lock, &e) == 0)
			outcome = work_until_done(w);
		else
			log_error("%s is not coalesced: %s", w->dir, e.text);
		close(take_fd(&w->host_lock));
		if (access(w->mark, F_OK) == -1) /* made before its maker found the lock taken */
			break;
	}
	return outcome == DONE ? 0 : 1;
}

int coalesce_main(const char *dir, int lock)
{
	struct worker w = { .dir = dir, .mark = mark_path(dir), .doing = doing_path(dir), .host_lock = lock, .sr_lock = -1 };
	struct error e;
	int status = 1;

	umask(077);
	if (nice(19) == -1 || syscall(SYS_ioprio_set, 1, 0, IOPRIO_IDLE) == -1)
		log_debug("the priority stays: %s", strerror(errno));
	if (w.mark && w.doing && (lock >= 0 || make_mark(w.mark, &e) == 0)) /* started by hand it is to be known, too */
		status = run(&w);
	free(w.mark);
	free(w.doing);
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
	proc_calm();
	if (chdir("/") == 0)
		execv(program, argv);
	_exit(127);
}

/* The lock is passed on: from here on coalesce_stop() finds it. -1 + e: EBUSY, somebody has it. */
static int start_worker(const char *dir, struct error *e)
{
	CLEANUP_LOCK int lock = -1;
	char program[PATH_MAX];
	pid_t pid;

	if (program_find("sxm-smapi", program, e) == -1 || (lock = take_host_lock(dir, e)) < 0)
		return -1;
	if (ftruncate(lock, 0) == -1) /* the last one's pid: it may be another's by now */
		return error_errno(e, errno, "write to its lock");
	pid = fork();
	if (pid == 0) {
		setsid();
		if (fork() == 0)
			become_worker(program, dir, lock);
		_exit(0);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) == -1 && errno == EINTR)
		;
	return pid > 0 ? 0 : error_errno(e, errno, "fork");
}

/* Whoever has the lock looks for the mark when it has let go of it. */
void coalesce_start(const char *dir)
{
	CLEANUP_FREE char *mark = mark_path(dir);
	struct error e;

	if (!mark)
		out_of_memory(&e);
	if ((!mark || make_mark(mark, &e) == -1 || start_worker(dir, &e) == -1) && e.err != EBUSY)
		log_warn("%s is not coalesced: %s", dir, e.text);
}

static bool is_due(const char *doing)
{
	time_t now = time(NULL);
	struct stat st;

	return lstat(doing, &st) == 0 && (st.st_mtime > now || now - st.st_mtime >= REST_S);
}

void coalesce_resume(const char *dir)
{
	CLEANUP_FREE char *mark = mark_path(dir);
	CLEANUP_FREE char *doing = doing_path(dir);
	struct error e;

	if (!mark || !doing || (access(mark, F_OK) == -1 && !is_due(doing)))
		return;
	if (start_worker(dir, &e) == 0)
		log_info("%s is coalesced again: something was left to merge", dir);
	else if (e.err != EBUSY)
		log_warn("%s is not coalesced: %s", dir, e.text);
}

void coalesce_forget(const char *dir)
{
	CLEANUP_FREE char *mark = mark_path(dir);
	CLEANUP_FREE char *doing = doing_path(dir);

	if (mark)
		unlink(mark);
	if (doing)
		unlink(doing);
}

static bool has_open(pid_t pid, const char *path)
{
	struct stat want, is;
	struct dirent *entry;
	char name[32];
	bool has = false;
	DIR *d;

	snprintf(name, sizeof(name), "/proc/%d/fd", (int)pid);
	d = stat(path, &want) == 0 ? opendir(name) : NULL;
	while (d && !has && (entry = readdir(d)))
		has = fstatat(dirfd(d), entry->d_name, &is, 0) == 0 && is.st_dev == want.st_dev && is.st_ino == want.st_ino;
	if (d)
		closedir(d);
	return has;
}

/* Of the process that was given this pid last. */
static bool is_worker(pid_t pid, const char *lock)
{
	char name[32];
	size_t bytes = 0;
	struct error e;
	CLEANUP_FREE char *text = NULL;
	const char *second;

	snprintf(name, sizeof(name), "/proc/%d/cmdline", (int)pid);
	text = proc_read_file(name, COMMAND_LINE_BYTES, &bytes, &e);
	second = text ? memchr(text, '\0', bytes) : NULL;
	return second && strcmp(second + 1, "--coalesce") == 0 && has_open(pid, lock);
}

/* It has written its pid into the lock. When it was killed its qemu-img may have the lock for a moment longer, until the kernel
 * has ended that, too (child.c); by then the pid may be anybody's. */
static void end_worker(const char *lock)
{
	struct error e;
	CLEANUP_FREE char *text = proc_read_file(lock, 64, NULL, &e);
	pid_t pid = text ? (pid_t)atoi(text) : 0;
	CLEANUP_CLOSE int fd = pid > 1 ? (int)syscall(SYS_pidfd_open, pid, 0u) : -1;
	const bool can_hold = fd >= 0 || (pid > 1 && errno == ENOSYS);

	if (!can_hold || !is_worker(pid, lock))
		return;
	if (fd >= 0)
		syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0u);
	else
		kill(pid, SIGTERM); /* a kernel before 5.3 */
}

int coalesce_stop(const char *dir, struct error *e)
{
	CLEANUP_FREE char *path = host_lock_path(dir);

	if (!path)
		return out_of_memory(e);
	for (unsigned tries = 0; tries < STOP_TRIES; tries++) {
		CLEANUP_LOCK int lock = lock_try(path, e);

		if (lock >= 0 || e->err == ENOENT)
			return 0;
		if (e->err != EBUSY)
			return -1;
		end_worker(path);
		image_pause();
	}
	return error_set(e, ETIMEDOUT, "the process that merges images in %s does not end", dir);
}
