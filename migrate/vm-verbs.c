/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vm-verbs - see vm-verbs.h
 */
#include "migrate/vm-verbs.h"

static const struct jsonspec_field look_fields[] = {
	{ "state", JS_RECORD, offsetof(struct vm_look, state), .sub = &qemu_state_spec },
	{ "disks", JS_RECORDS, offsetof(struct vm_look, disks), .sub = &qemu_disk_spec },
	{ "gone", JS_BOOL, offsetof(struct vm_look, is_gone) }, { NULL },
};
const struct jsonspec vm_look_spec = { "vm.look", sizeof(struct vm_look), look_fields };

static const struct jsonspec_field plug_fields[] = {
	{ "device", JS_STRING, offsetof(struct vm_plug, device) }, { "uri", JS_STRING, offsetof(struct vm_plug, uri) },
	{ "domain", JS_STRING, offsetof(struct vm_plug, domain) }, { NULL },
};
const struct jsonspec vm_plug_spec = { "disk", sizeof(struct vm_plug), plug_fields };
