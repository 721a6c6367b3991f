/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vbd - see vbd.h
 *
 *      open (pool) -> { xenbus_next -> READ, WRITE, CONNECT (pool) | SLEEP (timer) | DISCONNECT: lane_stop, then (pool) } ...
 *                  -> OVER -> close (pool) -> done()
 *
 * One thing at a time, as xenbus says; what takes time, and all that asks the store does, is on a pool thread.  Meanwhile the
 * lane, where there is one, is at work on the loop.
 *
 * The book is a file, mapped; a process that is killed leaves it to the next one.  Which ring it is about is a number made of
 * all that a ring is known by; a ring that was let go of in order takes its book along.
 * Can fail: opening, which is tried again each second; all else is xenbus' business.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "loop/offload.h"
#include "vbd/vbd.h"
#include "vbd/xenbus-keys.h"

#define OPEN_AGAIN_MS 1000u
#define WRITES_MAX 16u

struct vbd {
	struct loop *loop;
	struct layer *top;
	struct iobuf_pool *pool;
	const struct xen_ops *ops;
	struct xen *xen;           /* owned; NULL: not open yet */
	struct xenbus_names names;
	char *book_path;           /* owned */
	struct ring_book *book;    /* owned: mapped while there is a ring */
	int (*is_volume)(void *arg, const char *uri, struct error *e);
	bool is_read_only;         /* by whom it is served for; the toolstack may say so, too */
	void (*on_whose)(void *arg, const char *vm, const char *device);
	void *arg;                 /* of both */
	struct xenbus xenbus;
	struct lane *lane;         /* owned */
	struct vbd_stats stats;
	struct loop_watch *watch;  /* owned: the store's */
	struct loop_timer *timer;  /* owned */
	struct loop_task task;     /* what is next */
	bool is_open, is_busy, is_stopping;
	void (*done)(void *arg);
	void *done_arg;

	/* of what is under way, on a pool thread */
	struct offload offload;
	void (*work)(struct vbd *v);
	void (*worked)(struct vbd *v);
	struct error error;
	int err;
	struct xenbus_action action;
	struct xenbus_value value[XENBUS_KEYS];
	struct xen_write write[WRITES_MAX];
	unsigned writes;
	void *shared;
};

static uint64_t now_ms(void)
{
	return loop_now_ns() / NS_PER_MS;
}

/* --- on a pool thread */

static void on_work(struct offload *o)
{
	struct vbd *v = container_of(o, struct vbd, offload);

	v->work(v);
}

static void on_worked(struct offload *o)
{
	struct vbd *v = container_of(o, struct vbd, offload);

	v->is_busy = false;
	v->worked(v);
}

static void work(struct vbd *v, void (*fn)(struct vbd *v), void (*worked)(struct vbd *v))
{
	v->work = fn;
	v->worked = worked;
	error_clear(&v->error);
	v->is_busy = true;
	if (offload_submit(v->loop, &v->offload) == 0)
		return;
	on_work(&v->offload); /* no memory for that: it is done all the same, for a ring may not be kept */
	on_worked(&v->offload);
}

/* --- what the frontend is told */

static void put(struct vbd *v, const char *directory, const char *key, const char *value)
{
	struct xen_write *w = &v->write[v->writes++];

	assert(v->writes <= WRITES_MAX);
	memset(w, 0, sizeof(*w));
	if (key)
		snprintf(w->path, sizeof(w->path), "%.100s/%s", directory, key);
	else
		snprintf(w->path, sizeof(w->path), "%s", directory);
	if (value)
		snprintf(w->value, sizeof(w->value), "%s", value);
	else
		w->is_removal = true;
}

static void put_number(struct vbd *v, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	put(v, v->names.backend, key, text);
}

static bool is_written(const struct vbd *v)
{
	return !v->is_read_only && !v->xenbus.is_read_only && !v->top->geometry.is_read_only;
}

static bool can_discard(const struct vbd *v)
{
	return is_written(v) && v->xenbus.may_discard && v->top->geometry.can_trim;
}

/* Sectors have 512 bytes, whatever the medium's have: everybody reads that the same way. */
static void put_disk(struct vbd *v)
{
	put_number(v, "sectors", v->top->geometry.size_bytes / RING_SECTOR_BYTES);
	put_number(v, "sector-size", RING_SECTOR_BYTES);
	put_number(v, "physical-sector-size", MAX(v->top->geometry.block_bytes, RING_SECTOR_BYTES));
	put_number(v, "info", is_written(v) ? 0 : 4);
}

