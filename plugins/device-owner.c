/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * device-owner - see device-owner.h
 *
 *      | XFS: superblock says its size ......................| owner | rest of the last MiB |
 *                                                            4 KiB: {"sxm":"device owner",...}, zeros
 *
 *      nobody  --write "host A"--> wait 1 s --still A?--> A has it      two that come together: the later writer has it,
 *                                                                       the other sees that after its wait
 *      A       --A detaches-->     nobody
 *      A       --A, next boot-->   A                                      what A had mounted is gone
 *      A       --B-->              refused
 *
 * This is Fischer's protocol: it holds as long as nobody takes longer from its look to the end of its write than the other waits.
 * Who notices that he did, may have written over somebody who believes to have it: he leaves the word "contested", which only
 * force overrules, and fails.
 *
 * The record fits into one sector, so it is written whole or not at all.  It is read and written past every cache.
 */
#include "plugins/device-owner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/host-id.h"
#include "base/jsonspec.h"
#include "base/log.h"

#define BLOCK_BYTES 4096u
#define SECTOR_BYTES 512u
#define WAIT_MS 1000u
#define WRITE_MAX_MS 500u /* from the look to the end of the write: less than others wait */
#define KIND "device owner"
#define CONTESTED "contested"

struct record {
	char *kind, *sr;
	char *host, *boot; /* host "": nobody's */
	char *since;
};
static const struct jsonspec_field record_fields[] = {
	{ "sxm", JS_STRING, offsetof(struct record, kind) },
	{ "sr", JS_STRING, offsetof(struct record, sr) },
	{ "host", JS_STRING, offsetof(struct record, host) },
	{ "boot", JS_STRING, offsetof(struct record, boot) },
	{ "since", JS_STRING, offsetof(struct record, since) },
	{ NULL },
};
static const struct jsonspec record_spec = { "owner's record", sizeof(struct record), record_fields };

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
}

/* --- the block */

/* One aligned block; heap, with a NUL behind it. */
static char *new_block(struct error *e)
{
	void *block;

	if (posix_memalign(&block, BLOCK_BYTES, 2 * (size_t)BLOCK_BYTES) != 0) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	memset(block, 0, 2 * (size_t)BLOCK_BYTES);
	return block;
}

static uint64_t get_be(const char *at, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value = value << 8 | (unsigned char)at[i];
	return value;
}

