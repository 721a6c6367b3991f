/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * figures-guest - the file of one domain's figures, written every five seconds
 *
 *      figures verb, or what vbd found in xenstore, to which nobody listens who was told once
 *                   ~> figures_new: the file of a dead process, or a new one by rename (xcp-rrdd is told by inotify)
 *                      each 5 s: its server's counters and its ring's -> totals -> one pwrite() into the same file
 *                      detach: unlinked (xcp-rrdd forgets it)
 *
 * xcp-rrdd maps the file once, when its name appears: so it is rewritten in place, never replaced while it is good.
 * Over NBD a request pays two readings of the clock, and only where somebody asked; over a ring a share in one.  The file is
 * in tmpfs: writing it blocks for nothing.
 * What was told is in domains.json, what was found is found again: a VM's uuid may change (xapi gives it another one while it
 * moves), its guest's device may be another.  What was found stays when xenstore says nothing any more.
 * Can fail: no directory (no xcp-rrdd here), no room: said once, when it is asked for; later a graph has a gap.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/figures-guest.h"
#include "vdi/vdi-private.h"

#define HASH_BYTES 8u

struct figures {
	char vm[FIGURES_VM_MAX], device[FIGURES_DEVICE_MAX];
	char *path, *metadata; /* owned */
	uint8_t *file;         /* owned: what is written */
	size_t bytes;
	int fd;                /* owned; -1: none */
	struct figures_sample base, last; /* what is counted nowhere else any more; what the file says */
};

static const char *metrics_dir(void)
{
	const char *dir = getenv("SXM_METRICS_DIR");

	return dir && *dir ? dir : "/dev/shm/metrics";
}

/* Heap; NULL: out of memory. */
static char *path_of(const char *id, const char *socket)
{
	size_t length = strlen(socket);
	char *path;

	assert(length > HASH_BYTES);
	return asprintf(&path, "%s/sxm-%s-%s", metrics_dir(), id, socket + length - HASH_BYTES) == -1 ? NULL : path;
}

static void put(struct figures *f, const struct figures_sample *now)
{
	static struct log_limit limit = LOG_LIMIT(1);
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	figures_fill(f->file, f->metadata, (double)t.tv_sec + (double)t.tv_nsec / 1e9, &f->last, now);
	f->last = *now;
	if (pwrite(f->fd, f->file, f->bytes, 0) != (ssize_t)f->bytes && log_allowed(&limit))
		log_warn("%s is not written, graphs will have a gap: %s", f->path, strerror(errno));
}

/* The file a killed process left, if it is of the same guest and device: its totals go on. */
static bool take_up(struct figures *f)
{
	CLEANUP_CLOSE int fd = open(f->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) == -1 || !S_ISREG(st.st_mode) || st.st_size != (off_t)f->bytes ||
	    pread(fd, f->file, f->bytes, 0) != (ssize_t)f->bytes || !figures_read(f->file, f->bytes, f->metadata, &f->base))
		return false;
	f->last = f->base;
	f->fd = take_fd(&fd);
	return true;
}

static struct figures_sample add(const struct figures_sample *base, const struct nbdsrv_stats *s)
{
	struct figures_sample now = *base;

	now.read_bytes += s->bytes_read;
	now.write_bytes += s->bytes_written;
	now.reads += s->reads;
	now.writes += s->writes;
	now.read_ns += s->read_ns;
	now.write_ns += s->write_ns;
	now.in_flight = s->in_flight;
	return now;
}

/* Under a name that xcp-rrdd does not look at, until it is whole. What was counted before is in the totals, and no news. */
static int make(struct figures *f, const struct nbdsrv_stats *counted, struct error *e)
{
	CLEANUP_FREE char *tmp = NULL;

	if (asprintf(&tmp, "%s.tmp", f->path) == -1) {
		tmp = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (unlink(f->path) == 0)
		log_info("%s was of another device", f->path);
	unlink(tmp);
	f->fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (f->fd < 0)
		return error_errno(e, errno, "figures for xcp-rrdd: %s", tmp);
	f->last = add(&f->base, counted);
	figures_fill(f->file, f->metadata, (double)time(NULL), &f->last, &f->last);
	if (pwrite(f->fd, f->file, f->bytes, 0) != (ssize_t)f->bytes || rename(tmp, f->path) == -1) {
		error_errno(e, errno, "figures for xcp-rrdd: %s", tmp);
		unlink(tmp);
		return -1;
	}
	return 0;
}

struct figures *figures_new(const char *id, const char *socket, const char *vm, const char *device,
			    const struct nbdsrv_stats *counted, struct error *e)
{
	struct figures *f = calloc(1, sizeof(*f));

	assert(guid_is(vm) && figures_is_device(device));
	if (!f) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	f->fd = -1;
	snprintf(f->vm, sizeof(f->vm), "%s", vm);
	snprintf(f->device, sizeof(f->device), "%s", device);
	f->path = path_of(id, socket);
	f->metadata = figures_metadata(vm, device);
	f->bytes = f->metadata ? figures_bytes(f->metadata) : 0;
	f->file = f->bytes ? malloc(f->bytes) : NULL;
	if (!f->path || !f->file)
		error_set(e, ENOMEM, "out of memory");
	else if (take_up(f) || make(f, counted, e) == 0)
		return f;
	figures_free(f);
	return NULL;
}

void figures_update(struct figures *f, const struct nbdsrv_stats *counted)
{
	struct figures_sample now = add(&f->base, counted);

	put(f, &now);
}

void figures_keep(struct figures *f, const struct nbdsrv_stats *gone)
{
	f->base = add(&f->base, gone);
}

void figures_free(struct figures *f)
{
	if (!f)
		return;
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f->metadata);
	free(f->file);
	free(f);
}

