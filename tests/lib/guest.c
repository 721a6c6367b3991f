/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * guest - a guest for tests: writes stamps through NBD, remembers what was promised, goes on elsewhere
 *
 *      guest write --uri URI | --uri-file FILE --log FILE [--then FIFO] [--region START:LENGTH] [--iops N] [--depth N]
 *                  [--seed N] [--count N] [--zero-percent N] [--flush-every N] [--slow MS] [--again MS] [--gaps] [--patience S]
 *      guest verify [--flushed | --moment BYTES] --uri URI --log FILE...
 *
 * `write` keeps --depth operations of 512 bytes to 64 KiB (mostly 4 KiB) in flight on a region that read as zero before.
 * Each issue is in the log before it is sent, each acknowledgement after it came, by write(2): a kill -9 loses nothing that
 * matters.  SIGTERM or SIGINT (or --count): what is in flight is waited for, then the end.  SIGUSR1: the same, but then a line
 * "rest", and it goes elsewhere: a guest that is shut down, and started again later.
 *
 *      running --connection lost--> reads the next URI from the FIFO --> unacknowledged ones again, same numbers --> running
 *                                        '--- end of file, or no --then: the end
 *
 * --moment BYTES: what is verified is a copy of the disk, made at one moment after the log had so many bytes and before it
 * had those it has.
 *
 * A line "lost URI" says that the disk's power was lost meanwhile: what was acknowledged and not flushed is not promised.
 *
 * With --uri-file the URI is read from that file each time, and tried each 20 ms (--again) until somebody serves it (without one,
 * for ever): a guest whose driver reconnects. Who moves it writes another URI into the file. --slow: a line "slow at=SECONDS
 * ms=N.NNN" for each operation that took as long, counted from its first issue; at: CLOCK_MONOTONIC when it was answered.
 * --gaps: a line "gap from=SECONDS to=SECONDS" (CLOCK_MONOTONIC) for each connection but the first: the last acknowledgement
 * before it, the first on it.
 *
 * At the end one line of key=value.  gap_ms is the longest time from the last acknowledgement on one connection to the first
 * on the next: the downtime a guest would feel.  Exit 0; 1 when an operation was answered with an error or the server hung.
 *
 * No two operations in flight overlap unless --overlap is given, like a guest's file system; with it, the disk may choose
 * any one order (guest-verify.c).  Can fail: a server that does not answer, or cannot be reached, for --patience seconds (30).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/range.h"
#include "base/size.h"
#include "tests/lib/guest.h"

#define DEPTH_MAX 256u
#define BYTES_MAX (64u * 1024)
#define PATIENCE_MS 30000u
#define AGAIN_MS 20u
#define HANDSHAKE_MS 1000

enum slot_state { SLOT_FREE, SLOT_UNSENT, SLOT_SENT, SLOT_ANSWERED };

struct slot {
	enum slot_state state;
	uint8_t *data;            /* owned; BYTES_MAX */
	struct range range;
	uint64_t sequence;        /* 0: a flush */
	bool is_zero;
	int err;                  /* ANSWERED */
	uint64_t sent_ns, first_ns; /* now, and on an earlier connection perhaps */
	uint64_t flush;           /* a flush's number in the log */
};

struct writer {
	const char *uri, *uri_path, *then_path, *log_path;
	struct range region;
	uint64_t seed, iops, count, flush_every, slow_ms;
	unsigned depth, zero_percent, again_ms, patience_ms;
	bool may_overlap, has_gaps, is_slow_told, is_flushed; /* is_flushed: verify only what a flush covered */
	uint64_t moment;          /* verify a copy: it was taken after so many bytes of the log; 0: it is the disk itself */

	struct nbd_handle *nbd;   /* owned */
	int log;                  /* owned */
	struct slot slot[DEPTH_MAX];
	uint64_t random, sequence, flush, next_ns;
	uint64_t acknowledged, flushed, errors, connections, slowest_ns, last_ack_ns, gap_ns;
	bool can_zero, is_first_ack_awaited; /* the connection has acknowledged nothing yet */
};

