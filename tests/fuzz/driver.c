/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Runs a fuzz target as an ordinary test: every file of its corpus as it is, then FUZZ_RUNS (20000) mutations of them.
 *
 *      make check TESTS=tests/fuzz/fuzz-x          corpus: $SXM_SRCDIR/tests/fuzz/corpus/fuzz-x
 *      FUZZ_SEED=7 FUZZ_RUNS=1000000 ./run tests/fuzz/fuzz-x
 *      tests/fuzz/fuzz-x FILE|DIRECTORY...         these instead: FUZZ_RUNS=0 replays one
 *
 * For a fuzzer that follows the code's branches, leave this file out (the target is the same function):
 *      clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Isrc tests/fuzz/fuzz-x.c src/ROOM/FILE.c...
 *
 * A run that dies (a signal, a sanitizer, no end after 10 s) leaves its input in ./fuzz-x.crash.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"

#define INPUT_MAX_BYTES 65536
#define CORPUS_MAX 1024
#define RUN_MAX_S 10

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
/* What the mutator may also put in; ends with NULL. A target may define it. */
extern const char *const fuzz_words[] __attribute__((weak));
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

struct input {
	uint8_t *data; /* owned */
	size_t bytes;
};

static struct input corpus[CORPUS_MAX];
static size_t corpus_count;
static struct input current; /* what the target works on */
static char crash_path[256];
static uint64_t random_state;

static uint64_t next_random(void)
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* 0 .. limit - 1; 0 for a limit of 0. */
static size_t draw(size_t limit)
{
	return limit ? (size_t)(next_random() % limit) : 0;
}

/* Only what a signal handler may call. */
static void keep_input(void)
{
	static const char text[] = "the input is kept in ./";
	int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		return;
	if (write(fd, current.data, current.bytes) == (ssize_t)current.bytes && write(2, text, sizeof(text) - 1) > 0 &&
	    write(2, crash_path, strlen(crash_path)) > 0 && write(2, "\n", 1) > 0)
		close(fd);
}

static void on_death(int signal_number)
{
	keep_input();
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

static void watch_for_death(void)
{
	static const int deadly[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM };

	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(keep_input);
	for (size_t i = 0; i < ARRAY_LEN(deadly); i++)
		if (!__sanitizer_set_death_callback || deadly[i] == SIGALRM || deadly[i] == SIGABRT)
			signal(deadly[i], on_death);
}

/* The target gets memory of exactly the input's size, so that a sanitizer sees one byte too many. */
static void run_target(const uint8_t *data, size_t bytes)
{
	current = (struct input){ malloc(bytes ? bytes : 1), bytes };
	if (!current.data)
		abort();
	memcpy(current.data, data, bytes);
	alarm(RUN_MAX_S);
	LLVMFuzzerTestOneInput(current.data, bytes);
	alarm(0);
	free(current.data);
}

static void load_file(const char *path)
{
	uint8_t *data = malloc(INPUT_MAX_BYTES);
	FILE *f = fopen(path, "rb");

	if (!f || !data || corpus_count == CORPUS_MAX) {
		fprintf(stderr, "%s: cannot be loaded\n", path);
		exit(1);
	}
	corpus[corpus_count++] = (struct input){ data, fread(data, 1, INPUT_MAX_BYTES, f) };
	fclose(f);
}

static void load(const char *path)
{
	struct dirent **entry;
	struct stat st;
	int count;

	if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
		load_file(path);
		return;
	}
	count = scandir(path, &entry, NULL, alphasort); /* sorted: a seed means the same everywhere */
	if (count < 0) {
		perror(path);
		exit(1);
	}
	for (int i = 0; i < count; i++) {
		char file[4096];

		snprintf(file, sizeof(file), "%s/%s", path, entry[i]->d_name);
		if (entry[i]->d_name[0] != '.')
			load_file(file);
		free(entry[i]);
	}
	free(entry);
}

