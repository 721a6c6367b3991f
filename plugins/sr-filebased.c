/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-filebased - an SR in a directory that is there already, or that can be made beside others
 *
 *      uri = file:///srv/sr    where
 *      format = auto | raw     of new volumes
 *
 * The directory itself is made if its parent is there; a missing parent is more likely a file system that is not mounted.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "plugins/sr.h"
#include "plugins/uri.h"

static const char *const features[] = { "VDI_MIRROR", "VDI_ACTIVATE_READONLY", "THIN_PROVISIONING", "LARGE_VDI", NULL };

static const struct sr_option options[] = {
	{ "uri", "file:///directory, absolute; its parent must exist" },
	{ "format", "of new volumes: auto (default) or raw" },
	{ NULL, NULL },
};

static int out_of_memory(struct failure *f)
{
	return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
}

static int check_format(struct jsonspec_map *configuration, struct failure *f)
{
	const char *format = jsonspec_map_get(configuration, "format");

	if (format && strcmp(format, "qcow2") == 0)
		return failure_set(f, FAILURE_CONFIGURATION, EOPNOTSUPP, "format qcow2 is not supported yet; choose raw or auto");
	if (format && strcmp(format, "raw") != 0 && strcmp(format, "auto") != 0)
		return failure_set(f, FAILURE_CONFIGURATION, EINVAL, "format %s is not known; choose raw or auto", format);
	return jsonspec_map_set(configuration, "format", "raw") == 0 ? 0 : out_of_memory(f);
}

static int filebased_check(struct jsonspec_map *configuration, struct failure *f)
{
	const char *uri = jsonspec_map_get(configuration, "uri");
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
	return check_format(configuration, f);
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

static char *filebased_make(const struct jsonspec_map *configuration, bool *has_made, struct failure *f)
{
	struct error e;
	CLEANUP_FREE char *path = read_path(configuration, &e);
	CLEANUP_FREE char *dir = NULL;
	struct stat st;

	*has_made = false;
	if (!path) {
		failure_from(f, FAILURE_CONFIGURATION, &e);
		return NULL;
	}
	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
		failure_set(f, FAILURE_CONFIGURATION, ENOTDIR, "%s is not a directory, so it cannot hold an SR", path);
		return NULL;
	}
	dir = realpath(path, NULL); /* of one that is there, also through a symbolic link */
	if (dir)
		return take_ptr(&dir);
	dir = uri_canonical(path, &e);
	if (!dir) {
		error_prefix(&e, "make the SR's directory %s", path);
		failure_from(f, FAILURE_CONFIGURATION, &e);
		return NULL;
	}
	if (mkdir(dir, 0700) == 0) {
		*has_made = true;
	} else if (errno != EEXIST) {
		error_errno(&e, errno, "make the SR's directory %s", dir);
		failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
		return NULL;
	}
	return take_ptr(&dir);
}

static void filebased_unmake(const char *dir)
{
	rmdir(dir);
}

static bool filebased_can_make(const struct jsonspec_map *configuration)
{
	struct error e;
	CLEANUP_FREE char *path = read_path(configuration, &e);
	CLEANUP_FREE char *dir = path ? uri_canonical(path, &e) : NULL;
	struct stat st;

	return dir && (stat(dir, &st) == -1 ? errno == ENOENT : S_ISDIR(st.st_mode));
}

const struct sr_ops sr_filebased = {
	.type = "filebased",
	.name = "Volumes in a directory",
	.description = "Each volume is a sparse file in a directory of any local or network file system; it can be moved "
		       "while in use",
	.features = features,
	.options = options,
	.check = filebased_check,
	.find = filebased_find,
	.make = filebased_make,
	.unmake = filebased_unmake,
	.can_make = filebased_can_make,
};
