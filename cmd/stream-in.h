/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * stream-in - standard input, to its end, with an eye on Ctrl-C
 */
#ifndef SXM_CMD_STREAM_IN_H
#define SXM_CMD_STREAM_IN_H

#include "base/error.h"

/* All of it. -1 + e: ENODATA, the stream ends before; EINTR, Ctrl-C. */
int stream_in_read(void *to, size_t bytes, struct error *e);
/* -1 + e: something comes after it. */
int stream_in_check_end(struct error *e);
/* How much there is, where it is a file. -1: not known. */
int64_t stream_in_bytes(void);

#endif