static void put_features(struct vbd *v)
{
	put_number(v, "feature-flush-cache", 1);
	put_number(v, "max-ring-page-order", RING_ORDER_MAX);
	put_number(v, "feature-max-indirect-segments", RING_INDIRECT_MAX);
	if (!can_discard(v))
		return;
	put_number(v, "feature-discard", 1);
	put_number(v, "discard-granularity", MAX(v->top->geometry.block_bytes, RING_SECTOR_BYTES));
	put_number(v, "discard-alignment", 0);
	put_number(v, "discard-secure", 0);
}

static void gather(struct vbd *v)
{
	const struct xenbus_action *a = &v->action;

	v->writes = 0;
	if (a->says & XENBUS_SAY_FEATURES)
		put_features(v);
	if (a->says & (XENBUS_SAY_DISK | XENBUS_SAY_FEATURES))
		put_disk(v);
	if (a->says & XENBUS_SAY_ERROR)
		put(v, v->names.error, NULL, a->why);
	if (a->says & XENBUS_SAY_STATE)
		put_number(v, "state", a->state);
	if (a->says & XENBUS_FORGET_HOTPLUG)
		put(v, v->names.backend, "hotplug-status", NULL);
}

/* --- the steps */

static void step(struct vbd *v)
{
	loop_defer(v->loop, &v->task);
}

/* Of what was found to be this disk it is not asked again: what a guest was given it keeps. */
static int find_volume(struct vbd *v)
{
	const char *uri = xenbus_volume(v->value);
	int is_it;

	if (!uri || !v->is_volume || strcmp(uri, v->names.volume) == 0)
		return 0;
	is_it = v->is_volume(v->arg, uri, &v->error);
	if (is_it == 1)
		snprintf(v->names.volume, sizeof(v->names.volume), "%s", uri);
	return is_it == -1 ? -1 : 0;
}

static void read_keys(struct vbd *v)
{
	bool is_read = v->ops->store_read(v->xen, &v->names, v->value, &v->error) == 0 && find_volume(v) == 0;

	v->err = is_read ? 0 : v->error.err;
}

static void complain(struct vbd *v, const char *what)
{
	static struct log_limit limit = LOG_LIMIT(5);

	if (log_allowed(&limit))
		log_warn("%s: %s: %s", v->names.backend, what, v->error.text);
}

static void refuse_others(struct vbd *v)
{
	if (xenbus_is_this_disk(&v->names, v->value))
		return;
	error_set(&v->error, EPERM, "its params name another disk, %.100s", v->value[XENBUS_B_PARAMS].value);
	complain(v, "not served");
}

static void tell_whose(const struct vbd *v)
{
	const struct xenbus_value *device = &v->value[XENBUS_B_DEVICE];
	char vm[GUID_MAX];

	if (v->on_whose && xenbus_is_ours(&v->names, v->value) && !device->is_long && xenbus_vm(v->value, vm))
		v->on_whose(v->arg, vm, device->value);
}

static void keys_read(struct vbd *v)
{
	if (v->err) { /* as if nothing were there would be a lie: it is asked again */
		complain(v, "not read");
		xenbus_not_read(&v->xenbus, now_ms());
	} else {
		refuse_others(v);
		tell_whose(v);
		xenbus_read_is(&v->xenbus, &v->names, v->value);
	}
	step(v);
}

static void write_keys(struct vbd *v)
{
	v->err = v->ops->store_write(v->xen, &v->names, v->action.expected, v->write, v->writes);
}

/* A guest that comes and goes all the time says so only so often. */
static bool may_tell(void)
{
	static struct log_limit limit = LOG_LIMIT(10);

	return log_allowed(&limit);
}

static void keys_written(struct vbd *v)
{
	if (!v->err && may_tell())
		log_info("%s: state %d%s%s", v->names.backend, v->action.state, v->action.why ? ", " : "",
			 v->action.why ? v->action.why : "");
	if (v->err && v->err != EAGAIN && v->err != ENOENT) {
		error_errno(&v->error, v->err, "write");
		complain(v, "xenstore");
	}
	xenbus_ended(&v->xenbus, v->err, NULL, now_ms());
	step(v);
}