/* Puts `bytes` bytes of data in at `at`; what no longer fits falls off the end. */
static size_t insert(uint8_t *buffer, size_t used, size_t at, const void *data, size_t bytes)
{
	bytes = MIN(bytes, INPUT_MAX_BYTES - at);
	used = MIN(used, INPUT_MAX_BYTES - bytes);
	if (at < used)
		memmove(buffer + at + bytes, buffer + at, used - at);
	memcpy(buffer + at, data, bytes);
	return MAX(used, at) + bytes;
}

static size_t insert_word(uint8_t *buffer, size_t used)
{
	size_t count = 0;
	const char *word;

	while (fuzz_words && fuzz_words[count])
		count++;
	if (!count)
		return used;
	word = fuzz_words[draw(count)];
	return insert(buffer, used, draw(used + 1), word, strlen(word));
}

/* A piece of some corpus file, put in somewhere. */
static size_t insert_piece(uint8_t *buffer, size_t used)
{
	const struct input *other = &corpus[draw(corpus_count)];
	size_t first = draw(other->bytes);
	size_t bytes = draw(other->bytes - first + 1);

	return insert(buffer, used, draw(used + 1), other->data + first, bytes);
}

static size_t erase(uint8_t *buffer, size_t used)
{
	size_t first = draw(used);
	size_t bytes = draw(MIN(used - first, (size_t)16) + 1);

	memmove(buffer + first, buffer + first + bytes, used - first - bytes);
	return used - bytes;
}

static size_t mutate(uint8_t *buffer, size_t used)
{
	static const uint8_t edges[] = { 0x00, 0x01, 0x7f, 0x80, 0xff, 0xfe, 0x10, 0x20, 0x40 };
	uint8_t byte = (uint8_t)next_random();

	switch (draw(8)) {
	case 0:
		if (used)
			buffer[draw(used)] ^= (uint8_t)(1 << draw(8));
		return used;
	case 1:
		if (used)
			buffer[draw(used)] = edges[draw(ARRAY_LEN(edges))];
		return used;
	case 2:
		if (used)
			buffer[draw(used)] = byte;
		return used;
	case 3:
		return insert(buffer, used, draw(used + 1), &byte, 1);
	case 4:
		return erase(buffer, used);
	case 5:
		return draw(4) ? used : draw(used + 1); /* cut short */
	case 6:
		return insert_piece(buffer, used);
	default:
		return insert_word(buffer, used);
	}
}

static uint64_t number_from(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static void run_mutations(uint64_t seed, uint64_t runs)
{
	static uint8_t buffer[INPUT_MAX_BYTES];

	for (uint64_t run = 0; run < runs; run++) {
		const struct input *parent;
		size_t used;

		random_state = seed + (run << 32);
		parent = &corpus[draw(corpus_count)];
		used = parent->bytes;
		memcpy(buffer, parent->data, used);
		for (size_t steps = 1 + draw(6); steps > 0; steps--)
			used = mutate(buffer, used);
		run_target(buffer, used);
	}
}

int main(int argc, char **argv)
{
	uint64_t runs = number_from("FUZZ_RUNS", 20000);
	uint64_t seed = number_from("FUZZ_SEED", (uint64_t)time(NULL) ^ (uint64_t)getpid() << 20);
	const char *source = getenv("SXM_SRCDIR");
	const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	char path[4096];

	snprintf(crash_path, sizeof(crash_path), "%s.crash", name);
	snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", source ? source : ".", name);
	if (argc == 1)
		load(path);
	for (int i = 1; i < argc; i++)
		load(argv[i]);
	if (!corpus_count) {
		fprintf(stderr, "%s: the corpus is empty\n", name);
		return 1;
	}
	printf("%s: %zu files, %ju mutations, FUZZ_SEED=%ju\n", name, corpus_count, (uintmax_t)runs, (uintmax_t)seed);
	fflush(stdout);
	watch_for_death();
	for (size_t i = 0; i < corpus_count; i++)
		run_target(corpus[i].data, corpus[i].bytes);
	run_mutations(seed, runs);
	for (size_t i = 0; i < corpus_count; i++)
		free(corpus[i].data);
	return 0;
}
