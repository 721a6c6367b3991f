/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-nfs - an SR in a directory of an NFS export, on as many hosts as want it
 *
 *      server, serverpath      the export; or uri = nfs://server/path
 *      version, options        checked (nfs-options.h)
 *
 *      SXM_RUN_DIR/mnt/<sr_uuid>               the export is mounted here
 *      SXM_RUN_DIR/mnt/<sr_uuid>/<sr_uuid>     the SR: several share an export
 *
 * A server that does not answer holds whoever asks it. So the verbs of this type run in a child, and are given up (patience_ms).
 * What others put into the export is not followed: links are not, and the SR's directory has to be one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "plugins/child.h"
#include "plugins/nfs-options.h"
#include "plugins/probe.h"
#include "plugins/sr-mounted.h"

#define MOUNT_MS 30000u
#define UNMOUNT_MS 30000u
#define PATIENCE_MS 75000u /* a mount and an unmount, and some work */
#define SHOWMOUNT_MS 10000u
#define REST_TEXT 400
#define EMPTY_PAUSE_MS 50u
#define EMPTY_MS 5000u      /* a process that ends closes what it has open */
#define PROBE_NAME "probe-nfs"
#define PROBED_MAX 1000

static const struct sr_option options[] = {
	{ "server", "name or address of the NFS server" },
	{ "serverpath", "the exported directory; the SR is a directory in it" },
	{ "uri", "nfs://server/path, instead of the two" },
	{ "version", "of NFS: 3, 4, 4.0, 4.1 or 4.2; the newest both know (default)" },
	{ "options", "for the mount, separated by commas: hard, soft, timeo=, retrans=, rsize=, wsize=, nconnect=, proto=, "
	 "port=, sec= ..." },
	SR_OPTION_FORMAT,
	{ NULL, NULL },
};

static int out_of_memory(struct failure *f)
{
	return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
}

/* --- the configuration */

/* An old or other name of a key. */
static int rename_key(struct jsonspec_map *configuration, const char *from, const char *to)
{
	CLEANUP_FREE char *value = NULL;

	if (!jsonspec_map_get(configuration, from))
		return 0;
	value = strdup(jsonspec_map_get(configuration, from));
	jsonspec_map_unset(configuration, from);
	if (!value || (!jsonspec_map_get(configuration, to) && jsonspec_map_set(configuration, to, value) == -1))
		return -1;
	return 0;
}

static int take_uri(struct jsonspec_map *configuration, struct error *e)
{
	const char *uri = jsonspec_map_get(configuration, "uri");
	CLEANUP_FREE char *server = NULL;
	CLEANUP_FREE char *path = NULL;

	if (!uri)
		return 0;
	if (nfs_options_split_uri(uri, &server, &path, e) == -1)
		return -1;
	if (jsonspec_map_set(configuration, "server", server) == -1 || jsonspec_map_set(configuration, "serverpath", path) == -1)
		return error_set(e, ENOMEM, "out of memory");
	jsonspec_map_unset(configuration, "uri");
	return 0;
}

/* What is there is good; what has to be there need not. */
static int check_words(struct jsonspec_map *configuration, struct error *e)
{
	const char *server, *path, *version, *words;

	if (take_uri(configuration, e) == -1)
		return -1;
	if (rename_key(configuration, "nfsversion", "version") == -1)
		return error_set(e, ENOMEM, "out of memory");
	server = jsonspec_map_get(configuration, "server");
	path = jsonspec_map_get(configuration, "serverpath");
	version = jsonspec_map_get(configuration, "version");
	words = jsonspec_map_get(configuration, "options");
	if ((server && nfs_options_check_server(server, e) == -1) || (path && nfs_options_check_path(path, e) == -1) ||
	    (version && nfs_options_check_version(version, e) == -1) || (words && nfs_options_check(words, e) == -1))
		return -1;
	return 0;
}