/* FNV-1a. */
static uint32_t identity_of(const struct xenbus_names *n, const struct xenbus_ring *ring)
{
	const uint8_t *at = (const uint8_t *)ring;
	uint32_t hash = UINT32_C(2166136261);

	for (size_t i = 0; i < sizeof(*ring); i++)
		hash = (hash ^ at[i]) * UINT32_C(16777619);
	return (hash ^ n->domain) * UINT32_C(16777619) ^ n->device;
}

static int map_book(struct vbd *v, struct error *e)
{
	CLEANUP_CLOSE int fd = open(v->book_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	void *book;

	if (fd < 0 || (!v->action.is_again && ftruncate(fd, 0) == -1) || ftruncate(fd, sizeof(*v->book)) == -1)
		return error_errno(e, errno, "%s", v->book_path);
	/* Memory is to be had now, or not at all: a store into it may not fail. */
	if (posix_fallocate(fd, 0, sizeof(*v->book)) != 0)
		return error_set(e, ENOSPC, "no room for %s", v->book_path);
	book = mmap(NULL, sizeof(*v->book), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (book == MAP_FAILED)
		return error_errno(e, errno, "%s", v->book_path);
	v->book = book;
	return 0;
}

static void drop_book(struct vbd *v, bool is_over)
{
	if (v->book)
		munmap(take_ptr(&v->book), sizeof(*v->book));
	if (is_over)
		unlink(v->book_path);
}

static void connect_ring(struct vbd *v)
{
	if (map_book(v, &v->error) == -1)
		return;
	v->shared = v->ops->connect(v->xen, &v->action.ring, &v->error);
	if (!v->shared)
		drop_book(v, false);
}

static void disconnect_ring(struct vbd *v)
{
	v->ops->disconnect(v->xen);
	drop_book(v, !v->is_stopping);
}

static void disconnected(struct vbd *v)
{
	if (may_tell())
		log_info("%s: the ring was let go of", v->names.backend);
	xenbus_ended(&v->xenbus, 0, NULL, now_ms());
	step(v);
}

static void not_connected(struct vbd *v)
{
	xenbus_ended(&v->xenbus, EPROTO, "the ring contradicts what was answered over it", now_ms());
	step(v);
}

static struct lane *make_lane(struct vbd *v)
{
	const struct lane_spec spec = {
		.loop = v->loop, .top = v->top, .pool = v->pool, .ops = v->ops, .xen = v->xen, .shared = v->shared,
		.book = v->book,
		.ring = &v->xenbus.doing.ring, .identity = identity_of(&v->names, &v->action.ring), .name = v->names.backend,
		.is_read_only = !is_written(v), .can_discard = can_discard(v), .stats = &v->stats,
	};

	return lane_new(&spec, &v->error);
}

static void ring_connected(struct vbd *v)
{
	const uint64_t left = v->stats.left;
	struct error why;

	if (v->error.err) {
		why = v->error;
		complain(v, "connect");
		xenbus_ended(&v->xenbus, why.err, why.text, now_ms());
		step(v);
		return;
	}
	v->lane = make_lane(v);
	if (!v->lane) {
		complain(v, "connect");
		work(v, disconnect_ring, not_connected);
		return;
	}
	if (may_tell())
		log_info("%s: connected, %u page%s%s%s", v->names.backend, 1u << v->action.ring.order,
			 v->action.ring.order ? "s" : "", v->action.ring.abi == RING_X86_32 ? ", 32 bits" : "",
			 v->stats.left != left ? ", goes on where a process ended" : "");
	xenbus_ended(&v->xenbus, 0, NULL, now_ms());
	step(v);
}

static void lane_stopped(void *arg)
{
	struct vbd *v = arg;

	lane_free(take_ptr(&v->lane));
	work(v, disconnect_ring, disconnected);
}

static void close_all(struct vbd *v)
{
	if (v->xen)
		v->ops->close(take_ptr(&v->xen));
}

static void closed(struct vbd *v)
{
	void (*done)(void *arg) = take_ptr(&v->done);

	done(v->done_arg);
}

static void end(struct vbd *v)
{
	loop_watch_free(take_ptr(&v->watch));
	loop_timer_clear(v->timer);
	work(v, close_all, closed);
}

static void do_next(struct vbd *v)
{
	v->action = xenbus_next(&v->xenbus, now_ms());
	switch (v->action.what) {
	case XENBUS_NOTHING:
		break;
	case XENBUS_SLEEP:
		loop_timer_set(v->timer, v->action.ms);
		break;
	case XENBUS_READ:
		work(v, read_keys, keys_read);
		break;
	case XENBUS_WRITE:
		gather(v);
		work(v, write_keys, keys_written);
		break;
	case XENBUS_CONNECT:
		work(v, connect_ring, ring_connected);
		break;
	case XENBUS_DISCONNECT:
		error_clear(&v->error);
		v->is_busy = true;
		lane_stop(v->lane, lane_stopped, v);
		break;
	case XENBUS_OVER:
		end(v);
		break;
	}
}

/* --- the beginning */

static void on_store(void *arg, int events UNUSED)
{
	struct vbd *v = arg;

	v->ops->store_drain(v->xen);
	xenbus_changed(&v->xenbus);
	step(v);
}

static void open_all(struct vbd *v)
{
	v->xen = v->ops->open(v->names.domain, &v->error);
	if (v->xen && v->ops->store_open(v->xen, &v->names, &v->error) == -1)
		close_all(v);
}

static void opened(struct vbd *v)
{
	if (!v->error.err)
		v->watch = loop_watch_new(v->loop, v->ops->store_fd(v->xen), LOOP_IN, on_store, v);
	v->is_open = v->watch != NULL;
	if (!v->error.err && !v->is_open) {
		error_set(&v->error, ENOMEM, "out of memory");
		close_all(v);
	}
	if (!v->is_open) {
		complain(v, "not open yet");
		loop_timer_set(v->timer, OPEN_AGAIN_MS);
	}
	if (v->is_open || v->is_stopping)
		step(v);
}

static void on_task(struct loop_task *t)
{
	struct vbd *v = container_of(t, struct vbd, task);

	if (v->is_busy || (v->is_stopping && !v->done))
		return;
	v->xenbus.sectors = v->top->geometry.size_bytes / RING_SECTOR_BYTES;
	if (v->is_open)
		do_next(v);
	else if (v->is_stopping)
		end(v);
	else
		work(v, open_all, opened);
}

static void on_timer(void *arg)
{
	step(arg);
}

int vbd_check(const char *backend, struct error *e)
{
	struct xenbus_names names;

	if (!xen_ops())
		return error_set(e, EOPNOTSUPP, "this sxm was built without Xen's libraries (libxenstore, libxengnttab, "
				 "libxenevtchn)");
	return xenbus_parse_backend(&names, backend, e);
}

struct vbd *vbd_new(const struct vbd_spec *spec, struct error *e)
{
	struct vbd *v;

	if (vbd_check(spec->backend, e) == -1)
		return NULL;
	v = calloc(1, sizeof(*v));
	if (!v || !(v->book_path = strdup(spec->book)))
		goto fail;
	v->loop = spec->loop;
	v->timer = loop_timer_new(v->loop, on_timer, v);
	if (!v->timer || xenbus_parse_backend(&v->names, spec->backend, e) == -1)
		goto fail;
	v->top = spec->top;
	v->pool = spec->pool;
	v->ops = xen_ops();
	snprintf(v->names.params, sizeof(v->names.params), "%s", spec->params ? spec->params : "");
	v->is_volume = spec->is_volume;
	v->arg = spec->arg;
	v->is_read_only = spec->is_read_only;
	v->on_whose = spec->on_whose;
	xenbus_init(&v->xenbus, spec->is_eager);
	v->offload = (struct offload){ .work = on_work, .done = on_worked };
	v->task.run = on_task;
	step(v);
	return v;
fail:
	if (v)
		free(v->book_path);
	free(v);
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

void vbd_resized(struct vbd *v)
{
	xenbus_changed(&v->xenbus);
	step(v);
}

void vbd_stop(struct vbd *v, void (*done)(void *arg), void *arg)
{
	assert(!v->done);
	v->is_stopping = true;
	v->done = done;
	v->done_arg = arg;
	xenbus_leave(&v->xenbus);
	step(v);
}

void vbd_free(struct vbd *v)
{
	if (!v)
		return;
	assert(!v->xen && !v->lane && !v->is_busy);
	loop_defer_cancel(v->loop, &v->task);
	loop_timer_free(v->timer);
	free(v->book_path);
	free(v);
}

void vbd_stats(const struct vbd *v, struct vbd_stats *out)
{
	*out = v->stats;
}

bool vbd_is_connected(const struct vbd *v)
{
	return v->lane != NULL;
}
