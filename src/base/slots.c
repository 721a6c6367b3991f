/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * slots - see slots.h
 *
 *      file:   | slot 0, 4096 bytes | slot 1 |
 *      slot:   slot NUMBER SUM BYTES\n text \n blanks ... \n      as text, so that people can read it
 *
 *      read:   of the slots whose sum is right the one with the higher number
 *      write:  the other slot, with the next number: pwrite, fdatasync.  Its blocks are there since the file was made: nothing is
 *              allocated, and the journal has nothing to do
 *
 * A plug that is pulled leaves the slot that is being written old, new, or torn, which its sum tells; the other one is what was
 * so before, and nobody was told yet of what is torn.  A process that dies may leave the new text in the page cache only:
 * whoever is to act on it reads it durably.
 *
 * Can fail: a fdatasync, after which the kernel has forgotten what it could not write.  Then the file is made anew, beside and by
 * rename, on other blocks.  So it is, too, where it has another size, or a second name, under which somebody wants the old text.
 */
#include "base/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"

#define SLOT_BYTES 4096u
#define SLOTS 2u
_Static_assert(SLOTS * SLOT_BYTES == SLOTS_FILE_BYTES, "as slots.h says");
#define HEAD "slot "
#define HEAD_BYTES 47u /* slot NUMBER SUM BYTES\n: 5 + 17 + 17 + 7 + 1 */

struct slot {
	uint64_t number; /* 0: nothing valid */
	const char *text;
	size_t bytes;
};

static uint64_t sum_of(uint64_t number, const char *text, size_t bytes)
{
	uint64_t h = UINT64_C(14695981039346656037) ^ number;

	for (size_t i = 0; i < bytes; i++)
		h = (h ^ (uint8_t)text[i]) * UINT64_C(1099511628211);
	return h;
}

static struct slot look_at(const char *at)
{
	char head[HEAD_BYTES + 1] = { 0 };
	uint64_t number, sum;
	unsigned bytes;

	memcpy(head, at, HEAD_BYTES);
	if (sscanf(head, HEAD "%16" SCNx64 " %16" SCNx64 " %7x", &number, &sum, &bytes) != 3 || bytes > SLOTS_TEXT_MAX ||
	    sum != sum_of(number, at + HEAD_BYTES, bytes))
		return (struct slot){ 0 };
	return (struct slot){ number, at + HEAD_BYTES, bytes };
}

/* The newest; number 0: none is valid. */
static struct slot newest(const char *file, unsigned *place)
{
	struct slot best = { 0 };

	*place = 0;
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot s = look_at(file + i * SLOT_BYTES);

		if (s.number > best.number) {
			best = s;
			*place = i;
		}
	}
	return best;
}

static void fill(char slot[static SLOT_BYTES], uint64_t number, const char *text, size_t bytes)
{
	memset(slot, ' ', SLOT_BYTES);
	snprintf(slot, SLOT_BYTES, HEAD "%016" PRIx64 " %016" PRIx64 " %07x\n", number, sum_of(number, text, bytes),
		 (unsigned)bytes);
	memcpy(slot + HEAD_BYTES, text, bytes);
	slot[HEAD_BYTES + bytes] = '\n';
	slot[SLOT_BYTES - 1] = '\n';
}

/* --- read */

const char *slots_find(const char *file, size_t *bytes)
{
	unsigned place;
	struct slot s;

	if (*bytes != SLOTS_FILE_BYTES)
		return file;
	s = newest(file, &place);
	*bytes = s.bytes;
	return s.number ? s.text : NULL;
}

char *slots_read(const char *path, size_t *bytes, struct error *e)
{
	CLEANUP_FREE char *file = proc_read_own_file(path, SLOTS_FILE_BYTES, bytes, e);
	const char *text = file ? slots_find(file, bytes) : NULL;

	if (!file)
		return NULL;
	if (!text) {
		error_set(e, EBADMSG, "%s: neither of its two slots has a sum that is right", path);
		return NULL;
	}
	memmove(file, text, *bytes);
	file[*bytes] = '\0';
	return take_ptr(&file);
}

static int sync_file(const char *path, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0 || fsync(fd) == -1)
		return error_errno(e, errno, "make %s durable", path);
	return proc_sync_dir(path, e);
}

char *slots_read_durable(const char *path, size_t *bytes, struct error *e)
{
	char *text = slots_read(path, bytes, e);

	if (text && sync_file(path, e) == -1) {
		free(text);
		return NULL;
	}
	return text;
}

/* --- write */

static int make_anew(const char *path, uint64_t number, const char *text, size_t bytes, unsigned mode, struct error *e)
{
	char file[SLOTS * SLOT_BYTES];

	memset(file, ' ', sizeof(file));
	fill(file, number, text, bytes);
	file[sizeof(file) - 1] = '\n';
	return proc_replace_file(path, file, sizeof(file), mode, e);
}

/* A descriptor; -1: not to be written in place. */
static int open_in_place(const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) == -1 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1 ||
	    st.st_size != (off_t)(SLOTS * SLOT_BYTES))
		return -1;
	return take_fd(&fd);
}

int slots_write(const char *path, const char *text, size_t bytes, unsigned mode, struct error *e)
{
	CLEANUP_CLOSE int fd = -1;
	char file[SLOTS * SLOT_BYTES];
	unsigned place = 0;
	struct slot last = { 0 };

	if (bytes > SLOTS_TEXT_MAX)
		return error_set(e, EFBIG, "%s: %zu bytes, at most %u can be", path, bytes, SLOTS_TEXT_MAX);
	fd = open_in_place(path);
	if (fd >= 0 && pread(fd, file, sizeof(file), 0) == (ssize_t)sizeof(file))
		last = newest(file, &place);
	if (last.number) {
		place = 1 - place;
		fill(file, last.number + 1, text, bytes);
		if (pwrite(fd, file, SLOT_BYTES, (off_t)(place * SLOT_BYTES)) == (ssize_t)SLOT_BYTES && fdatasync(fd) == 0)
			return 0;
	}
	return make_anew(path, last.number + 2, text, bytes, mode, e);
}
