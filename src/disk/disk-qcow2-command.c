/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-qcow2-command - the words that qemu is started with
 *
 *      { qcow2, file: { file, /proc/self/fd/3 }, backing: { qcow2, file: { file, /proc/self/fd/5 }, backing: ... null } }
 *
 * Every node is said, so that qemu opens nothing that an image names; and each file by a descriptor that it inherits, so that it
 * opens what was looked at, whatever stands at the names meanwhile. The same object does for both programs: qemu-storage-daemon
 * takes it as a block device, qemu-nbd as the name of a file (json:).
 *
 * Requests go through io_uring where the kernel has it, else, and on NFS, through threads: of a disk that is written at random it
 * does twice as many writes. Whether this qemu has it shows only when it starts (disk_command_do_without()).
 *
 * Locks. Ours, on the image's description, is inherited. qemu's own keeps qemu-img off, by hand: for the image only, as the bases
 * are shared, and not on NFS, where both kinds are one and would shut each other out.
 */
#include <errno.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "disk/disk-qcow2.h"

#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif

static atomic_bool qemu_has_no_uring;

/* Where packages put it; not PATH, which is the caller's. */
static const char *const places[] = {
	"/usr/bin/qemu-storage-daemon", "/usr/local/bin/qemu-storage-daemon", "/usr/lib64/xen/bin/qemu-storage-daemon",
	"/usr/bin/qemu-nbd", "/usr/local/bin/qemu-nbd", "/usr/lib64/xen/bin/qemu-nbd", "/usr/lib/xen/bin/qemu-nbd",
};

struct cache {
	bool is_direct;
};
static const struct jsonspec_field cache_fields[] = {
	{ .name = "direct", .type = JS_BOOL, .offset = offsetof(struct cache, is_direct) },
	{ .name = NULL },
};
static const struct jsonspec cache_spec = { "cache", sizeof(struct cache), cache_fields };

struct file {
	char *driver, *filename, *locking, *discard, *aio; /* borrowed */
	bool is_read_only;
	struct cache cache;
};
static const struct jsonspec_field file_fields[] = {
	{ .name = "driver", .type = JS_STRING, .offset = offsetof(struct file, driver) },
	{ .name = "filename", .type = JS_STRING, .offset = offsetof(struct file, filename) },
	{ .name = "locking", .type = JS_STRING, .offset = offsetof(struct file, locking) },
	{ .name = "discard", .type = JS_STRING, .offset = offsetof(struct file, discard) },
	{ .name = "aio", .type = JS_STRING, .offset = offsetof(struct file, aio) },
	{ .name = "read-only", .type = JS_BOOL, .offset = offsetof(struct file, is_read_only) },
	{ .name = "cache", .type = JS_RECORD, .offset = offsetof(struct file, cache), .sub = &cache_spec },
	{ .name = NULL },
};
static const struct jsonspec file_spec = { "file", sizeof(struct file), file_fields };

struct node {
	char *driver, *name, *discard, *backing; /* borrowed */
	bool is_read_only;
	struct cache cache;
	struct file file;
};
static const struct jsonspec_field node_fields[] = {
	{ .name = "driver", .type = JS_STRING, .offset = offsetof(struct node, driver) },
	{ .name = "node-name", .type = JS_STRING, .offset = offsetof(struct node, name) },
	{ .name = "discard", .type = JS_STRING, .offset = offsetof(struct node, discard) },
	{ .name = "read-only", .type = JS_BOOL, .offset = offsetof(struct node, is_read_only) },
	{ .name = "cache", .type = JS_RECORD, .offset = offsetof(struct node, cache), .sub = &cache_spec },
	{ .name = "file", .type = JS_RECORD, .offset = offsetof(struct node, file), .sub = &file_spec },
	{ .name = "backing", .type = JS_TEXT, .offset = offsetof(struct node, backing) },
	{ .name = NULL },
};
static const struct jsonspec node_spec = { "node", sizeof(struct node), node_fields };

struct export {
	char *type, *id, *node, *name; /* borrowed */
	bool is_writable;
};
static const struct jsonspec_field export_fields[] = {
	{ .name = "type", .type = JS_STRING, .offset = offsetof(struct export, type) },
	{ .name = "id", .type = JS_STRING, .offset = offsetof(struct export, id) },
	{ .name = "node-name", .type = JS_STRING, .offset = offsetof(struct export, node) },
	{ .name = "name", .type = JS_STRING, .offset = offsetof(struct export, name) },
	{ .name = "writable", .type = JS_BOOL, .offset = offsetof(struct export, is_writable) },
	{ .name = NULL },
};
static const struct jsonspec export_spec = { "export", sizeof(struct export), export_fields };

struct address {
	char *type, *text; /* borrowed */
};
static const struct jsonspec_field address_fields[] = {
	{ .name = "type", .type = JS_STRING, .offset = offsetof(struct address, type) },
	{ .name = "str", .type = JS_STRING, .offset = offsetof(struct address, text) },
	{ .name = NULL },
};
static const struct jsonspec address_spec = { "addr", sizeof(struct address), address_fields };

struct listener {
	struct address address;
};
static const struct jsonspec_field listener_fields[] = {
	{ .name = "addr", .type = JS_RECORD, .offset = offsetof(struct listener, address), .sub = &address_spec },
	{ .name = NULL },
};
static const struct jsonspec listener_spec = { "nbd-server", sizeof(struct listener), listener_fields };

/* --- the chain */

static char *word(const char *text)
{
	return (char *)(uintptr_t)text;
}

