/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-device - see sr-device.h
 *
 *      create:  checks -> wipe (forced) -> mkfs -> [owner: nobody] -> as attach -> the SR's record -> as detach
 *      attach:  is it that SR? -> [owner: this host] -> mount
 *      detach:  is a disk served? -> unmount -> [owner: nobody] -> the mount's mark goes
 *      destroy: as detach -> wipe
 *
 * A verb that is killed leaves one of the states between two arrows, and each verb goes on from any of them: what has our
 * label and the SR's uuid is the SR's, as far as it came.  Killed between wipe and mkfs the device holds nothing.
 *
 * Invariant: nothing is written to a device that is in use, or that holds something else, unless a person said force; and never
 * to one in use.
 */
#include "plugins/sr-device.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <uuid.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/uri.h"
#include "plugins/child.h"
#include "plugins/probe.h"
#include "plugins/sr-mounted.h"

#define UNUSED_TRIES 100 /* 2 s */
#define MKFS_MS (30u * 60 * 1000)
#define MOUNT_MS (5u * 60 * 1000) /* the journal's replay; ext4's wait for another host */
#define UNMOUNT_MS (5u * 60 * 1000) /* what is dirty is written */
#define NOT_ATTACHED "not attached: its name is not known here"
#define TEXT(s) ((char *)(uintptr_t)(s)) /* lent to be encoded */

static int out_of_memory(struct failure *f)
{
	return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
}

int64_t sr_device_number(const unsigned char *at, size_t bytes, bool is_big_endian)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value = value << 8 | at[is_big_endian ? i : bytes - 1 - i];
	return (int64_t)value;
}

static const char *name_of(const char *dir)
{
	return strrchr(dir, '/') + 1;
}

/* --- the configuration */

bool sr_is_forced(const struct jsonspec_map *configuration)
{
	const char *force = jsonspec_map_get(configuration, "force");

	return force && strcmp(force, "true") == 0;
}

/* --- the configuration */

int sr_device_check(struct jsonspec_map *configuration, struct failure *f)
{
	const char *path = jsonspec_map_get(configuration, "device"), *force = jsonspec_map_get(configuration, "force");

	if (!path || !*path)
		return failure_set(f, FAILURE_CONFIGURATION, EINVAL,
				   "device is missing: it names the block device that becomes the SR, /dev/disk/by-id/...");
	if (force && strcmp(force, "true") != 0 && strcmp(force, "false") != 0)
		return failure_set(f, FAILURE_CONFIGURATION, EINVAL, "force is %s; it is true or false", force);
	return sr_check_format(configuration, f);
}

char *sr_device_find(const struct jsonspec_map *configuration, struct failure *f)
{
	return sr_mounted_dir(configuration, f);
}

static int open_device(const struct jsonspec_map *configuration, struct device *d, struct failure *f)
{
	struct error e;

	if (device_open(d, jsonspec_map_get(configuration, "device"), &e) == 0)
		return 0;
	return failure_from(f, e.err == EINVAL || e.err == ENOTBLK ? FAILURE_CONFIGURATION : FAILURE_SR_UNAVAILABLE, &e);
}

/* Is it an SR of that type? uuid NULL: whichever. */
static bool is_sr(const struct sr_ops *type, const struct device_content *c, const char *uuid)
{
	return c->what && strcmp(c->type, type->device->fstype) == 0 && strcmp(c->label, SR_DEVICE_LABEL) == 0 &&
	       (!uuid || strcasecmp(c->uuid, uuid) == 0);
}

/* --- mounting */

static int mount_it(const struct sr_ops *type, const struct device *d, const char *dir, bool is_forced, bool *was_up,
		    struct error *e)
{
	const struct sr_device *fs = type->device;
	const struct mount_what what = { .fstype = fs->fstype, .source = d->real, .options = fs->options, .device = d->number,
					 .wait_ms = MOUNT_MS };
	struct error why;

	if (fs->take && fs->take(d, name_of(dir), is_forced, e) == -1)
		return -1;
	if (mount_up(dir, &what, was_up, e) == 0)
		return 0;
	if (fs->release && !mount_is_up(dir) && fs->release(d, name_of(dir), &why) == -1)
		log_warn("%s", why.text);
	return -1;
}

