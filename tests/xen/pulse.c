/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pulse - how long a guest stood still, by its own clock: pulse DEVICE
 *
 * One process looks at the clock each 2 ms; another writes 4 KiB past all caches each 10 ms, and flushes now and then. At
 * SIGTERM each says the longest time between two looks, or two ends of an operation, when it began, both in ms, and how many
 * there were. The clock is CLOCK_BOOTTIME: of Linux' the one that goes on while a guest is suspended, and is never set.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define BLOCKS 256u
#define FLUSHES 32u /* one after so many writes */

static volatile sig_atomic_t must_end;
static int64_t last_us, longest_us, began_us;
static unsigned beats;

static void on_signal(int number)
{
	(void)number;
	must_end = 1;
}

static void beat(void)
{
	struct timespec t;
	int64_t now_us;

	clock_gettime(CLOCK_BOOTTIME, &t);
	now_us = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
	if (beats++ && now_us - last_us > longest_us) {
		longest_us = now_us - last_us;
		began_us = last_us;
	}
	last_us = now_us;
}

static int end(const char *name)
{
	printf("%s %lld %lld %u\n", name, (long long)longest_us / 1000, (long long)began_us / 1000, beats);
	return 0;
}

static int look(void)
{
	for (; !must_end; usleep(2000))
		beat();
	return end("time");
}

static int use(const char *device)
{
	int fd = open(device, O_RDWR | O_DIRECT);
	void *buffer;

	if (fd == -1 || posix_memalign(&buffer, BLOCK, BLOCK) != 0) {
		perror(device);
		return 1;
	}
	for (; !must_end; usleep(10000)) {
		memset(buffer, (int)beats, BLOCK);
		if (pwrite(fd, buffer, BLOCK, (off_t)(beats % BLOCKS) * BLOCK) != BLOCK ||
		    (beats % FLUSHES == 0 && fdatasync(fd) == -1)) {
			perror("pulse");
			return 1;
		}
		beat();
	}
	return end("disk");
}

int main(int argc, char **argv)
{
	pid_t pids[2];
	int status = 0, result = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: pulse DEVICE\n");
		return 2;
	}
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	for (int i = 0; i < 2; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			return i ? use(argv[1]) : look();
	}
	while (wait(&status) > 0 || errno == EINTR) {
		for (int i = 0; must_end && i < 2; i++)
			kill(pids[i], SIGTERM);
		must_end = 0;
		result |= status;
	}
	return result ? 1 : 0;
}
