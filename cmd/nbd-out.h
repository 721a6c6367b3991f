/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * nbd-out - writes to an export of a datapath of ours, over its unix socket
 *
 * As much of NBD as that needs: one connection, a few requests on the way, simple replies. What the server says is checked, and
 * not trusted with any length.
 */
#ifndef SXM_CMD_NBD_OUT_H
#define SXM_CMD_NBD_OUT_H

#include "base/error.h"

struct nbd_out {
	int fd; /* owned; -1: none */
	uint64_t size_bytes;
	uint64_t cookie;
	unsigned on_the_way;
};

/* -1 + e: nothing is to be closed. */
int nbd_out_open(struct nbd_out *n, const char *socket_path, const char *export_name, struct error *e);
/* At most NBD_OUT_MAX bytes, inside the export. An error may be that of an earlier one. */
#define NBD_OUT_MAX (UINT32_C(4) << 20)
int nbd_out_write(struct nbd_out *n, uint64_t at, const void *data, uint32_t bytes, struct error *e);
int nbd_out_zero(struct nbd_out *n, uint64_t at, uint32_t bytes, struct error *e);
/* All of it is on the medium. */
int nbd_out_flush(struct nbd_out *n, struct error *e);
void nbd_out_close(struct nbd_out *n);

#endif
