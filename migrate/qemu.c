/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qemu - see qemu.h
 *
 *      query-status, query-migrate -> struct qemu_state        query-block -> struct qemu_disk
 *      query-kvm, query-version, query-memdev -> whether what it sends is all that was written
 *      getfd + migrate, migrate-incoming of that descriptor    no QEMU listens anywhere, and none needs to reach a path
 *      blockdev-add of the export + qom-set of the device's "drive"    whatever stood in for the disk is replaced
 *
 * "stop" while a VM is waited for is remembered by QEMU: it does not start what comes, also where it was started without -S.
 */
#include "migrate/qemu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/question.h"

#define NO_LIMIT_BYTES_S (INT64_C(1) << 40)
#define STREAM_NAME "sxm-memory"
#define NBD_RECONNECT_S 60
#define HANGUPS_MAX 3u
#define LOST_UNTIL_MAJOR 9
#define LOST_UNIT_BYTES (64 * 4096) /* 64 pages are a word of its bitmap */

/* --- looking */

struct status {
	char *status;
};
static const struct jsonspec_field status_fields[] = { { "status", JS_STRING, offsetof(struct status, status) }, { NULL } };
static const struct jsonspec status_spec = { "query-status", sizeof(struct status), status_fields };

struct ram {
	int64_t remaining, total, pass;
};
#define RAM(name, member) { name, JS_INT64, offsetof(struct ram, member), .is_optional = true }
static const struct jsonspec_field ram_fields[] = {
	RAM("remaining", remaining), RAM("total", total), RAM("dirty-sync-count", pass), { NULL },
};
static const struct jsonspec ram_spec = { "ram", sizeof(struct ram), ram_fields };
struct migration {
	char *status, *why;
	struct ram ram;
};
static const struct jsonspec_field migration_fields[] = {
	{ "status", JS_STRING, offsetof(struct migration, status), .is_optional = true },
	{ "error-desc", JS_STRING, offsetof(struct migration, why), .is_optional = true },
	{ "ram", JS_RECORD, offsetof(struct migration, ram), .is_optional = true, .sub = &ram_spec }, { NULL },
};
static const struct jsonspec migration_spec = { "query-migrate", sizeof(struct migration), migration_fields };

#define STATE(member, kind) { #member, kind, offsetof(struct qemu_state, member), .is_optional = true }
static const struct jsonspec_field state_fields[] = {
	STATE(status, JS_STRING), STATE(memory, JS_STRING), STATE(why, JS_STRING), STATE(left_bytes, JS_INT64),
	STATE(total_bytes, JS_INT64), STATE(pass, JS_INT64), { NULL },
};
const struct jsonspec qemu_state_spec = { "QEMU's state", sizeof(struct qemu_state), state_fields };

static int ask_record(struct qmp *q, const char *command, const struct jsonspec *spec, void *record, struct error *e)
{
	CLEANUP_FREE char *text = qmp_ask(q, command, NULL, QEMU_WAIT_MS, e);

	if (!text)
		return -1;
	return jsonspec_decode(spec, text, strlen(text), record, e) == 0 ? 0 : error_prefix(e, "the QEMU at %s", q->path);
}

/* What returns a list. record: its records are "all". */
static int ask_all(struct qmp *q, const char *command, const char *args, const struct jsonspec *spec, void *record,
		   struct error *e)
{
	CLEANUP_FREE char *text = qmp_ask(q, command, args, QEMU_WAIT_MS, e);
	CLEANUP_FREE char *all = NULL;

