/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tenancy - see tenancy.h; why it is safe: OWNERSHIP; what is decided when: base/tenure
 *
 *      open    who has it? --another host--> does it change? --yes--> refused
 *                | nobody, this host           '--not for long: dead-.
 *                '--> the image's lock <-----------------------------'
 *                        '--> ours, on record --> the disk may be used until ... --renew--> ... --> given back when it is closed
 *
 * A renewal is one call on a pool thread.  One that hangs is waited for; meanwhile the disk's time runs out, and it parks what
 * comes.  A lease that is lost ends the process (vdi_spec.on_lost): whatever it knows of the disk is another host's now, and none
 * of its files may be touched.
 *
 * Can fail: the storage; then no guest starts, or the disk waits.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/host-id.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

#define LOOKS_IN_A_RENEWAL 4u

/* --- in the pool */

static int refuse(const char *image, const struct lease *seen, struct error *e)
{
	return error_set(e, EREMOTE, "%s is active on host %s, which renews its lease; deactivate it there first", image,
			 seen->host);
}

static int pause_in(struct tenancy *t, struct error *e)
{
	uint64_t ns = t->spec.renew_ns / LOOKS_IN_A_RENEWAL;
	const struct timespec pause = { .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };

	nanosleep(&pause, NULL);
	return t->is_cancelled ? error_set(e, ESHUTDOWN, "the datapath process is stopping") : 0;
}

static int watch(struct tenancy *t, const char *image, struct error *e)
{
	struct tenure_watch w = { 0 };

	for (;;) {
		if (lease_look(image, &t->seen, e) == -1)
			return -1;
		switch (tenure_watch(&w, &t->spec, t->host, &t->seen, lease_now_ns())) {
		case TENURE_ALIVE:
			return refuse(image, &t->seen, e);
		case TENURE_DEAD:
			log_warn("%s: host %s has not renewed its lease for %" PRIu64 " s, and has lost it", image, t->seen.host,
				 t->spec.lost_ns / NS_PER_S);
			t->was_dead = true;
			return 0;
		case TENURE_NONE:
		case TENURE_OURS:
			return 0;
		case TENURE_WAIT:
			if (pause_in(t, e) == -1)
				return -1;
			break;
		}
	}
}

int tenancy_wait(struct tenancy *t, const char *image, struct disk_spec *spec, struct error *e)
{
	t->was_dead = t->is_new = false;
	if (t->is_taken && !spec->is_read_only) { /* closed for a moment only: it is renewed all the while */
		spec->is_leased = true;
		return 0;
	}
	if (lease_look(image, &t->seen, e) == -1)
		return -1;
	spec->is_sharable = t->seen.kind == LEASE_SHARABLE;
	if (spec->is_read_only || t->seen.kind == LEASE_ABSENT || t->seen.kind == LEASE_SHARABLE)
		return 0;
	if (host_id(t->host, e) == -1 || watch(t, image, e) == -1)
		return -1;
	spec->is_leased = t->seen.kind != LEASE_ABSENT;
	spec->may_skip_lock = t->was_dead;
	if (t->was_dead)
		spec->lock_wait_ms = (unsigned)(t->spec.lock_ns / NS_PER_MS);
	return 0;
}

int tenancy_take(struct tenancy *t, const char *image, const struct disk_spec *spec, struct error *e)
{
	struct lease next = lease_taken(&t->seen, t->host, lease_new_life());
	uint64_t began_ns = lease_now_ns();

	if (!spec->is_leased || t->is_taken)
		return 0;
	if (lease_change(image, &t->seen, &next, e) == -1)
		return -1;
	tenure_begin(&t->tenure, &t->spec, &next, began_ns);
	t->until_ns = t->tenure.until_ns;
	t->is_taken = t->is_new = true;
	log_info("%s: leased by this host, generation %" PRIu64 "%s", image, next.generation,
		 t->seen.kind == LEASE_HELD && !t->was_dead ? "; it was before" : "");
	return 0;
}

/* Whatever became of the last renewal. */
static int give_back(struct tenancy *t, const char *image, struct error *e)
{
	struct lease now = t->tenure.lease, free = lease_given_back(&now), found;

	t->is_taken = false;
	t->until_ns = 0;
	if (lease_change(image, &now, &free, e) == 0)
		return 0;
	if (e->err != ESTALE || lease_look(image, &found, e) == -1)
		return -1;
	if (found.kind != LEASE_HELD || found.generation != now.generation || found.life != now.life)
		return 0;
	return lease_change(image, &found, &free, e);
}

void tenancy_undo(struct tenancy *t, const char *image)
{
	struct error e = { 0 };

	if (t->is_taken && t->is_new && give_back(t, image, &e) == -1)
		log_warn("%s", e.text);
}

int tenancy_check(const struct tenancy *t, struct error *e)
{
	if (!t->is_taken || lease_now_ns() < t->until_ns)
		return 0;
	return error_set(e, ESTALE, "this host's lease of the image is over, and could not be renewed");
}

