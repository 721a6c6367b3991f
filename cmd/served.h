/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * served - a volume or file, served by its datapath process to a domain of a command's
 *
 * Through the verbs, so what holds for a guest's disk holds here: a volume that is written to has a new content_id, one of an SR
 * that hosts share is active on one of them, what receives a mirror starts nobody.
 */
#ifndef SXM_CMD_SERVED_H
#define SXM_CMD_SERVED_H

#include "cmd/place.h"

struct served {
	char *socket, *export_name; /* owned */
	char *uri;                  /* owned: nbd+unix://... */
	bool is_read_only;
	int64_t size_bytes;
};

/* Attached and active for that domain. -1 + e: neither. */
int served_begin(struct served *s, const struct place *p, const char *domain, bool is_read_only, struct error *e);
/* How it is served already. -1 + e: ESRCH, it is not active for that domain. */
int served_find(struct served *s, const struct place *p, const char *domain, struct error *e);
void served_clear(struct served *s);
/* Flushed and let go of; good where it was not served. */
int served_end(const struct place *p, const char *domain, struct error *e);

/* text, with whatever has a meaning in a URI as %XX; heap. */
char *served_escape(const char *text);

#endif
