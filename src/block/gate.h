/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gate - the top of every stack: hold, release, refuse
 *
 *      OPEN  --gate_hold--> HELD (requests queue) --gate_release--> OPEN
 *                             '--gate_refuse(err)--> REFUSING: queued and new requests end with err
 *
 * The stack below is changed only while the gate is held and drained: a request that waits at the gate is counted in
 * by the gate's own drain only from its release on.
 */
#ifndef SXM_BLOCK_GATE_H
#define SXM_BLOCK_GATE_H

#include "block/layer.h"

/* below may be NULL while held or refusing. NULL: out of memory. The gate is born OPEN with a below, HELD without. */
struct layer *gate_new(struct layer *below);
void gate_hold(struct layer *gate);
void gate_release(struct layer *gate);
void gate_refuse(struct layer *gate, int err);
/* Only while held or refusing and drained: what stands below from now on (geometry follows it). */
void gate_set_below(struct layer *gate, struct layer *below);

#endif
