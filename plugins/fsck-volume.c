/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fsck-volume - what is wrong with the files of one volume
 *
 *                      record good     record damaged     no record, or no file
 *      image           the record's    a new record of    it gets a record, named by its key
 *                      members         what is left
 *      no image        record aside    record aside       what lay beside it aside
 *
 * An image that is no file of its own (a symbolic link, a directory) is none.  While somebody has an image locked neither it
 * nor its record is touched.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "plugins/datapath.h"
#include "plugins/fsck-private.h"
#include "plugins/image.h"
#include "plugins/joint.h"
#include "plugins/lock.h"
#include "plugins/volume.h"

#define RECORD_MAX_BYTES (1u << 20)
#define HALF_WRITTEN_S 3600
#define QCOW2_MAGIC 0x514649fbu

static const char *const formats[] = { "raw", "qcow2", NULL };

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

/* Heap; NULL: out of memory. */
static char *name_of(const char *key, const char *dot, const char *suffix)
{
	char *name;

	return asprintf(&name, "%s%s%s", key, dot, suffix) < 0 ? NULL : name;
}

/* The format of the volume's image that is there, a file. NULL: there is none. */
static const char *find_image(const struct fsck *f, const char *key)
{
	for (const char *const *format = formats; *format; format++) {
		CLEANUP_FREE char *name = name_of(key, ".", *format);

		if (name && fsck_is_file(f, name))
			return *format;
	}
	return NULL;
}

/* Is it the name of an image? What other images are made on (KEY.base.FORMAT) has no record. */
static const char *image_format(const char *name, char key[static META_KEY_MAX + 1])
{
	for (const char *const *format = formats; *format; format++) {
		char suffix[16], ignored[META_KEY_MAX + 1];

		snprintf(suffix, sizeof(suffix), ".%s", *format);
		if (meta_split_name(name, suffix, key))
			return meta_split_name(key, ".base", ignored) ? NULL : *format;
	}
	return NULL;
}

/* What a guest sees. -1: not to be known. */
static int64_t virtual_bytes(const struct fsck *f, const char *name, const char *format)
{
	CLEANUP_FREE char *path = fsck_path(f, name);
	CLEANUP_CLOSE int fd = path ? open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
	struct {
		uint32_t magic;
		uint32_t ignored[5];
		uint64_t bytes;
	} header;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) == -1)
		return -1;
	if (strcmp(format, "qcow2") != 0)
		return st.st_size;
	if (pread(fd, &header, sizeof(header), 0) != sizeof(header) || be32toh(header.magic) != QCOW2_MAGIC)
		return -1;
	return (int64_t)be64toh(header.bytes) >= 0 ? (int64_t)be64toh(header.bytes) : -1;
}

/* --- images */

static int set_new_content(struct meta_volume *m, struct error *e)
{
	char content_id[VOLUME_UUID_TEXT];

	volume_make_uuid(content_id);
	return jsonspec_map_set(&m->keys, "content_id", content_id) == 0 ? 0 : out_of_memory(e);
}

/* With the image's lock. text: what is left of the record, or "". */
static int make_record(struct fsck *f, const char *key, const char *format, const char *text, struct error *e)
{
	CLEANUP_FREE char *image = name_of(key, ".", format);
	CLEANUP_FREE char *damaged = name_of(key, ".json", ".damaged");
	CLEANUP_LOCK int lock = image ? fsck_lock(f, image, e) : out_of_memory(e);
	struct meta_volume m;
	int r;

	if (lock < 0)
		return -1;
	if (!damaged || fsck_salvage_volume(text, key, format, &m) == -1)
		return out_of_memory(e);
	m.virtual_size = virtual_bytes(f, image, format);
	if (!*text) { /* it has no past */
		free(m.description);
		m.description = strdup("Its image was found without a record.");
	}
	if (m.virtual_size < 0)
		r = error_set(e, EBADMSG, "%s is damaged: its size cannot be read", image);
	else if (!m.description || set_new_content(&m, e) == -1)
		r = out_of_memory(e);
	else
		r = meta_volume_write(f->dir, key, &m, e);
	meta_volume_clear(&m);
	if (r == 0 && fsck_look(f, damaged, &(struct stat) { 0 }))
		return fsck_put_aside(f, damaged, e);
	return r;
}

