/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ends - both ends of a channel, and what is told when it ends; what the kinds of carriers share
 *
 *      caller ---- stream (socketpair) ---- whoever brings the bytes over: a process of ours
 *             <--- a pipe: struct carrier_said, once, at the end
 */
#ifndef SXM_MIGRATE_CARRIER_ENDS_H
#define SXM_MIGRATE_CARRIER_ENDS_H

#include "base/compiler.h"
#include "base/error.h"

#define CARRIER_CHANNELS_MAX 64u /* of which one still can say why they ended */
#define CARRIER_LINE_MAX 300u

enum carrier_end {
	CARRIER_END_EXIT = 1, /* the relay ended by itself: status */
	CARRIER_END_SIGNAL,   /* it was killed */
	CARRIER_END_LOST,     /* the way to the host was lost; line says how */
	CARRIER_END_RUN,      /* what should bring the bytes did not run here; line says why */
};
struct carrier_said {
	int32_t end;    /* enum carrier_end */
	int32_t status;
	char line[CARRIER_LINE_MAX]; /* the last line of standard error over there, printable; "": none */
};

struct carrier_ends {
	struct {
		int stream; /* the caller's descriptor; not ours */
		int told;   /* owned: the pipe's end here */
	} channel[CARRIER_CHANNELS_MAX];
	size_t count;
};

/* The caller's descriptor; *stream_there and *tell_there are for who brings the bytes. All close-on-exec. -1 + e. */
int carrier_ends_make(struct carrier_ends *x, int *stream_there, int *tell_there, struct error *e);
/* It came to nothing: the caller's descriptor is closed and forgotten. */
void carrier_ends_drop(struct carrier_ends *x, int stream);
/* Always -1 + e: why this channel ended. Waits for that at most two seconds. */
int carrier_ends_why(struct carrier_ends *x, int stream, const char *name, struct error *e);
/* Its own, at most CARRIER_CHANNELS_MAX, into fds: how many. */
size_t carrier_ends_descriptors(const struct carrier_ends *x, int *fds);
void carrier_ends_fini(struct carrier_ends *x);

/* Lines of standard error: passed on to our own with the host's name before them, the last one kept. */
struct carrier_lines {
	const char *name; /* borrowed */
	char line[CARRIER_LINE_MAX];
	size_t used;
	char last[CARRIER_LINE_MAX];
	bool will_hold; /* the last one is not shown before another comes, or carrier_lines_show(): it may be in a sentence */
	bool is_held;
};
void carrier_lines_add(struct carrier_lines *l, const char *text, size_t bytes);
void carrier_lines_end(struct carrier_lines *l); /* what has no newline is a line, too */
void carrier_lines_show(struct carrier_lines *l); /* what is held */

/* For a child that goes on without exec: standard input and output become /dev/null, and all but standard error and `keep` is
 * closed; so it holds nobody's lock, and no other channel's end. */
int carrier_close_others(const int *keep, size_t count);

#endif
