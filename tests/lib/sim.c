/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sim - a world for the mirror's core: two disks of version numbers, a clock that is turned by hand, and an oracle
 *
 *      guest --> core --> at_home[] --> local[]
 *                 |  \--> reads[]  <--- local[]
 *                 '-----> away[]   ---> far[] --flush--> durable[]
 *                            '-link lost-> zombies[] ---> far[], until the next link is up
 *
 * The unfriendliest disks that keep their promises: an operation takes effect at any moment between its start and its end, one
 * that fails leaves anything in its sectors, so does a trim that promises nothing, a flush that fails loses any of what was not
 * flushed, and then the next one succeeds.
 */
#include "tests/lib/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sim *sim_new(void)
{
	struct sim *w = calloc(1, sizeof *w);

	if (w)
		w->copies = calloc(CORE_COPIES_MAX, sizeof *w->copies);
	if (w)
		w->zombies = calloc(SIM_ZOMBIES_MAX, sizeof *w->zombies);
	if (!w || !w->copies || !w->zombies)
		abort();
	return w;
}

void sim_free(struct sim *w)
{
	free(w->copies);
	free(w->zombies);
	free(w);
}

bool sim_is_fine(const struct sim *w)
{
	return !w->broken[0];
}

uint64_t sim_dice(struct sim *w, uint64_t sides)
{
	uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % sides;
}

static unsigned sector_of(uint64_t bytes)
{
	return (unsigned)(bytes / SIM_SECTOR);
}

static struct range chunk_range(const struct sim *w, unsigned chunk)
{
	return (struct range){ (uint64_t)chunk * CORE_CHUNK_BYTES,
			       MIN((uint64_t)(chunk + 1) * CORE_CHUNK_BYTES, w->params.spec.size_bytes) };
}

/* A chunk differs (owed), or is pristine there and zero here, or is the same on both sides. */
static void fill_chunk(struct sim *w, unsigned chunk)
{
	struct range r = chunk_range(w, chunk);
	bool is_dirty = sim_dice(w, 100) < w->params.dirty_percent;
	bool is_pristine = sim_dice(w, 100) < w->params.pristine_percent, is_zero = sim_dice(w, 3) == 0;

	for (unsigned s = sector_of(r.start); s < sector_of(r.end); s++) {
		w->far[s] = is_pristine ? 0 : ++w->last_version;
		w->local[s] = !is_dirty ? w->far[s] : is_zero ? 0 : ++w->last_version;
		w->durable[s] = w->far[s];
		w->home[s] = w->local[s];
	}
	if (is_dirty)
		core_mark_dirty(w->core, r);
	if (is_pristine)
		core_mark_pristine(w->core, r);
	w->is_clean[chunk] = is_pristine && w->local[sector_of(r.start)] == 0;
}

void sim_start(struct sim *w, const struct sim_params *p)
{
	struct sim_copy *copies = w->copies;
	struct sim_zombie *zombies = w->zombies;

	memset(w, 0, offsetof(struct sim, trace));
	w->trace[0] = '\0';
	w->trace_used = 0;
	w->copies = copies;
	w->zombies = zombies;
	w->params = *p;
	w->random = p->seed;
	w->sectors = sector_of(p->spec.size_bytes);
	w->chunks = (w->sectors + 7) / 8;
	w->now_ns = NS_PER_S;
	assert(w->chunks <= SIM_CHUNKS_MAX);
	w->core = core_new(&p->spec);
	if (!w->core)
		abort();
	for (unsigned i = 0; i < w->chunks; i++)
		fill_chunk(w, i);
	core_status(w->core, &w->status);
}

static struct sim_copy *copy_of(struct sim *w, struct core_op *op)
{
	if (!op->driver)
		op->driver = &w->copies[w->copies_used++];
	return op->driver;
}

static struct sim_guest *guest_of(struct core_op *op)
{
	return container_of(op, struct sim_guest, op);
}

static void read_local(struct sim *w, struct core_op *op)
{
	struct sim_copy *copy = copy_of(w, op);
	unsigned first = sector_of(op->range.start), count = sector_of(op->range.end) - first;

	memcpy(copy->data, &w->local[first], count * sizeof copy->data[0]);
	op->zeros = (struct core_mask){ 0 };
	for (unsigned chunk = 0; chunk * 8 < count; chunk++) {
		uint32_t any = 0;

		for (unsigned s = chunk * 8; s < MIN(chunk * 8 + 8, count); s++)
			any |= copy->data[s];
		if (!any)
			core_mask_set(&op->zeros, chunk);
	}
}