static int fill_up(struct fsck *f, const char *name, off_t bytes, struct error *e)
{
	CLEANUP_LOCK int fd = fsck_lock(f, name, e);

	if (fd < 0)
		return -1;
	if (ftruncate(fd, bytes) == -1 || fsync(fd) == -1)
		return error_errno(e, errno, "lengthen %s", name);
	return 0;
}

static void check_length(struct fsck *f, const char *name, off_t bytes)
{
	off_t whole = (bytes + IMAGE_ALIGNMENT - 1) / IMAGE_ALIGNMENT * IMAGE_ALIGNMENT;
	struct error e;

	if (bytes == whole)
		return;
	if (fsck_found(f, "lengthen it with zeros to the next whole sector", "%s has %lld bytes, and a disk has whole sectors",
		       name, (long long)bytes))
		fsck_done(f, fill_up(f, name, whole, &e), &e);
}

void fsck_image(struct fsck *f, const char *name)
{
	char key[META_KEY_MAX + 1];
	const char *format = image_format(name, key);
	CLEANUP_FREE char *record = format ? name_of(key, ".json", "") : NULL;
	CLEANUP_FREE char *path = format ? fsck_path(f, name) : NULL;
	struct stat st;
	struct error e;

	if (!record || !path || !fsck_look(f, name, &st))
		return;
	if (!S_ISREG(st.st_mode)) {
		fsck_aside(f, name, "%s is %s, not the file of a volume", name, fsck_type(st.st_mode));
		return;
	}
	fsck_check_access(f, name, &st);
	if (strcmp(format, "raw") == 0)
		check_length(f, name, st.st_size);
	if (datapath_check_whole(path, &e) == -1 && e.err != EPERM && e.err != EAGAIN)
		fsck_found(f, NULL, "%s; if no other host has the disk, move %s.owner away", e.text, name);
	if (fsck_look(f, record, &st))
		return;
	if (fsck_found(f, "give it a record, and its key as its name", "%s has no record, so it is no volume", name))
		fsck_done(f, make_record(f, key, format, "", &e), &e);
}

/* --- records */

struct fix {
	bool uuid, content_id, format, size;
	const char *image_format;
	int64_t bytes;
};

/* With the locks of the record, which is read anew, and of the image. */
static int rewrite(struct fsck *f, const char *name, const char *key, const struct fix *fix, struct error *e)
{
	CLEANUP_LOCK int lock = fsck_lock(f, name, e);
	CLEANUP_FREE char *image = name_of(key, ".", fix->image_format);
	CLEANUP_LOCK int image_lock = lock < 0 ? -1 : image ? fsck_lock(f, image, e) : out_of_memory(e);
	struct meta_volume m;
	int r = 0;

	if (image_lock < 0 || meta_volume_read(f->dir, key, &m, e) == -1)
		return -1;
	if (fix->uuid) {
		free(m.uuid);
		m.uuid = strdup(key);
		r = m.uuid ? 0 : -1;
	}
	if (r == 0 && fix->format) {
		free(m.format);
		m.format = strdup(fix->image_format);
		r = m.format ? 0 : -1;
	}
	if (fix->size)
		m.virtual_size = fix->bytes;
	if (r == 0 && fix->content_id)
		r = set_new_content(&m, e);
	r = r == 0 ? meta_volume_write(f->dir, key, &m, e) : out_of_memory(e);
	meta_volume_clear(&m);
	return r;
}

static bool is_known_format(const char *format)
{
	for (const char *const *known = formats; *known; known++)
		if (strcmp(*known, format) == 0)
			return true;
	return false;
}

