/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * incoming - a new volume that a stream fills
 *
 * Until it is whole its name says that it is not; if it does not become so it goes.
 */
#ifndef SXM_CMD_INCOMING_H
#define SXM_CMD_INCOMING_H

#include "cmd/nbd-out.h"
#include "cmd/served.h"
#include "cmd/target.h"

#define INCOMING_DOMAIN 32

struct incoming {
	struct target target;
	struct served served;
	struct nbd_out out;
	char domain[INCOMING_DOMAIN];
	bool is_served;
	char *buffer;           /* owned: what comes next to each other */
	uint64_t at, filled;    /* of the disk; so much is in the buffer */
	uint64_t size_bytes;
};

/* In the SR in dir. base_key: a clone of that, whose content is called content; NULL: blank. -1 + e: nothing is left; EBUSY: the
 * base is not that content any more. */
int incoming_open(struct incoming *in, const char *dir, const char *base_key, const char *content, const char *name,
		  uint64_t size_bytes, struct error *e);
/* Bytes behind the end of the disk are left out. */
int incoming_write(struct incoming *in, uint64_t at, const void *data, size_t bytes, struct error *e);
int incoming_zero(struct incoming *in, uint64_t at, uint64_t bytes, struct error *e);
/* All is there: it is durable, and has its name; content: as in the stream, or "". key: its path, SR/KEY, heap. -1 + e: then,
 * as always when it was not called, incoming_close() removes it. */
int incoming_finish(struct incoming *in, const char *content, char **key, struct error *e);
void incoming_close(struct incoming *in);

#endif
