/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-rooms - disk, nbdsrv and mirror as the vdi room sees them, with everything that happens written down in one trace
 */
#ifndef SXM_TESTS_FAKE_ROOMS_H
#define SXM_TESTS_FAKE_ROOMS_H

#include "disk/disk.h"
#include "block/digest.h"
#include "mirror/mirror.h"
#include "mirror/remote.h"
#include "mirror/verify.h"
#include "nbdsrv/nbdsrv.h"

struct fake {
	/* Words, a space after each: open:rw open:ro flush close serve:rw serve:ro tcp tls cut mirror+ start finish abort mirror-
	 * restore keep sync lag verify+ compare stop verify- */
	char trace[4096];
	struct loop *loop;
	int open_err, flush_err, listen_err, keys_err;
	int layer_err; /* of an image that was opened */
	unsigned clones, clone_err_at; /* so many were asked for; from that one on they end with clone_err; 0: none does. On pool threads */
	int clone_err;
	uint64_t clone_granules; /* how much one does, at most */
	bool was_sharable, was_leased, could_skip_lock; /* the disk that was opened last */
	uint64_t lease_until_ns;
	uint64_t size_bytes;    /* what disk_refresh_size() finds */
	struct layer *mirror;   /* the living one */
	struct mirror_status status;
	bool is_finish_slow;    /* fake_finish() ends it */
	/* What the far side answers, by question; WAIT: when fake_news() says. Questions are in the trace: prepare commit ... */
	struct fake_says {
		int err;        /* of the ask */
		bool is_slow;   /* fake_say() answers it */
		uint32_t field[10];
	} says[12];
	struct digest digest;   /* of the link */
	bool is_digest_void;
	const char *uri;        /* the mirror's; NULL: one on TCP */
	int envoy_err;          /* of a link without a mirror; HELLO's answer may come with it */
	uint64_t envoy_epoch;
	bool is_envoy_released; /* HELLO says so */
	struct remote_ask *wait; /* the open one */
	void (*on_heard)(void *arg, uint32_t status, uint32_t state, uint64_t epoch);
	void *heard_arg;
	uint64_t epoch;         /* the mirror's */
	int finish_err, restore_err;
	enum nbdsrv_plain plain;             /* as it was said last, to any server */
	unsigned xsxm_version;               /* of the next links; 0: the newest */
	const struct nbdsrv_link_ops *links; /* of the last server that has any */
	void *links_arg;
	struct nbdsrv *server;               /* ... that one */
	struct verify *verify;  /* the living one */
	bool is_verify_slow;    /* fake_verify_over() ends one that was cancelled */
	bool is_settled;        /* what a mirror says */
};
extern struct fake fake;

void fake_reset(struct loop *l);
void fake_trace(const char *word);
/* The mirror's state changes; its on_change() runs from the loop. */
void fake_change(enum core_state s, bool is_connected, bool was_synced);
void fake_fail(const char *why);
/* Ends a slow mirror_finish(). */
void fake_finish(int err);
/* The far side is an sxm, its link is there. */
void fake_link_up(void);
void fake_link_down(bool is_reaching);
void fake_news(uint32_t news, uint64_t epoch);
/* Whether this question waits for its slow answer; the answer. */
bool fake_is_asked(enum remote_question q);
void fake_say(void);
/* A connection that chose x-sxm; what it asks ends in *answer. It is on the last server made. */
struct fake_answer {
	unsigned count; /* of fields; 0: not answered */
	uint32_t field[XSXM_FIELDS_MAX];
};
struct nbdsrv_link *fake_link(const char *mirror, uint64_t epoch, uint64_t generation);
void fake_ask(struct nbdsrv_link *l, uint64_t opcode, struct fake_answer *answer);
void fake_hang_up(struct nbdsrv_link *l);

/* It found nothing. */
void fake_verified(void);
void fake_verify_over(void);
bool fake_ask_settled(struct range r);
/* True once; then the trace is empty. */
bool fake_traced(const char *words);

#endif