static int nfs_check(struct jsonspec_map *configuration, struct failure *f)
{
	struct error e;

	if (check_words(configuration, &e) == -1)
		return failure_from(f, FAILURE_CONFIGURATION, &e);
	if (!jsonspec_map_get(configuration, "server"))
		return failure_set(f, FAILURE_CONFIGURATION, EINVAL, "server is missing: it names the NFS server");
	if (!jsonspec_map_get(configuration, "serverpath"))
		return failure_set(f, FAILURE_CONFIGURATION, EINVAL, "serverpath is missing: it names the server's exported "
				   "directory");
	return sr_check_format(configuration, f);
}

/* --- mounting */

/* The SR's directory in the mounted export, heap. */
static char *inside(const char *mount_point, struct failure *f)
{
	char *dir;

	if (asprintf(&dir, "%s%s", mount_point, strrchr(mount_point, '/')) < 0) {
		out_of_memory(f);
		return NULL;
	}
	return dir;
}

/* The reverse. */
static char *outside(const char *dir, struct failure *f)
{
	char *mount_point = strndup(dir, (size_t)(strrchr(dir, '/') - dir));

	if (!mount_point)
		out_of_memory(f);
	return mount_point;
}

static char *nfs_find(const struct jsonspec_map *configuration, struct failure *f)
{
	CLEANUP_FREE char *mount_point = sr_mounted_dir(configuration, f);

	return mount_point ? inside(mount_point, f) : NULL;
}

static int mount_export(const struct jsonspec_map *configuration, const char *mount_point, bool is_read_only, bool *was_up,
			struct failure *f)
{
	CLEANUP_FREE char *source = nfs_options_source(jsonspec_map_get(configuration, "server"),
						       jsonspec_map_get(configuration, "serverpath"));
	CLEANUP_FREE char *text = nfs_options_text(jsonspec_map_get(configuration, "version"),
						   jsonspec_map_get(configuration, "options"), is_read_only);
	const struct mount_what what = { .fstype = "nfs", .source = source, .options = text, .wait_ms = MOUNT_MS };
	struct error e;

	if (!source || !text)
		return out_of_memory(f);
	return mount_up(mount_point, &what, was_up, &e) == 0 ? 0 : sr_mounted_failure(f, &e);
}

static int say_no_directory(const char *dir, int err, struct failure *f)
{
	const char *name = strrchr(dir, '/') + 1;

	if (err == ENOENT)
		return failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, name, "the export has no directory %s; SR.create makes one",
				     name);
	return failure_set(f, FAILURE_SR_UNAVAILABLE, err, "the SR's directory %s in the export cannot be used: %s", name,
			   err == ENOTDIR || err == ELOOP ? "it is something else, or a link" : strerror(err));
}

static int check_directory(const char *dir, struct failure *f)
{
	CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? say_no_directory(dir, errno, f) : 0;
}

static void unmount_again(const char *mount_point, bool was_up)
{
	struct error e;

	if (!was_up && mount_down(mount_point, UNMOUNT_MS, false, &e) == -1)
		log_warn("%s", e.text);
}

static int nfs_attach(const struct sr_ops *type UNUSED, const struct jsonspec_map *configuration, const char *dir,
		      struct failure *f)
{
	CLEANUP_FREE char *mount_point = outside(dir, f);
	CLEANUP_CLOSE int lock = mount_point ? sr_mounted_lock(mount_point, f) : -1;
	bool was_up;

	if (lock < 0)
		return -1;
	if (mount_export(configuration, mount_point, false, &was_up, f) == 0) {
		if (check_directory(dir, f) == 0)
			return 0;
		unmount_again(mount_point, was_up);
	}
	mount_drop_lock(mount_point);
	return -1;
}

/* "NAME, NAME ..."; whether all of them are files that were removed and that somebody still has open, which NFS keeps so long. */
static bool name_rest(const char *dir, char text[static REST_TEXT])
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	bool is_to_go = d;
	size_t n = 0;

	*text = '\0';
	while (d && (entry = readdir(d))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		is_to_go = is_to_go && strncmp(entry->d_name, ".nfs", 4) == 0;
		if (n < REST_TEXT)
			n += (size_t)snprintf(text + n, REST_TEXT - n, "%s%.80s", n ? ", " : "", entry->d_name);
	}
	if (d)
		closedir(d);
	return is_to_go;
}

