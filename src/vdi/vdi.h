/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vdi - one disk's whole life: who has it attached and active, its stack, its operation
 *
 *      DOWN --first activate--> UP (disk open and locked, gate open) --last deactivate, no operation--> DOWN
 *
 * A domain is a token (a guest's domid, "u0_...", "MIR...", "CP...", "0", "-1", ""): each has its own NBD socket, made at
 * attach (name known), listening from activate to deactivate.  What must outlive a kill -9 of the process (who is attached,
 * who is active and how) is in domains.json beside the control socket and is taken up again at start.
 * Everything that takes time ends in a callback, from the loop; each is idempotent.
 */
#ifndef SXM_VDI_VDI_H
#define SXM_VDI_VDI_H

#include "base/error.h"
#include "base/jsonspec.h"
#include "base/lease.h"
#include "loop/loop.h"
#include "mirror/commit.h"
#include "mirror/mirror.h"
#include "mirror/verify.h"
#include "nbdsrv/nbdsrv.h"

struct vdi;

#define VDI_BACKEND_MAX 128 /* bytes of a directory in xenstore, with the NUL */

struct vdi_spec {
	struct loop *loop;      /* borrowed */
	const char *id;         /* copied; names the directory in SXM_RUN_DIR and the export */
	const char *path;       /* copied; the image */
	const char *run_dir;    /* copied; SXM_RUN_DIR/<id>, exists */
	unsigned linger_ms;     /* how long a source whose link is lost may come back to a disk nobody uses; 0: 5 minutes */
	unsigned envoy_ms;      /* how long a far side that is not there is asked for a disk that it was given; 0: 10 s */
	unsigned expect_ms;     /* how long a disk that was mirrored from SMAPIv1 is kept ready for who comes next; 0: 10 s */
	void (*on_lost)(void *arg);  /* the disk's lease is another host's: the process must end, and touch none of its files */
	void (*on_closed)(void *arg); /* closed for a moment, it cannot be opened again: the process must end */
	void (*on_empty)(void *arg); /* nothing attached, nothing running: the process may end */
	void *arg;
};

/* e == NULL: good. */
typedef void vdi_done_fn(void *arg, const struct error *e);

struct vdi *vdi_new(const struct vdi_spec *spec, struct error *e);
/* Takes up domains.json: reopens and serves what was active. */
void vdi_resume(struct vdi *v, vdi_done_fn *done, void *arg);
void vdi_free(struct vdi *v);
/* Without a process: whether somebody is on record in run_dir. Blocks. */
bool vdi_is_needed(const char *run_dir);
/* Nobody is, and none can come: removes the record and what killed processes left there (half-written files, sockets). Blocks. */
void vdi_sweep(const char *run_dir);

/* Only makes the name, and writes it down. socket: at least 108 bytes, set before done(). */
void vdi_attach(struct vdi *v, const char *domain, char *socket, size_t bytes, vdi_done_fn *done, void *arg);
/* EPERM: it is not this disk's turn (it receives a mirror, or was moved away); is_forced: it is all the same. */
void vdi_activate(struct vdi *v, const char *domain, bool is_read_only, bool is_forced, vdi_done_fn *done, void *arg);
/* The barrier where a mirror runs and this is the last writing guest. */
void vdi_deactivate(struct vdi *v, const char *domain, vdi_done_fn *done, void *arg);
/* The barrier of a deactivation together with other disks of the group, up to PREPARE: then done(), and guests stay held. When
 * nobody has decided for patience_ms it is cancelled. EAGAIN: not complete yet; EALREADY: that group was decided before. */
void vdi_prepare(struct vdi *v, const char *domain, const char *group, unsigned patience_ms, vdi_done_fn *done, void *arg);
/* Does what is decided for the group (base/decision.h), and says whether that is what was asked for: commit (ENOENT: nothing is
 * decided, or this disk is not prepared with it; ECANCELED) or cancel, which decides it, if nothing was (EALREADY: commit). */
void vdi_follow(struct vdi *v, const char *group, bool is_commit, vdi_done_fn *done, void *arg);
void vdi_detach(struct vdi *v, const char *domain, vdi_done_fn *done, void *arg);
/* A TCP listener for a domain that is active, until it is deactivated; port 0: any; tls: what it demands, NULL: plain.
 * *bound is set before done(), and *tls is there until then. */
void vdi_listen(struct vdi *v, const char *domain, const char *host, uint16_t port, const struct nbdsrv_tls *tls, uint16_t *bound,
		vdi_done_fn *done, void *arg);
/* The domain, which has it active, is a Xen guest: its device, whose backend's directory in xenstore this is, is served over its
 * ring until it is deactivated. is_eager: at once, not when a hotplug script is through. EOPNOTSUPP: this build knows no Xen. */
void vdi_device(struct vdi *v, const char *domain, const char *backend, bool is_eager, vdi_done_fn *done, void *arg);
/* ... and not any more: nothing of that device is touched when that was done. Success, too, where it is not served. */
void vdi_device_drop(struct vdi *v, const char *domain, const char *backend, vdi_done_fn *done, void *arg);
/* As long as the domain has the disk attached its I/O figures are where xcp-rrdd finds them, as the VM's device's
 * ("xvda"). Again: they are written at once. ENOENT: no xcp-rrdd is here. */
void vdi_figures(struct vdi *v, const char *domain, const char *vm, const char *device, vdi_done_fn *done, void *arg);
/* The disk, which the domain MIR... has active for writing, is the leaf of a mirror from a SMAPIv1 host: what is written to it
 * from here on is kept apart, to be put over its parent. socket: at least 108 bytes, set before done(): where connections are
 * passed (nbdsrv_receive_unix). The same domain again: the same socket. EPERM: it was one before. */
void vdi_import(struct vdi *v, const char *domain, char *socket, size_t bytes, vdi_done_fn *done, void *arg);
/* done() when the image alone has all of the disk: what was mirrored so, and composed, is merged into it. EPERM: not composed. */
void vdi_merge(struct vdi *v, vdi_done_fn *done, void *arg);
/* The image was composed, and somebody will activate it soon: it is opened for him. */
void vdi_expect(struct vdi *v);
/* Makes the file `path`, in the image's directory: the disk as it is at one moment, durable; it shares the blocks. What was
 * there is replaced. EOPNOTSUPP: the file system has no shared blocks. EPERM: it is not complete.
 * volume: the key of the snapshot. Where changes are tracked, those up to this moment go into <volume>.cbt beside the image, also
 * when the rest fails, and a new log begins. EAGAIN: only readers have the disk, and its log is not here. NULL: there will be no
 * volume, and the log goes on. */
struct vdi_snapshot_result {
	uint64_t held_us;           /* how long guests were held, the longer of the two times */
	uint64_t waited, longest_wait_us; /* writes that waited for a clone, between those */
	uint64_t clones, took_us;
};
void vdi_snapshot(struct vdi *v, const char *path, const char *volume, struct vdi_snapshot_result *out, vdi_done_fn *done,
		  void *arg);
/* The same in two: done() when guests are held; they are, and other verbs wait, until go, for patience_ms at most, or until
 * vdi_hold_is_over(number), which ends it at any time before it is done. 0: done() was called. */
uint64_t vdi_snapshot_hold(struct vdi *v, const char *path, const char *volume, unsigned patience_ms, vdi_done_fn *done,
			   void *arg);
/* done() as for vdi_snapshot(). ENOENT: it is not held. !is_wanted: nothing is made: ECANCELED. */
void vdi_snapshot_go(struct vdi *v, const char *path, bool is_wanted, struct vdi_snapshot_result *out, vdi_done_fn *done,
		     void *arg);
/* Which blocks change is noted in the log beside the image (cbt/cbt-log.h), whoever uses the disk, from now on; or the log goes.
 * EAGAIN: the disk is not open for writing: the log is made, or removed, without this process. EBUSY: not just now. */
void vdi_track(struct vdi *v, bool is_wanted, vdi_done_fn *done, void *arg);
/* A sealed copy of the log as it is now, beside the image. EAGAIN: as before. ENOENT: nothing is tracked. */
void vdi_track_save(struct vdi *v, const char *path, vdi_done_fn *done, void *arg);
/* The disk grows, whoever uses it. EBUSY: it is mirrored. ERANGE: it would get smaller. */
void vdi_resize(struct vdi *v, uint64_t bytes, vdi_done_fn *done, void *arg);
/* Closes the disk under its guests, who wait, for whoever is about to do something to its files: done() when all is flushed
 * and nothing holds the image. For 10 s at most, or until vdi_hold_is_over(number), or vdi_unpause(): then what stands at the
 * path is opened, with the size it has. EPERM, EBUSY (will_resize: a mirror runs): nothing was done. 0: done() was called. */
uint64_t vdi_pause(struct vdi *v, bool will_resize, vdi_done_fn *done, void *arg);
/* done() when guests go on, or with the reason why the disk could not be opened, which is tried again. ENOENT: not paused. */
void vdi_unpause(struct vdi *v, vdi_done_fn *done, void *arg);
/* Of a pause, or a snapshot: nobody needs an answer. Of one that waits its turn, too. */
void vdi_hold_is_over(struct vdi *v, uint64_t number);
/* The volume is to be removed; nobody has it attached. Good: it may be. EAGAIN: its source was asked, ask again; EPERM: no. */
void vdi_destroy(struct vdi *v, bool is_forced, vdi_done_fn *done, void *arg);
/* An admin's word: the disk is owned here, no guest runs from the other one. EPERM: it is already, or only by force. */
void vdi_take(struct vdi *v, bool is_forced, vdi_done_fn *done, void *arg);
/* The source of a move that is over may receive a mirror, and starts nobody. EPERM: it was not given away. */
void vdi_drop(struct vdi *v, vdi_done_fn *done, void *arg);
/* What that mirror handed over here, or may have, is called back: its source owns the disk in that epoch, on record. From now on
 * it starts nobody. EPERM: a guest was started from it. */
void vdi_recall(struct vdi *v, const char *mirror, uint64_t epoch, vdi_done_fn *done, void *arg);
/* The process is asked to go: an operation fails, everybody is cut off, the disk is flushed and closed. Nothing is forgotten:
 * vdi_resume() of a successor takes it up again. No verb is taken afterwards. */
void vdi_stop(struct vdi *v, vdi_done_fn *done, void *arg);
/* Nobody attached, no operation, nothing asked for and not done. */
bool vdi_is_empty(const struct vdi *v);

/* id: at least 64 bytes. done() when the far side was reached and fits, or could not be (then nothing is left behind). */
struct vdi_mirror_args {
	const char *domain, *remote;
	bool is_copy, is_sync;
	bool is_resume;             /* of the one to this remote that is remembered; ENOENT: there is none */
	const struct extents *only;
	uint64_t base;              /* a mirror: the far side is what this disk was when the log of that id began; ENOENT: that is
	                               not the log it has. 0: nothing is known of the far side */
};
void vdi_mirror(struct vdi *v, const struct vdi_mirror_args *args, char *id, size_t bytes, vdi_done_fn *done, void *arg);

struct vdi_operation_status {
	char id[64];
	bool is_remembered;         /* failed, and can be resumed */
	bool is_copy, is_failed, is_complete, is_ended;
	bool is_given;              /* the far side has the disk: waiting for the guest that takes it */
	bool is_verified;           /* at the commit, both ends' digests of the link were equal */
	struct error why;           /* is_failed */
	double progress;
	struct mirror_status mirror;
};
/* -1: no such operation here. */
int vdi_operation(const struct vdi *v, const char *id, struct vdi_operation_status *out);
/* Calls back at once when the operation is complete, failed or unknown, else at the next change or after wait_ms. */
void vdi_wait_news(struct vdi *v, const char *id, unsigned wait_ms, void (*done)(void *arg), void *arg);
/* A live mirror: whether guests wait for the far side. */
void vdi_set_sync(struct vdi *v, const char *id, bool is_sync, vdi_done_fn *done, void *arg);
void vdi_cancel(struct vdi *v, const char *id, vdi_done_fn *done, void *arg);
/* Forgets an ended operation (cancels a live one first). */
void vdi_forget(struct vdi *v, const char *id, vdi_done_fn *done, void *arg);
size_t vdi_operations(const struct vdi *v, struct vdi_operation_status *out, size_t max);

/* Compares the disk with a copy of it, in the background. id: at least 64 bytes. done() when it has begun. */
struct vdi_verify_args {
	const char *remote;         /* NULL: the far side of the mirror that runs */
	uint64_t rate_bytes;        /* a second; 0: as fast as it goes */
	const struct extents *only; /* bytes, in order; NULL: all */
};
void vdi_verify(struct vdi *v, const struct vdi_verify_args *args, char *id, size_t bytes, vdi_done_fn *done, void *arg);
void vdi_verify_cancel(struct vdi *v, const char *id, vdi_done_fn *done, void *arg);
struct vdi_verification_status {
	char id[64];
	struct verify_status verify;
};
/* -1: no such verification here. vdi_wait_news() is for these, too. */
int vdi_verification(const struct vdi *v, const char *id, struct vdi_verification_status *out);
size_t vdi_verifications(const struct vdi *v, struct vdi_verification_status *out, size_t max);

struct vdi_domain_status {
	char domain[256], socket[108];
	bool is_active, is_read_only, is_served;
	char backend[VDI_BACKEND_MAX]; /* of its device, "": none */
	char had[VDI_BACKEND_MAX];     /* ... of one that was dropped, and of which deactivate has to be said yet */
	bool is_connected;         /* its ring */
	uint64_t ring_errors;      /* requests that were answered with one */
	uint64_t ring_left;        /* requests that a killed process had in its hands */
	struct nbdsrv_stats nbd;   /* with what came over the ring */
};
struct vdi_status {
	bool is_open, is_read_only, is_direct; /* of the disk */
	bool is_tracked;            /* which blocks change is noted */
	const char *engine;         /* "" while closed */
	uint64_t size_bytes;
	unsigned in_flight;         /* requests past the gate */
	uint64_t buffer_bytes;      /* frontends' buffers in use */
	size_t domains;
	const char *owed;           /* borrowed until the next turn; NULL: nothing */
	struct commit_record owner; /* whose it is; state 0: was never open here */
	struct lease lease;         /* this host's; absent: none is needed, or had */
	uint64_t lease_left_ms;     /* until reads and writes wait, if it is not renewed */
	unsigned links;             /* of a mirror's source, admitted */
};
void vdi_status(const struct vdi *v, struct vdi_status *out);
/* Somebody looks: from now on it is measured how long guests' requests take. */
void vdi_watch(struct vdi *v);
size_t vdi_domains(const struct vdi *v, struct vdi_domain_status *out, size_t max);

#endif
