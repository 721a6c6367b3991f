/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * taking-raw - how a raw image is taken together with others (taking.h)
 *
 *      the image's lock, shared, to be had?   nobody writes: its blocks are shared at once, and the lock is kept to the end
 *                               taken?        its process makes the file: "snapshot.hold", and later "snapshot.go"
 *                               but active?   closed for a moment only: the same, when it is open again
 *                               no process?   opened or closed just now: again; else another host has it
 *
 * From the moment its guests go on their writes wait for what they overwrite to be cloned (block/point.h), so nothing is left
 * to be cut.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/uri.h"
#include "control/client.h"
#include "plugins/chain.h"
#include "plugins/datapath.h"
#include "plugins/lock.h"
#include "plugins/process.h"
#include "plugins/taking.h"

struct state {
	struct image_taking *t; /* borrowed */
	char *image, *to;       /* owned */
	bool is_begun;
	int lock;               /* owned: nobody writes; -1 */
	struct process process;
	char *canonical;        /* owned: its image */
	struct client client;   /* the hold lasts as long as this connection */
	bool is_made, was_asked, is_finished;
	unsigned wait_ms;
	uint64_t held_us;
};

struct hold_args {
	char *path, *volume;
	int64_t patience_ms;
	bool is_bound;
};
static const struct jsonspec_field hold_fields[] = {
	{ "path", JS_STRING, offsetof(struct hold_args, path) },
	{ "volume", JS_STRING, offsetof(struct hold_args, volume), .is_optional = true },
	{ "patience_ms", JS_INT64, offsetof(struct hold_args, patience_ms) },
	{ "bound", JS_BOOL, offsetof(struct hold_args, is_bound) },
	{ NULL },
};
static const struct jsonspec hold_spec = { "snapshot.hold", sizeof(struct hold_args), hold_fields };
static const struct jsonspec_field go_fields[] = {
	{ "path", JS_STRING, offsetof(struct hold_args, path) },
	{ NULL },
};
static const struct jsonspec go_spec = { "snapshot.go", sizeof(struct hold_args), go_fields };

struct made {
	int64_t held_us, longest_wait_us;
};
static const struct jsonspec_field made_fields[] = {
	{ "held_us", JS_INT64, offsetof(struct made, held_us) },
	{ "longest_wait_us", JS_INT64, offsetof(struct made, longest_wait_us), .is_optional = true },
	{ NULL },
};
static const struct jsonspec made_spec = { "answer to snapshot.go", sizeof(struct made), made_fields };

/* 1: somebody has it open, or will have again in a moment. */
static int take_idle(struct state *s, struct error *e)
{
	CLEANUP_LOCK int fd = lock_try_shared(s->image, e);

	if (fd < 0)
		return e->err == EBUSY ? 1 : -1;
	if (datapath_has_writer(s->image))
		return 1;
	if (datapath_check_whole(s->image, e) == -1 || image_clone(fd, s->image, s->to, false, e) == -1)
		return -1;
	if (s->t->is_snapshot && chain_cut(s->t->from.dir, s->t->from.key, s->t->to.key, e) == -1)
		return -1;
	s->lock = take_fd(&fd);
	s->is_made = true;
	return 0;
}

static int prepare(void *state, struct image_taking *t, struct error *e)
{
	struct state *s = state;

	*s = (struct state) { .t = t, .image = image_path(&t->from), .to = image_passing_path(&t->to), .lock = -1,
			       .client.fd = -1, .is_begun = true };
	if (!s->image || !s->to)
		return error_set(e, ENOMEM, "out of memory");
	s->canonical = uri_canonical(s->image, e);
	if (!s->canonical || process_by_path(&s->process, s->canonical, e) == -1)
		return -1;
	return take_idle(s, e) == -1 ? -1 : 0;
}

static void send_hold(struct state *s)
{
	const struct hold_args args = { .path = s->to, .patience_ms = TAKING_HELD_MS, .is_bound = true,
					.volume = s->t->is_snapshot ? (char *)(uintptr_t)s->t->to.key : NULL };
	CLEANUP_FREE char *text = jsonspec_encode(&hold_spec, &args);
	struct error e;

	s->was_asked = text && client_connect(&s->client, s->process.control, s->wait_ms, &e) == CLIENT_ANSWERED &&
		       client_send(&s->client, "snapshot.hold", text, &e) == CLIENT_ANSWERED;
}

static void ask(void *state, unsigned wait_ms)
{
	struct state *s = state;

	s->wait_ms = wait_ms;
	if (s->lock < 0)
		send_hold(s);
}

/* 1: again. */
static int receive_hold(struct state *s, struct error *e)
{
	CLEANUP_FREE char *ok = NULL;
	enum client_outcome outcome = client_receive(&s->client, &ok, e);

	if (outcome == CLIENT_ANSWERED) {
		s->t->was_written = true;
		return 0;
	}
	client_close(&s->client);
	if (outcome == CLIENT_LOST)
		return 1;
	/* Closed just now, or only readers have it. */
	return outcome == CLIENT_REFUSED && (e->err == ESHUTDOWN || e->err == EAGAIN) ? 1 : -1;
}

static int wait_held(void *state, struct error *e)
{
	struct state *s = state;
	int r = s->lock >= 0 ? 0 : s->was_asked ? receive_hold(s, e) : 1;

	for (unsigned tries = 0; r == 1 && tries < IMAGE_TRIES; tries++) {
		client_close(&s->client);
		if (tries)
			image_pause();
		r = take_idle(s, e);
		if (r != 1)
			break;
		send_hold(s);
		r = s->was_asked ? receive_hold(s, e) : 1;
	}
	if (r == 1)
		return error_set(e, EBUSY, "%s is in use on another host, or by a program that is none of ours; do this there, "
				 "or stop it", s->image);
	return r;
}

static void go(void *state, bool is_wanted)
{
	struct state *s = state;
	const struct hold_args args = { .path = s->to };
	CLEANUP_FREE char *text = jsonspec_encode(&go_spec, &args);
	struct error e;

	if (s->lock >= 0)
		close(take_fd(&s->lock));
	if (!is_wanted)
		client_close(&s->client);
	if (s->client.fd < 0)
		return;
	client_bound(&s->client, 0); /* what is there to be cloned may be much */
	if (!text || client_send(&s->client, "snapshot.go", text, &e) != CLIENT_ANSWERED)
		client_close(&s->client);
}

static int finish(void *state, struct error *e)
{
	struct state *s = state;
	CLEANUP_FREE char *ok = NULL;
	struct made made;

	s->is_finished = s->is_made;
	if (s->is_made)
		return 0;
	if (s->client.fd < 0)
		return error_set(e, ECONNRESET, "the datapath process of %s went away", s->image);
	if (client_receive(&s->client, &ok, e) != CLIENT_ANSWERED ||
	    jsonspec_decode(&made_spec, ok, strlen(ok), &made, e) == -1)
		return -1;
	s->held_us = (uint64_t)made.held_us;
	s->is_finished = true;
	return 0;
}

static void end(void *state)
{
	struct state *s = state;

	if (!s->is_begun)
		return;
	client_close(&s->client);
	if (s->lock >= 0)
		close(s->lock);
	if (!s->is_finished && s->to)
		unlink(s->to);
	free(s->image);
	free(s->to);
	free(s->canonical);
}

static uint64_t held_us(const void *state)
{
	return ((const struct state *)state)->held_us;
}

const struct taking_steps taking_raw = {
	.bytes = sizeof(struct state),
	.prepare = prepare,
	.ask = ask,
	.wait = wait_held,
	.go = go,
	.finish = finish,
	.end = end,
	.held_us = held_us,
};
