/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * spawn - starts the datapath process of an image, exactly once
 */
#ifndef SXM_PLUGINS_SPAWN_H
#define SXM_PLUGINS_SPAWN_H

#include "plugins/process.h"

/* When this returns 0 somebody listens on p's control socket: the process started here, or another verb's. p->path is set. */
int spawn_start(const struct process *p, struct error *e);

#endif
