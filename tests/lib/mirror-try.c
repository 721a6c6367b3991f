/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror-try - one mirror, alone: a disk, a guest that writes, a far side
 *
 *      mirror-try [OPTION...] IMAGE URI
 *
 *      --writes N      a guest that writes, zeroes, trims and flushes at random from before the mirror until N requests after
 *                      it was in step (0: no guest)
 *      --region BYTES  ... in the first BYTES of the disk only
 *      --depth N       ... with N requests in flight (4)
 *      --seed N
 *      --copy          ends by itself (Data.copy)
 *      --only S-E,...  --copy: these bytes
 *      --stay          does not finish when in step: waits for the mirror to fail
 *      --abort-at N    ends the operation after N requests of the guest
 *      --handshake MS, --dead MS, --connect MS
 *
 *      stdout:  "connected", "synced", then "finished", "aborted" or "failed: WHY", and numbers as key=value
 *      exit:    0 finished or aborted, 1 failed, 3 the guest was hurt (an error, or nothing for 10 s)
 *
 * The gate, the disk and the mirror are the real ones.  As in a datapath process the mirror is put under the gate while it is
 * held and drained, and finished while it is held and drained.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/gate.h"
#include "disk/disk.h"
#include "mirror/mirror.h"

#define GUEST_BYTES_MAX 65536u
#define HURT_MS 10000

struct slot {
	struct req *req;
	uint64_t since_ns;
};

static struct {
	const char *image, *uri;
	uint64_t writes, region, depth, seed, abort_at, handshake_ms, dead_ms, connect_ms;
	struct extents only;
	bool is_copy, has_only, should_stay;
} opt = { .depth = 4, .seed = 1 };

static struct {
	struct loop *loop;
	struct iobuf_pool *pool;
	struct layer *disk, *gate, *mirror;
	struct loop_timer *watchdog;
	struct slot slot[256];
	unsigned in_flight;
	uint64_t issued, answered, left, longest_ns;
	bool is_writing, is_connected, is_synced, is_held, is_ending, is_finished, is_aborting;
	struct mirror_status status;
	int exit_code;
} t;

static uint64_t random_number(void)
{
	opt.seed ^= opt.seed << 13;
	opt.seed ^= opt.seed >> 7;
	opt.seed ^= opt.seed << 17;
	return opt.seed;
}

/* --- the guest */

static void write_some(void);
static void wrap_up(void);
static void finish(void);
static void end_operation(void);

static void hurt(const char *what, int err)
{
	printf("the guest was hurt: %s%s%s\n", what, err ? ": " : "", err ? strerror(err) : "");
	exit(3);
}

static void on_guest_done(struct req *r)
{
	struct slot *s = r->arg;
	uint64_t took_ns = loop_now_ns() - s->since_ns;

	if (r->err)
		hurt("an error", r->err);
	if (took_ns > t.longest_ns)
		t.longest_ns = took_ns;
	iobuf_return(r->data);
	req_put(r);
	s->req = NULL;
	t.in_flight--;
	t.answered++;
	if (t.is_synced && t.left)
		t.left--;
	if (opt.abort_at && t.answered == opt.abort_at)
		end_operation();
	if (t.is_synced && t.left == 0 && t.is_writing) {
		t.is_writing = false;
		if (!opt.should_stay)
			finish();
	}
	write_some();
	if (!t.is_writing && t.is_ending)
		wrap_up();
}

static enum req_op choose_op(void)
{
	uint64_t dice = random_number() % 100;

	return dice < 80 ? REQ_WRITE : dice < 88 ? REQ_ZERO : dice < 95 ? REQ_TRIM : REQ_FLUSH;
}

