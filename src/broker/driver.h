/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * driver - does what the broker's core says, over one xenstore
 */
#ifndef SXM_BROKER_DRIVER_H
#define SXM_BROKER_DRIVER_H

#include "base/error.h"
#include "broker/broker.h"
#include "loop/loop.h"

struct driver;

struct driver_spec {
	struct loop *loop;        /* borrowed */
	const char *kind;         /* copied: of the backends */
	const char *run_dir;      /* borrowed: SXM_RUN_DIR */
	const char *verbs;        /* borrowed: the directory of the datapath verbs */
	enum broker_order order;
	void (*on_ready)(void *arg); /* the store was reached, for the first time */
	void (*on_stopped)(void *arg);
	void *arg;
};

/* NULL + e. EBUSY: another one is at work on this kind. ENOTSUP: this build knows no Xen. */
struct driver *driver_new(const struct driver_spec *spec, struct error *e);
/* Children have ended. */
void driver_reap(struct driver *d);
/* Then on_stopped(); what is under way elsewhere goes on, and is found by the next one. */
void driver_stop(struct driver *d);
void driver_free(struct driver *d); /* after on_stopped(), or at once */

#endif