static volatile sig_atomic_t is_stop_asked, is_rest_asked;

static void on_signal(int signum)
{
	*(signum == SIGUSR1 ? &is_rest_asked : &is_stop_asked) = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* xorshift64*: the state is never 0. */
static uint64_t draw(struct writer *w, uint64_t below)
{
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return (w->random * UINT64_C(0x2545f4914f6cdd1d) >> 11) % below;
}

static void die(const char *what)
{
	fprintf(stderr, "guest: %s\n", what);
	exit(1);
}

/* --- the log */

static void log_open(struct writer *w)
{
	struct guest_log_header header = { .run = w->seed, .region_start = w->region.start, .region_end = w->region.end };

	memcpy(header.magic, GUEST_LOG_MAGIC, sizeof(header.magic));
	w->log = open(w->log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (w->log == -1 || write(w->log, &header, sizeof(header)) != sizeof(header))
		die("cannot write the log");
}

static void log_add(struct writer *w, enum guest_log_type type, const struct slot *s)
{
	const struct guest_log_record record = { type, (uint32_t)range_length(s->range), s->sequence ? s->sequence : s->flush,
						 s->range.start };

	if (write(w->log, &record, sizeof(record)) != sizeof(record))
		die("cannot write the log");
}

/* --- one operation */

static bool is_range_busy(const struct writer *w, struct range r)
{
	for (unsigned i = 0; i < w->depth; i++)
		if (w->slot[i].state != SLOT_FREE && w->slot[i].sequence && range_overlaps(w->slot[i].range, r))
			return true;
	return false;
}

static struct range draw_range(struct writer *w)
{
	const uint64_t sectors = range_length(w->region) / GUEST_SECTOR;

	for (;;) {
		const bool is_odd = draw(w, 100) < 30;
		const uint64_t length = is_odd ? 1 + draw(w, BYTES_MAX / GUEST_SECTOR) : 8;
		uint64_t first = draw(w, sectors);
		struct range r;

		if (!is_odd)
			first &= ~UINT64_C(7);
		r.start = w->region.start + first * GUEST_SECTOR;
		r.end = MIN(r.start + length * GUEST_SECTOR, w->region.end);
		if (w->may_overlap || !is_range_busy(w, r))
			return r;
	}
}

static void fill(struct writer *w, struct slot *s)
{
	s->state = SLOT_UNSENT;
	s->err = 0;
	s->first_ns = 0;
	if (w->flush_every && (w->sequence + 1) % w->flush_every == 0 && draw(w, 2) == 0 && nbd_can_flush(w->nbd) == 1) {
		s->sequence = 0;
		s->flush = ++w->flush;
		s->range = (struct range){ 0, 0 };
		return;
	}
	s->range = draw_range(w);
	s->is_zero = w->can_zero && draw(w, 100) < w->zero_percent;
	s->sequence = ++w->sequence;
	memset(s->data, 0, (size_t)range_length(s->range)); /* where zeroing is sent again nobody may offer it */
	for (uint64_t at = s->range.start; !s->is_zero && at < s->range.end; at += GUEST_SECTOR)
		guest_stamp(s->data + (at - s->range.start), w->seed, at, s->sequence);
}

static int on_answer(void *user_data, int *error)
{
	struct slot *s = user_data;

	s->state = SLOT_ANSWERED;
	s->err = *error;
	return 1;
}

/* False: the connection did not take it. */
static bool send_slot(struct writer *w, struct slot *s)
{
	const nbd_completion_callback answer = { .callback = on_answer, .user_data = s };
	const uint64_t length = range_length(s->range);
	int64_t cookie;

	log_add(w, !s->sequence ? GUEST_FLUSH : s->is_zero ? GUEST_ZERO : GUEST_WRITE, s);
	s->state = SLOT_SENT;
	s->sent_ns = now_ns();
	s->first_ns = s->first_ns ? s->first_ns : s->sent_ns;
	if (!s->sequence)
		cookie = nbd_aio_flush(w->nbd, answer, 0);
	else if (s->is_zero && w->can_zero)
		cookie = nbd_aio_zero(w->nbd, length, s->range.start, answer, 0);
	else
		cookie = nbd_aio_pwrite(w->nbd, s->data, (size_t)length, s->range.start, answer, 0);
	if (cookie == -1)
		s->state = s->sequence ? SLOT_UNSENT : SLOT_FREE;
	return cookie != -1;
}

static void tell_slow(const struct writer *w, const struct slot *s, uint64_t now)
{
	const double ms = (double)(now - s->first_ns) / 1e6;

	if (!w->is_slow_told || ms < (double)w->slow_ms)
		return;
	printf("slow at=%.3f ms=%.3f %s\n", (double)now / 1e9, ms, s->sequence ? "write" : "flush");
	fflush(stdout);
}

static void note_gap(struct writer *w, uint64_t now)
{
	w->gap_ns = MAX(w->gap_ns, now - w->last_ack_ns);
	if (w->has_gaps)
		printf("gap from=%.6f to=%.6f\n", (double)w->last_ack_ns / 1e9, (double)now / 1e9);
}

/* False: the server is going away, and this one was not done. */
static bool settle(struct writer *w, struct slot *s)
{
	const uint64_t now = now_ns();
	const bool is_going = s->err == ESHUTDOWN || s->err == ENOTCONN || nbd_aio_is_dead(w->nbd) || nbd_aio_is_closed(w->nbd);

	if (s->err && is_going) {
		s->state = s->sequence ? SLOT_UNSENT : SLOT_FREE;
		return false;
	}
	s->state = SLOT_FREE;
	if (s->err) {
		if (w->errors++ == 0)
			fprintf(stderr, "guest: operation %" PRIu64 " at %" PRIu64 " failed: %s\n", s->sequence, s->range.start,
				strerror(s->err));
		return true;
	}
	log_add(w, s->sequence ? GUEST_ACKNOWLEDGED : GUEST_FLUSHED, s);
	tell_slow(w, s, now);
	*(s->sequence ? &w->acknowledged : &w->flushed) += 1;
	w->slowest_ns = MAX(w->slowest_ns, now - s->sent_ns);
	if (w->is_first_ack_awaited && w->connections > 1)
		note_gap(w, now);
	w->is_first_ack_awaited = false;
	w->last_ack_ns = now;
	return true;
}

/* --- one connection */

static bool is_enough(const struct writer *w)
{
	return is_stop_asked || is_rest_asked || w->errors || (w->count && w->sequence >= w->count);
}

/* Sends what may be sent now: first what a lost connection left. */
static bool send_due(struct writer *w)
{
	for (unsigned i = 0; i < w->depth; i++) {
		struct slot *s = &w->slot[i];

		if (s->state == SLOT_FREE && !is_enough(w)) {
			const uint64_t now = now_ns();

			if (w->iops && w->next_ns > now)
				continue;
			if (w->iops)
				w->next_ns = MAX(w->next_ns, now - NS_PER_S / 10) + NS_PER_S / w->iops;
			fill(w, s);
		}
		if (s->state == SLOT_UNSENT && !send_slot(w, s))
			return false;
	}
	return true;
}

static bool settle_answered(struct writer *w)
{
	bool is_alive = true;

	for (unsigned i = 0; i < w->depth; i++)
		if (w->slot[i].state == SLOT_ANSWERED && !settle(w, &w->slot[i]))
			is_alive = false;
	return is_alive && !nbd_aio_is_dead(w->nbd) && !nbd_aio_is_closed(w->nbd);
}

static bool is_idle(const struct writer *w)
{
	for (unsigned i = 0; i < w->depth; i++)
		if (w->slot[i].state != SLOT_FREE)
			return false;
	return true;
}

static int wait_ms(const struct writer *w)
{
	const uint64_t now = now_ns();

	if (!w->iops || is_enough(w))
		return (int)w->patience_ms;
	return w->next_ns <= now ? 0 : (int)((w->next_ns - now) / NS_PER_MS + 1);
}

/* One turn of poll; false: the connection has ended. */
static bool wait_turn(struct writer *w)
{
	const unsigned direction = nbd_aio_get_direction(w->nbd);
	struct pollfd pfd = { .fd = nbd_aio_get_fd(w->nbd) };
	bool has_room = w->iops;
	int n;

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		pfd.events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		pfd.events |= POLLOUT;
	for (unsigned i = 0; has_room && i < w->depth; i++)
		if (w->slot[i].state == SLOT_FREE)
			break;
		else if (i + 1 == w->depth)
			has_room = false;
	n = poll(&pfd, 1, has_room ? wait_ms(w) : (int)w->patience_ms);
	if (n == 0 && !has_room)
		die("no answer for as long as it waits");
	if (n <= 0)
		return true;
	if ((pfd.revents & (POLLIN | POLLHUP | POLLERR)) && (direction & LIBNBD_AIO_DIRECTION_READ))
		return nbd_aio_notify_read(w->nbd) == 0;
	if ((pfd.revents & POLLOUT) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		return nbd_aio_notify_write(w->nbd) == 0;
	return !(pfd.revents & (POLLHUP | POLLERR | POLLNVAL));
}

static void let_go(struct writer *w)
{
	if (is_rest_asked && is_idle(w))
		nbd_shutdown(w->nbd, 0);
	nbd_close(take_ptr(&w->nbd));
	if (is_rest_asked)
		puts("rest");
	fflush(stdout);
	is_rest_asked = 0;
}

/* True: all is done; false: the connection was lost or is not wanted, and what it did not acknowledge is UNSENT. */
static bool run_connection(struct writer *w)
{
	for (;;) {
		const bool was_sent = send_due(w);
		const bool is_alive = settle_answered(w);

		if (!was_sent || !is_alive)
			break;
		if (is_idle(w) && is_enough(w) && !is_rest_asked)
			return true;
		if ((is_idle(w) && is_rest_asked) || !wait_turn(w)) {
			settle_answered(w);
			break;
		}
	}
	let_go(w); /* from here the library touches no buffer */
	for (unsigned i = 0; i < w->depth; i++)
		if (w->slot[i].state == SLOT_SENT || w->slot[i].state == SLOT_ANSWERED)
			w->slot[i].state = w->slot[i].sequence ? SLOT_UNSENT : SLOT_FREE;
	return false;
}

static bool read_line(const char *path, char *line, int bytes)
{
	CLEANUP_FCLOSE FILE *f = fopen(path, "re");

	if (!f || !fgets(line, bytes, f))
		return false;
	line[strcspn(line, "\n")] = 0;
	return line[0] != 0;
}

/* "lost URI": the disk's power was lost before. The URI. */
static const char *note_lost(struct writer *w, const char *uri, bool is_noted)
{
	const bool is_lost = strncmp(uri, "lost ", 5) == 0;

	if (is_lost && is_noted)
		log_add(w, GUEST_POWER_LOST, &(struct slot){ 0 });
	return uri + (is_lost ? 5 : 0);
}

/* One try at that place. Nobody there, or somebody who does not speak: false. */
static bool try_uri(struct writer *w, const char *uri)
{
	const uint64_t end = now_ns() + HANDSHAKE_MS * NS_PER_MS;

	if (nbd_aio_connect_uri(w->nbd, note_lost(w, uri, false)) == -1)
		return false;
	while (!nbd_aio_is_ready(w->nbd)) {
		if (nbd_aio_is_dead(w->nbd) || nbd_aio_is_closed(w->nbd) || now_ns() >= end ||
		    nbd_poll(w->nbd, (int)AGAIN_MS) == -1)
			return false;
	}
	note_lost(w, uri, true);
	return true;
}

/* False: asked to stop before anybody was there. */
static bool connect_file(struct writer *w)
{
	const struct timespec pause = { .tv_nsec = w->again_ms * (long)NS_PER_MS };
	char uri[1024];

	for (uint64_t end = now_ns() + w->patience_ms * NS_PER_MS; now_ns() < end;) {
		w->nbd = nbd_create();
		if (!w->nbd)
			die(nbd_get_error());
		if (!read_line(w->uri_path, uri, sizeof(uri)))
			end = now_ns() + w->patience_ms * NS_PER_MS;
		else if (try_uri(w, uri))
			return true;
		nbd_close(take_ptr(&w->nbd));
		if (is_stop_asked)
			return false;
		nanosleep(&pause, NULL);
	}
	die("nobody serves the disk for as long as it waits");
	return false;
}

static bool connect_to(struct writer *w, const char *uri)
{
	if (w->uri_path) {
		if (!connect_file(w))
			return false;
	} else {
		w->nbd = nbd_create();
		if (!w->nbd || nbd_connect_uri(w->nbd, uri) == -1)
			die(nbd_get_error());
	}
	w->can_zero = nbd_can_zero(w->nbd) == 1;
	w->connections++;
	w->is_first_ack_awaited = true;
	return true;
}

/* Waits for somebody to write a line into the FIFO. False: there is no next place. */
static bool go_elsewhere(struct writer *w)
{
	char uri[1024];

	if (w->uri_path)
		return connect_to(w, NULL);
	return w->then_path && !is_stop_asked && read_line(w->then_path, uri, sizeof(uri)) &&
	       connect_to(w, note_lost(w, uri, true));
}

static void choose_region(struct writer *w)
{
	const int64_t size = nbd_get_size(w->nbd);

	if (size < 0)
		die(nbd_get_error());
	if (w->region.end == 0)
		w->region.end = (uint64_t)size;
	w->region = range_shrink(w->region, 4096);
	if (w->region.end > (uint64_t)size || range_length(w->region) < (uint64_t)w->depth * 4 * BYTES_MAX)
		die("the region is not in the export, or too small for the depth");
}

static int run_write(struct writer *w)
{
	const struct sigaction action = { .sa_handler = on_signal };
	bool is_done;

	sigaction(SIGTERM, &action, NULL); /* no SA_RESTART: poll() and open() end */
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (!connect_to(w, w->uri))
		return 1;
	choose_region(w);
	log_open(w);
	for (unsigned i = 0; i < w->depth; i++)
		if (!(w->slot[i].data = malloc(BYTES_MAX)))
			die("no memory");
	w->random = w->seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	while (!(is_done = run_connection(w)) && go_elsewhere(w))
		continue;
	if (is_done)
		nbd_shutdown(w->nbd, 0);
	nbd_close(w->nbd);
	for (unsigned i = 0; i < w->depth; i++)
		free(w->slot[i].data);
	close(w->log);
	printf("issued=%" PRIu64 " acknowledged=%" PRIu64 " flushes=%" PRIu64, w->sequence, w->acknowledged, w->flushed);
	printf(" errors=%" PRIu64 " connections=%" PRIu64, w->errors, w->connections);
	printf(" gap_ms=%.1f slowest_ms=%.1f\n", (double)w->gap_ns / 1e6, (double)w->slowest_ns / 1e6);
	return w->errors ? 1 : 0;
}

/* --- options */

static void usage(void)
{
	fputs("usage: guest write --uri URI | --uri-file FILE --log FILE [--then FIFO] [--region START:LENGTH] [--iops N]\n"
	      "           [--depth N] [--seed N] [--count N] [--zero-percent N] [--flush-every N] [--overlap] [--slow MS]\n"
	      "           [--again MS] [--gaps] [--patience S]\n"
	      "       guest verify [--flushed | --moment BYTES] --uri URI --log FILE...\n", stderr);
	exit(2);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
	uint64_t value;

	if (!size_parse(text, &value) || value < min || value > max)
		usage();
	return value;
}

static struct range region(char *text)
{
	char *colon = strchr(text, ':');
	struct range r;

	if (!colon)
		usage();
	*colon = 0;
	if (!range_from_length(&r, number(text, 0, INT64_MAX), number(colon + 1, 1, INT64_MAX)))
		usage();
	return r;
}

static void take_option(struct writer *w, int option, char *value)
{
	switch (option) {
	case 'u': w->uri = value; break;
	case 'U': w->uri_path = value; break;
	case 'l': w->log_path = value; break;
	case 't': w->then_path = value; break;
	case 'r': w->region = region(value); break;
	case 'i': w->iops = number(value, 1, NS_PER_S); break;
	case 'd': w->depth = (unsigned)number(value, 1, DEPTH_MAX); break;
	case 's': w->seed = number(value, 1, INT64_MAX); break;
	case 'c': w->count = number(value, 1, INT64_MAX); break;
	case 'z': w->zero_percent = (unsigned)number(value, 0, 100); break;
	case 'f': w->flush_every = number(value, 1, INT64_MAX); break;
	case 'o': w->may_overlap = true; break;
	case 'S': w->slow_ms = number(value, 0, INT32_MAX), w->is_slow_told = true; break;
	case 'a': w->again_ms = (unsigned)number(value, 1, 1000); break;
	case 'g': w->has_gaps = true; break;
	case 'p': w->patience_ms = (unsigned)number(value, 1, 3600) * 1000; break;
	case 'F': w->is_flushed = true; break;
	case 'm': w->moment = number(value, sizeof(struct guest_log_header), INT64_MAX); break;
	default: usage();
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "uri", required_argument, NULL, 'u' },          { "log", required_argument, NULL, 'l' },
		{ "then", required_argument, NULL, 't' },         { "region", required_argument, NULL, 'r' },
		{ "iops", required_argument, NULL, 'i' },         { "depth", required_argument, NULL, 'd' },
		{ "seed", required_argument, NULL, 's' },         { "count", required_argument, NULL, 'c' },
		{ "zero-percent", required_argument, NULL, 'z' }, { "flush-every", required_argument, NULL, 'f' },
		{ "overlap", no_argument, NULL, 'o' },            { "uri-file", required_argument, NULL, 'U' },
		{ "slow", required_argument, NULL, 'S' },         { "flushed", no_argument, NULL, 'F' },
		{ "moment", required_argument, NULL, 'm' },       { "again", required_argument, NULL, 'a' },
		{ "gaps", no_argument, NULL, 'g' }, { "patience", required_argument, NULL, 'p' }, { NULL, 0, NULL, 0 }
	};
	static struct writer w = { .depth = 8, .again_ms = AGAIN_MS, .patience_ms = PATIENCE_MS, .log = -1 };
	const char *what = argc > 1 ? argv[1] : "";
	int option, ret = 0;

	w.seed = now_ns() & INT64_MAX;
	optind = 2;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		take_option(&w, option, optarg);
	if ((!w.uri && !(w.uri_path && strcmp(what, "write") == 0)) || !w.log_path)
		usage();
	if (strcmp(what, "write") == 0 && optind == argc)
		return run_write(&w);
	if (strcmp(what, "verify") != 0)
		usage();
	if (w.moment) /* in records */
		w.moment = MAX((w.moment - sizeof(struct guest_log_header)) / sizeof(struct guest_log_record), (uint64_t)1);
	ret = guest_verify(w.uri, w.log_path, w.is_flushed, w.moment);
	for (; optind < argc; optind++)
		ret = MAX(ret, guest_verify(w.uri, argv[optind], w.is_flushed, w.moment));
	return ret;
}
