/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volatile-disk - a disk with a write cache, over NBD, that loses its power: volatile-disk IMAGE SOCKET [SEED]
 *
 *      write --> cache (a private mapping of the image) --flush, FUA--> medium (the image)
 *                  '-- SIGUSR1: of what was not flushed each sector gets there or does not, and the program ends
 *
 * Started again it has what the medium has.  SIGTERM flushes all and ends.
 *
 * A private page is the file's until it is written to, so the mapping needs no copy of the medium; `dirty` says which sectors
 * of it the medium lacks.  A sector that is written again before it was flushed is, half of the time, on the medium as it
 * was: the order in which such a cache is emptied is nobody's.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/log.h"
#include "base/size.h"
#include "block/extents.h"
#include "block/gate.h"
#include "nbdsrv/nbdsrv.h"

#define SECTOR 512u

struct volatile_disk {
	struct layer layer;
	uint8_t *cache, *medium; /* owned; of layer.geometry.size_bytes */
	struct bitmap *dirty;    /* owned */
	uint64_t random, keeps;  /* of four sectors that are not flushed */
};

static uint64_t draw(struct volatile_disk *d, uint64_t below)
{
	d->random ^= d->random >> 12;
	d->random ^= d->random << 25;
	d->random ^= d->random >> 27;
	return (d->random * UINT64_C(0x2545f4914f6cdd1d) >> 11) % below;
}

static void store(struct volatile_disk *d, uint64_t sector)
{
	memcpy(d->medium + sector * SECTOR, d->cache + sector * SECTOR, SECTOR);
}

/* What is dirty between two sectors. */
static void flush(struct volatile_disk *d, uint64_t first, uint64_t end)
{
	for (uint64_t s = bitmap_next(d->dirty, first); s < end; s = bitmap_next(d->dirty, s + 1))
		store(d, s);
	bitmap_clear(d->dirty, first, end);
}

static void change(struct volatile_disk *d, const struct req *r)
{
	struct range wide = range_widen(r->range, SECTOR);
	uint64_t first = wide.start / SECTOR, end = wide.end / SECTOR;

	for (uint64_t s = bitmap_next(d->dirty, first); s < end; s = bitmap_next(d->dirty, s + 1))
		if (draw(d, 2))
			store(d, s);
	if (r->op == REQ_WRITE)
		memcpy(d->cache + r->range.start, r->data->data + r->data_offset, range_length(r->range));
	else
		memset(d->cache + r->range.start, 0, range_length(r->range));
	bitmap_set(d->dirty, first, end);
	if (r->flags & REQ_FUA)
		flush(d, first, end);
}

static void disk_submit(struct layer *l, struct req *r)
{
	struct volatile_disk *d = container_of(l, struct volatile_disk, layer);
	int err = 0;

	switch (r->op) {
	case REQ_READ:
		memcpy(r->data->data + r->data_offset, d->cache + r->range.start, range_length(r->range));
		break;
	case REQ_WRITE:
	case REQ_ZERO:
	case REQ_TRIM:
		change(d, r);
		break;
	case REQ_FLUSH:
		flush(d, 0, l->geometry.size_bytes / SECTOR);
		break;
	case REQ_EXTENTS:
		err = extents_add(r->extents, r->range, 0) == -1 ? ENOMEM : 0;
		break;
	case REQ_CACHE:
		break;
	}
	req_complete(r, err);
}

static void disk_close(struct layer *l)
{
	struct volatile_disk *d = container_of(l, struct volatile_disk, layer);

	munmap(d->cache, l->geometry.size_bytes);
	munmap(d->medium, l->geometry.size_bytes);
	bitmap_free(d->dirty);
}

static int disk_init(struct volatile_disk *d, const char *image, struct error *e)
{
	static const struct layer_ops ops = { "volatile", disk_submit, disk_close };
	struct geometry g = { .block_bytes = SECTOR, .optimal_bytes = 4096, .can_trim = true, .can_zero = true };
	int fd = open(image, O_RDWR | O_CLOEXEC);
	struct stat st;

	if (fd == -1 || fstat(fd, &st) == -1)
		return error_errno(e, errno, "open %s", image);
	g.size_bytes = (uint64_t)st.st_size / SECTOR * SECTOR;
	d->cache = mmap(NULL, g.size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
	d->medium = mmap(NULL, g.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	d->dirty = bitmap_new(g.size_bytes / SECTOR);
	close(fd);
	if (d->cache == MAP_FAILED || d->medium == MAP_FAILED || !d->dirty)
		return error_set(e, ENOMEM, "no memory for %s", image);
	d->keeps = draw(d, 4);
	layer_init(&d->layer, &ops, NULL, &g);
	return 0;
}

static void on_power_loss(void *arg)
{
	struct volatile_disk *d = arg;
	uint64_t sectors = d->layer.geometry.size_bytes / SECTOR, unflushed = bitmap_count(d->dirty), lost = 0;

	for (uint64_t s = bitmap_next(d->dirty, 0); s < sectors; s = bitmap_next(d->dirty, s + 1))
		if (draw(d, 4) < d->keeps)
			store(d, s);
		else
			lost++;
	printf("power lost: %" PRIu64 " sectors of %" PRIu64 " that were not flushed\n", lost, unflushed);
	fflush(stdout);
	_exit(0);
}

static void on_term(void *arg)
{
	struct volatile_disk *d = arg;

	flush(d, 0, d->layer.geometry.size_bytes / SECTOR);
	_exit(0);
}

static int serve(struct volatile_disk *d, const char *socket, struct error *e)
{
	struct loop *loop = loop_new();
	struct iobuf_pool *pool = iobuf_pool_new(64 * MiB);
	struct nbdsrv *server;

	if (!loop || !pool)
		return error_set(e, ENOMEM, "out of memory");
	req_init(loop);
	server = nbdsrv_new(&(struct nbdsrv_spec){ .loop = loop, .top = gate_new(&d->layer), .pool = pool,
						    .export_name = "volatile" }, e);
	if (!server || nbdsrv_listen_unix(server, socket, e) == -1)
		return -1;
	if (loop_on_signal(loop, SIGUSR1, on_power_loss, d) == -1 || loop_on_signal(loop, SIGTERM, on_term, d) == -1)
		return error_set(e, ENOMEM, "no signals");
	printf("ready, seed %" PRIu64 "\n", d->random);
	fflush(stdout);
	loop_run(loop);
	return 0;
}

int main(int argc, char **argv)
{
	struct volatile_disk d = { .random = (uint64_t)time(NULL) << 20 | (uint64_t)getpid() };
	struct error e = { 0 };

	log_init("volatile-disk");
	signal(SIGPIPE, SIG_IGN);
	if (argc < 3 || argc > 4 || (argc == 4 && (!size_parse(argv[3], &d.random) || d.random == 0))) {
		fprintf(stderr, "usage: volatile-disk IMAGE SOCKET [SEED]\n");
		return 2;
	}
	if (disk_init(&d, argv[1], &e) == -1 || serve(&d, argv[2], &e) == -1) {
		fprintf(stderr, "volatile-disk: %s\n", e.text);
		return 1;
	}
	return 0;
}