static void perform(struct sim *w, const struct core_action *a)
{
	switch (a->type) {
	case CORE_DO_LOCAL_SUBMIT:
		guest_of(a->op)->state = SIM_SUBMITTED;
		w->at_home[w->home_count++] = a->op;
		break;
	case CORE_DO_COPY_READ:
		read_local(w, a->op);
		w->reads[w->read_count++] = a->op;
		break;
	case CORE_DO_REMOTE_SUBMIT:
		w->is_applied[w->away_count] = false;
		w->away[w->away_count++] = a->op;
		break;
	case CORE_DO_COMPLETE_GUEST:
		guest_of(a->op)->state = SIM_ANSWERED;
		break;
	case CORE_DO_RELEASE:
		memset(a->op, 0xa5, sizeof *a->op);
		guest_of(a->op)->state = SIM_FREE;
		break;
	case CORE_DO_FLUSH_FAR:
		w->is_flushing = true;
		memcpy(w->snap, w->far, sizeof w->snap);
		break;
	case CORE_DO_FLUSH_HOME:
		w->is_flushing_home = true;
		memcpy(w->home_snap, w->local, sizeof w->home_snap);
		break;
	case CORE_DO_MARK:
		w->asked[w->asked_count].region = a->region;
		w->asked[w->asked_count++].count = a->count;
		break;
	case CORE_DO_RETIRE:
		for (uint64_t i = a->region; i < a->region + a->count; i++) {
			if (sim_dice(w, 2))
				w->marked &= ~(UINT64_C(1) << i); /* else later */
			w->mapped &= ~(UINT64_C(1) << i);
		}
		break;
	case CORE_DO_DROP_LINK:
		w->was_dropped = true;
		break;
	case CORE_DO_REPORT:
		break;
	}
}

static void step(struct sim *w, struct core_event *ev)
{
	struct core_status before = w->status;
	const struct core_event first = *ev;
	struct core_actions out;

	if (!sim_is_fine(w))
		return;
	w->steps++;
	ev->now_ns = w->now_ns;
	sim_check_before(w);
	do {
		core_step(w->core, ev, &out);
		core_status(w->core, &w->status);
		for (unsigned i = 0; i < out.count && sim_is_fine(w); i++) {
			sim_check_action(w, &out.item[i]);
			if (sim_is_fine(w))
				perform(w, &out.item[i]);
		}
		if (out.is_full)
			ev->type = CORE_MORE;
	} while (out.is_full && sim_is_fine(w));
	if (w->status.is_map_ready && !w->is_void)
		w->is_map_vouched = w->are_marks_vouched = true;
	if (sim_is_fine(w))
		sim_check_step(w, &first, &before);
}

struct core_op *sim_guest(struct sim *w, enum core_op_kind kind, struct range r, bool is_zero)
{
	static const char *const names[] = {
		[CORE_WRITE] = "write", [CORE_ZERO] = "zero", [CORE_TRIM] = "trim", [CORE_FLUSH] = "flush",
	};
	struct sim_guest *g = NULL;

	for (unsigned i = 0; i < SIM_GUESTS_MAX && !g; i++)
		if (w->guests[i].state == SIM_FREE)
			g = &w->guests[i];
	if (!g || (range_is_empty(r) && kind != CORE_FLUSH))
		return NULL;
	g->op = (struct core_op){ .kind = kind, .range = r, .is_zero = is_zero, .may_trim = kind == CORE_ZERO && sim_dice(w, 2) };
	g->state = SIM_ARRIVED;
	g->version = kind == CORE_WRITE && !is_zero ? ++w->last_version : 0;
	g->is_waiting = false;
	if (kind == CORE_FLUSH)
		sim_note_promise(w, g);
	else
		sim_stays_clean(w, r, !g->version && (kind != CORE_TRIM || w->params.spec.trim_reads_zero));
	sim_say(w, "guest %s %u+%u%s", names[kind], sector_of(r.start), sector_of(r.end - r.start), is_zero ? " of zeros" : "");
	step(w, &(struct core_event){ .type = CORE_WRITE_ARRIVED, .op = &g->op });
	return &g->op;
}

static void take_out(struct core_op **list, unsigned *count, unsigned i)
{
	assert(i < *count);
	memmove(&list[i], &list[i + 1], (*count - i - 1) * sizeof *list);
	(*count)--;
}

/* What a write leaves: what was meant; if it failed, that, or what was there, or anything. */
static uint32_t after(struct sim *w, uint32_t before, uint32_t meant, bool is_good)
{
	uint64_t dice = is_good ? 0 : sim_dice(w, 3);

	return dice == 0 ? meant : dice == 1 ? before : ++w->last_version;
}

