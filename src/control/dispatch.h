/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dispatch - a line of PROTOCOL.control becomes a call of the vdi room, its outcome a line
 */
#ifndef SXM_CONTROL_DISPATCH_H
#define SXM_CONTROL_DISPATCH_H

#include "control/server.h"
#include "vdi/vdi.h"

struct dispatch {
	struct vdi *vdi;     /* borrowed */
	const char *id;      /* borrowed */
	const char *path;    /* borrowed */
};

/* Fits server_spec.on_line; arg: a struct dispatch. */
void dispatch_line(void *arg, struct server_request *q, const char *line, size_t bytes);
/* Fits server_spec.on_gone. */
void dispatch_gone(void *arg, uint64_t number);

#endif
