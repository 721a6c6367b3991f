/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xen-lib - see xen.h; over libxengnttab, libxenevtchn and libxenstore
 *
 * Each device has handles of its own: what is mapped, bound and watched through them ends with them, also when the process is
 * killed.  The first watch starts libxenstore's reader, a thread, so that xs_check_watch() only takes what that has read.
 *
 * A guest's memory is copied by the hypervisor, never mapped, but for the ring's pages: so what was judged cannot change, and
 * nothing of a dead guest's is held back but these few pages, which go when @releaseDomain is heard.
 *
 * All keys are read in one transaction, which is given up: it shows one moment, and no guest can make it fail.  What is written
 * is in the backend's directory, which the guest cannot write to, so nor can it make that transaction fail for ever; the
 * toolstack may, and after some tries it is read anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#include "base/cleanup.h"
#include "vbd/xen.h"
#include "vbd/xenbus-keys.h"

#define WRITE_TRIES 5

struct xen {
	uint16_t domain;
	xengnttab_handle *grants; /* owned */
	xenevtchn_handle *events; /* owned */
	struct xs_handle *store;  /* owned */
	void *shared;             /* owned: mapped; NULL: not connected */
	uint32_t pages;
	evtchn_port_t port;       /* bound */
	xengnttab_grant_copy_segment_t *segment; /* owned */
	unsigned segments;
};

static void close_xen(struct xen *x)
{
	if (x->events)
		xenevtchn_close(x->events);
	if (x->grants)
		xengnttab_close(x->grants);
	if (x->store)
		xs_close(x->store);
	free(x->segment);
	free(x);
}

static int open_events(struct xen *x, struct error *e)
{
	int fd, flags;

	x->events = xenevtchn_open(NULL, 0);
	if (!x->events)
		return error_errno(e, errno, "/dev/xen/evtchn");
	fd = xenevtchn_fd(x->events);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == -1)
		return error_errno(e, errno, "/dev/xen/evtchn");
	xenevtchn_restrict(x->events, x->domain); /* where it can be: to this guest's channels */
	return 0;
}

static struct xen *open_xen(uint16_t domain, struct error *e)
{
	struct xen *x = calloc(1, sizeof(*x));

	if (!x) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	x->domain = domain;
	x->grants = xengnttab_open(NULL, 0);
	if (!x->grants)
		error_errno(e, errno, "/dev/xen/gntdev");
	else if (open_events(x, e) == 0)
		return x;
	close_xen(x);
	return NULL;
}

/* --- the ring */

static void *connect_xen(struct xen *x, const struct xenbus_ring *ring, struct error *e)
{
	uint32_t refs[RING_PAGES_MAX];
	int port;

	memcpy(refs, ring->gref, sizeof(refs));
	x->pages = 1u << ring->order;
	x->shared = xengnttab_map_domain_grant_refs(x->grants, x->pages, x->domain, refs, PROT_READ | PROT_WRITE);
	if (!x->shared) {
		error_errno(e, errno, "map the ring's pages, the first of which is %u", refs[0]);
		return NULL;
	}
	port = xenevtchn_bind_interdomain(x->events, x->domain, ring->channel);
	if (port >= 0) {
		x->port = (evtchn_port_t)port;
		return x->shared;
	}
	error_errno(e, errno, "bind event channel %u", ring->channel);
	xengnttab_unmap(x->grants, take_ptr(&x->shared), x->pages);
	return NULL;
}

static void disconnect_xen(struct xen *x)
{
	xenevtchn_unbind(x->events, x->port);
	xengnttab_unmap(x->grants, take_ptr(&x->shared), x->pages);
}

static bool make_segments(struct xen *x, unsigned count)
{
	xengnttab_grant_copy_segment_t *more;

	if (count <= x->segments)
		return true;
	more = realloc(x->segment, count * sizeof(*more));
	if (!more)
		return false;
	x->segment = more;
	x->segments = count;
	return true;
}

