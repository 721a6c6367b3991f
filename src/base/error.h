/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * error - a code and a sentence, grown on the way up
 *
 * Control path only: the data path passes positive errno values.  The last parameter of a function that can fail is a
 * `struct error *`; it returns -1 (or NULL) and has filled it.  Whoever decides logs it, once; whoever passes it on adds
 * what he knows with error_prefix().
 *
 *      if (disk_open(&d, path, e) == -1)
 *              return error_prefix(e, "VDI %s", uuid);
 */
#ifndef SXM_BASE_ERROR_H
#define SXM_BASE_ERROR_H

#include "base/compiler.h"

struct error {
	int err;         /* positive errno; 0: no error */
	char text[480];  /* one sentence, UTF-8, no newline */
};

/* Fills e (which may be NULL) and returns -1. err: positive errno; EIO when 0. */
int error_set(struct error *e, int err, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* As error_set, with ": " and strerror(err) appended. */
int error_errno(struct error *e, int err, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Puts "prefix: " before the sentence, keeps the code, returns -1. */
int error_prefix(struct error *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

void error_clear(struct error *e);

/* "ENOSPC" for ENOSPC; "EIO" for a number without a name. Never NULL. */
const char *error_name(int err);

/* The reverse; EIO for an unknown name. */
int error_number(const char *name);

#endif
