/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-vm - a journey that takes the disks' VM with it: its memory, from the QEMU here to the one there
 *
 *      check - (disks in sync) - send - (disks prepared) - finish - the disks' decision - stay, or move
 *
 * THEORY-vm says why it never runs on both sides. All but journey_has_vm() are for a journey that has one.
 */
#ifndef SXM_MIGRATE_JOURNEY_VM_H
#define SXM_MIGRATE_JOURNEY_VM_H

#include "migrate/journey.h"

bool journey_has_vm(const struct journey *j);
/* There is no QEMU here any more; false where that is not known. */
bool journey_vm_is_gone(const struct journey *j);
/* Before it is on record: both QEMUs are there, and each disk is a device's, here and there. -1 + e: not. warnings: what a person
 * should know is added. */
int journey_vm_check(struct journey *j, struct jsonspec_list *warnings, struct error *e);
/* Until the VM stands still here. -1 + e: it does not; journey_vm_stay() is next. */
int journey_vm_send(struct journey *j, struct error *e);
/* Until it is there, whole, and stands still. */
int journey_vm_finish(struct journey *j, struct error *e);
/* It was decided that the disks stay, or nothing was decided and nothing will be. -1 + e: it may stand still yet: again. */
int journey_vm_stay(struct journey *j, struct error *e);
/* It was decided that they move, and the domain there has them. -1 + e: again; ENODATA: the VM was lost, the disks were not;
 * ESTALE: so it was, since one of them was taken back. */
int journey_vm_move(struct journey *j, struct error *e);

/* --- journey-vm-disks.c: a VM that stands still, and whose its disks here are by now */
/* While it has them. */
int journey_vm_note_disks(struct journey *j, struct error *e);
/* 1: they are what they were when it stopped, no other guest has them, and it has; 0: not, which was said. -1 + e: not known. */
int journey_vm_claim_disks(struct journey *j, struct error *e);

#endif
