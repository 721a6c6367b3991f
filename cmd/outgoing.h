/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * outgoing - a disk that is to be exported: held as it is, and what of it has to be sent
 *
 * Nobody writes to it until it is closed: an image nobody has is locked; of a volume that is being written to a snapshot is
 * taken, which goes again.
 */
#ifndef SXM_CMD_OUTGOING_H
#define SXM_CMD_OUTGOING_H

#include "cmd/place.h"
#include "plugins/side.h"
#include "qcow2/qcow2-stream.h"

struct outgoing {
	struct place place;
	struct side side;
	bool is_held;               /* side is open */
	char *snapshot;             /* owned: its key; NULL: none was taken */
	struct qcow2_stream stream; /* what is to be sent */
};

/* base: the key of the volume in whose place only what differs is sent; NULL: all is. */
int outgoing_open(struct outgoing *o, const char *name, const char *format, const char *base, struct error *e);
/* The snapshot goes. -1 + e: it could not be removed. */
int outgoing_close(struct outgoing *o, struct error *e);
/* A cluster; behind the end it is zeros. In o->side.block. */
int outgoing_read(struct outgoing *o, uint64_t cluster, struct error *e);

#endif