void sim_local_done(struct sim *w, unsigned i, int err)
{
	struct core_op *op = w->at_home[i];
	struct sim_guest *g = guest_of(op);
	bool has_result = op->kind != CORE_TRIM || w->params.spec.trim_reads_zero;

	take_out(w->at_home, &w->home_count, i);
	if (op->kind == CORE_FLUSH && !err)
		memcpy(w->home, w->local, sizeof w->home); /* all that was done when it began, and more: it is a disk of ours */
	for (unsigned s = sector_of(op->range.start); s < sector_of(op->range.end); s++)
		w->local[s] = after(w, w->local[s], g->version, !err && has_result);
	sim_say(w, "local done %u+%u%s", sector_of(op->range.start), sector_of(range_length(op->range)), err ? " error" : "");
	step(w, &(struct core_event){ .type = CORE_LOCAL_DONE, .op = op, .err = err });
	if (!sim_is_fine(w) || g->state != SIM_SUBMITTED)
		return;
	if (err || !w->status.is_sync || w->status.is_lagging || !w->is_linked)
		sim_break(w, "I8: the guest was not answered when its own disk had the write");
	g->is_waiting = true;
	g->waits_ns = w->now_ns;
}

void sim_read_done(struct sim *w, unsigned i, int err)
{
	struct core_op *op = w->reads[i];

	take_out(w->reads, &w->read_count, i);
	sim_say(w, "read done %u+%u%s", sector_of(op->range.start), sector_of(range_length(op->range)), err ? " error" : "");
	if (err) {
		for (unsigned s = 0; s < ARRAY_LEN(copy_of(w, op)->data); s++)
			copy_of(w, op)->data[s] = 0;
		op->zeros = (struct core_mask){ 0 };
	}
	step(w, &(struct core_event){ .type = CORE_COPY_READ_DONE, .op = op, .err = err });
}

static uint32_t payload(struct sim *w, struct core_op *op, unsigned sector)
{
	if (op->far_kind == CORE_FAR_ZERO)
		return 0;
	if (op->kind != CORE_COPY)
		return guest_of(op)->version;
	return copy_of(w, op)->data[sector - sector_of(op->range.start)];
}

/* What is there no more was promised to nobody who asks later. */
static void write_far(struct sim *w, unsigned s, uint32_t version)
{
	if (w->far[s] == version)
		return;
	w->far[s] = version;
	for (unsigned i = 0; i < SIM_GUESTS_MAX; i++)
		if (w->guests[i].state != SIM_FREE && w->guests[i].op.kind == CORE_FLUSH)
			w->guests[i].promised[s] = SIM_NOTHING;
}

static void apply(struct sim *w, struct core_op *op, bool is_whole)
{
	for (unsigned s = sector_of(op->far_range.start); s < sector_of(op->far_range.end); s++)
		write_far(w, s, after(w, w->far[s], payload(w, op, s), is_whole));
}

void sim_far_applies(struct sim *w, unsigned i)
{
	if (!w->is_applied[i])
		apply(w, w->away[i], true);
	w->is_applied[i] = true;
}

static struct core_op *come_back(struct sim *w, unsigned i)
{
	struct core_op *op = w->away[i];

	memmove(&w->is_applied[i], &w->is_applied[i + 1], w->away_count - i - 1);
	take_out(w->away, &w->away_count, i);
	return op;
}

void sim_far_done(struct sim *w, unsigned i, int err)
{
	struct core_op *op;

	if (!w->is_applied[i])
		apply(w, w->away[i], !err);
	op = come_back(w, i);
	sim_say(w, "far done %u+%u%s", sector_of(op->far_range.start), sector_of(range_length(op->far_range)),
		err ? " error" : "");
	step(w, &(struct core_event){ .type = CORE_REMOTE_DONE, .op = op, .err = err, .generation = w->generation });
}

void sim_flushed(struct sim *w, int err)
{
	w->is_flushing = false;
	w->bad_flushes += err != 0;
	for (unsigned s = 0; s < w->sectors; s++) {
		if (!err)
			w->durable[s] = w->snap[s];
		else if (w->durable[s] != w->far[s] && sim_dice(w, 2))
			w->far[s] = w->durable[s];
	}
	sim_say(w, "flushed%s", err ? " error" : "");
	step(w, &(struct core_event){ .type = CORE_FLUSHED, .err = err, .generation = w->generation });
}