void figures_remove(const char *id, const char *socket)
{
	CLEANUP_FREE char *path = path_of(id, socket);

	if (path && unlink(path) == -1 && errno != ENOENT && errno != ENOTDIR)
		log_warn("remove %s: %s", path, strerror(errno));
}

void figures_sweep(const char *id)
{
	DIR *d = opendir(metrics_dir());
	struct dirent *entry;
	char prefix[VDI_ID_MAX + 8];
	size_t length = (size_t)snprintf(prefix, sizeof(prefix), "sxm-%.*s-", VDI_ID_MAX, id);

	while (d && (entry = readdir(d)))
		if (strncmp(entry->d_name, prefix, length) == 0 && strlen(entry->d_name) == length + HASH_BYTES &&
		    unlinkat(dirfd(d), entry->d_name, 0) == -1)
			log_warn("remove %s/%s: %s", metrics_dir(), entry->d_name, strerror(errno));
	if (d)
		closedir(d);
}

/* --- the disk's part of it */

/* What the domain was served, over whatever it is. */
static struct nbdsrv_stats counted(const struct domain *d)
{
	struct nbdsrv_stats s = { 0 };

	if (d->server)
		nbdsrv_stats(d->server, &s);
	guest_device_count(d, &s);
	return s;
}

static void update(const struct domain *d)
{
	struct nbdsrv_stats s = counted(d);

	figures_update(d->figures, &s);
}

/* All of it goes into the file as well: who goes on may be another process. */
void figures_cut(struct domain *d, const struct nbdsrv_stats *gone)
{
	struct nbdsrv_stats all = counted(d);

	if (!d->figures)
		return;
	if (!gone)
		figures_update(d->figures, &all);
	figures_keep(d->figures, gone ? gone : &all);
}

static void tick(void *arg)
{
	struct vdi *v = arg;
	struct domain *d;
	bool is_wanted = false;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d->figures) {
			update(d);
			is_wanted = true;
		}
	if (is_wanted)
		loop_timer_set(v->figures_timer, FIGURES_MS);
}

static bool is_same(const struct figures *f, const char *vm, const char *device)
{
	return f && strcmp(f->vm, vm) == 0 && strcmp(f->device, device) == 0;
}

static int begin(struct vdi *v, struct domain *d, const char *vm, const char *device, struct error *e)
{
	const struct nbdsrv_stats s = counted(d);

	if (is_same(d->figures, vm, device))
		return 0;
	if (!v->figures_timer && !(v->figures_timer = loop_timer_new(v->loop, tick, v)))
		return error_set(e, ENOMEM, "out of memory");
	figures_free(take_ptr(&d->figures));
	d->figures = figures_new(v->id, d->socket, vm, device, &s, e);
	if (!d->figures)
		return -1;
	figures_serve(v, d);
	loop_timer_set(v->figures_timer, FIGURES_MS);
	return 0;
}

int figures_tell(struct vdi *v, struct domain *d, const char *vm, const char *device, struct error *e)
{
	if (begin(v, d, vm, device, e) == -1)
		return -1;
	d->are_figures_told = true;
	return 0;
}

/* The same again, mostly: with each look into xenstore. So that xcp-rrdd is not here is no news. */
void figures_found(void *domain, const char *vm, const char *device)
{
	static struct log_limit limit = LOG_LIMIT(1);
	struct domain *d = domain;
	struct error why = { 0 };

	assert(guid_is(vm));
	if (d->are_figures_told || !figures_is_device(device))
		return;
	if (begin(d->vdi, d, vm, device, &why) == -1 && why.err != ENOENT && log_allowed(&limit))
		log_warn("domain %s: %s", d->name, why.text);
}

/* What a killed process left goes as well, if this one never heard whose it was. */
void figures_end(struct domain *d)
{
	figures_free(take_ptr(&d->figures));
	figures_remove(d->vdi->id, d->socket);
}

char *figures_vm(const struct domain *d)
{
	return d->figures && d->are_figures_told ? d->figures->vm : NULL;
}

char *figures_device(const struct domain *d)
{
	return d->figures && d->are_figures_told ? d->figures->device : NULL;
}

void figures_serve(struct vdi *v, struct domain *d)
{
	if ((d->figures || v->is_watched) && d->server)
		nbdsrv_time(d->server);
}

static void saved(struct vdi *v)
{
	v->job->error = v->step;
	job_end(v);
}

void figures_begin_job(struct vdi *v)
{
	struct job *j = v->job;
	struct domain *d = vdi_find(v, j->domain);

	if (!d || d->is_detached)
		error_set(&j->error, ENOTCONN, "domain %s has not attached this disk", j->domain);
	else if (d->are_figures_told && is_same(d->figures, j->vm, j->device))
		update(d);
	else if (figures_tell(v, d, j->vm, j->device, &j->error) == 0) {
		stack_save(v, saved);
		return;
	}
	job_end(v);
}

void vdi_figures(struct vdi *v, const char *domain, const char *vm, const char *device, vdi_done_fn *done, void *arg)
{
	struct error e = { 0 };
	struct job *j;

	if (!guid_is(vm))
		error_set(&e, EINVAL, "%.60s is not the uuid of a VM", vm);
	else if (!figures_is_device(device))
		error_set(&e, EINVAL, "%.60s is not the name of a device, as xvda is", device);
	if (e.err) {
		done(arg, &e);
		return;
	}
	j = job_add(v, JOB_FIGURES, domain, done, arg);
	if (!j)
		return;
	snprintf(j->vm, sizeof(j->vm), "%s", vm);
	snprintf(j->device, sizeof(j->device), "%s", device);
}
