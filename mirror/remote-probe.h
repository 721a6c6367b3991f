/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-probe - what reads as zero at the far side
 *
 * Blocks, as remote-connect.h says.
 */
#ifndef SXM_MIRROR_REMOTE_PROBE_H
#define SXM_MIRROR_REMOTE_PROBE_H

#include "mirror/remote-connect.h"

/* Fills c->info.zero over [0, min_size_bytes): what block status says reads as zero, and what of c->holes was zeroed now.
 * What could not be learnt in time is left out. -1 + e: the link died. */
int remote_probe_zeroes(struct remote_connect *c, struct error *e);

#endif
