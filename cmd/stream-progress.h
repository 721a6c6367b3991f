/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * stream-progress - how far a stream is that goes out on standard output, or comes in on standard input
 *
 * On standard error: a bar where that is a terminal, lines where they were asked for. Of several programs on one terminal, as
 * in a pipe, one draws.
 */
#ifndef SXM_CMD_STREAM_PROGRESS_H
#define SXM_CMD_STREAM_PROGRESS_H

#include "base/compiler.h"

struct stream_progress;

/* phase: borrowed, "exporting". name: of the disk. wants_lines: also where there is no terminal. NULL: nothing is shown. All that
 * follow take NULL. */
struct stream_progress *stream_progress_new(const char *phase, const char *name, uint64_t total_bytes, bool wants_lines);
/* So many more are through. */
void stream_progress_add(struct stream_progress *p, uint64_t bytes);
/* What is said from now on stands under it. */
void stream_progress_end(struct stream_progress *p, bool is_whole);

#endif
