/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The lease between three hosts, at random and in virtual time: without a bug a write never lands when another host has begun
 * to write, a dead host's lease is taken over within its bound, and a live one's never; with any of the bugs planted in
 * base/tenure, or in what it asks of its caller, that is not so, soon.  Built with -DPLANT.
 *
 *      SIM_LEASES=100000 SIM_SEED=1 tests/sim/sim-lease      sim-lease BUG SEED      (one history, told)
 *
 * A tick is a millisecond of the true time, which nobody sees: each host has a clock of its own rate and offset. The server has
 * one name, and a copy of it that is durable. A request is carried out late, or twice, or though who sent it is dead; its answer
 * comes late, or is lost. The server forgets what was not durable. Processes are stopped, killed, put to sleep with their host.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/tenure-plant.h"
#include "base/tenure.h"

enum tenure_bug tenure_planted;
#define BUG_NAME(name) #name,
static const char *const names[] = { "NONE", TENURE_BUGS(BUG_NAME) };

#define HOSTS 3u
#define WRITES 4u
#define ZOMBIES 16u
#define RENEW 50u
#define HOLD 200u
#define LOST 600u
#define WRITE_MAX 350u /* a write takes this at most: HOLD * 1.02 + WRITE_MAX < LOST * 0.98 */
#define DRIFT 0.02
#define STEPS 12000u
#define NEVER UINT64_MAX

enum what { LOOK, CHANGE };
struct request {
	bool is_open;
	enum what what;
	struct lease from, to, saw;
	uint64_t sent_ns;          /* the host's clock */
	uint64_t at, again_at, sync_at, answer_at;
	bool is_done, is_undone;   /* carried out; ... and forgotten by the server */
	int err;
};

enum doing { OFF, IDLE, WATCHING, TAKING, HOLDING, GIVING_BACK };
struct host {
	char name[2];
	double rate;
	uint64_t offset_ns, slept_ns;
	enum doing doing;
	uint64_t stopped_until;
	struct tenure tenure;
	struct tenure_watch watch;
	struct request request;
	bool has_begun;            /* to write, since it was taken */
	bool has_arrived;          /* CALLER_CHECKS_AT_ARRIVAL: a write that was let in */
	uint64_t lands[WRITES];    /* NEVER: none */
	uint64_t wants_since;
};

static struct {
	uint64_t now, random;
	struct lease name, durable;
	struct host host[HOSTS];
	struct request zombie[ZOMBIES];
	struct tenure_spec spec;
	unsigned writer;           /* who has begun to write last; HOSTS: nobody */
	bool is_kind, is_told;     /* kind: the server answers, nobody is hurt */
	uint64_t taken, refused, lost, stolen;
	char broken[160];
} w;

