/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xen - what Xen does for us: a guest's memory, its event channel, the store
 *
 * One program has one of these, chosen when it is linked: xen-lib over Xen's libraries, xen-none in a build without them, and
 * tests have a fake.  The grants and events of one device go through one struct xen, which is used from the loop only, but for
 * connect and disconnect.  What is marked "blocks" is for a pool thread, and called by one thread at a time.
 */
#ifndef SXM_VBD_XEN_H
#define SXM_VBD_XEN_H

#include "base/error.h"
#include "vbd/xenbus.h"

struct xen;

/* A piece of one page of the guest's, and as many bytes of ours. */
struct xen_copy {
	uint32_t gref;
	uint16_t offset, bytes; /* together inside the page */
	void *memory;           /* borrowed */
	bool has_failed;        /* set by the copy, of each */
};

struct xen_write {
	char path[XENBUS_PATH_MAX];
	bool is_removal;
	char value[160];
};

struct xen_ops {
	/* --- the data. All block but copy and notify, which take as long as the memory does. */
	struct xen *(*open)(uint16_t domain, struct error *e);
	void (*close)(struct xen *x);
	/* The ring's pages, one after the other, and its event channel. NULL + e: and nothing is kept. */
	void *(*connect)(struct xen *x, const struct xenbus_ring *ring, struct error *e);
	void (*disconnect)(struct xen *x);
	/* Every copy says for itself how it went. */
	void (*copy)(struct xen *x, bool is_to_guest, struct xen_copy *copy, unsigned count);
	/* --- events, while connected */
	void (*notify)(struct xen *x);
	int (*fd)(struct xen *x);       /* to be polled for reading */
	bool (*pending)(struct xen *x); /* there was an event: the channel is silent until unmask() */
	void (*unmask)(struct xen *x);

	/* --- the store. All block but fd and drain. */
	int (*store_open)(struct xen *x, const struct xenbus_names *n, struct error *e); /* watches what changes may be in */
	int (*store_fd)(struct xen *x);
	void (*store_drain)(struct xen *x); /* what was reported is about to be read */
	/* All keys of one moment. -1 + e. */
	int (*store_read)(struct xen *x, const struct xenbus_names *n, struct xenbus_value *value, struct error *e);
	/* All or nothing, and only if the backend's `frontend` is there and its `state` is `expected`. An errno: EAGAIN: it is
	 * another; ENOENT: the directory is gone. */
	int (*store_write)(struct xen *x, const struct xenbus_names *n, enum xenbus_state expected, const struct xen_write *w,
			   unsigned count);
};

/* NULL: this build knows no Xen. */
const struct xen_ops *xen_ops(void);

#endif
