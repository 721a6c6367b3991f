/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * worker - a guest at work on its disk, that knows what must be there: worker DEVICE MIB PROCESSES [discard]
 *
 * Each process has a part of the first so many MiB. It writes and reads 1 to 32 blocks at a time, past all caches, flushes now
 * and then, and checks what it reads: the last that it wrote. At SIGTERM it reads all of its part once more. Each process says
 * what it did in /run/worker.N, anew each tenth of a second: operations, and the longest that one took, in ms. Exit 1: something
 * was not there, or an operation failed; a sentence says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define BLOCKS_MAX 32u
#define ANY UINT32_MAX /* what was discarded: any bytes, until it is written */

static volatile sig_atomic_t must_end;
static int fd;
static unsigned part, blocks, first; /* this process', of the device */
static uint32_t *version, now;
static uint64_t operations, longest_ms, said_ms;
static uint32_t *buffer;

static void on_signal(int number)
{
	(void)number;
	must_end = 1;
}

static uint64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void die(const char *what, unsigned block)
{
	printf("worker %u: %s at block %u: %s\n", part, what, first + block, strerror(errno));
	exit(1);
}

/* A word of a block: which block, which version, which word. Version 0: never written. */
static uint32_t word_of(unsigned block, uint32_t v, unsigned i)
{
	return v ? (first + block) * UINT32_C(2654435761) ^ v * UINT32_C(2246822519) ^ i : 0;
}

static void put(unsigned block, unsigned count)
{
	now++;
	for (unsigned i = 0; i < count * BLOCK / 4; i++)
		buffer[i] = word_of(block + i / (BLOCK / 4), now, i % (BLOCK / 4));
	if (pwrite(fd, buffer, count * BLOCK, (off_t)(first + block) * BLOCK) != (ssize_t)(count * BLOCK))
		die("write", block);
	for (unsigned i = 0; i < count; i++)
		version[block + i] = now;
}

static void check(unsigned block, unsigned count)
{
	if (pread(fd, buffer, count * BLOCK, (off_t)(first + block) * BLOCK) != (ssize_t)(count * BLOCK))
		die("read", block);
	for (unsigned i = 0; i < count * BLOCK / 4; i++) {
		unsigned at = block + i / (BLOCK / 4);

		if (version[at] != ANY && buffer[i] != word_of(at, version[at], i % (BLOCK / 4))) {
			errno = EILSEQ;
			die("what was read is not what was written", at);
		}
	}
}

static void discard(unsigned block, unsigned count)
{
	uint64_t range[2] = { (uint64_t)(first + block) * BLOCK, (uint64_t)count * BLOCK };

	if (ioctl(fd, BLKDISCARD, range) == -1)
		die("discard", block);
	for (unsigned i = 0; i < count; i++)
		version[block + i] = ANY;
}

static void say(void)
{
	char name[32], text[64];
	int out;

	said_ms = clock_ms();
	snprintf(name, sizeof(name), "/run/worker.%u", part);
	snprintf(text, sizeof(text), "%llu %llu\n", (unsigned long long)operations, (unsigned long long)longest_ms);
	out = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (out == -1 || write(out, text, strlen(text)) == -1)
		die(name, 0);
	close(out);
}

static void step(bool may_discard)
{
	unsigned block = (unsigned)random() % blocks, count = 1 + (unsigned)random() % BLOCKS_MAX;
	unsigned what = (unsigned)random() % 100;
	uint64_t start = clock_ms();

	if (count > blocks - block)
		count = blocks - block;
	if (what < 4 && may_discard)
		discard(block, count);
	else if (what < 10 && fdatasync(fd) == -1)
		die("flush", block);
	else if (what < 60)
		put(block, count);
	else
		check(block, count);
	operations++;
	if (clock_ms() - start > longest_ms)
		longest_ms = clock_ms() - start;
	if (clock_ms() - said_ms > 100)
		say();
}

static int work(const char *device, bool may_discard)
{
	fd = open(device, O_RDWR | O_DIRECT);
	version = calloc(blocks, sizeof(*version));
	if (fd == -1 || !version || posix_memalign((void **)&buffer, BLOCK, BLOCKS_MAX * BLOCK) != 0)
		die(device, 0);
	for (unsigned i = 0; i < blocks; i++)
		version[i] = ANY;
	srandom(part);
	while (!must_end)
		step(may_discard);
	if (fsync(fd) == -1)
		die("flush", 0);
	for (unsigned block = 0; block < blocks; block += BLOCKS_MAX)
		check(block, blocks - block < BLOCKS_MAX ? blocks - block : BLOCKS_MAX);
	say();
	return 0;
}

int main(int argc, char **argv)
{
	unsigned processes = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	pid_t pids[16];
	int status = 0, result = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!processes || processes > 16) {
		fprintf(stderr, "usage: worker DEVICE MIB PROCESSES [discard]\n");
		return 2;
	}
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	blocks = (unsigned)atoi(argv[2]) * 256 / processes;
	for (part = 0; part < processes; part++) {
		first = part * blocks;
		pids[part] = fork();
		if (pids[part] == 0)
			return work(argv[1], argc > 4);
	}
	while (wait(&status) > 0 || errno == EINTR) {
		for (unsigned i = 0; must_end && i < processes; i++)
			kill(pids[i], SIGTERM);
		must_end = 0;
		result |= status;
	}
	return result ? 1 : 0;
}
