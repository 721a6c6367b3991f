/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fsck - what is wrong with the files of an SR, and putting it right
 *
 * Nothing is deleted: what is in the way goes to DIR/sxm-lost+found, under its name or that and a number.  Nothing is done to
 * an image that somebody has locked, nor to its record.  What a killed verb leaves is none of its business while an SR.attach
 * clears that up by itself; it is found here all the same.
 */
#ifndef SXM_PLUGINS_FSCK_H
#define SXM_PLUGINS_FSCK_H

#include "base/error.h"

#define FSCK_ASIDE "sxm-lost+found"

struct fsck {
	const char *dir;  /* borrowed */
	const char *uuid; /* borrowed: the SR's, where its record does not tell; NULL: not known */
	bool is_only_report; /* nothing is made or changed, whatever found() says */
	/* What was found, in a sentence. remedy: what would be done, NULL where only a person can. Shall it be done? */
	bool (*found)(void *arg, const char *what, const char *remedy);
	/* How a remedy went, or why it was left. */
	void (*result)(void *arg, const char *text);
	void *arg;
	unsigned findings, repaired, left; /* out: left is what was not repaired */
};

/* -1 + e: it cannot be done: DIR is no SR's (ENOENT), or cannot be read; somebody makes a volume and does not finish (EBUSY). */
int fsck_run(struct fsck *f, struct error *e);

#endif