/* With the lock held. */
static int unmount_it(const struct sr_ops *type, const char *dir, struct failure *f)
{
	const struct sr_device *fs = type->device;
	struct error e;
	CLEANUP_FREE char *source = mount_source(dir, &e);
	struct device d;

	if (sr_mounted_down(dir, UNMOUNT_MS, fs->release != NULL, f) == -1)
		return -1;
	if (!source || !fs->release)
		return 0;
	if (device_open(&d, source, &e) == 0) {
		int r = fs->release(&d, name_of(dir), &e);

		device_close(&d);
		if (r == -1 && e.err != EBADMSG)
			return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	} else {
		log_warn("%s is gone: it may still say that this host has it attached: %s", source, e.text);
	}
	mount_forget(dir);
	return 0;
}

int sr_device_attach(const struct sr_ops *type, const struct jsonspec_map *configuration, const char *dir, struct failure *f)
{
	CLEANUP_CLOSE int lock = sr_mounted_lock(dir, f);
	struct device_content c;
	struct device d;
	struct error e;
	bool was_up;
	int r;

	if (lock < 0)
		return -1;
	if (open_device(configuration, &d, f) == -1) {
		mount_drop_lock(dir);
		return -1;
	}
	r = device_look(&d, &c, &e);
	if (r == -1)
		failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	else if (!is_sr(type, &c, name_of(dir)))
		r = failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, name_of(dir), "%s does not hold SR %s: it holds %s%s%s", d.path,
				  name_of(dir), c.what ? c.what : "nothing", c.uuid && *c.uuid ? ", " : "", c.uuid ? c.uuid : "");
	else if (mount_it(type, &d, dir, sr_is_forced(configuration), &was_up, &e) == -1)
		r = sr_mounted_failure(f, &e);
	if (r == -1)
		mount_drop_lock(dir);
	device_content_fini(&c);
	device_close(&d);
	return r;
}

int sr_device_detach(const struct sr_ops *type, const char *dir, struct failure *f)
{
	CLEANUP_CLOSE int lock = -1;

	if (!mount_is_dir(dir))
		return 0;
	lock = sr_mounted_lock(dir, f);
	return lock < 0 ? -1 : unmount_it(type, dir, f);
}

/* --- create, destroy */

static int run_mkfs(const struct sr_ops *type, const struct device *d, const char *uuid, struct error *e)
{
	const char *argv[SR_DEVICE_ARGS_MAX];
	char texts[256];
	struct error why;

	type->device->mkfs(d, uuid, argv, texts);
	if (child_run(argv, MKFS_MS, NULL, e) == 0 &&
	    (!type->device->init_owner || type->device->init_owner(d, uuid, e) == 0))
		return 0;
	if (e->err == ENOENT)
		error_prefix(e, "the file system cannot be made without it");
	if (device_wipe(d, &why) == -1)
		log_warn("after that failure: %s", why.text);
	return -1;
}

/* Is it an SR of either type that another host may have attached? */
static int check_others(const struct device *d, const struct device_content *c, struct error *e)
{
	static const struct sr_ops *const types[] = { &sr_ext4, &sr_xfs };

	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (is_sr(types[i], c, NULL))
			return types[i]->device->check_others(d, c->uuid, e);
	return 0;
}

/* A mkfs whose verb was killed is being killed, too, but has not gone yet. */
static int wait_unused(const struct device *d, struct error *e)
{
	for (int i = 0;; i++) {
		if (device_check_unused(d, e) == 0)
			return 0;
		if (e->err != EBUSY || i == UNUSED_TRIES)
			return -1;
		nanosleep(&(struct timespec) { .tv_nsec = (long)(20 * NS_PER_MS) }, NULL);
	}
}

/* The device is free, or may be overwritten: then there is the file system. */
static int make_filesystem(const struct sr_ops *type, const struct device *d, const struct device_content *c, const char *uuid,
			   bool is_forced, struct failure *f)
{
	struct error e;

	if (wait_unused(d, &e) == -1)
		return sr_mounted_failure(f, &e);
	if (c->what && !is_forced)
		return failure_set(f, FAILURE_CONFIGURATION, EEXIST, "%s holds %s; SR.create with force=true destroys that",
				   d->path,
				   c->what);
	if (check_others(d, c, &e) == -1)
		return sr_mounted_failure(f, &e);
	if (c->what && device_wipe(d, &e) == -1)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	if (run_mkfs(type, d, uuid, &e) == -1) {
		error_prefix(&e, "make the SR's file system on %s", d->path);
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	}
	return 0;
}

