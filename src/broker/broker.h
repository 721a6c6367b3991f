/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * broker - which process is told of which Xen device, by what is in xenstore now
 *
 * Pure: it is told what changed and what was read, and says what is to be done next.
 *
 *      broker_changed, broker_look, broker_released, broker_process_changed     at any time, in any number, late, for nothing
 *      broker_next -> do it -> its end is said                                  as many at a time as the caller likes
 *
 * Of one device one thing is done at a time.  It acts on what was read, never on what was said to have happened.
 */
#ifndef SXM_BROKER_BROKER_H
#define SXM_BROKER_BROKER_H

#include <sys/queue.h>

#include "base/compiler.h"

#define BROKER_NAME_MAX 256   /* bytes of a process' id or a volume's URI, with the NUL */
#define BROKER_ID_MAX 48      /* of a process' id */
#define BROKER_TOLD_MAX 4u    /* processes that may think that they serve one device */
#define BROKER_DEVICES_MAX 16384u
#define BROKER_LIST_MAX 4096u /* numbers in one list */

struct broker_key {
	uint16_t domain;
	uint32_t device;
};

enum broker_kind {
	BROKER_NOBODYS, /* no disk of ours: let alone */
	BROKER_EMPTY,   /* none is in it */
	BROKER_PROCESS, /* the name is a process' id: the toolstack has activated the disk */
	BROKER_VOLUME,  /* ... a volume's URI: nobody else will */
};

/* What was read of one device, all of one moment. */
struct broker_facts {
	bool is_there;     /* its directory is about this guest's device */
	bool is_alive;     /* its domain exists */
	bool is_online;    /* the toolstack wants it to go on */
	bool is_read_only;
	bool is_libxl;     /* libxl made it: there is no hotplug script to be waited for */
	bool is_front_open; /* the guest's side of it is there, and not closed */
	bool is_settled;   /* the backend is closed, and the hotplug script's mark is gone */
	bool is_young;     /* the backend's state is the one it is made with */
	enum broker_kind kind;
	char name[BROKER_NAME_MAX];
};

enum broker_do {
	BROKER_NOTHING,
	/* the store: one at a time */
	BROKER_LIST,    /* which domains have devices -> broker_listed() */
	BROKER_LOOK,    /* which devices a domain has, and whether it exists -> broker_looked() */
	BROKER_READ,    /* -> broker_read_is() or broker_not_read() */
	BROKER_CLEAN,   /* nobody serves it and its guest is gone: what its process would have said -> broker_ended() */
	/* a process */
	BROKER_SERVE,   /* -> broker_ended(); ESRCH: nobody is there, ENOTCONN: it has not been activated for that domain */
	BROKER_DROP,    /* likewise; 0 also: it does not serve it */
	/* a verb */
	BROKER_TAKE,    /* attach and activate the volume -> broker_taken() */
	BROKER_RELEASE, /* deactivate and detach it -> broker_ended() */
};
enum broker_class { BROKER_STORE, BROKER_ASK, BROKER_VERB, BROKER_CLASSES };

struct broker_action {
	enum broker_do what;
	struct broker_key key;          /* LOOK: its domain alone */
	char name[BROKER_NAME_MAX];     /* SERVE, DROP: the process' id; TAKE, RELEASE: the URI */
	bool is_eager, is_read_only;
	bool is_again;                  /* SERVE: that process was told before */
	bool is_held;                   /* TAKE: another device has it, nothing is to be done, it ends with EBUSY */
	uint16_t holder;                /* ... of that domain */
	unsigned failures;              /* of it so far */
};

struct broker;

enum broker_order { BROKER_ORDER_AUTO, BROKER_ORDER_WAIT, BROKER_ORDER_EAGER };

struct broker *broker_new(enum broker_order order); /* NULL: no memory */
void broker_free(struct broker *b);

/* --- what happened, perhaps */
void broker_changed(struct broker *b, struct broker_key key);
void broker_changed_domain(struct broker *b, uint16_t domain);
void broker_look(struct broker *b);     /* anything may have */
void broker_released(struct broker *b); /* some domain may be no more */
void broker_process_changed(struct broker *b, const char *id);

/* --- what is on record. Of all that an earlier broker has left this comes before the first broker_next(). */
/* It thinks that it serves it. At any time: somebody else may have told it so. */
void broker_recall_told(struct broker *b, struct broker_key key, const char *id, uint64_t now_ms);
void broker_recall_taken(struct broker *b, struct broker_key key, const char *uri, bool is_read_only);

/* --- what is to be done. NOTHING: until something happens, or *wait_ms is over (UINT64_MAX: never). */
struct broker_action broker_next(struct broker *b, enum broker_class class, uint64_t now_ms, uint64_t *wait_ms);

/* --- how it ended */
void broker_listed(struct broker *b, const uint32_t *domain, size_t count);
void broker_looked(struct broker *b, uint16_t domain, const uint32_t *device, size_t count, bool is_alive);
void broker_not_listed(struct broker *b, uint16_t domain, bool is_look, uint64_t now_ms); /* LIST, LOOK: tried again */
void broker_read_is(struct broker *b, struct broker_key key, const struct broker_facts *facts, uint64_t now_ms);
void broker_not_read(struct broker *b, struct broker_key key, uint64_t now_ms);
void broker_ended(struct broker *b, struct broker_key key, int err, uint64_t now_ms);
void broker_taken(struct broker *b, struct broker_key key, int err, const char *id, uint64_t now_ms);

/* Its guest is gone, or it was closed: where nobody serves it, that is to be said in its stead. */
bool plan_must_settle(const struct broker_facts *f);

/* --- what is so now */
struct broker_counts {
	unsigned devices, served;
	uint64_t reads;
};
void broker_count(const struct broker *b, struct broker_counts *out);
bool broker_wants(const struct broker *b, const char *id); /* some device has that process, or wants it */

#endif