static void tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *fmt, ...)
{
	va_list ap;

	if (!w.is_told)
		return;
	printf("[%6llu] ", (unsigned long long)w.now);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static void broke(const char *what, const struct host *h)
{
	if (!w.broken[0])
		snprintf(w.broken, sizeof(w.broken), "%s: host %s at %llu", what, h->name, (unsigned long long)w.now);
}

static uint64_t draw(uint64_t below)
{
	w.random ^= w.random << 13;
	w.random ^= w.random >> 7;
	w.random ^= w.random << 17;
	return w.random % below;
}

static bool one_in(uint64_t n)
{
	return draw(n) == 0;
}

static uint64_t clock_of(const struct host *h)
{
	return h->offset_ns + (uint64_t)((double)(w.now * NS_PER_MS) * h->rate) - h->slept_ns;
}

/* --- the server */

static void carry_out(struct request *r)
{
	bool is_repeated = r->is_done;

	r->is_done = true;
	r->is_undone = false;
	if (r->what == LOOK) {
		r->saw = w.name;
		return;
	}
	if (lease_is_equal(&w.name, &r->from) || PLANTED(CALLER_REPLACES)) {
		w.name = r->to;
		r->err = 0;
	} else if (!is_repeated || r->err == 0) {
		r->err = lease_is_equal(&w.name, &r->to) ? 0 : ESTALE;
	}
	if (PLANTED(CALLER_REPLACES))
		r->err = 0;
}

static void serve(struct request *r)
{
	if (r->is_open && (w.now == r->at || w.now == r->again_at))
		carry_out(r);
	if (r->is_open && r->is_done && w.now == r->sync_at) {
		if (r->is_undone)
			carry_out(r);
		w.durable = w.name;
	}
}

static uint64_t latency(void)
{
	if (w.is_kind)
		return 1 + draw(3);
	return one_in(40) ? 1 + draw(1500) : one_in(8) ? 1 + draw(100) : 1 + draw(5);
}

static void send(struct host *h, enum what what, const struct lease *from, const struct lease *to)
{
	struct request *r = &h->request;

	*r = (struct request){ .is_open = true, .what = what, .again_at = NEVER, .sent_ns = clock_of(h) };
	if (from)
		r->from = *from;
	if (to)
		r->to = *to;
	r->at = w.now + latency();
	r->sync_at = r->at + latency();
	if (!w.is_kind && one_in(20)) { /* its answer is lost, it is sent again */
		r->again_at = r->at + latency();
		r->sync_at = r->again_at + latency();
	}
	r->answer_at = (PLANTED(CALLER_UNDURABLE) ? MIN(r->at, r->again_at) : r->sync_at) + latency();
}

static void forget(struct request *r)
{
	r->is_undone = r->is_open && r->is_done && r->what == CHANGE && w.now < r->sync_at;
}

static void crash_server(void)
{
	tell("the server forgets what was not durable");
	w.name = w.durable;
	for (unsigned i = 0; i < HOSTS; i++)
		forget(&w.host[i].request);
}

/* --- hosts */

static bool has_writes(const struct host *h)
{
	for (unsigned i = 0; i < WRITES; i++)
		if (h->lands[i] != NEVER)
			return true;
	return false;
}

static void begin_to_write(struct host *h)
{
	unsigned self = (unsigned)(h - w.host);

	for (unsigned i = 0; i < HOSTS; i++)
		if (has_writes(&w.host[i]))
			broke(i == self ? "a write of its dead process has not landed yet" :
			      "another host's write has not landed yet", h);
	w.writer = self;
	h->has_begun = true;
	w.taken++;
}

static void submit(struct host *h)
{
	if (!h->has_begun)
		begin_to_write(h);
	if (w.writer != (unsigned)(h - w.host))
		broke("a write, and another host has begun to", h);
	for (unsigned i = 0; i < WRITES; i++)
		if (h->lands[i] == NEVER) {
			h->lands[i] = w.now + 1 + (one_in(10) ? draw(WRITE_MAX) : draw(10));
			return;
		}
}

static void write_some(struct host *h)
{
	bool may = clock_of(h) < h->tenure.until_ns || (PLANTED(CALLER_WRITES_ON) && h->tenure.until_ns);

	if (PLANTED(CALLER_CHECKS_AT_ARRIVAL)) {
		if (h->has_arrived)
			submit(h);
		h->has_arrived = may && one_in(3);
	} else if (may && one_in(3)) {
		submit(h);
	}
}

static void stop_holding(struct host *h, enum doing doing)
{
	h->doing = doing;
	h->has_arrived = false;
	h->tenure.until_ns = 0;
	h->watch = (struct tenure_watch){ 0 };
}

static void take(struct host *h, const struct lease *seen)
{
	struct lease next = lease_taken(seen, h->name, draw(UINT64_MAX));

	/* The image's lock: what a dead process of this host had under way is over. */
	if (has_writes(h) && !PLANTED(CALLER_SKIPS_LOCK))
		return;
	h->doing = TAKING;
	send(h, CHANGE, seen, &next);
}

static void on_watched(struct host *h, struct request *r)
{
	uint64_t now_ns = PLANTED(CALLER_WATCHES_FROM_QUESTION) ? r->sent_ns : clock_of(h);

	switch (tenure_watch(&h->watch, &w.spec, h->name, &r->saw, now_ns)) {
	case TENURE_ALIVE:
		w.refused++;
		stop_holding(h, w.is_kind ? WATCHING : IDLE);
		break;
	case TENURE_DEAD:
		w.stolen++;
		/* fall through */
	case TENURE_NONE:
	case TENURE_OURS:
		take(h, &r->saw);
		break;
	case TENURE_WAIT:
		break;
	}
}

static void on_taken(struct host *h, const struct request *r)
{
	if (r->err) {
		stop_holding(h, WATCHING);
		return;
	}
	tell("%s has it, generation %llu", h->name, (unsigned long long)r->to.generation);
	h->doing = HOLDING;
	h->watch = (struct tenure_watch){ 0 };
	tenure_begin(&h->tenure, &w.spec, &r->to, PLANTED(CALLER_HOLDS_FROM_ANSWER) ? clock_of(h) : r->sent_ns);
	h->has_begun = false;
}

static void on_answer(struct host *h)
{
	struct request r = h->request;
	bool is_error = !w.is_kind && one_in(50);

	h->request.is_open = false;
	if (h->doing == WATCHING && !is_error) {
		on_watched(h, &r);
	} else if (h->doing == TAKING) {
		r.err = is_error ? EIO : r.err;
		on_taken(h, &r);
	} else if (h->doing == HOLDING && r.what == CHANGE) {
		tenure_renewed(&h->tenure, is_error ? EIO : r.err, clock_of(h));
	} else if (h->doing == HOLDING) {
		tenure_looked(&h->tenure, is_error ? EIO : 0, &r.saw, clock_of(h));
	} else if (h->doing == GIVING_BACK) {
		stop_holding(h, IDLE);
	}
	if (h->doing == HOLDING && h->tenure.is_lost) {
		tell("%s has lost it", h->name);
		w.lost++;
		stop_holding(h, IDLE);
	}
}

static void hold(struct host *h)
{
	uint64_t wait_ns;
	enum tenure_ask ask;

	write_some(h);
	if (h->request.is_open)
		return;
	if (!w.is_kind && one_in(1500) && !has_writes(h) && !h->tenure.must_look) {
		struct lease free = lease_given_back(&h->tenure.lease);

		stop_holding(h, GIVING_BACK);
		send(h, CHANGE, &h->tenure.lease, &free);
		return;
	}
	ask = tenure_next(&h->tenure, clock_of(h), &wait_ns);
	if (ask == TENURE_ASK_NOTHING)
		return;
	tenure_ask(&h->tenure, ask, clock_of(h));
	send(h, ask == TENURE_ASK_RENEW ? CHANGE : LOOK, &h->tenure.lease, &h->tenure.next);
}

static void run(struct host *h)
{
	for (unsigned i = 0; i < WRITES; i++)
		if (h->lands[i] == w.now)
			h->lands[i] = NEVER;
	if (h->doing == OFF || w.now < h->stopped_until)
		return;
	if (h->doing == HOLDING) /* who was stopped finds his queue first, and the answers after it */
		write_some(h);
	if (h->request.is_open && w.now >= h->request.answer_at)
		on_answer(h);
	if (h->doing == IDLE && one_in(200)) {
		h->doing = WATCHING;
		h->wants_since = w.now;
	}
	if (h->doing == WATCHING && !h->request.is_open && one_in(10))
		send(h, LOOK, NULL, NULL);
	if (h->doing == HOLDING)
		hold(h);
}

/* Its request may be carried out all the same. */
static void kill_process(struct host *h)
{
	if (h->request.is_open)
		w.zombie[draw(ZOMBIES)] = h->request;
	h->request.is_open = false;
	stop_holding(h, OFF);
}

static void hurt(struct host *h)
{
	uint64_t ticks = one_in(2) ? draw(100) : draw(4000);

	if (h->doing == OFF && one_in(300)) {
		h->doing = IDLE;
	} else if (h->doing != OFF && one_in(4000)) {
		tell("%s is killed", h->name);
		kill_process(h);
	} else if (h->doing != OFF && one_in(2500)) {
		tell("%s is stopped for %llu", h->name, (unsigned long long)ticks);
		h->stopped_until = w.now + ticks;
		if (PLANTED(CALLER_CLOCK_SLEEPS))
			h->slept_ns += (uint64_t)((double)(ticks * NS_PER_MS) * h->rate);
	}
}

static void tick(void)
{
	w.now++;
	for (unsigned i = 0; i < HOSTS; i++)
		serve(&w.host[i].request);
	for (unsigned i = 0; i < ZOMBIES; i++)
		serve(&w.zombie[i]);
	if (!w.is_kind && one_in(3000))
		crash_server();
	for (unsigned i = 0; i < HOSTS; i++) {
		if (!w.is_kind)
			hurt(&w.host[i]);
		run(&w.host[i]);
	}
}

/* --- a history */

static void begin(uint64_t seed)
{
	bool is_told = w.is_told;

	memset(&w, 0, sizeof(w));
	w.is_told = is_told;
	w.random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	w.name = w.durable = (struct lease){ .kind = LEASE_FREE };
	w.writer = HOSTS;
	w.spec = (struct tenure_spec){ RENEW * NS_PER_MS, HOLD * NS_PER_MS, LOST * NS_PER_MS, 0 };
	if (PLANTED(CALLER_NO_SLACK))
		w.spec.lost_ns = w.spec.hold_ns;
	for (unsigned i = 0; i < HOSTS; i++) {
		struct host *h = &w.host[i];

		h->name[0] = (char)('A' + i);
		h->rate = 1 - DRIFT + (double)draw(1000) * DRIFT / 500;
		h->offset_ns = draw(UINT64_C(1) << 50) + (UINT64_C(1) << 45);
		h->doing = IDLE;
		for (unsigned n = 0; n < WRITES; n++)
			h->lands[n] = NEVER;
	}
}

/* The server is well again; what was under way is over. */
static void settle(void)
{
	w.is_kind = true;
	for (unsigned i = 0; i < HOSTS; i++)
		w.host[i].stopped_until = 0;
	for (unsigned n = 0; n < 6000; n++)
		tick();
}

/* Now somebody has it, is alive, and has to keep it while the others want it. */
static void check_live(void)
{
	struct host *holder = NULL;
	uint64_t generation = w.name.generation;

	for (unsigned i = 0; i < HOSTS; i++) {
		if (w.host[i].doing == OFF)
			w.host[i].doing = IDLE;
		if (w.host[i].doing == HOLDING)
			holder = &w.host[i];
	}
	if (!holder)
		return;
	for (unsigned n = 0; n < 5 * LOST && !w.broken[0]; n++) {
		tick();
		if (clock_of(holder) >= holder->tenure.until_ns)
			broke("alive, the server answers, and it does not write", holder);
	}
	if (w.name.generation != generation)
		broke("alive, and its lease was taken", holder);
}

/* Everybody dies but one, who gets it in bounded time. */
static void check_dead(unsigned heir)
{
	struct host *h = &w.host[heir];
	uint64_t until = w.now + (uint64_t)((double)LOST / (1 - DRIFT)) + WRITE_MAX + 200;

	for (unsigned i = 0; i < HOSTS; i++)
		if (i != heir)
			kill_process(&w.host[i]);
	if (h->doing == OFF || h->doing == IDLE)
		h->doing = WATCHING;
	while (w.now < until && h->doing != HOLDING)
		tick();
	if (h->doing != HOLDING)
		broke("everybody else is dead, and it does not get the lease", h);
}

static bool play(uint64_t seed)
{
	begin(seed);
	for (unsigned n = 0; n < STEPS && !w.broken[0]; n++)
		tick();
	settle();
	if (!w.broken[0])
		check_live();
	if (!w.broken[0])
		check_dead((unsigned)(seed % HOSTS));
	return !w.broken[0];
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static uint64_t hunt(uint64_t first, uint64_t most)
{
	for (uint64_t n = 0; n < most; n++)
		if (!play(first + n))
			return n + 1;
	return 0;
}

static int tell_one(const char *bug, uint64_t seed)
{
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], bug) == 0)
			tenure_planted = (enum tenure_bug)i;
	w.is_told = true;
	play(seed);
	printf("%s\n", w.broken[0] ? w.broken : "good");
	return w.broken[0] != '\0';
}

