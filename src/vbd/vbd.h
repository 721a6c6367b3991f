/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vbd - a Xen guest's virtual block device: its frontend is met over xenstore, and served over its ring
 */
#ifndef SXM_VBD_VBD_H
#define SXM_VBD_VBD_H

#include "base/error.h"
#include "vbd/lane.h"

struct vbd;

struct vbd_spec {
	struct loop *loop;       /* borrowed, as the next two */
	struct layer *top;       /* what requests are submitted to */
	struct iobuf_pool *pool;
	const char *backend;     /* copied: the backend's directory in xenstore */
	const char *book;        /* copied: a file of this device's, for what must outlive a killed process */
	/* A directory whose params name another disk is not served. NULL: not known. */
	const char *params;      /* copied: the disk's NBD URI */
	/* Whether a volume's URI is the disk's: 1, 0; -1 + e: it cannot be told now. On a pool thread. */
	int (*is_volume)(void *arg, const char *uri, struct error *e);
	bool is_read_only;
	bool is_eager;           /* does not wait for hotplug-status */
	/* Whenever it was read, or NULL: the VM's uuid, and what the toolstack calls the device. From the loop. */
	void (*on_whose)(void *arg, const char *vm, const char *device);
	void *arg;               /* of both */
};

/* Whether that is a backend's directory, and this build knows Xen. -1 + e. */
int vbd_check(const char *backend, struct error *e);
/* From now on it is looked for; what is not there yet, is waited for. NULL + e. */
struct vbd *vbd_new(const struct vbd_spec *spec, struct error *e);
/* The disk has another size, perhaps. */
void vbd_resized(struct vbd *v);
/* Nothing more is taken; what was taken ends. Then done(), from the loop: the guest's memory is not touched any more, and what
 * its frontend was told stays as it was: a successor over the same book goes on where this one ended. */
void vbd_stop(struct vbd *v, void (*done)(void *arg), void *arg);
/* After vbd_stop()'s done() only. */
void vbd_free(struct vbd *v);

void vbd_stats(const struct vbd *v, struct vbd_stats *out);
bool vbd_is_connected(const struct vbd *v);

#endif
