/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volume-writer - somebody is about to write to a volume: it is another content from now on, and has another content_id
 *
 *      record with a new one -> temporary -> rename
 *      no room for that      -> of the text that is there, the digits of the old one are overwritten in place
 *
 * Guests are started on a full SR, too, and by its content_id a volume is what others' differences stand on (cmd/content.h): an
 * old one would be a wrong base that nobody notices. What is overwritten has its room, and as many bytes as before: whoever reads
 * it meanwhile, or after a power loss, has the old one, the new one or some of each, which is neither's. A record that is damaged
 * has its digits changed likewise: `sxm fsck` takes them over.
 * Can fail: a medium that does not work, a content_id that is too short to be changed. Then SXM_STATE_DIR/doubted/ID has the new
 * one (doubt.h), and on this host whoever asks hears that; the guest is started all the same. Not where hosts share the SR, as to
 * the others it would have the old one: who takes a copy there, or looks for what is alike, would take the wrong base. What is
 * carried to another host while it is doubted has the old one there; nothing here can help that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/uri.h"
#include "plugins/datapath.h"
#include "plugins/doubt.h"
#include "plugins/lock.h"
#include "plugins/meta.h"
#include "plugins/volume.h"

#define RECORD_MAX_BYTES (1u << 20)
#define DIGITS_MIN 8u

/* Has the file the name of an image of some format? Then what stands before it is the key. */
static bool cut_suffix(char *name)
{
	const struct image_ops *ops;

	for (unsigned i = 0; (ops = image_format_at(i)); i++) {
		size_t bytes = strlen(name), tail = strlen(ops->format) + 1;

		if (bytes > tail && name[bytes - tail] == '.' && strcmp(name + bytes - tail + 1, ops->format) == 0) {
			name[bytes - tail] = '\0';
			return true;
		}
	}
	return false;
}

/* Cuts an image's path into the directory and the key. NULL: it is not one of ours. */
static char *cut_to_key(char *image)
{
	char *key = image ? strrchr(image, '/') : NULL;

	if (!key)
		return NULL;
	*key++ = '\0';
	return cut_suffix(key) && meta_is_key(key) ? key : NULL;
}

bool volume_is_data_destroyed(const char *image)
{
	CLEANUP_FREE char *dir = strdup(image);
	const char *key = cut_to_key(dir);
	struct meta_volume m;
	struct error e;
	bool is_destroyed;

	if (!key || meta_volume_read(dir, key, &m, &e) == -1)
		return false;
	is_destroyed = m.is_data_destroyed;
	meta_volume_clear(&m);
	return is_destroyed;
}

/* --- in place */

static const char *skip_blanks(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

/* The text of the next content_id from at on: its first byte, and how many it has. NULL: there is none. */
static const char *find_content_id(const char *at, size_t *bytes)
{
	static const char member[] = "\"content_id\""; /* within a string its quotes have backslashes */

	while ((at = strstr(at, member))) {
		const char *value = skip_blanks(at + sizeof(member) - 1);

		at += sizeof(member) - 1;
		if (*value != ':')
			continue;
		value = skip_blanks(value + 1);
		if (*value++ != '"')
			continue;
		for (*bytes = 0; value[*bytes] && value[*bytes] != '"'; ++*bytes)
			if (value[*bytes] == '\\' && value[*bytes + 1])
				++*bytes;
		return value;
	}
	return NULL;
}

static int overwrite(int fd, const char *text, struct error *e)
{
	const char *at = text;
	size_t bytes;

	while ((at = find_content_id(at, &bytes))) {
		char digits[VOLUME_UUID_TEXT];
		size_t changed = MIN(bytes, sizeof(digits) - 1);

		if (changed < DIGITS_MIN)
			return error_set(e, ENOTSUP, "its content_id is too short to be changed");
		volume_make_uuid(digits);
		errno = EIO;
		if (pwrite(fd, digits, changed, at - text) != (ssize_t)changed)
			return error_errno(e, errno, "write to its record");
		at += bytes;
	}
	return fsync(fd) == 0 ? 0 : error_errno(e, errno, "write to its record");
}

/* With the record's lock. */
static int renew_in_place(const char *record, struct error *e)
{
	CLEANUP_FREE char *text = proc_read_own_file(record, RECORD_MAX_BYTES, NULL, e);
	CLEANUP_CLOSE int fd = text ? open(record, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;

	if (!text)
		return -1;
	return fd < 0 ? error_errno(e, errno, "open %s", record) : overwrite(fd, text, e);
}

/* --- */

static int write_new(const char *dir, const char *key, const struct meta_volume *m, const char *record, struct error *e)
{
	struct error why;

	if (meta_volume_write(dir, key, m, &why) == 0)
		return 0;
	if (renew_in_place(record, e) == -1)
		return error_prefix(e, "%s; nor in place", why.text);
	log_info("%s has a new content_id in place: %s", record, why.text);
	return 0;
}

static int note_writer(const char *image, bool *is_read_only, struct error *e)
{
	CLEANUP_FREE char *dir = strdup(image);
	CLEANUP_FREE char *record = NULL;
	CLEANUP_LOCK int lock = -1;
	const char *key = cut_to_key(dir);
	struct meta_volume m;
	int r;

	if (!key || !(record = meta_volume_path(dir, key)))
		return 0;
	lock = lock_take(record, LOCK_EXCLUSIVE, e);
	if (lock < 0)
		return e->err == ENOENT || e->err == ENOTDIR ? 0 : -1;
	if (meta_volume_read(dir, key, &m, e) == -1)
		return e->err == EBADMSG ? renew_in_place(record, e) : -1;
	if (!m.read_write) {
		*is_read_only = true;
		r = 0;
	} else {
		r = volume_renew(&m) == -1 ? error_set(e, ENOMEM, "out of memory") : write_new(dir, key, &m, record, e);
	}
	meta_volume_clear(&m);
	return r;
}

/* --- in doubt */

int volume_note_writer(const char *image, bool *is_read_only, struct error *e)
{
	char content_id[VOLUME_UUID_TEXT];
	struct error why;

	if (note_writer(image, is_read_only, e) == 0) {
		doubt_end(image);
		return 0;
	}
	volume_make_uuid(content_id);
	return doubt_begin(image, content_id, &why) == 0 ? 1 : error_prefix(e, "%s; and", why.text);
}

/* Whoever is about to write has it attached, and only then gives it a new content_id; it is active a while later:
 *
 *      attach - new content_id - [here: nobody is active, and yet this is not what that content_id will name] - active - writes
 */
bool volume_is_doubted(const char *dir, const char *key, const struct meta_volume *m)
{
	const struct image i = image_of(dir, key, m->format);
	CLEANUP_FREE char *image = image_path(&i);
	struct error e;
	CLEANUP_FREE char *canonical = image ? uri_canonical(image, &e) : NULL;

	return !canonical || doubt_is_there(canonical) || (m->read_write && datapath_may_get_writer(canonical));
}