static void fill_segment(const struct xen *x, xengnttab_grant_copy_segment_t *s, bool is_to_guest, const struct xen_copy *c)
{
	union xengnttab_copy_ptr ours = { .virt = c->memory };
	union xengnttab_copy_ptr theirs = { .foreign = { .ref = c->gref, .offset = c->offset, .domid = x->domain } };

	*s = (xengnttab_grant_copy_segment_t){
		.source = is_to_guest ? ours : theirs, .dest = is_to_guest ? theirs : ours, .len = c->bytes,
		.flags = is_to_guest ? GNTCOPY_dest_gref : GNTCOPY_source_gref,
	};
}

/* One call's result says nothing about its pieces: each has a status. */
static void copy_xen(struct xen *x, bool is_to_guest, struct xen_copy *copy, unsigned count)
{
	bool is_good = make_segments(x, count);

	for (unsigned i = 0; is_good && i < count; i++)
		fill_segment(x, &x->segment[i], is_to_guest, &copy[i]);
	is_good = is_good && xengnttab_grant_copy(x->grants, count, x->segment) == 0;
	for (unsigned i = 0; i < count; i++)
		copy[i].has_failed = !is_good || x->segment[i].status != GNTST_okay;
}

static void notify_xen(struct xen *x)
{
	xenevtchn_notify(x->events, x->port);
}

static int events_fd(struct xen *x)
{
	return xenevtchn_fd(x->events);
}

static bool is_pending(struct xen *x)
{
	xenevtchn_port_or_error_t port = xenevtchn_pending(x->events);

	return port >= 0 && x->shared && (evtchn_port_t)port == x->port;
}

static void unmask(struct xen *x)
{
	xenevtchn_unmask(x->events, x->port);
}

/* --- the store */

static bool watch(struct xen *x, const struct xenbus_names *n, enum xenbus_key key)
{
	char path[XENBUS_PATH_MAX];

	return xenbus_key_path(n, NULL, key, path) && xs_watch(x->store, path, "");
}

/* Of the guest's keys one: what it writes to others wakes nobody. */
static int open_store(struct xen *x, const struct xenbus_names *n, struct error *e)
{
	x->store = xs_open(XS_UNWATCH_FILTER);
	if (!x->store)
		return error_errno(e, errno, "xenstore");
	if (!watch(x, n, XENBUS_B_STATE) || !watch(x, n, XENBUS_B_ONLINE) || !watch(x, n, XENBUS_B_HOTPLUG) ||
	    !watch(x, n, XENBUS_B_PARAMS) || !watch(x, n, XENBUS_F_STATE) || !watch(x, n, XENBUS_D_VM) ||
	    !xs_watch(x->store, "@releaseDomain", ""))
		return error_errno(e, errno, "watch %s", n->backend);
	return 0;
}

static int store_fd(struct xen *x)
{
	return xs_fileno(x->store);
}

static void drain_store(struct xen *x)
{
	char **event;

	while ((event = xs_check_watch(x->store)))
		free(event);
}

/* ENOENT, and what cannot be read for any other reason of the key's, is not there; -1: the store itself. */
static int read_key(struct xen *x, xs_transaction_t t, const char *path, struct xenbus_value *out)
{
	unsigned bytes = 0;
	CLEANUP_FREE char *value = xs_read(x->store, t, path, &bytes);

	memset(out, 0, sizeof(*out));
	if (!value)
		return errno == ENOENT || errno == EACCES || errno == EINVAL || errno == E2BIG ? 0 : -1;
	out->is_there = true;
	out->is_long = bytes >= sizeof(out->value) || memchr(value, '\0', bytes);
	if (!out->is_long)
		memcpy(out->value, value, bytes);
	return 0;
}

/* The first entry is the owner's, and says what all may do who are not named after it. */
static bool is_toolstacks(struct xen *x, xs_transaction_t t, const char *path)
{
	unsigned count = 0;
	CLEANUP_FREE struct xs_permissions *p = xs_get_permissions(x->store, t, path, &count);

	if (!p || !count || p[0].id != 0 || p[0].perms & XS_PERM_WRITE)
		return false;
	for (unsigned i = 1; i < count; i++)
		if (p[i].id != 0 && p[i].perms & XS_PERM_WRITE)
			return false;
	return true;
}

