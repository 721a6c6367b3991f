/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * question - the arguments of a verb, as a JSON object
 */
#ifndef SXM_MIGRATE_QUESTION_H
#define SXM_MIGRATE_QUESTION_H

#include "base/compiler.h"

/* Keys and values, all strings, up to a NULL key: {"k":"v",...}; heap; NULL: out of memory. A value that is NULL is left out.
 * raw: put in as it stands, as "\"n\":1"; NULL: nothing. */
char *question_new(const char *raw, ...) __attribute__((sentinel));

#endif
