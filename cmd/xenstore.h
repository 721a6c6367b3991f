/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xenstore - what the commands need of it: to say to a guest and a backend that there is a device, and that it is to go
 *
 * A program has one of these, chosen when it is linked: xenstore-lib over Xen's library, xenstore-none in a build without it, and
 * tests have a fake.
 */
#ifndef SXM_CMD_XENSTORE_H
#define SXM_CMD_XENSTORE_H

#include "base/compiler.h"
#include "base/error.h"

#define XENSTORE_PATH_MAX 160  /* bytes with the NUL */
#define XENSTORE_VALUE_MAX 512
#define XENSTORE_STEPS_MAX 64u

struct xenstore;

enum xenstore_what {
	XENSTORE_MAKE,   /* a directory: owner may do anything, reader read, with all that is made in it */
	XENSTORE_PUT,
	XENSTORE_REMOVE, /* with what is in it; good where it is not there */
	XENSTORE_PRUNE,  /* only when nothing is in it */
};
struct xenstore_step {
	enum xenstore_what what;
	char path[XENSTORE_PATH_MAX];
	char value[XENSTORE_VALUE_MAX];
	uint16_t owner, reader;
};
struct xenstore_steps {
	struct xenstore_step step[XENSTORE_STEPS_MAX];
	unsigned count;
};

/* NULL + e. */
struct xenstore *xenstore_open(struct error *e);
void xenstore_close(struct xenstore *x);
/* Heap; NULL: it is not there, or cannot be read. */
char *xenstore_read(struct xenstore *x, const char *path);
bool xenstore_has_domain(struct xenstore *x, uint16_t domain);
/* All or nothing; -1 + e. */
int xenstore_change(struct xenstore *x, const struct xenstore_steps *s, struct error *e);
/* One after the other, each by itself: what a guest writes meanwhile cannot hinder it. -1 + e. */
int xenstore_do(struct xenstore *x, const struct xenstore_steps *s, struct error *e);
/* From now on xenstore_wait() ends when something there has changed, or at once. -1 + e. */
int xenstore_watch(struct xenstore *x, const char *path, struct error *e);
void xenstore_wait(struct xenstore *x, unsigned ms);

#endif
