/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * store - what the broker needs of xenstore
 *
 * One program has one of these, chosen when it is linked: store-lib over Xen's library, store-none in a build without it, and
 * tests have a fake.  fd and event are for the loop; what is marked "blocks" is for one pool thread at a time, and may be called
 * while the loop calls those.
 */
#ifndef SXM_BROKER_STORE_H
#define SXM_BROKER_STORE_H

#include "broker/facts.h"

struct store;

#define STORE_EVENT_MAX 256 /* bytes of a path in an event; a longer one is none of ours */

struct store_ops {
	/* Watches what is below the root, and @releaseDomain. r->domain is filled in: this domain's own. Blocks. NULL + e. */
	struct store *(*open)(struct facts_root *r, struct error *e);
	void (*close)(struct store *s);
	int (*fd)(struct store *s);
	/* The path that the next event is about, "@releaseDomain", or "" (some were lost: anything). False: there is none now. */
	bool (*event)(struct store *s, char path[static STORE_EVENT_MAX]);

	/* The names in a directory that are numbers: *count, at most max; none where it is not there. Blocks. -1 + e. */
	int (*numbers)(struct store *s, const char *path, uint32_t *out, size_t max, size_t *count, struct error *e);
	/* All of one moment. Blocks. -1 + e. */
	int (*read)(struct store *s, const struct facts_root *r, struct broker_key key, struct facts_value *value, bool *is_alive,
		    struct error *e);
	int (*is_alive)(struct store *s, uint16_t domain); /* blocks; 1, 0 */
	/* As a backend does whose guest is gone: state 6, hotplug-status removed; but only where facts say of what is there at
	 * that moment that it is to be done. Blocks. An errno: EAGAIN: they do not. */
	int (*settle)(struct store *s, const struct facts_root *r, struct broker_key key);

	/* One key, for xl's device model. Both block. False: it is not there, or longer. */
	bool (*get)(struct store *s, const char *path, char *value, size_t bytes);
	int (*put)(struct store *s, const char *path, const char *value, struct error *e);
};

/* NULL: this build knows no Xen. */
const struct store_ops *store_ops(void);

#endif