/* The newcomer is let in when what the older ones had submitted is over (I12). */
void sim_link_up(struct sim *w)
{
	struct core_far far = w->params.far;

	while (w->zombie_count && !w->params.has_zombies)
		sim_zombie_lands(w, 0);
	w->generation = w->had_link ? w->generation + 1 : far.generation;
	far.generation = w->generation;
	far.may_have_lost = w->is_far_suspect;
	w->is_linked = w->had_link = true;
	w->was_dropped = false;
	w->is_far_suspect = false;
	sim_say(w, "link up%s", far.may_have_lost ? ", it may have lost something" : "");
	step(w, &(struct core_event){ .type = CORE_LINK_UP, .far = far });
}

void sim_zombie_lands(struct sim *w, unsigned i)
{
	const struct sim_zombie *z = &w->zombies[i];
	bool is_whole = sim_dice(w, 2);

	for (unsigned s = 0; s < z->count; s++)
		w->far[z->first + s] = after(w, w->far[z->first + s], z->data[s], is_whole);
	w->zombie_count--;
	memmove(&w->zombies[i], &w->zombies[i + 1], (w->zombie_count - i) * sizeof *z);
}

static void make_zombie(struct sim *w, struct core_op *op)
{
	struct sim_zombie *z = &w->zombies[w->zombie_count];
	unsigned first = sector_of(op->far_range.start), count = sector_of(range_length(op->far_range));

	if (w->zombie_count == SIM_ZOMBIES_MAX || count > ARRAY_LEN(z->data)) {
		apply(w, op, false);
		return;
	}
	w->zombie_count++;
	z->first = first;
	z->count = count;
	for (unsigned s = 0; s < count; s++)
		z->data[s] = payload(w, op, first + s);
}

/* What stood in the queue of a link that is lost was perhaps sent: the core does not tell it from what was. */
static void soil_queued(struct sim *w)
{
	for (uint64_t c = 0; sim_is_fine(w) && c < w->chunks; c++)
		if (core_has_far_leg(w->core, (struct range){ c * CORE_CHUNK_BYTES, (c + 1) * CORE_CHUNK_BYTES }))
			w->is_clean[c] = !(w->was_sent[c] = true);
}

void sim_link_down(struct sim *w, int err)
{
	soil_queued(w);
	for (unsigned i = 0; i < w->away_count; i++)
		if (!w->is_applied[i])
			make_zombie(w, w->away[i]);
	w->away_count = 0;
	w->is_flushing = false;
	w->is_linked = false;
	sim_say(w, "link down");
	step(w, &(struct core_event){ .type = CORE_LINK_DOWN, .err = err, .generation = w->generation });
}

void sim_link_never(struct sim *w, int err)
{
	sim_say(w, "no link any more");
	step(w, &(struct core_event){ .type = CORE_LINK_DOWN, .err = err });
}

void sim_far_crashes(struct sim *w)
{
	sim_say(w, "the far side crashes");
	while (w->zombie_count)
		sim_zombie_lands(w, 0);
	for (unsigned s = 0; s < w->sectors; s++)
		if (sim_dice(w, 2))
			w->far[s] = w->durable[s];
	w->is_far_suspect = true;
}

void sim_map_on(struct sim *w)
{
	w->is_map_on = true;
	sim_say(w, "map on");
	step(w, &(struct core_event){ .type = CORE_MAP_ON, .owing = w->owing, .unflushed = w->unflushed });
}

/* What is there no more says that everything is owed. */
static void remove_files(struct sim *w)
{
	w->is_void = true;
	w->is_map_vouched = w->are_marks_vouched = false;
	w->marked = w->mapped = 0;
}

void sim_voided(struct sim *w)
{
	remove_files(w);
	sim_say(w, "map and marks are void");
	step(w, &(struct core_event){ .type = CORE_VOIDED });
}

void sim_marked(struct sim *w, unsigned i, int err, bool has_map)
{
	uint64_t region = w->asked[i].region, count = w->asked[i].count;

	assert(i < w->asked_count && region + count <= 64);
	w->asked[i] = w->asked[--w->asked_count];
	if (w->is_void)
		err = ECANCELED;
	if (err)
		remove_files(w);
	for (uint64_t r = region; !err && r < region + count; r++) {
		w->marked |= UINT64_C(1) << r;
		if (has_map)
			w->mapped |= UINT64_C(1) << r;
	}
	sim_say(w, "marked %u+%u%s", (unsigned)region, (unsigned)count, err ? " error" : has_map ? "" : ", no map");
	step(w, &(struct core_event){ .type = CORE_MARKED, .region = region, .count = count, .err = err, .has_map = has_map });
}

