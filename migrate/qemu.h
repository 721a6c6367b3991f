/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qemu - what a move asks of one QEMU on this host (QMP; 7.0 or newer)
 *
 * The caller has the connection. -1 + e as qmp_ask() has it. Everything but the two ends of the memory's way may be repeated.
 */
#ifndef SXM_MIGRATE_QEMU_H
#define SXM_MIGRATE_QEMU_H

#include "base/jsonspec.h"
#include "migrate/qmp.h"
#include "migrate/vm.h"

#define QEMU_WAIT_MS 10000u
/* A name that QEMU takes for a node: at most so many bytes with the NUL. */
#define QEMU_NODE_MAX 32
#define QEMU_VERSION_MAX 64

struct qemu_state {
	char *status, *memory, *why; /* owned; as QEMU has them; memory "": none ever. why: of a failure */
	int64_t left_bytes, total_bytes, pass; /* of memory that is sent; pass: the first is 1 */
};
extern const struct jsonspec qemu_state_spec;
/* s is the caller's to clear. */
int qemu_look(struct qmp *q, struct qemu_state *s, struct error *e);
/* What becomes of it: is_gone where there is no QEMU; not -1 then. *s is zero then. One that hangs up is asked again: it is gone
 * only when nobody is there. */
int qemu_see(struct qmp *q, struct vm_side *side, struct qemu_state *s, struct error *e);

/* A device that has a disk. */
struct qemu_disk {
	char *device; /* the path of its back end in QEMU's tree: the same in both QEMUs of a migration */
	char *node, *file;
	int64_t size_bytes;
};
extern const struct jsonspec qemu_disk_spec;
/* struct qemu_disk; the caller's: qemu_clear_disks(). Devices without a medium are not there. */
int qemu_disks(struct qmp *q, struct jsonspec_records *disks, struct error *e);
void qemu_clear_disks(struct jsonspec_records *disks);
/* The one that is a client of that NBD export on a unix socket; NULL: none. */
const struct qemu_disk *qemu_find_export(const struct jsonspec_records *disks, const char *export);
const struct qemu_disk *qemu_find_device(const struct jsonspec_records *disks, const char *device);

/* 1: what it sends may be older than what its VM wrote (THEORY-vm, 6), and it is of that version; 0: not, or nobody knows. */
int qemu_loses_memory(struct qmp *q, char version[static QEMU_VERSION_MAX], struct error *e);
/* The VM's memory goes into that socket, and it stops when only what goes while it stands still is left. 0: no limit. */
int qemu_send(struct qmp *q, int stream, uint64_t limit_bytes_s, struct error *e);
int qemu_continue(struct qmp *q, struct error *e);
int qemu_cancel(struct qmp *q, struct error *e);
/* A VM is taken from that socket, and does not run before qemu_run(). */
int qemu_receive(struct qmp *q, int stream, struct error *e);
int qemu_run(struct qmp *q, struct error *e);
int qemu_end(struct qmp *q, struct error *e);
/* What is a client of that export gives up its connection, for good: else a QEMU that ends waits until it may flush. Where it
 * cannot be told to, nothing. */
int qemu_cut_off(struct qmp *q, const char *export, struct error *e);
/* Whether that device's disk can be replaced, tried with another stand-in for it. -1 + e: not. Before a VM is received. */
int qemu_try_plug(struct qmp *q, const char *device, struct error *e);
/* That device's disk is from now on that export. */
int qemu_plug(struct qmp *q, const char *device, const char *socket, const char *export, struct error *e);

#endif