static int escaped_bugs(uint64_t seed, uint64_t most)
{
	int escaped = 0;

	for (tenure_planted = TENURE_BUG_NONE + 1; tenure_planted < TENURE_BUG_COUNT; tenure_planted++) {
		uint64_t n = hunt(seed, most);

		if (n)
			printf("%-28s caught in schedule %llu: %s\n", names[tenure_planted], (unsigned long long)n, w.broken);
		else
			printf("%-28s NOT CAUGHT in %llu schedules\n", names[tenure_planted], (unsigned long long)most);
		escaped += !n;
	}
	return escaped;
}

int main(int argc, char **argv)
{
	uint64_t seed = number("SIM_SEED", 1), most = number("SIM_LEASES", 1500);
	uint64_t taken = 0, refused = 0, lost = 0, stolen = 0;

	if (argc == 3)
		return tell_one(argv[1], strtoull(argv[2], NULL, 10));
	for (uint64_t n = 0; n < most; n++) {
		if (!play(seed + n)) {
			printf("seed %llu: %s\n", (unsigned long long)(seed + n), w.broken);
			return 1;
		}
		taken += w.taken;
		refused += w.refused;
		lost += w.lost;
		stolen += w.stolen;
	}
	printf("%llu schedules: taken %llu times, refused %llu, lost %llu, judged dead %llu\n", (unsigned long long)most,
	       (unsigned long long)taken, (unsigned long long)refused, (unsigned long long)lost, (unsigned long long)stolen);
	return escaped_bugs(seed, most) != 0 || !taken || !refused || !lost || !stolen;
}
