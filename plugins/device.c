/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * device - see device.h
 *
 * What a device holds is libblkid's to say: it knows more kinds than we would think of, and says when two contradict one
 * another.  Whether it is in use is the kernel's: an O_EXCL open fails when it, or a part of it, is mounted, swapped to, or has a
 * device made over it.
 */
#include "plugins/device.h"

#include <blkid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "plugins/mount-table.h"

#define SIGNATURES_MAX 64 /* of one device; each is taken away */

/* --- open */

static int check_path(const char *path, struct error *e)
{
	if (strncmp(path, "/dev/", 5) != 0)
		return error_set(e, EINVAL, "device %s: a device's path begins with /dev/, best with /dev/disk/by-id/", path);
	for (const char *c = path; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			return error_set(e, EINVAL, "the device's path has a control character in it");
	if (strstr(path, "/../") || (strlen(path) > 3 && strcmp(path + strlen(path) - 3, "/..") == 0))
		return error_set(e, EINVAL, "device %s: a path with .. in it could be any device", path);
	return 0;
}

static int inspect(struct device *d, struct error *e)
{
	struct stat st;
	uint64_t bytes;

	/* Looked at before it is opened: the open of a FIFO or a tape does something. */
	if (stat(d->real, &st) == -1)
		return error_errno(e, errno, "look at %s", d->real);
	if (!S_ISBLK(st.st_mode))
		return error_set(e, ENOTBLK, "%s is not a block device", d->path);
	d->number = st.st_rdev;
	d->fd = open(d->real, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (d->fd < 0)
		return error_errno(e, errno, "open %s", d->path);
	if (fstat(d->fd, &st) == -1 || !S_ISBLK(st.st_mode) || st.st_rdev != d->number)
		return error_set(e, EAGAIN, "%s became another device while it was looked at", d->path);
	if (ioctl(d->fd, BLKGETSIZE64, &bytes) == -1)
		return error_errno(e, errno, "ask %s for its size", d->path);
	d->bytes = (int64_t)bytes;
	return 0;
}

int device_open(struct device *d, const char *path, struct error *e)
{
	*d = (struct device) { .fd = -1 };
	if (check_path(path, e) == -1)
		return -1;
	d->path = strdup(path);
	d->real = realpath(path, NULL);
	if (!d->path || !d->real) {
		error_errno(e, errno, "find device %s", path);
	} else if (strncmp(d->real, "/dev/", 5) != 0) {
		error_set(e, EINVAL, "device %s leads to %s, out of /dev", path, d->real);
	} else if (inspect(d, e) == 0) {
		return 0;
	}
	device_close(d);
	return -1;
}

void device_close(struct device *d)
{
	if (d->fd >= 0)
		close(d->fd);
	free(d->path);
	free(d->real);
	*d = (struct device) { .fd = -1 };
}

int device_lock(const struct device *d, struct error *e)
{
	/* Its own description: who waits for it need not be the one that reads. */
	CLEANUP_CLOSE int fd = open(d->real, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	int r;

	if (fd < 0)
		return error_errno(e, errno, "open %s", d->path);
	do {
		r = flock(fd, LOCK_EX);
	} while (r == -1 && errno == EINTR);
	return r == 0 ? take_fd(&fd) : error_errno(e, errno, "lock %s", d->path);
}

/* --- what it holds */

static blkid_probe start_probe(int fd, const struct device *d, struct error *e)
{
	blkid_probe probe = blkid_new_probe();

	if (probe && blkid_probe_set_device(probe, fd, 0, 0) == 0) {
		blkid_probe_enable_superblocks(probe, 1);
		blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID |
							 BLKID_SUBLKS_USAGE | BLKID_SUBLKS_MAGIC);
		blkid_probe_enable_partitions(probe, 1);
		blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT);
		return probe;
	}
	blkid_free_probe(probe);
	error_set(e, EIO, "%s cannot be read: is there a medium in it?", d->path);
	return NULL;
}

static const char *value_of(blkid_probe probe, const char *name)
{
	const char *value = NULL;

	return blkid_probe_lookup_value(probe, name, &value, NULL) == 0 && value ? value : "";
}

static int describe(blkid_probe probe, struct device_content *c)
{
	const char *type = value_of(probe, "TYPE"), *label = value_of(probe, "LABEL"), *table = value_of(probe, "PTTYPE");
	int n;

	c->type = strdup(type);
	c->label = strdup(label);
	c->uuid = strdup(value_of(probe, "UUID"));
	if (*type && *label)
		n = asprintf(&c->what, "%s, labelled %.64s", type, label);
	else if (*type)
		n = asprintf(&c->what, "%s", type);
	else
		n = asprintf(&c->what, "a partition table (%s)", table);
	if (n < 0)
		c->what = NULL;
	return c->what && c->type && c->label && c->uuid ? 0 : -1;
}

static int describe_doubtful(struct device_content *c)
{
	c->what = strdup("signatures of more than one kind of content");
	c->type = strdup("");
	c->label = strdup("");
	c->uuid = strdup("");
	return c->what && c->type && c->label && c->uuid ? 0 : -1;
}

int device_look(const struct device *d, struct device_content *c, struct error *e)
{
	blkid_probe probe = start_probe(d->fd, d, e);
	int r;

	*c = (struct device_content) { 0 };
	if (!probe)
		return -1;
	r = blkid_do_safeprobe(probe);
	if (r == 0)
		r = describe(probe, c) == 0 ? 0 : error_set(e, ENOMEM, "out of memory");
	else if (r == 1)
		r = 0;
	else if (r == -2)
		r = describe_doubtful(c) == 0 ? 0 : error_set(e, ENOMEM, "out of memory");
	else
		r = error_set(e, EIO, "what %s holds cannot be read: %s", d->path, strerror(errno ? errno : EIO));
	blkid_free_probe(probe);
	if (r == -1)
		device_content_fini(c);
	return r;
}

void device_content_fini(struct device_content *c)
{
	free(c->what);
	free(c->type);
	free(c->label);
	free(c->uuid);
	*c = (struct device_content) { 0 };
}

int device_wipe(const struct device *d, struct error *e)
{
	CLEANUP_CLOSE int fd = open(d->real, O_RDWR | O_EXCL | O_CLOEXEC | O_NOFOLLOW);
	blkid_probe probe;
	int r = 0;

	if (fd < 0)
		return error_errno(e, errno, "open %s for writing", d->path);
	probe = start_probe(fd, d, e);
	if (!probe)
		return -1;
	for (int i = 0; i < SIGNATURES_MAX && r == 0; i++) {
		r = blkid_do_probe(probe);
		if (r == 0 && blkid_do_wipe(probe, 0) != 0)
			r = -1;
	}
	blkid_free_probe(probe);
	if (r == 1 && fsync(fd) == 0)
		return 0;
	return error_errno(e, errno ? errno : EIO, "take away what %s holds", d->path);
}

/* --- who uses it */

/* The first device made over it. */
static bool find_holder(dev_t number, char name[static NAME_MAX + 1])
{
	struct dirent *entry;
	char path[64];
	bool is_found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(number), minor(number));
	dir = opendir(path);
	while (dir && !is_found && (entry = readdir(dir)))
		if (*entry->d_name != '.') {
			snprintf(name, NAME_MAX + 1, "%s", entry->d_name);
			is_found = true;
		}
	if (dir)
		closedir(dir);
	return is_found;
}

