/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * hold - see hold.h
 *
 *      lock to be had?  --yes--> held
 *        | no                                        ^
 *      its process listens?  --"pause"--> answered: --lock--' (it let go of it)
 *        | no                     refused: its sentence
 *      opened or closed just now: again, for 2 s
 */
#include "plugins/hold.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/uri.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/process.h"

#define LOCK_TRIES 2000u      /* 2 s */

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static enum client_outcome reach(struct client *c, const char *path, unsigned wait_ms, struct error *e)
{
	CLEANUP_FREE char *canonical = uri_canonical(path, e);
	struct process p;

	c->fd = -1;
	if (!canonical || process_by_path(&p, canonical, e) == -1)
		return CLIENT_BROKEN;
	return client_connect(c, p.control, wait_ms, e);
}

/* CLIENT_ANSWERED: it was sent. */
static enum client_outcome ask(struct hold *h, const char *path, struct error *e)
{
	enum client_outcome outcome = reach(&h->client, path, h->wait_ms, e);

	h->asked_us = now_us();
	if (outcome != CLIENT_ANSWERED)
		return outcome;
	return client_send(&h->client, "pause", h->for_resize ? "{\"resize\":true}" : NULL, e);
}

/* It has let go of the lock; somebody may hold it for an instant all the same. Guests wait. */
static int lock_paused(struct hold *h, const char *path, struct error *e)
{
	const struct timespec pause = { .tv_nsec = (long)NS_PER_MS };

	for (unsigned tries = 0; tries < LOCK_TRIES; tries++) {
		h->lock = lock_try(path, e);
		if (h->lock >= 0)
			return 0;
		if (e->err != EBUSY)
			return -1;
		nanosleep(&pause, NULL);
	}
	return -1;
}

/* 0: held; 1: again; -1 + e. */
static int receive(struct hold *h, const char *path, struct error *e)
{
	CLEANUP_FREE char *ok = NULL;

	switch (client_receive(&h->client, &ok, e)) {
	case CLIENT_ANSWERED:
		h->was_open = true;
		h->held_us = now_us();
		return lock_paused(h, path, e);
	case CLIENT_LOST:
		return 1;
	case CLIENT_REFUSED:
		return e->err == ESHUTDOWN ? 1 : -1;
	default:
		return -1;
	}
}

static void begin(struct hold *h, const char *path)
{
	struct error e;

	h->lock = lock_try(path, &e);
	if (h->lock < 0 && e.err == EBUSY && ask(h, path, &e) != CLIENT_ANSWERED)
		client_close(&h->client);
}

/* Once. 0: held; 1: again; -1 + e. */
static int try(struct hold *h, const char *path, struct error *e)
{
	enum client_outcome outcome;

	h->lock = lock_try(path, e);
	if (h->lock >= 0 || e->err != EBUSY)
		return h->lock >= 0 ? 0 : -1;
	outcome = ask(h, path, e);
	if (outcome == CLIENT_ANSWERED)
		return receive(h, path, e);
	return outcome == CLIENT_ABSENT || outcome == CLIENT_LOST ? 1 : -1;
}

int hold_wait(struct hold *h, const char *path, struct error *e)
{
	int r = h->lock >= 0 ? 0 : h->client.fd >= 0 ? receive(h, path, e) : 1;

	for (unsigned tries = 0; r == 1 && tries < IMAGE_TRIES; tries++) {
		client_close(&h->client);
		if (tries)
			image_pause();
		r = try(h, path, e);
	}
	if (r == 1)
		return error_set(e, EBUSY, "%s is in use on another host, or by a program that is none of ours; do this there, "
				 "or stop it", path);
	return r;
}

void hold_begin(struct hold *h, const char *path, unsigned wait_ms)
{
	*h = (struct hold) { .lock = -1, .wait_ms = wait_ms, .client.fd = -1 };
	begin(h, path);
}

bool hold_is_possible(const char *path, struct error *e)
{
	CLEANUP_LOCK int lock = lock_try(path, e);
	struct client c;

	if (lock >= 0)
		return true;
	if (e->err != EBUSY || reach(&c, path, HOLD_WAIT_MS, e) != CLIENT_ANSWERED)
		return false;
	client_close(&c);
	return true;
}

int hold_take(struct hold *h, const char *path, bool for_resize, struct error *e)
{
	struct error ignored;

	*h = (struct hold) { .lock = -1, .for_resize = for_resize, .wait_ms = HOLD_WAIT_MS, .client.fd = -1 };
	begin(h, path);
	if (hold_wait(h, path, e) == 0)
		return 0;
	hold_end(h, &ignored);
	return -1;
}

void hold_go(struct hold *h)
{
	struct error e;

	if (h->lock >= 0)
		close(h->lock);
	h->lock = -1;
	if (h->is_going)
		return;
	h->is_going = true;
	h->going_us = now_us();
	/* A pause also ends with its connection. */
	if (h->client.fd >= 0 && (!h->was_open || client_send(&h->client, "resume", NULL, &e) != CLIENT_ANSWERED))
		client_close(&h->client);
}

int hold_end(struct hold *h, struct error *e)
{
	CLEANUP_FREE char *ok = NULL;
	enum client_outcome outcome;
	uint64_t ended_us;

	hold_go(h);
	if (h->client.fd < 0)
		return 0;
	outcome = client_receive(&h->client, &ok, e);
	client_close(&h->client);
	ended_us = now_us();
	h->lasted_us = ended_us - h->asked_us;
	log_info("a disk was held for %.1f ms: %.1f until it was closed, %.1f to open it again", (double)h->lasted_us / 1e3,
		 (double)(h->held_us - h->asked_us) / 1e3, (double)(ended_us - h->going_us) / 1e3);
	if (outcome == CLIENT_ANSWERED)
		return 0;
	log_error("a disk that was paused is not served again yet: %s", e->text);
	return -1;
}
