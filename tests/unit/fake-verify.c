/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-verify - the comparison as the vdi room sees it; see fake-rooms.h
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/fake-rooms.h"

struct verify {
	struct verify_spec spec;
	struct verify_status status;
	struct loop_task over;
};

static void run_over(struct loop_task *t)
{
	struct verify *v = container_of(t, struct verify, over);

	v->spec.on_over(v->spec.arg);
}

struct verify *verify_new(const struct verify_spec *spec, struct error *e)
{
	struct verify *v = calloc(1, sizeof(*v));

	(void)e;
	fake_trace("verify+");
	v->spec = *spec;
	v->over.run = run_over;
	snprintf(v->status.remote, sizeof(v->status.remote), "%s", spec->uri);
	fake.verify = v;
	return v;
}

void verify_start(struct verify *v)
{
	(void)v;
	fake_trace("compare");
}

static void end_verify(struct verify *v, enum verify_state s)
{
	v->status.state = s;
	v->spec.on_change(v->spec.arg);
	if (!fake.is_verify_slow)
		loop_defer(fake.loop, &v->over);
}

void verify_cancel(struct verify *v, const struct error *why)
{
	if (v->status.state >= VERIFY_COMPLETE)
		return;
	fake_trace("stop");
	if (why)
		v->status.why = *why;
	end_verify(v, why ? VERIFY_FAILED : VERIFY_CANCELLED);
}

void verify_free(struct verify *v)
{
	fake_trace("verify-");
	fake.verify = NULL;
	free(v);
}

void verify_status(const struct verify *v, struct verify_status *out)
{
	*out = v->status;
}

void fake_verified(void)
{
	end_verify(fake.verify, VERIFY_COMPLETE);
}

void fake_verify_over(void)
{
	loop_defer(fake.loop, &fake.verify->over);
}

bool fake_ask_settled(struct range r)
{
	return fake.verify->spec.is_settled(fake.verify->spec.arg, r);
}