static int say_used(const struct device *d, struct error *e)
{
	char holder[NAME_MAX + 1];
	const struct mount_entry *m;
	struct mount_table t;
	int r = 0;

	if (find_holder(d->number, holder))
		return error_set(e, EBUSY, "%s is in use: %s is made of it", d->path, holder);
	if (mount_table_read(&t, e) == 0) {
		m = mount_table_of(&t, d->number);
		r = m ? error_set(e, EBUSY, "%s is in use: it is mounted at %s", d->path, m->dir) : 0;
		mount_table_fini(&t);
	}
	return r == -1 ? -1 : error_set(e, EBUSY, "%s is in use: it or a partition of it is mounted, swapped to, or held by "
					"a program",
					d->path);
}

int device_check_unused(const struct device *d, struct error *e)
{
	CLEANUP_CLOSE int fd = -1;
	char holder[NAME_MAX + 1];
	int is_read_only = 0;

	if (ioctl(d->fd, BLKROGET, &is_read_only) == 0 && is_read_only)
		return error_set(e, EROFS, "%s can only be read", d->path);
	fd = open(d->real, O_RDONLY | O_EXCL | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == EBUSY ? say_used(d, e) : error_errno(e, errno, "open %s", d->path);
	return find_holder(d->number, holder) ? say_used(d, e) : 0; /* not every holder keeps others out */
}

/* --- all of them */

static bool has_size(const char *name)
{
	char path[NAME_MAX + 32];
	CLEANUP_FREE char *text = NULL;

	snprintf(path, sizeof(path), "/sys/class/block/%s/size", name);
	text = proc_read_file(path, 64, NULL, NULL);
	return text && strtoull(text, NULL, 10) > 0;
}

static int skip_others(const struct dirent *entry)
{
	static const char *const never[] = { "ram", "zram", "fd", "sr", "nbd", "mtdblock", NULL };

	for (const char *const *prefix = never; *prefix; prefix++) {
		size_t n = strlen(*prefix);

		if (strncmp(entry->d_name, *prefix, n) == 0 && entry->d_name[n] >= '0' && entry->d_name[n] <= '9')
			return 0;
	}
	return *entry->d_name != '.' && has_size(entry->d_name);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* The by-id name that stays the same over reboots, and on other hosts; the kernel's own where there is none. */
static void lasting_name(const char *name, char path[static PATH_MAX])
{
	static const char by_id[] = "/dev/disk/by-id";
	size_t best = SIZE_MAX;
	struct dirent *entry;
	DIR *dir = opendir(by_id);

	snprintf(path, PATH_MAX, "/dev/%s", name);
	for (char *c = path; *c; c++)
		if (*c == '!') /* as sysfs writes a slash */
			*c = '/';
	while (dir && (entry = readdir(dir))) {
		char link[sizeof(by_id) + NAME_MAX + 1], target[PATH_MAX];
		CLEANUP_FREE char *real = NULL;

		snprintf(link, sizeof(link), "%s/%s", by_id, entry->d_name);
		real = realpath(link, NULL);
		snprintf(target, sizeof(target), "/dev/%s", name);
		if (real && strcmp(real, target) == 0 && strlen(link) < best) {
			best = strlen(link);
			snprintf(path, PATH_MAX, "%s", link);
		}
	}
	if (dir)
		closedir(dir);
}

void device_each(void (*fn)(const char *path, void *arg), void *arg)
{
	struct dirent **entries;
	int count = scandir("/sys/class/block", &entries, skip_others, by_name);

	for (int i = 0; i < count; i++) {
		char path[PATH_MAX];

		lasting_name(entries[i]->d_name, path);
		fn(path, arg);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}
