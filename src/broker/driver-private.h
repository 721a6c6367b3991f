/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * driver-private - what the driver's files share
 */
#ifndef SXM_BROKER_DRIVER_PRIVATE_H
#define SXM_BROKER_DRIVER_PRIVATE_H

#include "broker/driver.h"
#include "broker/facts.h"
#include "broker/store.h"
#include "loop/offload.h"

#define DRIVER_DIR "xenbus" /* below SXM_RUN_DIR: no process has a name like that */

struct driver_ask {
	struct driver *driver;
	struct broker_action action;
	struct asking *asking;       /* owned */
	LIST_ENTRY(driver_ask) link;
};
struct driver_errand {
	struct driver *driver;
	struct broker_action action;
	unsigned step;
	char id[BROKER_ID_MAX];      /* TAKE: of the process */
	LIST_ENTRY(driver_errand) link;
};

/* What is asked of the store, one at a time, on a pool thread. */
struct driver_job {
	struct offload offload;
	struct driver *driver;
	bool is_open;                /* the store is being opened; else: */
	struct broker_action action;
	struct error error;
	int err;
	bool is_alive;
	struct store *store;         /* opened */
	size_t count;
	uint32_t number[BROKER_LIST_MAX];
	struct facts_value value[FACTS_KEYS];
};

struct driver {
	struct driver_spec spec;
	struct facts_root root;
	int lock;                    /* owned */
	const struct store_ops *ops;
	struct store *store;         /* owned; NULL: not open yet */
	unsigned lost;               /* questions to it in a row that failed */
	struct loop_watch *watch;    /* owned: its events */
	struct driver_job job;
	bool is_busy, was_ready, is_stopping, must_end;
	uint64_t open_ms;            /* not before */
	struct broker *broker;       /* owned */
	struct loop_task task;
	struct loop_timer *timer;    /* owned */
	LIST_HEAD(, driver_ask) asks;
	LIST_HEAD(, driver_errand) errands;
	unsigned asking, running;
	struct watching *watching;   /* owned */
};

uint64_t driver_now_ms(void);
void driver_step(struct driver *d); /* something may be to be done */

/* --- driver-ask.c */
void driver_ask(struct driver *d, const struct broker_action *a);
void driver_cancel_asks(struct driver *d);

/* --- driver-verb.c */
void driver_run(struct driver *d, const struct broker_action *a);
void driver_recall_taken(struct driver *d); /* what is on record */
void driver_drop_errands(struct driver *d);

/* --- watching.c: what the processes have on record, SXM_RUN_DIR/ID/domains.json */
struct watching *watching_new(struct driver *d, struct error *e);
void watching_free(struct watching *w);
void watching_want(struct watching *w, const char *id); /* it is about this process, too */
bool watching_has_record(const struct driver *d, const char *id);
void watching_recall_all(struct driver *d);

#endif
