/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pledge - what was flushed is there after a power loss: pledge DEVICE write FIRST ROUNDS, and later pledge DEVICE check ROUND
 *
 * A round writes a quarter of the blocks, others in each, flushes, and says its number in /run/pledged. Each sector says which
 * one it is, and of which round: who writes again goes on with the number after the last one. A check: of each sector that
 * round's last version is there, or one of a later round, which may have been under way. What it misses it says, and exits 1.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 4096u
#define SECTORS 8u
#define WORDS 128u /* of a sector */
#define BLOCKS 512u

static uint32_t (*buffer)[WORDS];
static int fd;

static uint32_t mix(uint32_t a, uint32_t b)
{
	uint32_t x = a * UINT32_C(2654435761) ^ b * UINT32_C(2246822519);

	return (x ^ x >> 15) * UINT32_C(3266489917);
}

static bool is_written_in(uint32_t round, uint32_t block)
{
	return mix(round, block) >> 30 == 0;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void write_block(uint32_t round, uint32_t block)
{
	for (uint32_t sector = 0; sector < SECTORS; sector++)
		for (uint32_t i = 0; i < WORDS; i++)
			buffer[sector][i] = i ? mix(block * SECTORS + sector, round) + i : round;
	if (pwrite(fd, buffer, BLOCK, (off_t)block * BLOCK) != BLOCK)
		die("write");
}

static void say(uint32_t round)
{
	FILE *file = fopen("/run/pledged.new", "w");

	if (!file || fprintf(file, "%u\n", round) < 0 || fclose(file) != 0 || rename("/run/pledged.new", "/run/pledged") == -1)
		die("/run/pledged");
}

static int write_rounds(uint32_t first, uint32_t rounds)
{
	for (uint32_t round = first; round - first < rounds; round++) {
		for (uint32_t block = 0; block < BLOCKS; block++)
			if (is_written_in(round, block))
				write_block(round, block);
		if (fdatasync(fd) == -1)
			die("flush");
		say(round);
	}
	return 0;
}

/* Round 0: never written, so any bytes. */
static bool is_good(uint32_t block, uint32_t sector, uint32_t pledged)
{
	uint32_t round = buffer[sector][0], last = pledged;

	while (last && !is_written_in(last, block))
		last--;
	if (!last && round <= pledged)
		return true;
	if (round != last && (round < pledged || !is_written_in(round, block)))
		return false;
	for (uint32_t i = 1; i < WORDS; i++)
		if (buffer[sector][i] != mix(block * SECTORS + sector, round) + i)
			return false;
	return true;
}

static int check(uint32_t pledged)
{
	unsigned missing = 0, later = 0;

	for (uint32_t block = 0; block < BLOCKS; block++) {
		if (pread(fd, buffer, BLOCK, (off_t)block * BLOCK) != BLOCK)
			die("read");
		for (uint32_t sector = 0; sector < SECTORS; sector++) {
			missing += !is_good(block, sector, pledged);
			later += buffer[sector][0] > pledged;
		}
	}
	printf("round %u: %u sectors are missing, %u are of later ones\n", pledged, missing, later);
	return missing ? 1 : 0;
}

static uint32_t number(const char *text)
{
	return (uint32_t)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
	bool is_write = argc == 5 && strcmp(argv[2], "write") == 0;

	if (!is_write && !(argc == 4 && strcmp(argv[2], "check") == 0)) {
		fprintf(stderr, "usage: pledge DEVICE write FIRST ROUNDS | pledge DEVICE check ROUND\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_DIRECT);
	if (fd == -1 || posix_memalign((void **)&buffer, BLOCK, BLOCK) != 0)
		die(argv[1]);
	return is_write ? write_rounds(number(argv[3]), number(argv[4])) : check(number(argv[3]));
}