/* --- renewals */

static void act(struct vdi *v);

static void on_timer(void *arg)
{
	act(arg);
}

static void on_work(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, tenancy.offload);
	struct tenancy *t = &v->tenancy;

	error_clear(&t->why);
	switch (t->ask) {
	case TENURE_ASK_NOTHING:
		give_back(t, v->path, &t->why);
		break;
	case TENURE_ASK_RENEW:
		lease_change(v->path, &t->from, &t->to, &t->why);
		break;
	case TENURE_ASK_LOOK:
		lease_look(v->path, &t->found, &t->why);
		break;
	}
}

static void lose(struct vdi *v)
{
	struct tenancy *t = &v->tenancy;

	t->is_taken = false;
	t->until_ns = 0;
	log_error("%s: this host's lease is lost: it is %s%s now; nothing is written here any more", v->path,
		  t->tenure.found.kind == LEASE_HELD ? "leased by host " : "nobody's", t->tenure.found.host);
	disk_abandon(v->run_dir);
	if (v->on_lost)
		v->on_lost(v->arg);
}

static void on_asked(struct tenancy *t)
{
	uint64_t now_ns = lease_now_ns();

	if (t->why.err)
		log_warn("the lease could not be renewed: %s", t->why.text);
	if (t->ask == TENURE_ASK_RENEW)
		tenure_renewed(&t->tenure, t->why.err, now_ns);
	else
		tenure_looked(&t->tenure, t->why.err, &t->found, now_ns);
	t->until_ns = t->tenure.until_ns;
}

static void on_given_back(struct vdi *v)
{
	struct tenancy *t = &v->tenancy;

	if (t->why.err)
		log_warn("the lease is not given back, and ends by itself: %s", t->why.text);
	t->is_ending = t->is_taken = false;
	stack_step_end(v);
}

static void set_lease(struct vdi *v)
{
	disk_set_lease(v->disk, v->tenancy.until_ns);
	if (v->import.overlay)
		disk_set_lease(overlay_data(v->import.overlay), v->tenancy.until_ns);
}

static void on_done(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, tenancy.offload);
	struct tenancy *t = &v->tenancy;

	t->is_asking = false;
	if (t->ask == TENURE_ASK_NOTHING) {
		on_given_back(v);
		return;
	}
	on_asked(t);
	if (t->tenure.is_lost)
		lose(v);
	else if (v->disk)
		set_lease(v);
	act(v);
}

static void submit(struct vdi *v, enum tenure_ask ask)
{
	struct tenancy *t = &v->tenancy;

	t->ask = ask;
	t->is_asking = true;
	if (ask != TENURE_ASK_NOTHING)
		tenure_ask(&t->tenure, ask, lease_now_ns());
	t->from = t->tenure.lease;
	t->to = t->tenure.next;
	t->offload.work = on_work;
	t->offload.done = on_done;
	if (offload_submit(v->loop, &t->offload) == 0)
		return;
	error_set(&t->why, ENOMEM, "out of memory");
	on_done(&t->offload);
}

static void act(struct vdi *v)
{
	struct tenancy *t = &v->tenancy;
	enum tenure_ask ask;
	uint64_t wait_ns;

	if (t->is_asking)
		return;
	if (t->is_ending && !t->is_taken) {
		t->is_ending = false;
		stack_step_end(v);
	} else if (t->is_ending) {
		submit(v, TENURE_ASK_NOTHING);
	} else if (t->is_taken) {
		ask = tenure_next(&t->tenure, lease_now_ns(), &wait_ns);
		if (ask == TENURE_ASK_NOTHING)
			loop_timer_set(t->timer, wait_ns / NS_PER_MS + 1);
		else
			submit(v, ask);
	}
}

void tenancy_status(const struct tenancy *t, struct vdi_status *out)
{
	uint64_t now_ns = lease_now_ns(), until_ns = t->until_ns;

	if (!t->is_taken)
		return;
	out->lease = t->tenure.lease;
	out->lease_left_ms = until_ns > now_ns ? (until_ns - now_ns) / NS_PER_MS : 0;
}

/* --- for stack.c */

int tenancy_init(struct vdi *v)
{
	v->tenancy.spec = tenure_spec_default();
	v->tenancy.timer = loop_timer_new(v->loop, on_timer, v);
	return v->tenancy.timer ? 0 : -1;
}

void tenancy_fini(struct vdi *v)
{
	assert(!v->tenancy.is_asking);
	loop_timer_free(v->tenancy.timer);
}

void tenancy_begin(struct vdi *v)
{
	if (!v->tenancy.is_taken)
		return;
	set_lease(v);
	act(v);
}

void tenancy_end(struct vdi *v)
{
	loop_timer_clear(v->tenancy.timer);
	v->tenancy.is_ending = true;
	act(v);
}
