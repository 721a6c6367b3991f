/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gate - see gate.h
 *
 * A request that waits here is counted in flight by layer_submit(), yet a drain of the gate must not wait for it (it would
 * wait for ever: the drain is why the gate is held).  So a waiting request is counted out while it stands in the queue and
 * in again when it goes on.
 */
#include "block/gate.h"

#include <errno.h>
#include <stdlib.h>

enum gate_state { GATE_OPEN, GATE_HELD, GATE_REFUSING };

struct gate {
	struct layer layer;
	enum gate_state state;
	int err;                /* REFUSING: what requests end with */
	struct req_list queue;  /* HELD: in arrival order */
};

static struct gate *gate_of(struct layer *l)
{
	return container_of(l, struct gate, layer);
}

static void submit(struct layer *l, struct req *r)
{
	struct gate *g = gate_of(l);

	switch (g->state) {
	case GATE_OPEN:
		layer_forward(l->below, r);
		break;
	case GATE_HELD:
		layer_count_out(r);
		TAILQ_INSERT_TAIL(&g->queue, r, link);
		break;
	case GATE_REFUSING:
		req_complete(r, g->err);
		break;
	}
}

static void close_gate(struct layer *l)
{
	struct gate *g = gate_of(l);

	assert(TAILQ_EMPTY(&g->queue));
	free(g);
}

static const struct layer_ops gate_ops = { .name = "gate", .submit = submit, .close = close_gate };

struct layer *gate_new(struct layer *below)
{
	struct gate *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	layer_init(&g->layer, &gate_ops, below, below ? &below->geometry : &(struct geometry){ 0 });
	g->state = below ? GATE_OPEN : GATE_HELD;
	TAILQ_INIT(&g->queue);
	return &g->layer;
}

void gate_hold(struct layer *l)
{
	gate_of(l)->state = GATE_HELD;
}

/* What waited is submitted anew: it is checked against what stands below now. */
static void let_go(struct gate *g)
{
	struct req_list waited = TAILQ_HEAD_INITIALIZER(waited);
	struct req *r;

	TAILQ_CONCAT(&waited, &g->queue, link);
	while ((r = TAILQ_FIRST(&waited))) {
		TAILQ_REMOVE(&waited, r, link);
		r->is_in_flight = false;
		layer_submit(&g->layer, r);
	}
}

void gate_release(struct layer *l)
{
	assert(l->below);
	gate_of(l)->state = GATE_OPEN;
	let_go(gate_of(l));
}

void gate_refuse(struct layer *l, int err)
{
	assert(err > 0);
	gate_of(l)->state = GATE_REFUSING;
	gate_of(l)->err = err;
	let_go(gate_of(l));
}

void gate_set_below(struct layer *l, struct layer *below)
{
	assert(gate_of(l)->state != GATE_OPEN && l->in_flight == 0);
	l->below = below;
	if (below)
		l->geometry = below->geometry;
}
