/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * figures - a guest's I/O figures as xcp-rrdd reads them: a plugin's file in /dev/shm/metrics, protocol 2
 *
 * Pure: bytes in a buffer of the caller's; figures-guest.c is who writes them.
 */
#ifndef SXM_VDI_FIGURES_H
#define SXM_VDI_FIGURES_H

#include "base/guid.h"

#define FIGURES_VM_MAX GUID_MAX
#define FIGURES_DEVICE_MAX 16 /* bytes of "xvda", with the NUL */

/* Since ever, but for in_flight. */
struct figures_sample {
	uint64_t read_bytes, write_bytes;
	uint64_t reads, writes;       /* done */
	uint64_t read_ns, write_ns;   /* what those took, all together */
	unsigned in_flight;
};

/* What the file says once: names, units, whose they are. Heap; NULL: out of memory. */
char *figures_metadata(const char *vm, const char *device);
bool figures_is_device(const char *device); /* 1 to 15 of a-z 0-9 */

/* The whole file's size; fill() writes so much. last: as it was when the file was filled last. */
size_t figures_bytes(const char *metadata);
void figures_fill(uint8_t *file, const char *metadata, double unix_s, const struct figures_sample *last,
		  const struct figures_sample *now);
/* A file that was filled with the same metadata: its totals of bytes, which must never go back. False: it is another file. */
bool figures_read(const uint8_t *file, size_t bytes, const char *metadata, struct figures_sample *out);

#endif
