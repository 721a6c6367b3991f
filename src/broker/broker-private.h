/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * broker-private - one device, as the core's two files see it
 */
#ifndef SXM_BROKER_BROKER_PRIVATE_H
#define SXM_BROKER_BROKER_PRIVATE_H

#include "broker/broker.h"

struct broker_device {
	struct broker_key key;
	struct broker_facts facts;
	bool is_dirty;       /* they may not be so any more, or were never read: whoever is made is dirty */
	bool is_stale;       /* something failed: they are read again before it is tried again */
	enum broker_do doing; /* NOTHING: nothing is under way */
	char doing_name[BROKER_NAME_MAX];

	/* Who may think that they serve it. SERVE adds one as it begins; a DROP that succeeded takes it away. */
	char told[BROKER_TOLD_MAX][BROKER_ID_MAX];
	unsigned tolds;
	bool was_told;       /* ... one of them by this broker */
	bool was_there;      /* this broker has seen it */
	uint64_t expect_ms;  /* somebody else has told a process, and may be about to make it: until then it is expected */
	bool is_served;      /* the one that it belongs to has said so */
	bool must_ask_again; /* ... and while that was under way it became another matter */
	bool is_absent;      /* ... or nobody is there who could */

	/* The volume that was activated for it, or may have been, by us. "": none. */
	char taken[BROKER_NAME_MAX];
	char taken_id[BROKER_ID_MAX]; /* "": not known to have succeeded */
	bool is_taken_to_read;        /* ... alone */

	uint64_t retry_ms;   /* nothing is tried again before */
	unsigned failures;
	uint64_t window_ms;  /* of reads */
	unsigned reads;
	uint64_t read_ms;    /* the last of them */

	bool is_queued;
	enum broker_class queue;
	uint64_t wake_ms;    /* when it is not queued; UINT64_MAX: never */
	TAILQ_ENTRY(broker_device) queue_link;
	LIST_ENTRY(broker_device) hash_link;
	TAILQ_ENTRY(broker_device) domain_link;
};

/* What is to be done next with it; NOTHING: not before *wake_ms. */
enum broker_do plan_next(const struct broker_device *d, uint64_t now_ms, uint64_t *wake_ms);
/* The process that it belongs to; "": none, or not known yet. */
const char *plan_process(const struct broker_device *d);
/* Somebody was told of it to whom it does not belong; NULL: nobody. */
const char *plan_stray(const struct broker_device *d);
/* Of what is to be done: the process' id, or the volume's URI; "": of neither. */
const char *plan_whom(const struct broker_device *d, enum broker_do what);
/* The volume that it is to get is the other's. */
bool plan_is_held(const struct broker_device *d, const struct broker_device *other);
/* Nothing is left of it; asked while nothing is under way. */
bool plan_is_over(const struct broker_device *d);
/* --- what was learnt */
void plan_learn(struct broker_device *d, const struct broker_facts *facts);
void plan_begin_anew(struct broker_device *d);              /* what failed may succeed now */
void plan_fail(struct broker_device *d, uint64_t now_ms);
void plan_served(struct broker_device *d, int err, uint64_t now_ms); /* of what it is doing: SERVE */
/* It may be read; counts it. */
void plan_count_read(struct broker_device *d, uint64_t now_ms);

bool plan_was_told(const struct broker_device *d, const char *id);
void plan_tell(struct broker_device *d, const char *id);
void plan_untell(struct broker_device *d, const char *id);

#endif