void sim_home_flushed(struct sim *w, int err)
{
	w->is_flushing_home = false;
	if (!err)
		memcpy(w->home, w->home_snap, sizeof w->home);
	sim_say(w, "flushed at home%s", err ? " error" : "");
	step(w, &(struct core_event){ .type = CORE_HOME_FLUSHED, .err = err });
}

/* What the dead process had submitted to its disk: done, or not, or half. */
static void lose_legs(struct sim *w)
{
	for (unsigned i = 0; i < w->home_count; i++)
		for (unsigned s = sector_of(w->at_home[i]->range.start); s < sector_of(w->at_home[i]->range.end); s++)
			w->local[s] = after(w, w->local[s], guest_of(w->at_home[i])->version, false);
	for (unsigned i = 0; i < w->away_count; i++)
		if (!w->is_applied[i])
			make_zombie(w, w->away[i]);
	for (unsigned i = 0; i < SIM_GUESTS_MAX; i++)
		w->guests[i].state = SIM_FREE;
	w->home_count = w->read_count = w->away_count = w->asked_count = w->copies_used = 0;
	w->is_flushing = w->is_flushing_home = w->is_linked = w->was_dropped = false;
}

static bool has_bit(const uint64_t *words, unsigned i)
{
	return words[i / 64] >> (i % 64) & 1;
}

/* What persist_each_owing() and persist_each_marked() would say of a chunk. */
static bool is_owed_by_files(const struct sim *w, unsigned chunk, bool is_power)
{
	unsigned region = (unsigned)(chunk * CORE_CHUNK_BYTES / w->params.spec.region_bytes);

	if (!w->are_marks_vouched || (!is_power && !w->is_map_vouched))
		return true;
	if (!(w->marked >> region & 1))
		return false;
	return is_power || !(w->mapped >> region & 1) || has_bit(w->owing, chunk);
}

static void take_up(struct sim *w, bool is_power)
{
	for (unsigned c = 0; c < w->chunks; c++)
		if (is_owed_by_files(w, c, is_power))
			core_mark_dirty(w->core, chunk_range(w, c));
		else if (!is_power && has_bit(w->unflushed, c))
			core_mark_unflushed(w->core, chunk_range(w, c));
	for (unsigned region = 0; region * w->params.spec.region_bytes < w->params.spec.size_bytes; region++) {
		struct range r = { region * w->params.spec.region_bytes, (region + 1) * w->params.spec.region_bytes };

		if (w->marked >> region & 1)
			core_mark_marked(w->core, r, !is_power && w->mapped >> region & 1);
	}
}

void sim_dies(struct sim *w, bool is_power)
{
	sim_say(w, "%s", is_power ? "power loss" : "kill -9");
	lose_legs(w);
	if (is_power) {
		for (unsigned s = 0; s < w->sectors; s++)
			if (sim_dice(w, 2))
				w->local[s] = w->home[s];
		for (unsigned s = 0; s < w->sectors; s++)
			w->home[s] = w->local[s]; /* what a read gave after the boot stays */
		w->is_map_vouched = false;
	}
	core_abandon(w->core);
	w->core = core_new(&w->params.spec);
	if (!w->core)
		abort();
	take_up(w, is_power);
	if (is_power) {
		w->mapped = 0;
		memset(w->owing, 0, sizeof w->owing);
		memset(w->unflushed, 0, sizeof w->unflushed);
	}
	memset(w->is_clean, 0, sizeof w->is_clean);
	w->is_cut = w->is_map_on = w->is_void = false;
	w->lives++;
	core_status(w->core, &w->status);
	if (w->params.has_map)
		sim_map_on(w);
}

void sim_guest_reads(struct sim *w)
{
	core_guest_reads(w->core, w->now_ns);
}

void sim_set_mode(struct sim *w, bool is_sync)
{
	sim_say(w, "mode %s", is_sync ? "sync" : "lag");
	step(w, &(struct core_event){ .type = CORE_SET_MODE, .is_sync = is_sync });
}

void sim_tick(struct sim *w, unsigned ms)
{
	w->now_ns += ms * NS_PER_MS;
	step(w, &(struct core_event){ .type = CORE_TICK });
}

void sim_event(struct sim *w, enum core_event_type type, int err)
{
	static const char *const names[] = {
		[CORE_BARRIER] = "barrier", [CORE_UNBARRIER] = "unbarrier", [CORE_ABORT] = "abort",
		[CORE_GO_ON] = "go on",
	};

	sim_say(w, "%s", names[type]);
	step(w, &(struct core_event){ .type = type, .err = err });
}