	if (!text)
		return -1;
	if (asprintf(&all, "{\"all\":%s}", text) < 0) {
		all = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	return jsonspec_decode(spec, all, strlen(all), record, e) == 0 ? 0 : error_prefix(e, "the QEMU at %s", q->path);
}

int qemu_look(struct qmp *q, struct qemu_state *s, struct error *e)
{
	struct migration m;
	struct status now;

	*s = (struct qemu_state) { 0 };
	if (ask_record(q, "query-migrate", &migration_spec, &m, e) == -1)
		return -1;
	if (ask_record(q, "query-status", &status_spec, &now, e) == -1) {
		jsonspec_clear(&migration_spec, &m);
		return -1;
	}
	*s = (struct qemu_state) { .status = take_ptr(&now.status), .memory = take_ptr(&m.status), .why = take_ptr(&m.why),
				   .left_bytes = m.ram.remaining, .total_bytes = m.ram.total, .pass = m.ram.pass };
	jsonspec_clear(&migration_spec, &m);
	return 0;
}

int qemu_see(struct qmp *q, struct vm_side *side, struct qemu_state *s, struct error *e)
{
	int r = qemu_look(q, s, e);

	for (unsigned i = 0; r == -1 && e->err == ECONNRESET && i < HANGUPS_MAX; i++)
		r = qemu_look(q, s, e);
	*side = (struct vm_side) { .is_known = true };
	if (r == -1) {
		side->is_gone = e->err == ESRCH;
		return side->is_gone ? 0 : -1;
	}
	side->run = vm_run_of(s->status);
	side->memory = vm_memory_of(s->memory);
	return 0;
}

/* --- disks */

static const struct jsonspec_field disk_fields[] = {
	{ "device", JS_STRING, offsetof(struct qemu_disk, device) }, { "node", JS_STRING, offsetof(struct qemu_disk, node) },
	{ "file", JS_STRING, offsetof(struct qemu_disk, file) },
	{ "size_bytes", JS_INT64, offsetof(struct qemu_disk, size_bytes) }, { NULL },
};
const struct jsonspec qemu_disk_spec = { "disk", sizeof(struct qemu_disk), disk_fields };

struct image {
	int64_t size_bytes;
};
static const struct jsonspec_field image_fields[] = {
	{ "virtual-size", JS_INT64, offsetof(struct image, size_bytes), .is_optional = true }, { NULL },
};
static const struct jsonspec image_spec = { "image", sizeof(struct image), image_fields };
struct medium {
	char *node, *file;
	struct image image;
};
static const struct jsonspec_field medium_fields[] = {
	{ "node-name", JS_STRING, offsetof(struct medium, node), .is_optional = true },
	{ "file", JS_STRING, offsetof(struct medium, file), .is_optional = true },
	{ "image", JS_RECORD, offsetof(struct medium, image), .is_optional = true, .sub = &image_spec }, { NULL },
};
static const struct jsonspec medium_spec = { "inserted", sizeof(struct medium), medium_fields };
struct block {
	char *device;
	struct medium medium;
};
static const struct jsonspec_field block_fields[] = {
	{ "qdev", JS_STRING, offsetof(struct block, device), .is_optional = true },
	{ "inserted", JS_RECORD, offsetof(struct block, medium), .is_optional = true, .sub = &medium_spec }, { NULL },
};
static const struct jsonspec block_spec = { "query-block", sizeof(struct block), block_fields };
struct blocks {
	struct jsonspec_records all;
};
static const struct jsonspec_field blocks_fields[] = {
	{ "all", JS_RECORDS, offsetof(struct blocks, all), .sub = &block_spec }, { NULL },
};
static const struct jsonspec blocks_spec = { "query-block", sizeof(struct blocks), blocks_fields };

void qemu_clear_disks(struct jsonspec_records *disks)
{
	for (size_t i = 0; i < disks->count; i++)
		jsonspec_clear(&qemu_disk_spec, (struct qemu_disk *)disks->item + i);
	free(take_ptr(&disks->item));
	disks->count = 0;
}

static int take_disks(struct blocks *b, struct jsonspec_records *disks, struct error *e)
{
	struct block *from = b->all.item;
	struct qemu_disk *to = disks->item = calloc(b->all.count + 1, sizeof(*to));

	if (!to)
		return error_set(e, ENOMEM, "out of memory");
	for (size_t i = 0; i < b->all.count; i++)
		if (from[i].device && from[i].medium.node && from[i].medium.file)
			to[disks->count++] = (struct qemu_disk) {
				.device = take_ptr(&from[i].device), .node = take_ptr(&from[i].medium.node),
				.file = take_ptr(&from[i].medium.file), .size_bytes = from[i].medium.image.size_bytes,
			};
	return 0;
}

int qemu_disks(struct qmp *q, struct jsonspec_records *disks, struct error *e)
{
	struct blocks b;
	int r;

	*disks = (struct jsonspec_records) { 0 };
	if (ask_all(q, "query-block", NULL, &blocks_spec, &b, e) == -1)
		return -1;
	r = take_disks(&b, disks, e);
	jsonspec_clear(&blocks_spec, &b);
	return r;
}

/* nbd+unix:///EXPORT?socket=... */
static bool is_export(const char *file, const char *export)
{
	static const char scheme[] = "nbd+unix:///";
	size_t bytes = strlen(export);

	if (strncmp(file, scheme, strlen(scheme)) != 0)
		return false;
	file += strlen(scheme);
	return strncmp(file, export, bytes) == 0 && file[bytes] == '?';
}

const struct qemu_disk *qemu_find_export(const struct jsonspec_records *disks, const char *export)
{
	const struct qemu_disk *d = disks->item;

	for (size_t i = 0; i < disks->count; i++)
		if (is_export(d[i].file, export))
			return &d[i];
	return NULL;
}

const struct qemu_disk *qemu_find_device(const struct jsonspec_records *disks, const char *device)
{
	const struct qemu_disk *d = disks->item;

	for (size_t i = 0; i < disks->count; i++)
		if (strcmp(d[i].device, device) == 0)
			return &d[i];
	return NULL;
}

/* --- nodes */

struct node {
	char *name, *driver, *file;
};
static const struct jsonspec_field node_fields[] = {
	{ "node-name", JS_STRING, offsetof(struct node, name) }, { "drv", JS_STRING, offsetof(struct node, driver) },
	{ "file", JS_STRING, offsetof(struct node, file) }, { NULL },
};
static const struct jsonspec node_spec = { "node", sizeof(struct node), node_fields };
struct nodes {
	struct jsonspec_records all;
};
static const struct jsonspec_field nodes_fields[] = {
	{ "all", JS_RECORDS, offsetof(struct nodes, all), .sub = &node_spec }, { NULL },
};
static const struct jsonspec nodes_spec = { "query-named-block-nodes", sizeof(struct nodes), nodes_fields };

static int yank(struct qmp *q, const char *name, struct error *e)
{
	CLEANUP_FREE char *instance = question_new(NULL, "type", "block-node", "node-name", name, NULL);
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *result = NULL;

	if (!instance || asprintf(&args, "{\"instances\":[%s]}", instance) < 0) {
		args = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	result = qmp_ask(q, "yank", args, QEMU_WAIT_MS, e);
	return result || e->err == EREMOTEIO ? 0 : -1;
}

int qemu_cut_off(struct qmp *q, const char *export, struct error *e)
{
	const struct node *node;
	struct nodes n;
	int r;

	if (ask_all(q, "query-named-block-nodes", "{\"flat\":true}", &nodes_spec, &n, e) == -1)
		return e->err == EREMOTEIO ? 0 : -1;
	node = n.all.item;
	r = 0;
	for (size_t i = 0; i < n.all.count && r == 0; i++)
		if (strcmp(node[i].driver, "nbd") == 0 && is_export(node[i].file, export))
			r = yank(q, node[i].name, e);
	jsonspec_clear(&nodes_spec, &n);
	return r;
}

/* --- memory */

struct kvm {
	bool is_enabled;
};
static const struct jsonspec_field kvm_fields[] = { { "enabled", JS_BOOL, offsetof(struct kvm, is_enabled) }, { NULL } };
static const struct jsonspec kvm_spec = { "query-kvm", sizeof(struct kvm), kvm_fields };

struct number {
	int64_t major, minor, micro;
};
static const struct jsonspec_field number_fields[] = {
	{ "major", JS_INT64, offsetof(struct number, major) }, { "minor", JS_INT64, offsetof(struct number, minor) },
	{ "micro", JS_INT64, offsetof(struct number, micro) }, { NULL },
};
static const struct jsonspec number_spec = { "number", sizeof(struct number), number_fields };
struct version {
	struct number qemu;
};
static const struct jsonspec_field version_fields[] = {
	{ "qemu", JS_RECORD, offsetof(struct version, qemu), .sub = &number_spec }, { NULL },
};
static const struct jsonspec version_spec = { "query-version", sizeof(struct version), version_fields };

struct memdev {
	int64_t size_bytes;
};
static const struct jsonspec_field memdev_fields[] = { { "size", JS_INT64, offsetof(struct memdev, size_bytes) }, { NULL } };
static const struct jsonspec memdev_spec = { "memdev", sizeof(struct memdev), memdev_fields };
struct memdevs {
	struct jsonspec_records all;
};
static const struct jsonspec_field memdevs_fields[] = {
	{ "all", JS_RECORDS, offsetof(struct memdevs, all), .sub = &memdev_spec }, { NULL },
};
static const struct jsonspec memdevs_spec = { "query-memdev", sizeof(struct memdevs), memdevs_fields };

/* -1 + e; 1: some of its memory is of such a size. */
static int has_words(struct qmp *q, struct error *e)
{
	const struct memdev *m;
	struct memdevs all;
	int r = 0;

	if (ask_all(q, "query-memdev", NULL, &memdevs_spec, &all, e) == -1)
		return -1;
	m = all.all.item;
	for (size_t i = 0; i < all.all.count; i++)
		r |= m[i].size_bytes % LOST_UNIT_BYTES == 0;
	jsonspec_clear(&memdevs_spec, &all);
	return r;
}

int qemu_loses_memory(struct qmp *q, char version[static QEMU_VERSION_MAX], struct error *e)
{
	struct version v;
	struct kvm kvm;
	int r = ask_record(q, "query-kvm", &kvm_spec, &kvm, e);

	if (r == 0 && kvm.is_enabled)
		return 0;
	if (r == 0)
		r = ask_record(q, "query-version", &version_spec, &v, e);
	if (r == 0 && v.qemu.major >= LOST_UNTIL_MAJOR)
		return 0;
	if (r == 0) {
		snprintf(version, QEMU_VERSION_MAX, "%" PRId64 ".%" PRId64 ".%" PRId64, v.qemu.major, v.qemu.minor, v.qemu.micro);
		r = has_words(q, e);
	}
	return r == -1 && e->err == EREMOTEIO ? 0 : r;
}

/* --- doing */

static int tell(struct qmp *q, const char *command, const char *args, struct error *e)
{
	CLEANUP_FREE char *result = qmp_ask(q, command, args, QEMU_WAIT_MS, e);

	return result ? 0 : -1;
}

int qemu_send(struct qmp *q, int stream, uint64_t limit_bytes_s, struct error *e)
{
	static const char pause[] = "{\"capabilities\":[{\"capability\":\"pause-before-switchover\",\"state\":true}]}";
	int64_t limit = limit_bytes_s ? (int64_t)MIN(limit_bytes_s, (uint64_t)NO_LIMIT_BYTES_S) : NO_LIMIT_BYTES_S;
	char parameters[80];

	snprintf(parameters, sizeof(parameters), "{\"max-bandwidth\":%" PRId64 "}", limit);
	if (tell(q, "migrate-set-capabilities", pause, e) == -1 || tell(q, "migrate-set-parameters", parameters, e) == -1 ||
	    qmp_pass(q, STREAM_NAME, stream, QEMU_WAIT_MS, e) == -1)
		return -1;
	return tell(q, "migrate", "{\"uri\":\"fd:" STREAM_NAME "\"}", e);
}

int qemu_continue(struct qmp *q, struct error *e)
{
	return tell(q, "migrate-continue", "{\"state\":\"pre-switchover\"}", e);
}

int qemu_cancel(struct qmp *q, struct error *e)
{
	return tell(q, "migrate_cancel", NULL, e);
}

int qemu_receive(struct qmp *q, int stream, struct error *e)
{
	if (tell(q, "stop", NULL, e) == -1 || qmp_pass(q, STREAM_NAME, stream, QEMU_WAIT_MS, e) == -1)
		return -1;
	return tell(q, "migrate-incoming", "{\"uri\":\"fd:" STREAM_NAME "\"}", e);
}

int qemu_run(struct qmp *q, struct error *e)
{
	return tell(q, "cont", NULL, e);
}

/* It may be gone before its answer is. */
int qemu_end(struct qmp *q, struct error *e)
{
	if (tell(q, "quit", NULL, e) == -1)
		return e->err == ESRCH || e->err == ECONNRESET ? 0 : -1;
	return qmp_await_end(q, QEMU_WAIT_MS, e);
}

/* --- plugging */

static void name_node(const char *export, char node[static QEMU_NODE_MAX])
{
	snprintf(node, QEMU_NODE_MAX, "sxm-%.27s", export);
	for (char *c = node; *c; c++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._", *c))
			*c = '-';
}

/* 1: the device has it. *size_bytes: of what it has; may be NULL. */
static int has_node(struct qmp *q, const char *device, const char *node, int64_t *size_bytes, struct error *e)
{
	struct jsonspec_records disks;
	const struct qemu_disk *d;
	int r;

	if (qemu_disks(q, &disks, e) == -1)
		return -1;
	d = qemu_find_device(&disks, device);
	r = d ? strcmp(d->node, node) == 0 : error_set(e, ENODEV, "the QEMU at %s has no disk at %s", q->path, device);
	if (d && size_bytes)
		*size_bytes = d->size_bytes;
	qemu_clear_disks(&disks);
	return r;
}

static int set_drive(struct qmp *q, const char *device, const char *node, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "path", device, "property", "drive", "value", node, NULL);

	return args ? tell(q, "qom-set", args, e) : error_set(e, ENOMEM, "out of memory");
}

/* By the device, so that the same names the same. */
static void name_stand_in(const char *device, char node[static QEMU_NODE_MAX])
{
	uint32_t hash = 2166136261u;

	for (const char *c = device; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	snprintf(node, QEMU_NODE_MAX, "sxm-none-%08" PRIx32, hash);
}

int qemu_try_plug(struct qmp *q, const char *device, struct error *e)
{
	char node[QEMU_NODE_MAX], raw[64];
	CLEANUP_FREE char *args = NULL;
	int64_t size_bytes = 0;
	int r;

	name_stand_in(device, node);
	r = has_node(q, device, node, &size_bytes, e);
	if (r)
		return r == 1 ? 0 : -1;
	snprintf(raw, sizeof(raw), "\"size\":%" PRId64 ",\"read-zeroes\":true", size_bytes);
	args = question_new(raw, "driver", "null-co", "node-name", node, NULL);
	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	if (tell(q, "blockdev-add", args, e) == -1 || set_drive(q, device, node, e) == -1)
		return error_prefix(e, "the disk of %s cannot be replaced", device);
	return 0;
}

/* One that was added before, and not given to the device, is taken away first. */
static int add_node(struct qmp *q, const char *node, const char *socket, const char *export, struct error *e)
{
	CLEANUP_FREE char *name = question_new(NULL, "node-name", node, NULL);
	CLEANUP_FREE char *server = question_new(NULL, "type", "unix", "path", socket, NULL);
	CLEANUP_FREE char *raw = NULL;
	CLEANUP_FREE char *args = NULL;
	struct error none;

	if (!name || !server || asprintf(&raw, "\"server\":%s,\"reconnect-delay\":%d", server, NBD_RECONNECT_S) < 0) {
		raw = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	args = question_new(raw, "driver", "nbd", "node-name", node, "export", export, "discard", "unmap", NULL);
	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	tell(q, "blockdev-del", name, &none);
	return tell(q, "blockdev-add", args, e);
}

int qemu_plug(struct qmp *q, const char *device, const char *socket, const char *export, struct error *e)
{
	char node[QEMU_NODE_MAX];
	int r;

	name_node(export, node);
	r = has_node(q, device, node, NULL, e);
	if (r)
		return r == 1 ? 0 : -1;
	return add_node(q, node, socket, export, e) == 0 ? set_drive(q, device, node, e) : -1;
}