/* With both locks held. */
static int make_on(const struct sr_ops *type, const struct device *d, const struct jsonspec_map *configuration,
		   struct sr_place *place, struct failure *f)
{
	const char *uuid = jsonspec_map_get(configuration, "sr_uuid");
	bool is_forced = sr_is_forced(configuration), is_unfinished, was_up;
	struct device_content c;
	struct error e, why;
	int r = 0;

	if (device_look(d, &c, &e) == -1)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	/* Its own, when it is not whole: a verb was killed during mkfs. */
	is_unfinished = is_sr(type, &c, uuid) && type->device->is_unfinished && type->device->is_unfinished(d);
	if (is_unfinished || !is_sr(type, &c, uuid)) {
		r = make_filesystem(type, d, &c, uuid, is_forced || is_unfinished, f);
		place->is_new = r == 0;
	}
	device_content_fini(&c);
	if (r == -1)
		return -1;
	r = mount_it(type, d, place->dir, false, &was_up, &e);
	if (r == -1 && e.err == EBADMSG && !place->is_new && type->device->init_owner) { /* killed between mkfs and that */
		r = wait_unused(d, &e) == 0 && type->device->init_owner(d, uuid, &e) == 0 ?
			    mount_it(type, d, place->dir, false, &was_up, &e) : -1;
	}
	place->is_held = r == 0 && !was_up;
	if (r == 0)
		return 0;
	if (place->is_new && device_wipe(d, &why) == -1)
		log_warn("after a failed mount: %s", why.text);
	return sr_mounted_failure(f, &e);
}

int sr_device_make(const struct sr_ops *type, struct jsonspec_map *configuration, struct sr_place *place, struct failure *f)
{
	const char *text = jsonspec_map_get(configuration, "sr_uuid");
	CLEANUP_CLOSE int device_locked = -1;
	struct device d;
	struct error e;
	uuid_t uuid;
	int r = -1;

	if (uuid_parse(text, uuid) == -1)
		return failure_set(f, FAILURE_REQUEST, EINVAL, "%s is no uuid; the file system gets the SR's", text);
	if (open_device(configuration, &d, f) == -1)
		return -1;
	place->dir = sr_mounted_dir(configuration, f);
	place->lock = place->dir ? sr_mounted_lock(place->dir, f) : -1;
	if (place->lock >= 0) {
		device_locked = device_lock(&d, &e);
		r = device_locked < 0 ? failure_from(f, FAILURE_SR_UNAVAILABLE, &e) : make_on(type, &d, configuration, place, f);
	}
	device_close(&d);
	if (r == 0)
		return 0;
	if (place->lock >= 0) {
		mount_drop_lock(place->dir);
		close(take_fd(&place->lock));
	}
	free(take_ptr(&place->dir));
	return -1;
}

/* With the lock held, unmounted: the file system is no more. */
static int wipe_it(const struct sr_ops *type, const char *path, const char *uuid, struct failure *f)
{
	struct device_content c;
	struct device d;
	struct error e;
	int r;

	if (device_open(&d, path, &e) == -1)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	r = device_look(&d, &c, &e);
	if (r == 0 && is_sr(type, &c, uuid))
		r = device_wipe(&d, &e);
	device_content_fini(&c);
	device_close(&d);
	return r == 0 ? 0 : sr_mounted_failure(f, &e);
}

int sr_device_leave(const struct sr_ops *type, const struct jsonspec_map *configuration, const struct sr_place *place,
		    bool has_failed, struct failure *f)
{
	int r = place->is_held ? unmount_it(type, place->dir, f) : 0;

	if (r == 0 && has_failed && place->is_new)
		r = wipe_it(type, jsonspec_map_get(configuration, "device"), name_of(place->dir), f);
	close(place->lock);
	return r;
}

int sr_device_destroy(const struct sr_ops *type, const char *dir, struct failure *f)
{
	CLEANUP_CLOSE int lock = -1;
	CLEANUP_FREE char *source = NULL;
	struct error e;

	if (!mount_is_dir(dir))
		return 0;
	lock = sr_mounted_lock(dir, f);
	if (lock < 0 || sr_mounted_check_up(dir, f) == -1)
		return -1;
	source = mount_source(dir, &e);
	if (unmount_it(type, dir, f) == -1)
		return -1;
	return source ? wipe_it(type, source, name_of(dir), f) : 0;
}

