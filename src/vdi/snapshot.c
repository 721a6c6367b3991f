/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * snapshot - the disk as it is at one moment becomes another file, sharing its blocks, while guests go on
 *
 *      JOB_SNAPSHOT   open -> make the file, see whether blocks can be shared with it -> hold, drain -> a point under the gate
 *                     [-> answer, wait for vdi_snapshot_go()] -> wake: that was the moment -> clone, range after range
 *                     (where changes are tracked: a new log is made first, and takes over at that moment)
 *                     -> hold, drain -> the point out -> wake -> fsync of the file -> answer
 *
 * What the file holds is every write that was acknowledged before the moment, none that was begun after it, and of those
 * in between some: what a disk holds whose power failed.  How writes wait meanwhile is block/point.h's.
 * With vdi_snapshot_hold() the moment lasts until it is said that it is over, its patience is, or whoever asked is gone: so
 * several disks can have the same one.
 *
 * The point stands above a mirror, which goes on.  A disk that nobody writes to (open read-only, or refusing after a handover)
 * gets no point in its stack: it is one already.
 *
 * Can fail: a file system that shares no blocks, no space, the medium: then the file is removed.  A process killed in the midst
 * leaves the file, which is nobody's: who asks again has it made anew.
 * Invariant: the file is complete and durable when done() says so, and only then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/gate.h"
#include "block/point.h"
#include "vdi/vdi-private.h"

#define SYNC_CALLS 32u
#define CLONE_NS (3 * NS_PER_MS) /* parts are cloned for so long, then guests go on for as long */

struct snapshot {
	struct vdi *vdi;            /* borrowed */
	char *path;                 /* owned: the file to be made */
	char *volume;               /* owned: the key of the volume it will be; NULL: of none */
	bool is_prepared, is_cut, is_lost; /* the log: a new one is there; has taken over; what was before could not be kept */
	int fd;                     /* owned: it; -1: not open */
	bool is_made;
	struct layer *point;        /* owned */
	struct layer *below;        /* borrowed: what stood under the gate */
	bool is_inserted;           /* the point is under the gate */
	bool is_held;               /* until vdi_snapshot_go() */
	bool is_going;              /* since then */
	bool is_unwanted;           /* whoever asked is gone */
	unsigned patience_ms;       /* > 0: to be held */
	struct loop_timer *timer;   /* owned: that patience */
	struct offload offload;     /* clones */
	struct point_part *part;    /* borrowed: of the clone under way */
	unsigned parts;
	int clone_err;
	unsigned calls;             /* clones so far */
	struct loop_timer *rest;    /* owned: before the next clone */
	uint64_t clone_ns;          /* how long the last one took */
	uint64_t begun_ns, quiet_ns, held_ns; /* when; since when guests wait; how long they did */
	struct error why;           /* it failed */
	struct vdi_snapshot_result *out; /* borrowed; NULL: nobody asks */
};

void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	assert(!s->point);
	if (s->fd >= 0)
		close(s->fd);
	loop_timer_free(s->timer);
	loop_timer_free(s->rest);
	free(s->path);
	free(s->volume);
	free(s);
}

/* --- on the pool */

static bool is_not_shared(int err)
{
	return err == EOPNOTSUPP || err == EXDEV || err == EINVAL || err == ENOTTY || err == ENOSYS;
}

static int say_clone(const struct vdi *v, int err, struct error *e)
{
	if (is_not_shared(err))
		return error_set(e, EOPNOTSUPP, "the file system of %s cannot let two files share blocks (no reflink)", v->path);
	return error_errno(e, err, "share the blocks of %s", v->path);
}

/* What an earlier attempt left is replaced. The first block is shared for a trial, and again later. */
static void make_file(struct vdi *v)
{
	struct snapshot *s = v->job->snapshot;
	uint64_t size_bytes = v->disk->geometry.size_bytes, end;
	int err;

	if (unlink(s->path) == -1 && errno != ENOENT) {
		error_errno(&v->step, errno, "replace %s", s->path);
		return;
	}
	s->is_made = true;
	s->fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (s->fd < 0 || ftruncate(s->fd, (off_t)size_bytes) == -1) {
		error_errno(&v->step, errno, "make %s", s->path);
		return;
	}
	err = disk_clone(v->disk, s->fd, (struct range){ 0, MIN(size_bytes, POINT_GRANULE_BYTES) }, POINT_GRANULE_BYTES, &end);
	if (err)
		say_clone(v, err, &v->step);
	else if (s->volume && v->cbt && !cbt_is_lost(v->cbt))
		s->is_prepared = cbt_prepare(v->cbt, s->volume, &v->step) == 0;
}