static void issue(struct slot *s)
{
	uint64_t blocks = MIN(opt.region, t.gate->geometry.size_bytes) / 512, first = random_number() % blocks;
	uint64_t count = MIN(1 + random_number() % (GUEST_BYTES_MAX / 512), blocks - first);

	s->req = req_get();
	s->req->op = choose_op();
	s->req->range = (struct range){ first * 512, (first + count) * 512 };
	s->req->done = on_guest_done;
	s->req->arg = s;
	s->since_ns = loop_now_ns();
	if (s->req->op == REQ_WRITE) {
		bool is_zero = random_number() % 8 == 0;

		s->req->data = iobuf_get(t.pool, count * 512);
		if (!s->req->data)
			hurt("no buffer", ENOMEM);
		for (uint64_t i = 0; i < count * 64; i++)
			((uint64_t *)(void *)s->req->data->data)[i] = is_zero ? 0 : random_number();
	}
	t.issued++;
	t.in_flight++;
	layer_submit(t.gate, s->req);
}

static void write_some(void)
{
	for (unsigned i = 0; t.is_writing && i < opt.depth; i++)
		if (!t.slot[i].req)
			issue(&t.slot[i]);
}

/* Only while the gate is open is silence an injury. */
static void on_watchdog(void *arg)
{
	uint64_t now_ns = loop_now_ns();

	(void)arg;
	for (unsigned i = 0; i < opt.depth && !t.is_held; i++)
		if (t.slot[i].req && now_ns - t.slot[i].since_ns > HURT_MS * NS_PER_MS)
			hurt("no answer", 0);
	loop_timer_set(t.watchdog, 1000);
}

/* --- the end */

static void report(const char *end)
{
	const struct core_status *c = &t.status.core;

	printf("%s\n", end);
	printf("answered=%ju longest_us=%ju sent=%ju zeroed=%ju skipped=%ju copied=%ju overflow=%ju allocated=%ju dirty=%ju\n",
	       (uintmax_t)t.answered, (uintmax_t)(t.longest_ns / 1000), (uintmax_t)c->sent_bytes, (uintmax_t)c->zero_bytes,
	       (uintmax_t)c->skipped_bytes, (uintmax_t)c->copied_bytes, (uintmax_t)c->overflow_bytes,
	       (uintmax_t)t.status.source_allocated_bytes, (uintmax_t)c->dirty_bytes);
	fflush(stdout);
}

static void on_drained_last(struct layer *gate, void *arg)
{
	(void)gate;
	(void)arg;
	gate_set_below(t.gate, t.disk);
	layer_close(t.mirror);
	t.mirror = NULL;
	loop_stop(t.loop);
}

static void on_aborted(void *arg)
{
	(void)arg;
	gate_hold(t.gate);
	layer_drain(t.gate, on_drained_last, NULL);
}

static void wrap_up(void)
{
	char line[600];

	if (!t.is_ending || t.in_flight || t.is_aborting)
		return;
	t.is_aborting = true;
	mirror_status(t.mirror, &t.status);
	if (t.is_finished) {
		report("finished");
	} else if (t.status.core.state == CORE_FAILED) {
		snprintf(line, sizeof(line), "failed: %s", t.status.why.text);
		report(line);
		t.exit_code = 1;
	} else {
		report("aborted");
	}
	mirror_abort(t.mirror, on_aborted, NULL);
}

static void end_operation(void)
{
	t.is_ending = true;
	t.is_writing = false;
	wrap_up();
}

static void on_finished(void *arg, const struct error *e)
{
	(void)arg;
	t.is_finished = !e;
	t.is_held = false;
	gate_release(t.gate);
	end_operation();
}

static void on_held(struct layer *gate, void *arg)
{
	(void)gate;
	(void)arg;
	mirror_finish(t.mirror, on_finished, NULL);
}

static void finish(void)
{
	if (opt.is_copy || t.is_ending || t.is_held)
		return;
	t.is_held = true;
	gate_hold(t.gate);
	layer_drain(t.gate, on_held, NULL);
}

static void on_change(void *arg)
{
	(void)arg;
	if (t.is_aborting)
		return;
	mirror_status(t.mirror, &t.status);
	if (t.status.is_connected && !t.is_connected) {
		t.is_connected = true;
		printf("connected\n");
		fflush(stdout);
	}
	if (t.status.core.was_synced && !t.is_synced) {
		t.is_synced = true;
		printf("synced\n");
		fflush(stdout);
		if (!t.is_writing && !opt.should_stay)
			finish();
	}
	if (t.status.core.state == CORE_FINISHED && opt.is_copy) {
		t.is_finished = true;
		end_operation();
	} else if (t.status.core.state == CORE_FAILED && !t.is_ending) {
		end_operation();
	}
}