/* --- probe */

/* What can be said of an SR that is not mounted. */
static int add_unmounted(const struct sr_ops *type, const struct jsonspec_map *configuration, const struct device *d,
			 const char *uuid,
			 const char *dir, struct probe *p, struct failure *f)
{
	CLEANUP_FREE char *handle = uri_of_path("file", dir);
	struct types_sr_stat stat = { .sr = handle, .name = TEXT(""), .description = TEXT(NOT_ATTACHED), .uuid = TEXT(uuid),
				      .health = { .tag = TEXT("Healthy"), .arg = TEXT("") } };

	if (!handle)
		return out_of_memory(f);
	if (!type->device->space(d, &stat.total_space, &stat.free_space))
		stat.total_space = d->bytes;
	return probe_add_sr(p, configuration, uuid, &stat, f);
}

static int add_sr(const struct sr_ops *type, const struct jsonspec_map *configuration, const struct device *d, const char *uuid,
		  struct probe *p, struct failure *f)
{
	const char *wanted = jsonspec_map_get(configuration, "sr_uuid");
	struct error e;
	CLEANUP_FREE char *dir = mount_dir(uuid, &e);

	if (!dir)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	if (wanted && strcasecmp(wanted, uuid) != 0)
		return failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, wanted, "%s holds SR %s, not %s", d->path, uuid, wanted);
	if (mount_is_up(dir)) {
		int r = probe_look(p, configuration, dir, type->is_shared, f);

		if (r)
			return r == 1 ? 0 : -1;
	}
	return add_unmounted(type, configuration, d, uuid, dir, p, f);
}

static int add_other(const struct jsonspec_map *configuration, const struct device *d, const struct device_content *c,
		     bool is_chosen,
		     struct probe *p, struct failure *f)
{
	struct jsonspec_map info = { 0 };
	char key[] = "holds", size_key[] = "size", size[24];
	char *keys[] = { size_key, key }, *values[] = { size, c->what };
	bool is_free = !c->what || sr_is_forced(configuration);

	if (!is_chosen && c->what) /* not offered: it has to be named */
		return 0;
	snprintf(size, sizeof(size), "%lld", (long long)d->bytes);
	info = (struct jsonspec_map) { .count = c->what ? 2 : 1, .key = keys, .value = values };
	return probe_add(p, is_chosen && is_free ? PROBE_FREE : PROBE_PARTIAL, configuration, &info, f);
}

static int look_at(const struct sr_ops *type, const struct jsonspec_map *configuration, const struct device *d, bool is_chosen,
		   struct probe *p, struct failure *f)
{
	struct device_content c;
	struct error e;
	bool is_unused = device_check_unused(d, &e) == 0;
	int r = device_look(d, &c, &e);

	if (r == -1)
		failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	else if (is_sr(type, &c, NULL))
		r = add_sr(type, configuration, d, c.uuid, p, f);
	else if (is_unused)
		r = add_other(configuration, d, &c, is_chosen, p, f);
	device_content_fini(&c);
	return r;
}

struct search {
	const struct sr_ops *type;
	struct jsonspec_map *configuration;
	struct probe *p;
};

/* One that cannot be looked at is no reason not to tell of the others. */
static void try_device(const char *path, void *arg)
{
	struct search *s = arg;
	struct device d;
	struct failure f;
	struct error e;

	if (device_open(&d, path, &e) == -1)
		return;
	if (jsonspec_map_set(s->configuration, "device", path) == -1 ||
	    look_at(s->type, s->configuration, &d, false, s->p, &f) == -1)
		log_debug("probe %s: left out", path);
	device_close(&d);
}

int sr_device_probe(const struct sr_ops *type, struct jsonspec_map *configuration, struct probe *p, struct failure *f)
{
	struct search search = { type, configuration, p };
	const char *path = jsonspec_map_get(configuration, "device");
	struct device d;
	int r;

	if (!path || !*path) {
		device_each(try_device, &search);
		return 0;
	}
	if (sr_device_check(configuration, f) == -1 || open_device(configuration, &d, f) == -1)
		return -1;
	r = look_at(type, configuration, &d, true, p, f);
	device_close(&d);
	return r;
}