/* The volume's log, also of one that will not be there: then it is merged some day. */
static void end_log(struct vdi *v)
{
	struct snapshot *s = v->job->snapshot;
	struct error e = { 0 };

	if (s->is_prepared && !s->is_cut)
		cbt_unprepare(v->cbt);
	if (!s->is_cut || cbt_seal_cut(v->cbt, &e) == 0)
		return;
	log_error("%s: changes of %s are not tracked any more", e.text, v->path);
	s->is_lost = true;
	if (cbt_live_void(cbt_path(v->cbt), &e) == -1)
		log_error("%s: until it can be, what changed is not known", e.text);
}

static void sync_file(struct vdi *v)
{
	struct snapshot *s = v->job->snapshot;

	if (fsync(s->fd) == -1)
		error_errno(&v->step, errno, "make %s durable", s->path);
	else
		end_log(v);
}

static void discard_file(struct vdi *v)
{
	struct snapshot *s = v->job->snapshot;

	end_log(v);
	if (s->is_made && unlink(s->path) == -1 && errno != ENOENT)
		log_warn("remove %s: %s", s->path, strerror(errno));
}

/* --- it fails */

static void let_log_go_on(struct vdi *v)
{
	if (!v->cbt)
		return;
	if (v->job->snapshot->is_lost)
		cbt_lose(v->cbt);
	cbt_go_on(v->cbt);
}

static void discarded(struct vdi *v)
{
	let_log_go_on(v);
	v->job->error = v->job->snapshot->why;
	stack_release(v, job_end);
}

static void fail(struct vdi *v, const struct error *e)
{
	struct snapshot *s = v->job->snapshot;

	s->why = *e;
	error_prefix(&s->why, "snapshot of %s", v->path);
	if (s->point)
		layer_close(take_ptr(&s->point));
	stack_work(v, discard_file, discarded);
}

/* --- it is cloned */

static void synced(struct vdi *v)
{
	struct snapshot *s = v->job->snapshot;
	struct point_status status;

	if (v->step.err) {
		struct error e = v->step;

		fail(v, &e);
		return;
	}
	let_log_go_on(v);
	point_status(s->point, &status);
	layer_close(take_ptr(&s->point));
	log_info("%s was cloned to %s: guests held %.1f ms, the slowest of %llu writes waited %.1f ms, %llu clones in %.1f ms",
		 v->path, s->path, (double)s->held_ns / 1e6, (unsigned long long)status.waited,
		 (double)status.longest_wait_ns / 1e6,
		 (unsigned long long)status.clones, (double)(loop_now_ns() - s->begun_ns) / 1e6);
	if (s->out)
		*s->out = (struct vdi_snapshot_result){
			.held_us = s->held_ns / 1000, .longest_wait_us = status.longest_wait_ns / 1000,
			.waited = status.waited, .clones = status.clones, .took_us = (loop_now_ns() - s->begun_ns) / 1000,
		};
	stack_release(v, job_end);
}

static void taken_out(struct vdi *v)
{
	struct snapshot *s = v->job->snapshot;
	struct point_status status;
	struct error e = { 0 };

	if (s->is_inserted) {
		gate_set_below(v->gate, s->below);
		stack_wake(v);
		s->is_inserted = false;
		s->held_ns = MAX(s->held_ns, loop_now_ns() - s->quiet_ns);
	}
	point_status(s->point, &status);
	if (!status.err) {
		stack_work(v, sync_file, synced);
		return;
	}
	if (status.err == ESHUTDOWN)
		error_set(&e, ESHUTDOWN, "the datapath process is stopping");
	else if (status.err == ETIMEDOUT)
		error_set(&e, ETIMEDOUT, "guests were held for %u ms, and nobody said that they may go on", s->patience_ms);
	else if (status.err == ECANCELED)
		error_set(&e, ECANCELED, "it was cancelled");
	else
		say_clone(v, status.err, &e);
	fail(v, &e);
}

static void on_over(void *arg)
{
	struct snapshot *s = arg;

	s->is_held = false;
	if (!s->is_inserted) {
		taken_out(s->vdi);
		return;
	}
	s->quiet_ns = s->held_ns ? loop_now_ns() : s->quiet_ns;
	stack_quiet(s->vdi, taken_out);
}

