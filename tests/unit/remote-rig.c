/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-rig - see remote-rig.h
 */
#include "tests/unit/remote-rig.h"

void rig_check(struct world *w)
{
	if (w->awaited && *w->awaited >= w->wanted)
		loop_stop(w->loop);
}

static void on_alarm(void *arg)
{
	const struct world *w = arg;

	fail_msg("nothing happened for 60 s: %u ups, %u failures (%s), %u downs, %u closes, %u operations done; waited for %u",
		 w->ups, w->failures, w->why.text, w->downs, w->closes, w->done, w->wanted);
}

void rig_await(struct world *w, unsigned *what, unsigned wanted)
{
	w->awaited = what;
	w->wanted = wanted;
	if (*what < wanted) {
		loop_timer_set(w->alarm, 60000);
		loop_run(w->loop);
		loop_timer_clear(w->alarm);
	}
	w->awaited = NULL;
	assert_int_equal(*what, wanted);
}

static void on_up(void *arg, const struct remote_info *info)
{
	struct world *w = arg;

	w->ups++;
	w->info = *info;
	for (size_t i = 0; i < info->zero.count; i++)
		w->zero_bytes += range_length(info->zero.item[i].range);
	rig_check(w);
}

static void on_failed(void *arg, const struct error *e)
{
	struct world *w = arg;

	w->failures++;
	w->why = *e;
	rig_check(w);
}

static void on_down(void *arg, int err)
{
	struct world *w = arg;

	w->downs++;
	w->down_err = err;
	w->done_at_down = w->done;
	rig_check(w);
}

static void on_closed(void *arg)
{
	struct world *w = arg;

	w->closes++;
	w->remote = NULL;
	rig_check(w);
}

static void on_done(struct remote_op *op, int err)
{
	struct world *w = ((struct test_op *)op)->world;

	w->done++;
	w->done_err = err;
	rig_check(w);
}

struct remote_spec rig_spec(struct world *w)
{
	return (struct remote_spec){
		.loop = w->loop, .uri = w->far.uri, .min_size_bytes = SIZE,
		.connect_wait_ms = PATIENT_MS, .handshake_ms = PATIENT_MS, .dead_ms = PATIENT_MS,
		.on_up = on_up, .on_failed = on_failed, .on_down = on_down, .arg = w,
	};
}

void rig_connect(struct world *w, const struct remote_spec *spec)
{
	struct error e = { 0 };

	w->remote = remote_nbd_new(spec, &e);
	if (!w->remote)
		fail_msg("%s", e.text);
}

void rig_start(struct world *w, const struct fake_nbd_plan *plan)
{
	struct remote_spec spec;

	fake_nbd_start(&w->far, plan, 0);
	spec = rig_spec(w);
	rig_connect(w, &spec);
}

void rig_hang_up(struct world *w, bool is_polite)
{
	w->remote->ops->close(w->remote, is_polite, on_closed, w);
	rig_await(w, &w->closes, 1);
}

void rig_submit(struct world *w, struct test_op *t, enum remote_opcode opcode, struct range r, const void *data)
{
	*t = (struct test_op){ .op = { .opcode = opcode, .range = r, .data = data, .done = on_done }, .world = w };
	w->remote->ops->submit(w->remote, &t->op);
}

int rig_setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->loop = loop_new();
	w->alarm = loop_timer_new(w->loop, on_alarm, w);
	*state = w;
	return 0;
}

int rig_teardown(void **state)
{
	struct world *w = *state;

	/* A test that failed has left its link, and what it said is shown only after this. */
	if (w->remote && !w->closes)
		rig_hang_up(w, false);
	if (w->far.own)
		fake_nbd_stop(&w->far);
	loop_timer_free(w->alarm);
	loop_free(w->loop);
	free(w);
	return 0;
}
