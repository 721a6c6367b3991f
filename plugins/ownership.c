/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ownership - see ownership.h; why it is safe: vdi/OWNERSHIP
 *
 * Shared is an SR whose record says so (its type is, or its configuration said it), and whatever lies on NFS.  The lease is the
 * datapath's: it takes, renews and gives it back.  A verb that changes a volume nobody has active takes none, since the image's
 * lock keeps others off for that moment; it only asks whether somebody has it.
 */
#include "plugins/ownership.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/host-id.h"
#include "base/log.h"
#include "base/tenure.h"
#include "plugins/lock.h"
#include "plugins/meta.h"

#define LOOKS_IN_A_RENEWAL 4u

/* --- is one needed? */

/* DIR/<key>.SUFFIX taken apart; *dir is heap. NULL: it is no volume's image. */
static const char *split(const char *image, char **dir)
{
	char *name, *dot;

	*dir = strdup(image);
	name = *dir ? strrchr(*dir, '/') : NULL;
	if (!name)
		return NULL;
	*name++ = '\0';
	dot = strrchr(name, '.');
	if (dot)
		*dot = '\0';
	return dot && meta_is_key(name) ? name : NULL;
}

static bool is_network(const char *dir)
{
	struct statfs fs;

	return statfs(dir, &fs) == 0 && fs.f_type == NFS_SUPER_MAGIC;
}

static bool is_shared(const char *dir)
{
	struct meta_sr m;
	struct error e;
	bool is_it = false;

	if (meta_sr_read(dir, &m, &e) == 0) {
		is_it = m.is_shared;
		meta_sr_clear(&m);
	}
	return is_it || is_network(dir);
}

static bool is_sharable(const char *dir, const char *key)
{
	struct meta_volume m;
	struct error e;
	bool is_it;

	if (meta_volume_read(dir, key, &m, &e) == -1)
		return false;
	is_it = m.sharable;
	meta_volume_clear(&m);
	return is_it;
}

bool ownership_is_shared(bool is_type_shared, const struct jsonspec_map *configuration)
{
	const char *shared = jsonspec_map_get(configuration, "shared");

	return is_type_shared || (shared && strcmp(shared, "true") == 0);
}

int ownership_share(const char *dir, bool is_type_shared, const struct jsonspec_map *configuration, struct failure *f)
{
	CLEANUP_FREE char *path = meta_sr_path(dir);
	CLEANUP_LOCK int lock = -1;
	struct meta_sr meta;
	struct error e;
	int r = 0;

	if (!ownership_is_shared(is_type_shared, configuration))
		return 0;
	if (!path)
		return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
	lock = lock_take(path, LOCK_EXCLUSIVE, &e);
	if (lock < 0)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	if (meta_sr_read(dir, &meta, &e) == -1)
		return e.err == EBADMSG ? 0 : failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	if (!meta.is_shared) {
		meta.is_shared = true;
		r = meta_sr_write(dir, &meta, &e);
	}
	meta_sr_clear(&meta);
	return r == 0 ? 0 : failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
}

bool ownership_applies(const char *image)
{
	struct lease seen;
	struct error e;

	return lease_look(image, &seen, &e) == 0 && seen.kind != LEASE_ABSENT;
}

int ownership_prepare(const char *image, struct failure *f)
{
	CLEANUP_FREE char *dir = NULL;
	const char *key = split(image, &dir);
	struct error e;

	if (!key || ownership_applies(image))
		return 0;
	if (!is_shared(dir) || lease_make(image, is_sharable(dir, key), &e) == 0)
		return 0;
	return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
}

/* --- who has it? */

static int raise(struct failure *f, const struct lease *seen, const char *image)
{
	return failure_raise(f, FAILURE_ELSEWHERE, seen->host, "%s is active on host %s; do this there, or deactivate it there",
			     image, seen->host);
}

static void pause_in(const struct tenure_spec *spec)
{
	uint64_t ns = spec->renew_ns / LOOKS_IN_A_RENEWAL;
	const struct timespec pause = { .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };

	nanosleep(&pause, NULL);
}

/* Somebody else may do the same in this moment: then it has changed. */
static int end_dead(const char *image, const struct lease *seen, struct error *e)
{
	const struct lease next = lease_given_back(seen);

	if (lease_change(image, seen, &next, e) == -1)
		return e->err == ESTALE ? 0 : -1;
	log_warn("%s: host %s has not renewed its lease, and has lost it", image, seen->host);
	return 0;
}

int ownership_check(const char *image, struct failure *f)
{
	const struct tenure_spec spec = tenure_spec_default();
	struct tenure_watch w = { 0 };
	char host[HOST_ID_MAX];
	struct lease seen;
	struct error e;

	for (;;) {
		if (lease_look(image, &seen, &e) == -1 || (seen.kind == LEASE_HELD && host_id(host, &e) == -1))
			return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
		if (seen.kind != LEASE_HELD)
			return 0;
		switch (tenure_watch(&w, &spec, host, &seen, lease_now_ns())) {
		case TENURE_NONE:
		case TENURE_OURS:
			return 0;
		case TENURE_ALIVE:
			return raise(f, &seen, image);
		case TENURE_DEAD:
			if (end_dead(image, &seen, &e) == -1)
				return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
			break;
		case TENURE_WAIT:
			pause_in(&spec);
			break;
		}
	}
}

int ownership_explain(const char *image, struct failure *f, enum failure_kind kind, const struct error *e)
{
	char host[HOST_ID_MAX];
	struct lease seen;
	struct error ignored;

	if ((e->err == EREMOTE || e->err == EBUSY) && lease_look(image, &seen, &ignored) == 0 && seen.kind == LEASE_HELD &&
	    host_id(host, &ignored) == 0 && strcmp(host, seen.host) != 0)
		return raise(f, &seen, image);
	return failure_from(f, kind, e);
}