/* The SR is no more, with its directory or without. */
static void remove_directory(const char *dir)
{
	const struct timespec pause = { .tv_nsec = (long)(EMPTY_PAUSE_MS * NS_PER_MS) };
	char rest[REST_TEXT];

	for (unsigned waited_ms = 0; rmdir(dir) == -1 && errno != ENOENT; waited_ms += EMPTY_PAUSE_MS) {
		int err = errno;
		bool is_to_go = name_rest(dir, rest);

		if (!is_to_go || waited_ms >= EMPTY_MS) {
			log_warn("%s stays in the export: %s%s%s", strrchr(dir, '/') + 1, strerror(err),
				 *rest ? "; there is still " : "", rest);
			return;
		}
		nanosleep(&pause, NULL);
	}
}

static int unmount_export(const char *dir, bool is_destroyed, struct failure *f)
{
	CLEANUP_FREE char *mount_point = outside(dir, f);
	CLEANUP_CLOSE int lock = -1;

	if (!mount_point)
		return -1;
	if (!mount_is_dir(mount_point))
		return 0;
	lock = sr_mounted_lock(mount_point, f);
	if (lock < 0)
		return -1;
	if (is_destroyed && sr_mounted_check_up(mount_point, f) == -1)
		return -1;
	if (is_destroyed)
		remove_directory(dir);
	return sr_mounted_down(mount_point, UNMOUNT_MS, false, f);
}

static int nfs_detach(const struct sr_ops *type UNUSED, const char *dir, struct failure *f)
{
	return unmount_export(dir, false, f);
}

static int nfs_destroy(const struct sr_ops *type UNUSED, const char *dir, struct failure *f)
{
	return unmount_export(dir, true, f);
}

/* --- create */

static int make_directory(struct sr_place *place, struct failure *f)
{
	place->is_new = mkdir(place->dir, 0700) == 0;
	if (place->is_new)
		return 0;
	if (errno == EACCES || errno == EPERM)
		return failure_set(f, FAILURE_SR_UNAVAILABLE, errno, "no directory can be made in the export: %s; it has to "
				   "be exported with no_root_squash", strerror(errno));
	if (errno != EEXIST)
		return failure_set(f, errno == ENOSPC || errno == EDQUOT ? FAILURE_NO_SPACE : FAILURE_SR_UNAVAILABLE, errno,
				   "make a directory in the export: %s", strerror(errno));
	return check_directory(place->dir, f);
}

static int nfs_make(const struct sr_ops *type UNUSED, struct jsonspec_map *configuration, struct sr_place *place,
		    struct failure *f)
{
	CLEANUP_FREE char *mount_point = sr_mounted_dir(configuration, f);
	bool was_up;

	if (!mount_point)
		return -1;
	place->dir = inside(mount_point, f);
	place->lock = place->dir ? sr_mounted_lock(mount_point, f) : -1;
	if (place->lock >= 0 && mount_export(configuration, mount_point, false, &was_up, f) == 0) {
		place->is_held = !was_up;
		if (make_directory(place, f) == 0)
			return 0;
		unmount_again(mount_point, was_up);
	}
	if (place->lock >= 0) {
		mount_drop_lock(mount_point);
		close(take_fd(&place->lock));
	}
	free(take_ptr(&place->dir));
	return -1;
}

static int nfs_leave(const struct sr_ops *type UNUSED, const struct jsonspec_map *configuration UNUSED,
		     const struct sr_place *place,
		     bool has_failed, struct failure *f)
{
	CLEANUP_FREE char *mount_point = outside(place->dir, f);
	int r = mount_point ? 0 : -1;

	if (has_failed && place->is_new)
		rmdir(place->dir);
	if (r == 0 && place->is_held)
		r = sr_mounted_down(mount_point, UNMOUNT_MS, false, f);
	close(place->lock);
	return r;
}

/* --- probe */

static int add_export(struct jsonspec_map *configuration, const char *path, struct probe *p, struct failure *f)
{
	if (jsonspec_map_set(configuration, "serverpath", path) == -1)
		return out_of_memory(f);
	return probe_add(p, PROBE_PARTIAL, configuration, NULL, f);
}

