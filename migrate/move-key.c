/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * move-key - see move-key.h
 *
 *      getrandom() -> digits -> a file here; the relay's stdin -> a file there      dropped by who made it, or by sxm doctor
 *
 * Can fail: the file system. What held the digits is wiped; where they stand is a tmpfs, as a rule.
 */
#include "migrate/move-key.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "migrate/journey.h"

#define LINE_MAX_BYTES (JOURNEY_ID_MAX + MOVE_KEY_DIGITS + 2)

char *move_key_path(const char *id)
{
	return journey_run_path(id, "key");
}

bool move_key_is_valid(const char *digits)
{
	return strlen(digits) == MOVE_KEY_DIGITS && strspn(digits, "0123456789abcdef") == MOVE_KEY_DIGITS;
}

void move_key_wipe(struct move_key *k)
{
	explicit_bzero(k, sizeof(*k));
}

int move_key_make(struct move_key *k, struct error *e)
{
	uint8_t bytes[MOVE_KEY_BYTES];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return error_errno(e, errno, "random numbers for a key");
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(k->digits + 2 * i, 3, "%02x", bytes[i]);
	explicit_bzero(bytes, sizeof(bytes));
	return 0;
}

/* "<id>:<digits>\n" and nothing else. */
static int take_line(const char *id, const char *line, size_t bytes, struct move_key *k)
{
	size_t name = strlen(id);

	if (bytes != name + MOVE_KEY_DIGITS + 2 || strncmp(line, id, name) != 0 || line[name] != ':' || line[bytes - 1] != '\n')
		return -1;
	memcpy(k->digits, line + name + 1, MOVE_KEY_DIGITS);
	k->digits[MOVE_KEY_DIGITS] = '\0';
	return move_key_is_valid(k->digits) ? 0 : -1;
}

int move_key_read(const char *id, struct move_key *k, struct error *e)
{
	CLEANUP_FREE char *path = move_key_path(id);
	CLEANUP_FREE char *line = NULL;
	size_t bytes;
	int r;

	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	line = proc_read_own_file(path, LINE_MAX_BYTES, &bytes, e);
	if (!line)
		return -1;
	r = take_line(id, line, bytes, k);
	explicit_bzero(line, bytes);
	return r == 0 ? 0 : error_set(e, EBADMSG, "%s is no key of a move", path);
}

int move_key_write(const char *id, const char *digits, struct error *e)
{
	CLEANUP_FREE char *dir = journey_run_path(id, "");
	CLEANUP_FREE char *path = move_key_path(id);
	char line[LINE_MAX_BYTES + 1];
	int r;

	if (!dir || !path)
		return error_set(e, ENOMEM, "out of memory");
	if (proc_make_dir(dir, e) == -1)
		return -1;
	snprintf(line, sizeof(line), "%s:%s\n", id, digits);
	r = proc_swap_file(path, line, strlen(line), 0600, e);
	explicit_bzero(line, sizeof(line));
	return r;
}

/* Who was killed while he wrote it has left it under another name. */
static bool is_key(const char *name)
{
	return strncmp(name, "key", 3) == 0 && (!name[3] || name[3] == '.');
}

int move_key_drop(const char *id, struct error *e)
{
	CLEANUP_FREE char *path = journey_run_path(id, "");
	DIR *dir = path ? opendir(path) : NULL;
	struct dirent *entry;
	int err = 0;

	if (!dir)
		return path && errno == ENOENT ? 0 : error_errno(e, errno, "look for the key of move %s", id);
	while ((entry = readdir(dir)))
		if (is_key(entry->d_name) && unlinkat(dirfd(dir), entry->d_name, 0) == -1 && errno != ENOENT)
			err = errno;
	closedir(dir);
	rmdir(path); /* others' files may be in it */
	return err ? error_errno(e, err, "remove the key of move %s", id) : 0;
}
