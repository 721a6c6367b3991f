/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay-vm - what is asked of a QEMU of this host when its VM moves here (migrate/PROTOCOL.relay)
 *
 *      vm.receive   a pair of sockets: one end is QEMU's, the other the relay's stream. Nothing listens for a VM's memory
 *      vm.run       the devices' disks, then cont: in one question, since the VM stands still meanwhile
 *
 * Of all that QMP can do only these few things can be asked for: a QEMU told to "exec" something would do anything.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "cmd/relay-verbs.h"
#include "migrate/vm-verbs.h"

#define WAIT_MAX_MS 60000
#define LOOK_EVERY_MS 2

struct vm_args {
	char *qmp;
	int64_t wait_ms;
	bool runs;
	struct jsonspec_records disks; /* struct vm_plug */
};
static const struct jsonspec_field vm_fields[] = {
	{ "qmp", JS_STRING, offsetof(struct vm_args, qmp) },
	{ "wait_ms", JS_INT64, offsetof(struct vm_args, wait_ms), .is_optional = true },
	{ "run", JS_BOOL, offsetof(struct vm_args, runs), .is_optional = true },
	{ "disks", JS_RECORDS, offsetof(struct vm_args, disks), .is_optional = true, .sub = &vm_plug_spec }, { NULL },
};
static const struct jsonspec vm_spec = { "vm", sizeof(struct vm_args), vm_fields };

typedef int vm_fn(struct qmp *q, const struct vm_args *a, struct relay_reply *r, struct error *e);

static int with_qemu(const char *args, vm_fn *run, struct relay_reply *r, struct error *e)
{
	struct vm_args a;
	struct qmp q;
	int result;

	if (jsonspec_decode(&vm_spec, args, strlen(args), &a, e) == -1)
		return -1;
	qmp_init(&q, a.qmp);
	result = run(&q, &a, r, e);
	qmp_fini(&q);
	jsonspec_clear(&vm_spec, &a);
	return result;
}

/* --- vm.look */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / (long)NS_PER_MS;
}

/* Until no memory comes any more. */
static int see(struct qmp *q, struct vm_look *s, int64_t wait_ms, struct error *e)
{
	int64_t until_ms = now_ms() + MIN(wait_ms, (int64_t)WAIT_MAX_MS);
	struct vm_side side;

	for (;;) {
		if (qemu_see(q, &side, &s->state, e) == -1)
			return -1;
		s->is_gone = side.is_gone;
		if (side.is_gone || side.memory != VM_MEMORY_MOVING || now_ms() >= until_ms)
			return 0;
		jsonspec_clear(&qemu_state_spec, &s->state);
		usleep(LOOK_EVERY_MS * 1000);
	}
}

static int look(struct qmp *q, const struct vm_args *a, struct relay_reply *r, struct error *e)
{
	struct vm_look s = { 0 };
	int result = see(q, &s, a->wait_ms, e);

	if (result == 0 && !s.is_gone)
		result = qemu_disks(q, &s.disks, e);
	if (result == 0)
		result = relay_say(jsonspec_encode(&vm_look_spec, &s), r, e);
	jsonspec_clear(&vm_look_spec, &s);
	return result;
}

int relay_vm_look(const char *args, struct relay_reply *r, struct error *e)
{
	return with_qemu(args, look, r, e);
}

/* --- vm.receive */

/* What would be refused when the VM is here is refused before. */
static int try_plugs(struct qmp *q, const struct vm_args *a, struct error *e)
{
	const struct vm_plug *p = a->disks.item;

	for (size_t i = 0; i < a->disks.count; i++)
		if (qemu_try_plug(q, p[i].device, e) == -1)
			return -1;
	return 0;
}

static int receive(struct qmp *q, const struct vm_args *a, struct relay_reply *r, struct error *e)
{
	struct qemu_state s;
	struct vm_side side;
	int ends[2], result;

	if (qemu_see(q, &side, &s, e) == -1)
		return -1;
	jsonspec_clear(&qemu_state_spec, &s);
	if (side.is_gone)
		return error_set(e, ESRCH, "there is no QEMU at %s", q->path);
	if (side.run != VM_RUN_WAITING || side.memory != VM_MEMORY_NONE)
		return error_set(e, EBUSY, "%s", vm_why_text(VM_WHY_NOT_WAITING));
	if (try_plugs(q, a, e) == -1)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
		return error_errno(e, errno, "make a pair of sockets");
	result = qemu_receive(q, ends[0], e);
	close(ends[0]);
	r->stream = ends[1];
	return result == 0 ? relay_say(strdup("{}"), r, e) : -1;
}

int relay_vm_receive(const char *args, struct relay_reply *r, struct error *e)
{
	return with_qemu(args, receive, r, e);
}

/* --- vm.run */

static int plug(struct qmp *q, const struct vm_plug *p, struct error *e)
{
	CLEANUP_FREE char *socket = NULL;
	CLEANUP_FREE char *export = NULL;

	if (relay_attach(p->uri, p->domain, &socket, &export, e) == -1)
		return -1;
	return qemu_plug(q, p->device, socket, export, e);
}

/* A guest that shut down or crashed in its last moment here does so there: QEMU keeps it as it is, and would not continue it. */
static int run(struct qmp *q, const struct vm_args *a, struct relay_reply *r, struct error *e)
{
	const struct vm_plug *p = a->disks.item;
	struct qemu_state s;
	struct vm_side side;

	for (size_t i = 0; i < a->disks.count; i++)
		if (plug(q, &p[i], e) == -1)
			return -1;
	if (qemu_see(q, &side, &s, e) == -1)
		return -1;
	jsonspec_clear(&qemu_state_spec, &s);
	if (side.is_gone)
		return error_set(e, ESRCH, "the QEMU at %s has ended", q->path);
	if (a->runs && side.run == VM_RUN_PAUSED && qemu_run(q, e) == -1)
		return -1;
	return relay_say(strdup("{}"), r, e);
}

int relay_vm_run(const char *args, struct relay_reply *r, struct error *e)
{
	return with_qemu(args, run, r, e);
}

/* --- vm.end */

/* Never one whose VM did not come from somewhere. */
static int end(struct qmp *q, const struct vm_args *a UNUSED, struct relay_reply *r, struct error *e)
{
	struct qemu_state s;
	struct vm_side side;

	if (qemu_see(q, &side, &s, e) == -1)
		return -1;
	jsonspec_clear(&qemu_state_spec, &s);
	if (!side.is_gone && side.memory == VM_MEMORY_NONE)
		return error_set(e, EPERM, "the QEMU at %s has received nothing, and is not ended", q->path);
	if (!side.is_gone && qemu_end(q, e) == -1)
		return -1;
	return relay_say(strdup("{}"), r, e);
}

int relay_vm_end(const char *args, struct relay_reply *r, struct error *e)
{
	return with_qemu(args, end, r, e);
}
