/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * asking - one question to a process over its control socket (src/PROTOCOL.control), from the loop
 */
#ifndef SXM_BROKER_ASKING_H
#define SXM_BROKER_ASKING_H

#include "base/error.h"
#include "loop/loop.h"

struct asking;

/* e->err: 0: it was done; ESRCH: nobody listens there; ECONNRESET, ETIMEDOUT: whether it was done is not known; else what the
 * process says. */
typedef void asking_done_fn(void *arg, const struct error *e);

/* verb and args are copied. done() comes from the loop, once, and asking is gone then. NULL + e: nothing was asked. */
struct asking *asking_new(struct loop *l, const char *socket_path, const char *verb, const char *args, unsigned wait_ms,
			  asking_done_fn *done, void *arg, struct error *e);
void asking_cancel(struct asking *a); /* done() never comes */

#endif