bool disk_command_is_on_nfs(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == NFS_SUPER_MAGIC;
}

/* It refuses before it looks at what it is given, and an address that is none. */
static bool kernel_has_uring(void)
{
	return syscall(SYS_io_uring_setup, 1, NULL) == -1 && errno == EFAULT;
}

static const char *choose_aio(const struct disk_qcow2 *image)
{
	bool has_uring = !atomic_load(&qemu_has_no_uring) && !disk_command_is_on_nfs(image->fd) && kernel_has_uring();

	return has_uring ? "io_uring" : "threads";
}

bool disk_command_do_without(const char *words)
{
	return strstr(words, "aio") && !atomic_exchange(&qemu_has_no_uring, true);
}

/* backing: what it stands on, as JSON. Heap; NULL: out of memory. */
static char *encode_node(const struct disk_qcow2 *image, int fd, const char *name, char *backing)
{
	bool is_leaf = fd == DISK_SERVER_IMAGE_FD;
	char filename[32];
	struct node n = {
		.driver = word("qcow2"), .name = word(name), .discard = word("unmap"), .backing = backing,
		.is_read_only = !is_leaf || image->is_read_only, .cache = { image->is_direct },
		.file = { .driver = word("file"), .filename = filename, .discard = word("unmap"),
			  .aio = word(choose_aio(image)),
			  .locking = word(is_leaf && !disk_command_is_on_nfs(image->fd) ? "auto" : "off"),
			  .is_read_only = !is_leaf || image->is_read_only, .cache = { image->is_direct } },
	};

	snprintf(filename, sizeof(filename), "/proc/self/fd/%d", fd);
	return jsonspec_encode(&node_spec, &n);
}

/* From the last base upwards: each goes into the one that stands on it. */
static char *encode_chain(const struct disk_qcow2 *image, const struct qcow2_chain *chain)
{
	char *text = strdup("null");

	for (size_t i = chain->count; i-- > 0 && text;) {
		CLEANUP_FREE char *backing = text;
		char name[32];

		snprintf(name, sizeof(name), "base%zu", i);
		text = encode_node(image, DISK_SERVER_BASE_FD + (int)i, name, backing);
	}
	if (text) {
		CLEANUP_FREE char *backing = text;

		text = encode_node(image, DISK_SERVER_IMAGE_FD, "disk", backing);
	}
	return text;
}

/* --- the programs */

/* SXM_QCOW2_SERVER: another program, of one of these two names. */
static const char *find_program(void)
{
	const char *asked = getenv("SXM_QCOW2_SERVER");

	if (asked && *asked == '/')
		return access(asked, X_OK) == 0 ? asked : NULL;
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

static void add(struct disk_command *c, const char *text)
{
	assert(c->count < ARRAY_LEN(c->argument) - 1);
	c->argument[c->count++] = word(text);
}

/* Takes text; -1: it is NULL. */
static int add_owned(struct disk_command *c, char *text)
{
	if (!text)
		return -1;
	assert(c->owned_count < ARRAY_LEN(c->owned));
	c->owned[c->owned_count++] = text;
	add(c, text);
	return 0;
}

static int fill_daemon(struct disk_command *c, const struct disk_qcow2 *image, char *chain)
{
	char number[16];
	struct listener l = { { word("fd"), number } };
	struct export x = { word("nbd"), word("disk"), word("disk"), word("disk"), !image->is_read_only };

	snprintf(number, sizeof(number), "%d", DISK_SERVER_SOCKET_FD);
	c->takes_socket = true;
	add(c, "--blockdev");
	if (add_owned(c, chain) == -1)
		return -1;
	add(c, "--nbd-server");
	if (add_owned(c, jsonspec_encode(&listener_spec, &l)) == -1)
		return -1;
	add(c, "--export");
	return add_owned(c, jsonspec_encode(&export_spec, &x));
}

static char *join(const char *first, char *second)
{
	char *text;

	if (!second || asprintf(&text, "%s%s", first, second) == -1)
		text = NULL;
	free(second);
	return text;
}

static int fill_qemu_nbd(struct disk_command *c, const struct disk_qcow2 *image, char *chain, const char *socket)
{
	CLEANUP_FREE char *path = strdup(socket);

	add(c, "--persistent");
	add(c, "--shared=0");
	add(c, "--export-name=disk");
	add(c, image->is_direct ? "--cache=none" : "--cache=writeback");
	add(c, "--discard=unmap");
	if (image->is_read_only)
		add(c, "--read-only");
	if (add_owned(c, join("--socket=", take_ptr(&path))) == -1) {
		free(chain);
		return -1;
	}
	return add_owned(c, join("json:", chain));
}

int disk_command_fill(struct disk_command *c, const struct disk_qcow2 *image, const struct qcow2_chain *chain, const char *socket,
		      struct error *e)
{
	const char *name;
	int outcome;

	*c = (struct disk_command){ .program = find_program() };
	if (!c->program)
		return error_set(e, ENOENT, "neither qemu-storage-daemon nor qemu-nbd, which read such images, is installed");
	name = strrchr(c->program, '/') + 1;
	add(c, name);
	if (strstr(name, "qemu-nbd"))
		outcome = fill_qemu_nbd(c, image, encode_chain(image, chain), socket);
	else
		outcome = fill_daemon(c, image, encode_chain(image, chain));
	return outcome == -1 ? error_set(e, ENOMEM, "out of memory") : 0;
}

void disk_command_clear(struct disk_command *c)
{
	while (c->owned_count)
		free(c->owned[--c->owned_count]);
}
