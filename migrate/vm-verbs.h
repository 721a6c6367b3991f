/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vm-verbs - what the relay's vm.* are told and answer (PROTOCOL.relay), for who asks and for who is asked
 */
#ifndef SXM_MIGRATE_VM_VERBS_H
#define SXM_MIGRATE_VM_VERBS_H

#include "base/jsonspec.h"
#include "migrate/qemu.h"

/* vm.look's answer. */
struct vm_look {
	struct qemu_state state;
	struct jsonspec_records disks; /* struct qemu_disk */
	bool is_gone;                  /* there is no QEMU: nothing else is said */
};
extern const struct jsonspec vm_look_spec;

/* Of "disks" in vm.receive and vm.run: a device, and which disk it gets, as that domain's. */
struct vm_plug {
	char *device, *uri, *domain;
};
extern const struct jsonspec vm_plug_spec;

#endif
