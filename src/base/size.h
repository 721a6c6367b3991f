/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * size - "64MiB" <-> bytes
 */
#ifndef SXM_BASE_SIZE_H
#define SXM_BASE_SIZE_H

#include "base/compiler.h"

/* "4096", "64K", "64KiB", "1.5GiB"... K, M, G, T are powers of 1024. False: not a size, negative, or over INT64_MAX. */
bool size_parse(const char *text, uint64_t *bytes);

#define SIZE_TEXT_MAX 24
/* "1.5 GiB", "512 B"; returns out. */
char *size_format(uint64_t bytes, char out[static SIZE_TEXT_MAX]);

#endif
