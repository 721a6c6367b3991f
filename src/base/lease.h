/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * lease - which host may write to an image that several can reach
 *
 * <image>.lease/ is a directory with one empty file in it, whose name says everything (vdi/OWNERSHIP argues why that is safe):
 *
 *      7.free                              nobody has it; it was taken seven times
 *      8.0.9f3a01c2d4e5f607.HOST           taken the eighth time, by this life (of a process) of HOST
 *      8.1.9f3a01c2d4e5f607.HOST           ... and renewed once
 *      sharable                            the volume is meant to be written to by several hosts: there is no lease
 *
 * Taking, renewing and giving back are each one rename() from the name that was seen to the next one.  No name comes twice, so of
 * two who start from the same name one finds it gone; and whoever acts on what he saw a long time ago, or on what a cache told
 * him, finds it gone, too.  Everything here but the names blocks.
 */
#ifndef SXM_BASE_LEASE_H
#define SXM_BASE_LEASE_H

#include "base/compiler.h"
#include "base/error.h"

#define LEASE_SUFFIX ".lease"
#define LEASE_HOST_MAX 65  /* bytes of a host's id, with the NUL */
#define LEASE_NAME_MAX 140 /* bytes of a name, with the NUL */

enum lease_kind { LEASE_ABSENT = 0, LEASE_FREE, LEASE_HELD, LEASE_SHARABLE };

struct lease {
	enum lease_kind kind;
	uint64_t generation; /* FREE, HELD: how often it was taken */
	uint64_t renewals;   /* HELD, and the next two */
	uint64_t life;       /* of the process that took it */
	char host[LEASE_HOST_MAX];
};

/* --- names: pure */

void lease_name(const struct lease *l, char out[static LEASE_NAME_MAX]); /* of what is not absent */
bool lease_parse(const char *name, struct lease *out);                   /* false: it is no such name */
bool lease_is_equal(const struct lease *a, const struct lease *b);
bool lease_is_later(const struct lease *a, const struct lease *b);       /* a came after b */
/* What may follow l. */
struct lease lease_taken(const struct lease *l, const char *host, uint64_t life);
struct lease lease_renewed(const struct lease *l);
struct lease lease_given_back(const struct lease *l);

/* --- files */

/* What is there now. ABSENT: no lease is needed. -1 + e: it cannot be known; EBADMSG: it is no lease. */
int lease_look(const char *image, struct lease *out, struct error *e);
/* There is one from now on; free, or marked sharable. Good when there is one already. */
int lease_make(const char *image, bool is_sharable, struct error *e);
/* The step from one to the next, durable. ESTALE: it is not `from` any more. Any other error: it may have been made or not. */
int lease_change(const char *image, const struct lease *from, const struct lease *to, struct error *e);
/* The image goes, and it with it. Good when it is not there. */
int lease_remove(const char *image, struct error *e);
/* What lease_make() was killed over: that directory, and what is in it. */
void lease_drop(const char *dir);

/* A clock that runs on while the machine sleeps, and that nobody sets. */
uint64_t lease_now_ns(void);
uint64_t lease_new_life(void);

#endif
