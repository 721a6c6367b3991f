/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * wire-xsxm - the numbers and names of x-sxm, what two sxm say to one another (mirror/PROTOCOL.x-sxm). Pure
 */
#ifndef SXM_NBDSRV_WIRE_XSXM_H
#define SXM_NBDSRV_WIRE_XSXM_H

#include "nbdsrv/wire-parse.h"

#define XSXM_NAMESPACE "x-sxm:"
#define XSXM_LISTED "x-sxm:2"  /* what LIST says; nobody can choose it */
#define XSXM_NEWEST 2u         /* the version spoken; the one before it, too */

enum {
	XSXM_NAME_MAX = 6 + 2 + 1 + 63 + 1 + 20 + 1 + 20, /* bytes of a context's name */
	XSXM_MIRROR_MAX = 64,        /* bytes of a mirror's id, with a NUL */
	XSXM_QUESTION_BYTES = 511,   /* a BLOCK_STATUS of this length is a question, its offset the opcode */
	XSXM_EXPORT_MIN_BYTES = 4096,
	XSXM_FIELDS_MAX = 16,        /* of an answer */
	XSXM_LOG_VERSION = 2,        /* from here on: */
	XSXM_LOG_MAX_BYTES = 1 << 20, /* of one piece of the logs of changes: */
};
#define XSXM_LOG_AT (UINT64_C(1) << 62) /* a WRITE from here on is one */

enum xsxm_opcode {
	XSXM_HELLO, XSXM_WAIT, XSXM_PREPARE, XSXM_COMMIT, XSXM_RECLAIM, XSXM_RELEASED, XSXM_END, XSXM_PING,
	XSXM_LOG_BEGIN, XSXM_LOG_KEEP, XSXM_LOG_END
};
enum xsxm_status { XSXM_OK, XSXM_STALE, XSXM_NOT_YOURS, XSXM_FAILED, XSXM_BAD_STATE, XSXM_UNKNOWN };

/* What a context's name says. */
struct xsxm_name {
	unsigned version;
	char mirror[XSXM_MIRROR_MAX];
	uint64_t epoch, generation;
};
/* False: it is not of the form. */
bool wire_xsxm_parse(const struct wire_text *text, struct xsxm_name *out);

/* Whether one whose newest version is `newest` speaks it. */
static inline bool wire_xsxm_speaks(unsigned version, unsigned newest)
{
	return version == newest || version + 1 == newest;
}

#endif