/* The record is whole; what it says may still not be so. */
static void check_members(struct fsck *f, const char *name, const char *key, const struct meta_volume *m, const char *format)
{
	CLEANUP_FREE char *image = name_of(key, ".", format);
	const char *content_id = jsonspec_map_get(&m->keys, "content_id");
	struct fix fix = { .image_format = format };
	struct error e;

	if (!image)
		return;
	fix.bytes = virtual_bytes(f, image, format);
	fix.uuid = strcmp(m->uuid, key) != 0;
	if (fix.uuid && fsck_found(f, "write the volume's key", "%s says that the volume's uuid is %s", name, m->uuid))
		fsck_done(f, rewrite(f, name, key, &(struct fix) { .uuid = true, .image_format = format }, &e), &e);
	fix.format = strcmp(m->format, format) != 0;
	if (fix.format && fsck_found(f, "write the format of the image that is there",
				     "%s says that the volume's format is %s, and its image is %s", name, m->format, image))
		fsck_done(f, rewrite(f, name, key, &(struct fix) { .format = true, .image_format = format }, &e), &e);
	if ((!content_id || !*content_id) && fsck_found(f, "write a new one", "%s has no content_id", name))
		fsck_done(f, rewrite(f, name, key, &(struct fix) { .content_id = true, .image_format = format }, &e), &e);
	fix.size = fix.bytes >= 0 && m->virtual_size != fix.bytes;
	if (fix.bytes < 0)
		fsck_found(f, NULL, "%s is damaged: its size cannot be read", image);
	else if (fix.size && fsck_found(f, "write the image's size", "%s says that the disk has %lld bytes, and it has %lld",
					name, (long long)m->virtual_size, (long long)fix.bytes))
		fsck_done(f, rewrite(f, name, key,
				     &(struct fix) { .size = true, .bytes = fix.bytes, .image_format = format }, &e), &e);
}

static void check_damaged(struct fsck *f, const char *name, const char *key, const char *format, const struct error *why)
{
	CLEANUP_FREE char *path = fsck_path(f, name);
	CLEANUP_FREE char *text = path ? proc_read_file(path, RECORD_MAX_BYTES, NULL, &(struct error) { 0 }) : NULL;
	struct error e;

	if (!format) {
		fsck_aside(f, name, "%s, and the volume has no image", why->text);
		return;
	}
	if (fsck_found(f, "make a new record of what is known, and keep the old one in " FSCK_ASIDE, "%s", why->text))
		fsck_done(f, make_record(f, key, format, text && *text ? text : " ", &e), &e);
}

void fsck_record(struct fsck *f, const char *name)
{
	char key[META_KEY_MAX + 1];
	const char *format;
	struct meta_volume m;
	struct error e, why;
	struct stat st;
	int r;

	if (!meta_split_name(name, ".json", key) || !fsck_look(f, name, &st))
		return;
	format = find_image(f, key);
	if (!S_ISREG(st.st_mode)) {
		if (!fsck_found(f, format ? "move it to " FSCK_ASIDE ", and make a new record" : "move it to " FSCK_ASIDE,
				"%s is %s, not the record of a volume", name, fsck_type(st.st_mode)))
			return;
		r = fsck_put_aside(f, name, &e);
		if (r == 0 && format)
			r = make_record(f, key, format, " ", &e);
		fsck_done(f, r, &e);
		return;
	}
	fsck_check_access(f, name, &st);
	if (meta_volume_read(f->dir, key, &m, &why) == -1) {
		if (why.err == EBADMSG || why.err == EFBIG)
			check_damaged(f, name, key, format, &why);
		else if (why.err != ENOENT)
			fsck_found(f, NULL, "%s", why.text);
		return;
	}
	if (format)
		check_members(f, name, key, &m, format);
	else if (m.is_data_destroyed)
		; /* it is to have none */
	else if (is_known_format(m.format))
		fsck_aside(f, name, "%s describes a volume that has no image", name);
	else
		fsck_found(f, NULL, "%s describes a volume of a format that is not known here, %s", name, m.format);
	meta_volume_clear(&m);
}