/* --- the beginning */

static void on_held_first(struct layer *gate, void *arg)
{
	(void)gate;
	(void)arg;
	gate_set_below(t.gate, t.mirror);
	gate_release(t.gate);
	mirror_start(t.mirror);
}

static int open_all(struct error *e)
{
	struct disk_file *file = disk_open(&(struct disk_spec){ .path = opt.image, .lock_wait_ms = 1000 }, e);
	struct mirror_spec spec = {
		.loop = t.loop,
		.uri = opt.uri,
		.is_copy = opt.is_copy,
		.only = opt.has_only ? &opt.only : NULL,
		.connect_wait_ms = (unsigned)opt.connect_ms,
		.handshake_ms = (unsigned)opt.handshake_ms,
		.dead_ms = (unsigned)opt.dead_ms,
		.on_change = on_change,
	};

	t.disk = file ? disk_layer(t.loop, file, e) : NULL;
	if (!t.disk)
		return -1;
	spec.below = t.disk;
	t.gate = gate_new(t.disk);
	t.mirror = t.gate ? mirror_new(&spec, e) : NULL;
	return t.mirror ? 0 : -1;
}

static int run(void)
{
	struct error e = { 0 };

	t.loop = loop_new();
	req_init(t.loop);
	t.pool = iobuf_pool_new(64 * MiB);
	if (open_all(&e) == -1) {
		printf("failed: %s\n", e.text);
		return 1;
	}
	if (!opt.region)
		opt.region = t.gate->geometry.size_bytes;
	t.watchdog = loop_timer_new(t.loop, on_watchdog, NULL);
	loop_timer_set(t.watchdog, 1000);
	t.left = opt.writes;
	t.is_writing = opt.writes > 0;
	write_some();
	gate_hold(t.gate);
	layer_drain(t.gate, on_held_first, NULL);
	loop_run(t.loop);
	layer_close(t.gate);
	layer_close(t.disk);
	loop_timer_free(t.watchdog);
	iobuf_pool_free(t.pool);
	req_fini();
	loop_free(t.loop);
	extents_fini(&opt.only);
	return t.exit_code;
}

static void parse_only(const char *text)
{
	char *end = NULL;

	opt.has_only = true;
	for (const char *at = text; *at; at = *end ? end + 1 : end) {
		struct range r;

		r.start = strtoull(at, &end, 10);
		r.end = *end == '-' ? strtoull(end + 1, &end, 10) : r.start;
		if (extents_add(&opt.only, r, 0) != 0 || (*end && *end != ','))
			exit(2);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "writes", 1, NULL, 'w' },    { "region", 1, NULL, 'r' },   { "depth", 1, NULL, 'd' },
		{ "seed", 1, NULL, 's' },      { "copy", 0, NULL, 'c' },     { "only", 1, NULL, 'o' },
		{ "stay", 0, NULL, 'y' },      { "abort-at", 1, NULL, 'a' }, { "handshake", 1, NULL, 'h' },
		{ "dead", 1, NULL, 'x' },      { "connect", 1, NULL, 'n' },  { NULL, 0, NULL, 0 },
	};
	int c;

	log_init("mirror-try");
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t number = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 'w': opt.writes = number; break;
		case 'r': opt.region = number; break;
		case 'd': opt.depth = MIN(MAX(number, 1u), ARRAY_LEN(t.slot)); break;
		case 's': opt.seed = number + 1; break;
		case 'c': opt.is_copy = true; break;
		case 'o': parse_only(optarg); break;
		case 'y': opt.should_stay = true; break;
		case 'a': opt.abort_at = number; break;
		case 'h': opt.handshake_ms = number; break;
		case 'x': opt.dead_ms = number; break;
		case 'n': opt.connect_ms = number; break;
		default: return 2;
		}
	}
	if (argc - optind != 2)
		return 2;
	opt.image = argv[optind];
	opt.uri = argv[optind + 1];
	return run();
}