/* The kernel keeps the image locked while a part is cloned, and waits for what is under way first. What cloning leaves in the
 * file system's log is made durable now and then: all at once, at the end, it would hold up guests' writes for long. */
static void on_clone(struct offload *o)
{
	struct snapshot *s = container_of(o, struct snapshot, offload);
	uint64_t begun_ns = loop_now_ns();

	s->clone_err = 0;
	for (unsigned i = 0; i < s->parts && !s->clone_err; i++) {
		struct point_part *part = &s->part[i];

		while (part->end < part->r.end && !s->clone_err) {
			if (part->end > s->part[0].r.start && loop_now_ns() - begun_ns > CLONE_NS)
				goto out;
			s->clone_err = disk_clone(s->vdi->disk, s->fd, (struct range){ part->end, part->r.end },
						  POINT_GRANULE_BYTES, &part->end);
		}
	}
out:
	if (!s->clone_err && ++s->calls % SYNC_CALLS == 0 && fdatasync(s->fd) == -1)
		s->clone_err = errno;
	s->clone_ns = loop_now_ns() - begun_ns;
}

static void on_cloned(struct offload *o)
{
	struct snapshot *s = container_of(o, struct snapshot, offload);

	point_cloned(s->point, s->vdi->is_stopping ? ESHUTDOWN : s->clone_err);
}

static void submit_clone(void *arg)
{
	struct snapshot *s = arg;

	s->offload.work = on_clone;
	s->offload.done = on_cloned;
	if (offload_submit(s->vdi->loop, &s->offload) == -1)
		point_cloned(s->point, ENOMEM);
}

/* Guests get as much time as the cloning takes: one lock after the other would leave none to writes, which wait for the same. */
static void clone(void *arg, struct point_part *part, unsigned count)
{
	struct snapshot *s = arg;

	s->part = part;
	s->parts = count;
	if (s->is_inserted && s->clone_ns && s->vdi->disk->in_flight)
		loop_timer_set(s->rest, s->clone_ns / NS_PER_MS + 1);
	else
		submit_clone(s);
}

static const struct point_ops ops = { .clone = clone, .over = on_over };

/* --- it begins */

static void go(struct snapshot *s)
{
	s->is_held = false;
	s->is_going = true;
	loop_timer_free(take_ptr(&s->timer));
	if (s->is_inserted) {
		stack_wake(s->vdi);
		s->held_ns = loop_now_ns() - s->quiet_ns;
	}
	point_start(s->point);
}

static void on_timer(void *arg)
{
	struct snapshot *s = arg;

	log_warn("%s was held for a snapshot for %u ms, and is not any more: nobody has asked for it", s->vdi->path,
		 s->patience_ms);
	point_give_up(s->point, ETIMEDOUT);
}

static void quiet(struct vdi *v)
{
	struct snapshot *s = v->job->snapshot;

	if (!v->is_read_only && !v->is_refusing) {
		s->below = v->gate->below;
		s->point->below = s->below;
		gate_set_below(v->gate, s->point);
		s->is_inserted = true;
	}
	if (s->is_prepared && !cbt_is_lost(v->cbt) && !v->cbt->in_flight) {
		cbt_cut(v->cbt);
		s->is_cut = true;
	}
	if (!s->patience_ms) {
		go(s);
		return;
	}
	s->is_held = true;
	loop_timer_set(s->timer, s->patience_ms);
	job_answer(v->job);
	if (s->is_unwanted)
		point_give_up(s->point, ECANCELED);
}

static void made(struct vdi *v)
{
	struct snapshot *s = v->job->snapshot;

	if (!v->step.err && s->is_unwanted)
		error_set(&v->step, ECANCELED, "whoever asked for it is gone");
	if (!v->step.err && s->patience_ms && !(s->timer = loop_timer_new(v->loop, on_timer, s)))
		error_set(&v->step, ENOMEM, "out of memory");
	if (!v->step.err && !(s->rest = loop_timer_new(v->loop, submit_clone, s)))
		error_set(&v->step, ENOMEM, "out of memory");
	if (!v->step.err && !(s->point = point_new(NULL, &v->gate->geometry, &ops, s)))
		error_set(&v->step, ENOMEM, "out of memory");
	if (v->step.err) {
		struct error e = v->step;

		fail(v, &e);
		return;
	}
	s->quiet_ns = loop_now_ns();
	if (v->is_read_only || v->is_refusing)
		quiet(v);
	else
		stack_quiet(v, quiet);
}