static bool is_needed(unsigned key, const struct xenbus_value *value)
{
	enum xenbus_state state = xenbus_state_of(&value[XENBUS_F_STATE]);

	return key <= XENBUS_F_STATE || key >= XENBUS_B_DEVICE || state == XENBUS_INITIALISED || state == XENBUS_CONNECTED;
}

static int read_keys(struct xen *x, const struct xenbus_names *n, struct xenbus_value *value, struct error *e)
{
	xs_transaction_t t = xs_transaction_start(x->store);
	char path[XENBUS_PATH_MAX];
	int err = t == XBT_NULL ? errno : 0;

	memset(value, 0, XENBUS_KEYS * sizeof(*value));
	for (unsigned key = 0; !err && key < XENBUS_KEYS; key++) {
		if (!is_needed(key, value) || !xenbus_key_path(n, value, key, path))
			continue;
		if (read_key(x, t, path, &value[key]) == -1)
			err = errno;
		else if (key >= XENBUS_D_VM && value[key].is_there)
			value[key].is_toolstacks = is_toolstacks(x, t, path);
	}
	if (t != XBT_NULL)
		xs_transaction_end(x->store, t, true);
	if (err)
		return error_errno(e, err, "read %s", n->backend);
	/* Of a domain that is no more, the toolstack may not have removed anything yet. */
	if (!xs_is_domain_introduced(x->store, n->domain))
		memset(&value[XENBUS_F_STATE], 0, (XENBUS_KEYS - XENBUS_F_STATE) * sizeof(*value));
	return 0;
}

static int check_expected(struct xen *x, xs_transaction_t t, const struct xenbus_names *n, enum xenbus_state expected)
{
	struct xenbus_value value;
	char path[XENBUS_PATH_MAX];

	xenbus_key_path(n, NULL, XENBUS_B_FRONTEND, path);
	if (read_key(x, t, path, &value) == -1)
		return errno;
	if (!value.is_there)
		return ENOENT;
	xenbus_key_path(n, NULL, XENBUS_B_STATE, path);
	if (read_key(x, t, path, &value) == -1)
		return errno;
	return xenbus_state_of(&value) == expected ? 0 : EAGAIN;
}

static int write_once(struct xen *x, const struct xenbus_names *n, enum xenbus_state expected, const struct xen_write *w,
		      unsigned count)
{
	xs_transaction_t t = xs_transaction_start(x->store);
	int err;

	if (t == XBT_NULL)
		return errno;
	err = check_expected(x, t, n, expected);
	for (unsigned i = 0; !err && i < count; i++) {
		bool is_good = w[i].is_removal ? xs_rm(x->store, t, w[i].path) || errno == ENOENT
					       : xs_write(x->store, t, w[i].path, w[i].value, (unsigned)strlen(w[i].value));

		if (!is_good)
			err = errno;
	}
	if (!xs_transaction_end(x->store, t, err != 0) && !err)
		err = errno == EAGAIN ? EINTR : errno;
	return err;
}

static int write_keys(struct xen *x, const struct xenbus_names *n, enum xenbus_state expected, const struct xen_write *w,
		      unsigned count)
{
	int err = EINTR;

	for (unsigned tries = 0; err == EINTR && tries < WRITE_TRIES; tries++)
		err = write_once(x, n, expected, w, count);
	return err == EINTR ? EAGAIN : err;
}

static const struct xen_ops ops = {
	.open = open_xen, .close = close_xen, .connect = connect_xen, .disconnect = disconnect_xen, .copy = copy_xen,
	.notify = notify_xen, .fd = events_fd, .pending = is_pending, .unmask = unmask, .store_open = open_store,
	.store_fd = store_fd, .store_drain = drain_store, .store_read = read_keys, .store_write = write_keys,
};

const struct xen_ops *xen_ops(void)
{
	return &ops;
}
