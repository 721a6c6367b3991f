/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * memory-layer - a disk in memory, for tests: what was never written is a hole
 */
#ifndef SXM_TESTS_MEMORY_LAYER_H
#define SXM_TESTS_MEMORY_LAYER_H

#include "block/layer.h"

/* All that a disk can do, unless the test changes its geometry. NULL: out of memory. layer_close() frees it. */
struct layer *memory_layer_new(uint64_t size_bytes);
uint8_t *memory_layer_bytes(struct layer *l);
/* Flushes, FUA writes and cache hints seen so far. */
unsigned memory_layer_flushes(const struct layer *l);
unsigned memory_layer_durable_writes(const struct layer *l);
unsigned memory_layer_hints(const struct layer *l);

#endif
