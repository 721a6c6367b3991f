/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * nbd-talk - a conversation with the NBD server, for unit tests (cmocka): what to say, and what must be heard
 *
 *      talk_enter();
 *      talk_request(WIRE_CMD_FLUSH, 0, 7, 0, 0);       put into talk_words
 *      talk_hear(28 + 16);                             said; runs until so many bytes have come in all
 *      talk_expect_simple(0, 7);                       looks at what comes next in them
 *
 * Below the server: a gate (to hold requests in flight) over a disk in memory. One conversation at a time.
 */
#ifndef SXM_TESTS_NBD_TALK_H
#define SXM_TESTS_NBD_TALK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "block/gate.h"
#include "nbdsrv/nbdsrv.h"
#include "nbdsrv/wire.h"
#include "tests/lib/memory-layer.h"

#define TALK_DISK_BYTES (64 * MiB)
#define TALK_CEILING_BYTES (64 * KiB)

struct talk {
	struct loop *loop;
	struct iobuf_pool *pool;
	struct layer *disk, *gate;
	struct nbdsrv *server;    /* NULL after its shutdown's done() */
	/* the client: what it still says, what it has heard */
	int fd;
	struct loop_watch *watch;
	uint8_t *say;
	size_t say_bytes, said_bytes, at_once;
	uint8_t *hear;
	size_t heard_bytes, wanted_bytes, looked_bytes;
	bool is_deaf, has_eof;
	/* of the next server */
	const struct nbdsrv_link_ops *links;
	unsigned xsxm_newest;
	/* of the next client */
	bool begins_again;
	struct nbdsrv_keys *keys; /* borrowed; not NULL: it comes over TCP, to a listener with these */
};
extern struct talk talk;
extern struct bytes_writer talk_words;

/* Setup and teardown of a test; the teardown finds what was leaked. */
int talk_set_up(void **state);
int talk_tear_down(void **state);
/* In place of the server set up. */
void talk_restart(bool is_read_only, unsigned max_clients);
void talk_shut_down(void);      /* begins it */
void talk_await_shut(void);
void talk_hang_up(void);
/* Another client of the same server takes the place of this one, whose socket is handed over. */
int talk_another(void);

/* --- saying */
void talk_option(uint32_t option, uint32_t bytes);
void talk_request(unsigned type, unsigned flags, uint64_t cookie, uint64_t offset, uint32_t length);
void talk_fill(uint8_t value, size_t bytes);
void talk_export_name(const char *name, size_t bytes);
/* The shortest way in: 18 + 10 bytes are heard. */
void talk_enter(void);
/* A modern way in with these contexts asked for (NULL after the last); what is chosen is left to be looked at: 18 + 20 bytes and
 * an answer of 20 + 4 + its name for each, then 20 + 32 + 20. */
void talk_enter_with(const char *const *contexts);

/* --- hearing */
void talk_hear(size_t bytes);
void talk_hear_eof(void);
void talk_run_until(bool (*cond)(void));

void talk_expect(const void *expected, size_t bytes);
#define TALK_EXPECT(...) \
	do { \
		static const uint8_t expected_[] = { __VA_ARGS__ }; \
		talk_expect(expected_, sizeof(expected_)); \
	} while (0)
void talk_expect_simple(uint32_t error, uint64_t cookie);

#endif
