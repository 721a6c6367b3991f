/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-filebased - an SR in a directory that is there already, or that can be made beside others
 *
 *      uri = file:///srv/sr    where
 *      format = auto | raw | qcow2     of new volumes
 *      shared = true | false   several hosts have the directory
 *
 * The directory itself is made if its parent is there; a missing parent is more likely a file system that is not mounted.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/uri.h"
#include "plugins/probe.h"
#include "plugins/sr.h"

static const struct sr_option options[] = {
	{ "uri", "file:///directory, absolute; its parent must exist" },
	{ "shared", "true: several hosts have this directory, as on a cluster's file system; false (default)" },
	SR_OPTION_FORMAT,
	{ NULL, NULL },
};

static int out_of_memory(struct failure *f)
{
	return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
}

static int filebased_check(struct jsonspec_map *configuration, struct failure *f)
{
	const char *uri = jsonspec_map_get(configuration, "uri"), *shared = jsonspec_map_get(configuration, "shared");
	CLEANUP_FREE char *path = NULL;
	struct error e;

	if (!uri) {
		uri = jsonspec_map_get(configuration, "file-uri");
		if (!uri)
			return failure_set(f, FAILURE_CONFIGURATION, EINVAL,
					   "uri is missing: it names the SR's directory, file:///srv/sr");
		if (jsonspec_map_set(configuration, "uri", uri) == -1)
			return out_of_memory(f);
		jsonspec_map_unset(configuration, "file-uri");
		uri = jsonspec_map_get(configuration, "uri");
	}
	path = uri_path(uri, "file", &e);
	if (!path)
		return failure_from(f, FAILURE_CONFIGURATION, &e);
	if (shared && strcmp(shared, "true") != 0 && strcmp(shared, "false") != 0)
		return failure_set(f, FAILURE_CONFIGURATION, EINVAL, "shared is %s; it is true or false", shared);
	return sr_check_format(configuration, f);
}

/* The path in the configuration, which check() has found good. */
static char *read_path(const struct jsonspec_map *configuration, struct error *e)
{
	return uri_path(jsonspec_map_get(configuration, "uri"), "file", e);
}

static char *filebased_find(const struct jsonspec_map *configuration, struct failure *f)
{
	const char *uri = jsonspec_map_get(configuration, "uri");
	struct error e;
	CLEANUP_FREE char *path = read_path(configuration, &e);
	CLEANUP_FREE char *dir = path ? realpath(path, NULL) : NULL;
	struct stat st;

	if (!path) {
		failure_from(f, FAILURE_CONFIGURATION, &e);
		return NULL;
	}
	if (!dir) {
		failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, uri, "directory %s cannot be found: %s", path, strerror(errno));
		return NULL;
	}
	if (stat(dir, &st) == -1 || !S_ISDIR(st.st_mode)) {
		failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, uri, "%s is not a directory", dir);
		return NULL;
	}
	return take_ptr(&dir);
}

/* The directory of path, made when it is not there. */
static int make_dir(const char *path, struct sr_place *place, struct failure *f)
{
	struct error e;
	struct stat st;

	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
		return failure_set(f, FAILURE_CONFIGURATION, ENOTDIR, "%s is not a directory, so it cannot hold an SR", path);
	place->dir = realpath(path, NULL); /* of one that is there, also through a symbolic link */
	if (place->dir)
		return 0;
	place->dir = uri_canonical(path, &e);
	if (!place->dir) {
		error_prefix(&e, "make the SR's directory %s", path);
		return failure_from(f, FAILURE_CONFIGURATION, &e);
	}
	place->is_new = mkdir(place->dir, 0700) == 0;
	if (place->is_new || errno == EEXIST)
		return 0;
	error_errno(&e, errno, "make the SR's directory %s", place->dir);
	free(take_ptr(&place->dir));
	return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
}

static int filebased_make(const struct sr_ops *type UNUSED, struct jsonspec_map *configuration, struct sr_place *place,
			  struct failure *f)
{
	struct error e;
	CLEANUP_FREE char *path = read_path(configuration, &e);
	CLEANUP_FREE char *uri = NULL;

	if (!path)
		return failure_from(f, FAILURE_CONFIGURATION, &e);
	if (make_dir(path, place, f) == -1)
		return -1;
	uri = uri_of_path("file", place->dir);
	if (uri && jsonspec_map_set(configuration, "uri", uri) == 0)
		return 0;
	if (place->is_new)
		rmdir(place->dir);
	free(take_ptr(&place->dir));
	return out_of_memory(f);
}

static int filebased_leave(const struct sr_ops *type UNUSED, const struct jsonspec_map *configuration UNUSED,
			   const struct sr_place *place, bool has_failed, struct failure *f UNUSED)
{
	if (has_failed && place->is_new)
		rmdir(place->dir);
	return 0;
}

/* Could make() work? */
static bool can_make(const struct jsonspec_map *configuration)
{
	struct error e;
	CLEANUP_FREE char *path = read_path(configuration, &e);
	CLEANUP_FREE char *dir = path ? uri_canonical(path, &e) : NULL;
	struct stat st;

	return dir && (stat(dir, &st) == -1 ? errno == ENOENT : S_ISDIR(st.st_mode));
}

static int filebased_probe(const struct sr_ops *type, struct jsonspec_map *configuration, struct probe *p, struct failure *f)
{
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *uri = NULL;
	int r = 0;

	if (!jsonspec_map_get(configuration, "uri") && !jsonspec_map_get(configuration, "file-uri"))
		return probe_add(p, PROBE_PARTIAL, configuration, NULL, f);
	if (filebased_check(configuration, f) == -1)
		return -1;
	dir = filebased_find(configuration, f);
	if (dir) {
		uri = uri_of_path("file", dir);
		if (!uri || jsonspec_map_set(configuration, "uri", uri) == -1)
			return out_of_memory(f);
		r = probe_look(p, configuration, dir, type->is_shared, f);
	}
	if (r)
		return r == 1 ? 0 : -1;
	return can_make(configuration) ? probe_add(p, PROBE_FREE, configuration, NULL, f) : 0;
}

const struct sr_ops sr_filebased = {
	.type = "filebased",
	.name = "Volumes in a directory",
	.description = "Each volume is a sparse file in a directory of any local or network file system; it can be moved "
		       "while in use",
	.options = options,
	.check = filebased_check,
	.find = filebased_find,
	.make = filebased_make,
	.leave = filebased_leave,
	.probe = filebased_probe,
};
