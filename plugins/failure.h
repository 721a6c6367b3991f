/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * failure - why a verb did not do its work, in the words xapi passes on to the administrator
 *
 * A kind decides the XenAPI error code and its first sentence (the field's usual ones, so that a look-up in any manual finds
 * them); the rest is ours: what failed, on what, why, what to do.  The interface's own exceptions carry [name, argument].
 */
#ifndef SXM_PLUGINS_FAILURE_H
#define SXM_PLUGINS_FAILURE_H

#include "base/error.h"

enum failure_kind {
	FAILURE_REQUEST,        /* what came in cannot be understood */
	FAILURE_CONFIGURATION,  /* the SR's device-config */
	FAILURE_SR_IN_USE,
	FAILURE_SR_UNAVAILABLE,
	FAILURE_NO_SPACE,
	FAILURE_VDI_IN_USE,
	FAILURE_VDI_UNAVAILABLE,
	FAILURE_VDI_SIZE,
	FAILURE_VDI_CREATE,
	FAILURE_VDI_DELETE,
	FAILURE_VDI_SNAPSHOT,
	FAILURE_VDI_CLONE,
	FAILURE_MIRROR,
	/* The interface's exceptions. */
	FAILURE_SR_DOES_NOT_EXIST,
	FAILURE_SR_NOT_ATTACHED,
	FAILURE_VOLUME_DOES_NOT_EXIST,
	FAILURE_ELSEWHERE,      /* Activated_on_another_host, its argument the host's uuid */
	FAILURE_UNIMPLEMENTED,
};

struct failure {
	enum failure_kind kind;
	char argument[256]; /* of an exception */
	struct error e;
};

/* Fills f, returns -1. */
int failure_set(struct failure *f, enum failure_kind kind, int err, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* One of the exceptions, with its argument. */
int failure_raise(struct failure *f, enum failure_kind kind, const char *argument, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* An error from below. A full disk and a disk in use stay what they are, whatever kind says. */
int failure_from(struct failure *f, enum failure_kind kind, const struct error *e);

/* The error report, one line of JSON, heap; NULL: out of memory. */
char *failure_report(const struct failure *f);

#endif