static void rested(struct vdi *v)
{
	stack_work(v, make_file, made);
}

static void opened(struct vdi *v)
{
	const enum commit_state state = v->owner.record.state;
	struct error e = v->step;

	if (!e.err && !v->disk)
		error_set(&e, ENXIO, "the disk could not be opened again");
	if (!e.err && (state == COMMIT_RECEIVING || state == COMMIT_INCOMPLETE || state == COMMIT_RELEASED))
		error_set(&e, EPERM, "it is the far side of a mirror, and has not everything; it can be cloned when it has");
	if (!e.err)
		import_check_merged(v, &e);
	if (!e.err && v->job->snapshot->volume && v->is_read_only)
		error_set(&e, EAGAIN, "only readers have it: the snapshot is made without this process");
	if (e.err)
		fail(v, &e);
	else
		tracking_rest(v, rested);
}

void snapshot_begin(struct vdi *v)
{
	v->job->snapshot->begun_ns = loop_now_ns();
	stack_open(v, true, opened);
}

/* --- the verbs */

/* Beside the image, so that nothing else is written to. */
static bool is_beside(const char *path, const char *image)
{
	const char *slash = strrchr(path, '/');
	size_t bytes = slash ? (size_t)(slash - path) + 1 : 0;

	return bytes && slash[1] && strcmp(path, image) != 0 && strncmp(path, image, bytes) == 0 && !strchr(image + bytes, '/');
}

static uint64_t add(struct vdi *v, const char *path, const char *volume, unsigned patience_ms, struct vdi_snapshot_result *out,
		    vdi_done_fn *done, void *arg)
{
	struct snapshot *s;
	struct error e = { 0 };
	struct job *j;

	if (volume && (strchr(volume, '/') || *volume == '.' || !*volume || strlen(volume) >= CBT_KEY_MAX)) {
		error_set(&e, EINVAL, "%.60s is no volume's key", volume);
		done(arg, &e);
		return 0;
	}
	if (!is_beside(path, v->path)) {
		error_set(&e, EINVAL, "%.200s is not a file in the directory of %s", path, v->path);
		done(arg, &e);
		return 0;
	}
	s = calloc(1, sizeof(*s));
	if (!s || !(s->path = strdup(path)) || (volume && !(s->volume = strdup(volume)))) {
		if (s)
			free(s->path);
		free(s);
		error_set(&e, ENOMEM, "out of memory");
		done(arg, &e);
		return 0;
	}
	s->vdi = v;
	s->fd = -1;
	s->patience_ms = patience_ms;
	s->out = out;
	j = job_add(v, JOB_SNAPSHOT, "", done, arg);
	if (!j) {
		snapshot_free(s);
		return 0;
	}
	j->snapshot = s;
	return j->serial;
}

void vdi_snapshot(struct vdi *v, const char *path, const char *volume, struct vdi_snapshot_result *out, vdi_done_fn *done,
		  void *arg)
{
	add(v, path, volume, 0, out, done, arg);
}

uint64_t vdi_snapshot_hold(struct vdi *v, const char *path, const char *volume, unsigned patience_ms, vdi_done_fn *done,
			   void *arg)
{
	assert(patience_ms);
	return add(v, path, volume, patience_ms, NULL, done, arg);
}

/* What is being cloned is given up, too; what is complete stays, as nothing is gained. */
void snapshot_is_over(struct snapshot *s)
{
	s->is_unwanted = true;
	if (s->point && (s->is_held || s->is_going))
		point_give_up(s->point, ECANCELED);
}

static struct snapshot *find_held(const struct vdi *v, const char *path)
{
	struct snapshot *s = v->job && v->job->kind == JOB_SNAPSHOT ? v->job->snapshot : NULL;

	return s && s->is_held && strcmp(s->path, path) == 0 ? s : NULL;
}

void vdi_snapshot_go(struct vdi *v, const char *path, bool is_wanted, struct vdi_snapshot_result *out, vdi_done_fn *done,
		     void *arg)
{
	struct snapshot *s = find_held(v, path);
	struct error e = { 0 };

	if (!s)
		error_set(&e, ENOENT, "%s is not held for a snapshot to %.200s, or not any more", v->path, path);
	else if (job_join(v->job, done, arg) == -1)
		error_set(&e, ENOMEM, "out of memory");
	if (e.err) {
		done(arg, &e);
		return;
	}
	s->out = out;
	if (is_wanted)
		go(s);
	else
		point_give_up(s->point, ECANCELED);
}
