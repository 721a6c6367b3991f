/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * uv-loop - what offload.c needs of loop.c, and nobody else
 */
#ifndef SXM_LOOP_UV_LOOP_H
#define SXM_LOOP_UV_LOOP_H

#include "base/compiler.h" /* first: libuv brings another MIN and MAX */

#include <uv.h>

#include "loop/loop.h"

uv_loop_t *loop_uv(struct loop *l);
/* Runs what was deferred: every entry from libuv ends with it. */
void loop_run_tasks(struct loop *l);

#endif