static int read_block(const struct device *d, int64_t at, char *block, struct error *e)
{
	CLEANUP_CLOSE int fd = open(d->real, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : pread(fd, block, BLOCK_BYTES, at);

	if (n == (ssize_t)BLOCK_BYTES)
		return 0;
	return error_errno(e, n < 0 ? errno : EIO, "read %s at %lld", d->path, (long long)at);
}

static int write_block(const struct device *d, int64_t at, const char *block, struct error *e)
{
	CLEANUP_CLOSE int fd = open(d->real, O_WRONLY | O_DIRECT | O_DSYNC | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : pwrite(fd, block, BLOCK_BYTES, at);

	if (n == (ssize_t)BLOCK_BYTES)
		return 0;
	return error_errno(e, n < 0 ? errno : EIO, "write %s at %lld", d->path, (long long)at);
}

int device_owner_find(const struct device *d, int64_t *at, struct error *e)
{
	CLEANUP_FREE char *block = new_block(e);
	uint64_t block_bytes, blocks;

	if (!block || read_block(d, 0, block, e) == -1)
		return -1;
	block_bytes = get_be(block + 4, 4);
	blocks = get_be(block + 8, 8);
	if (memcmp(block, "XFSB", 4) != 0 || block_bytes < 512 || block_bytes > 65536 || blocks > INT64_MAX / 65536)
		return error_set(e, EBADMSG, "%s holds no XFS", d->path);
	*at = (int64_t)(blocks * block_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	if (*at + BLOCK_BYTES <= d->bytes)
		return 0;
	return error_set(e, EFBIG, "the file system on %s reaches to the device's end, where it should say which host has "
			 "it attached; make the device larger by 1 MiB", d->path);
}

/* --- the record */

/* EBADMSG in e: there is none. */
static int read_record(const struct device *d, int64_t at, struct record *r, struct error *e)
{
	CLEANUP_FREE char *block = new_block(e);
	struct error why;

	if (!block || read_block(d, at, block, e) == -1)
		return -1;
	if (jsonspec_decode(&record_spec, block, strnlen(block, SECTOR_BYTES), r, &why) == 0) {
		if (strcmp(r->kind, KIND) == 0)
			return 0;
		jsonspec_clear(&record_spec, r);
	}
	return error_set(e, EBADMSG, "behind the file system on %s it is not written which host has it attached", d->path);
}

static int write_record(const struct device *d, int64_t at, const char *sr, const char *host, const char *boot, struct error *e)
{
	char since[32], kind[] = KIND;
	struct record r = { .kind = kind, .sr = (char *)(uintptr_t)sr, .host = (char *)(uintptr_t)host,
			   .boot = (char *)(uintptr_t)boot,
			    .since = since };
	CLEANUP_FREE char *block = new_block(e);
	CLEANUP_FREE char *text = NULL;
	time_t now = time(NULL);
	struct tm tm;

	if (!block)
		return -1;
	gmtime_r(&now, &tm);
	strftime(since, sizeof(since), "%Y-%m-%dT%H:%M:%SZ", &tm);
	text = jsonspec_encode(&record_spec, &r);
	if (!text || strlen(text) >= SECTOR_BYTES)
		return error_set(e, text ? E2BIG : ENOMEM, "the record of who has %s attached is too long", d->path);
	memcpy(block, text, strlen(text));
	return write_block(d, at, block, e);
}

int device_owner_make(const struct device *d, const char *sr_uuid, struct error *e)
{
	int64_t at;

	return device_owner_find(d, &at, e) == 0 ? write_record(d, at, sr_uuid, "", "", e) : -1;
}

/* 1: it is ours, of this boot; 0: it may be taken; -1 + e: not. */
static int judge(const struct device *d, const struct record *r, const char *host, const char *boot, struct error *e)
{
	if (!*r->host)
		return 0;
	if (strcmp(r->host, host) == 0)
		return strcmp(r->boot, boot) == 0;
	if (strcmp(r->host, CONTESTED) == 0)
		return error_set(e, EBUSY, "two hosts reached for %s at once, and the device was too slow to tell which has it; "
				 "detach it on both, then attach it with force=true on one", d->path);
	return error_set(e, EBUSY, "%s is attached by host %.64s since %.32s; detach it there, or, when that host is gone "
			 "for good, attach it here with force=true", d->path, r->host, r->since);
}

/* Fischer's: the write was quick, and a second later it still stands. */
static int claim(const struct device *d, int64_t at, const char *sr_uuid, const char *host, const char *boot, uint64_t looked_ms,
		 struct error *e)
{
	struct record r;
	bool is_ours;

	if (write_record(d, at, sr_uuid, host, boot, e) == -1)
		return -1;
	if (now_ms() - looked_ms > WRITE_MAX_MS) {
		if (write_record(d, at, sr_uuid, CONTESTED, "", e) == -1)
			return -1;
		return error_set(e, ETIMEDOUT, "%s took longer than %u ms for one block: another host may have taken it "
				 "meanwhile; when none has, attach it with force=true", d->path, WRITE_MAX_MS);
	}
	nanosleep(&(struct timespec) { .tv_sec = WAIT_MS / 1000 }, NULL);
	if (read_record(d, at, &r, e) == -1)
		return -1;
	is_ours = strcmp(r.host, host) == 0 && strcmp(r.boot, boot) == 0;
	if (!is_ours)
		error_set(e, EBUSY, "host %.64s was quicker to attach %s", r.host, d->path);
	jsonspec_clear(&record_spec, &r);
	return is_ours ? 0 : -1;
}

int device_owner_take(const struct device *d, const char *sr_uuid, bool is_forced, struct error *e)
{
	char host[HOST_ID_MAX], boot[HOST_ID_MAX];
	uint64_t looked_ms = now_ms();
	struct record record;
	int64_t at;
	int r;

	if (host_id(host, e) == -1 || host_boot(boot, e) == -1 || device_owner_find(d, &at, e) == -1)
		return -1;
	r = read_record(d, at, &record, e);
	if (r == 0) {
		r = judge(d, &record, host, boot, e);
		jsonspec_clear(&record_spec, &record);
	}
	if (r == 1)
		return 0;
	if (r == -1 && (!is_forced || (e->err != EBUSY && e->err != EBADMSG)))
		return -1;
	if (r == -1)
		log_warn("%s is taken by force: %s", d->path, e->text);
	return claim(d, at, sr_uuid, host, boot, looked_ms, e);
}

int device_owner_check(const struct device *d, const char *sr_uuid UNUSED, struct error *e)
{
	char host[HOST_ID_MAX];
	struct record record;
	int64_t at;
	int r;

	if (host_id(host, e) == -1)
		return -1;
	if (device_owner_find(d, &at, e) == -1 || read_record(d, at, &record, e) == -1)
		return e->err == EBADMSG || e->err == EFBIG ? 0 : -1;
	r = judge(d, &record, host, "", e);
	jsonspec_clear(&record_spec, &record);
	return r == -1 ? -1 : 0;
}

int device_owner_release(const struct device *d, const char *sr_uuid, struct error *e)
{
	char host[HOST_ID_MAX];
	struct record r;
	int64_t at;
	int done = 0;

	if (host_id(host, e) == -1 || device_owner_find(d, &at, e) == -1 || read_record(d, at, &r, e) == -1)
		return -1;
	if (strcmp(r.host, host) == 0 && strcmp(r.sr, sr_uuid) == 0)
		done = write_record(d, at, r.sr, "", "", e);
	jsonspec_clear(&record_spec, &r);
	return done;
}