/* --- beside, passing */

void fsck_beside(struct fsck *f, const char *name)
{
	char image[META_KEY_MAX + 16], key[META_KEY_MAX + 1];
	struct stat st;

	if (!fsck_look(f, name, &st))
		return;
	if (meta_split_name(name, ".json.damaged", key)) {
		fsck_aside(f, name, "%s is a record that was damaged, and was replaced", name);
		return;
	}
	for (const char *const *suffix = image_beside; *suffix; suffix++) {
		size_t bytes = strlen(name), tail = strlen(*suffix);

		if (bytes <= tail || bytes - tail >= sizeof(image) || strcmp(name + bytes - tail, *suffix) != 0)
			continue;
		snprintf(image, sizeof(image), "%.*s", (int)(bytes - tail), name);
		if (!image_format(image, key))
			continue;
		if (!S_ISREG(st.st_mode))
			fsck_aside(f, name, "%s is %s, not a file", name, fsck_type(st.st_mode));
		else if (!fsck_is_file(f, image))
			fsck_aside(f, name, "%s lies beside an image that is not there", name);
		else
			fsck_check_access(f, name, &st);
		return;
	}
}

/* The volume's other name goes where the volume is whole. */
static int drop_passing(struct fsck *f, const char *name, const char *key, const char *format, struct error *e)
{
	CLEANUP_FREE char *image = name_of(key, ".", format);
	CLEANUP_FREE char *record = name_of(key, ".json", "");
	CLEANUP_FREE char *path = fsck_path(f, name);
	CLEANUP_FREE char *image_path = image ? fsck_path(f, image) : NULL;
	struct stat a, b;
	bool is_same;

	if (!record || !path || !image_path)
		return out_of_memory(e);
	is_same = fsck_look(f, name, &a) && fsck_look(f, image, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev &&
		  S_ISREG(a.st_mode);
	if (is_same && fsck_is_file(f, record))
		return unlink(path) == 0 ? 0 : error_errno(e, errno, "remove %s", path);
	if (fsck_put_aside(f, name, e) == -1)
		return -1;
	return is_same && unlink(image_path) == -1 ? error_errno(e, errno, "remove %s", image_path) : 0; /* it is aside */
}

/* A record that is being written is seconds old. With the SR's lock nobody makes a group. */
static void half_written(struct fsck *f, const char *name, const struct stat *st)
{
	size_t bytes = strlen(name);

	if (bytes <= 4 || strcmp(name + bytes - 4, ".tmp") != 0)
		return;
	if (strncmp(name, JOINT_PREFIX, strlen(JOINT_PREFIX)) == 0)
		fsck_aside(f, name, "%s is half written: what says of snapshots that were to be taken together whether they were",
			   name);
	else if (strstr(name, ".json.") && (!S_ISREG(st->st_mode) || time(NULL) - st->st_mtime > HALF_WRITTEN_S))
		fsck_aside(f, name, "%s is a record half written", name);
}

void fsck_passing(struct fsck *f, const char *name)
{
	char key[META_KEY_MAX + 1], suffix[24];
	struct stat st;
	struct error e;

	if (!fsck_look(f, name, &st))
		return;
	for (const char *const *format = formats; *format; format++) {
		snprintf(suffix, sizeof(suffix), ".%s.new", *format);
		if (*name != '.' || !meta_split_name(name + 1, suffix, key))
			continue;
		if (fsck_found(f, "move it to " FSCK_ASIDE,
			       "%s belongs to no volume: left by a verb that was killed, or put there", name))
			fsck_done(f, drop_passing(f, name, key, *format, &e), &e);
		return;
	}
	half_written(f, name, &st);
}
