/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * golden - readable histories of a mirror, each for one sentence of mirror/THEORY
 */
#include "tests/sim/golden.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

struct sim *golden;
static int bad;

struct sim_params golden_plain(void)
{
	return (struct sim_params){
		.spec = { .size_bytes = 4 * CORE_CHUNK_BYTES, .lag_bytes = MiB, .lag_ms = 1000, .trim_reads_zero = true,
			  .no_progress_ms = 2000 },
		.far = { .generation = 1, .min_block_bytes = 1, .max_bytes = MiB, .can_zero = true, .can_flush = true,
			 .window_ops = 8 },
		.seed = 1,
		.is_traced = true,
	};
}

void golden_start(const struct sim_params *p)
{
	if (!golden)
		golden = sim_new();
	sim_start(golden, p);
}

void golden_write(unsigned first, unsigned count)
{
	sim_guest(golden, CORE_WRITE, GOLDEN_SECTORS(first, count), false);
}

void golden_map(void)
{
	char text[SIM_CHUNKS_MAX + 1] = "";

	for (unsigned i = 0; i < golden->chunks; i++) {
		enum core_chunk chunk = core_chunk(golden->core, i);
		bool has_leg = core_has_far_leg(golden->core, (struct range){ i * CORE_CHUNK_BYTES, (i + 1) * CORE_CHUNK_BYTES });
		char letter = chunk == CORE_DIRTY ? 'D' : chunk == CORE_COPYING ? 'C' : has_leg ? 'q' : '.';

		if (core_chunk_is_pristine(golden->core, i))
			letter = letter == '.' ? 'p' : (char)tolower(letter);
		text[i] = letter;
	}
	sim_say(golden, "map %s", text);
}

void golden_expect(const char *name, const char *trace)
{
	if (sim_is_fine(golden) && strcmp(golden->trace, trace) == 0) {
		printf("ok   %s\n", name);
		sim_end(golden);
		return;
	}
	bad++;
	printf("FAIL %s: %s\n", name, golden->broken);
	for (const char *line = golden->trace; *line; line = strchr(line, '\n') + 1)
		printf("\t       \"%.*s\\n\"\n", (int)(strchr(line, '\n') - line), line);
}

int golden_end(void)
{
	sim_free(golden);
	return bad != 0;
}