/* The server's exports, each a choice. */
static int list_exports(struct jsonspec_map *configuration, struct probe *p, struct failure *f)
{
	const char *argv[] = { "showmount", "--no-headers", "-e", jsonspec_map_get(configuration, "server"), NULL };
	struct jsonspec_map info = { 0 };
	CLEANUP_FREE char *text = NULL;
	char key[] = "exports", *keys[] = { key }, *values[1];
	struct error e;
	char *rest, *line;
	int r = 0;

	if (child_run(argv, SHOWMOUNT_MS, &text, &e) == -1) { /* a server of version 4 alone need not say it */
		values[0] = e.text;
		info = (struct jsonspec_map) { .count = 1, .key = keys, .value = values };
		return probe_add(p, PROBE_PARTIAL, configuration, &info, f);
	}
	rest = text;
	while (r == 0 && (line = strsep(&rest, "\n"))) {
		line[strcspn(line, " \t")] = '\0';
		if (*line == '/' && nfs_options_check_path(line, &e) == 0)
			r = add_export(configuration, line, p, f);
	}
	return r;
}

/* The SRs in the mounted export. */
static int list_srs(const struct sr_ops *type, const struct jsonspec_map *configuration, const char *mount_point, struct probe *p,
		    struct failure *f)
{
	const char *wanted = jsonspec_map_get(configuration, "sr_uuid");
	DIR *d = opendir(mount_point);
	struct dirent *entry;
	struct failure ignored;
	int left = PROBED_MAX;

	if (!d)
		return failure_set(f, FAILURE_SR_UNAVAILABLE, errno, "list the export: %s", strerror(errno));
	while (left-- && (entry = readdir(d))) {
		CLEANUP_FREE char *dir = NULL;

		if (!mount_is_name(entry->d_name) || (wanted && strcmp(wanted, entry->d_name) != 0))
			continue;
		if (asprintf(&dir, "%s/%s", mount_point, entry->d_name) < 0)
			dir = NULL;
		if (dir && check_directory(dir, &ignored) == 0)
			probe_look(p, configuration, dir, type->is_shared, &ignored); /* one that is damaged hides no other */
	}
	closedir(d);
	return 0;
}

static int look_into(const struct sr_ops *type, const struct jsonspec_map *configuration, struct probe *p, struct failure *f)
{
	struct error e;
	CLEANUP_FREE char *mount_point = mount_dir(PROBE_NAME, &e);
	CLEANUP_CLOSE int lock = -1;
	bool was_up;
	int r;

	if (!mount_point)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	lock = sr_mounted_lock(mount_point, f);
	if (lock < 0)
		return -1;
	if (mount_down(mount_point, UNMOUNT_MS, false, &e) == -1) /* a killed probe's */
		return sr_mounted_failure(f, &e);
	if (mount_export(configuration, mount_point, true, &was_up, f) == -1) {
		mount_drop_lock(mount_point);
		return -1;
	}
	r = list_srs(type, configuration, mount_point, p, f);
	unmount_again(mount_point, false);
	return r;
}

static int nfs_probe(const struct sr_ops *type, struct jsonspec_map *configuration, struct probe *p, struct failure *f)
{
	struct error e;

	if (check_words(configuration, &e) == -1)
		return failure_from(f, FAILURE_CONFIGURATION, &e);
	if (!jsonspec_map_get(configuration, "server"))
		return probe_add(p, PROBE_PARTIAL, configuration, NULL, f);
	if (!jsonspec_map_get(configuration, "serverpath"))
		return list_exports(configuration, p, f);
	if (sr_check_format(configuration, f) == -1 || look_into(type, configuration, p, f) == -1)
		return -1;
	return probe_add(p, PROBE_FREE, configuration, NULL, f);
}

const struct sr_ops sr_nfs = {
	.type = "nfs-ng",
	.name = "Volumes on an NFS server",
	.description = "Each volume is a sparse file in a directory of an NFS export; every host of a pool may have it attached",
	.options = options,
	.is_shared = true,
	.patience_ms = PATIENCE_MS,
	.check = nfs_check,
	.find = nfs_find,
	.make = nfs_make,
	.leave = nfs_leave,
	.probe = nfs_probe,
	.attach = nfs_attach,
	.detach = nfs_detach,
	.destroy = nfs_destroy,
};
