/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-plan - a journey's disks and place, from what both hosts say of them, before anything is done
 *
 *      volume.find here for each source, sr.find there, the greetings, a probe -> plan_make() -> the record's disks
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/columns.h"
#include "migrate/journey-private.h"
#include "migrate/question.h"

#define PROBE_FIRST_BYTES (UINT64_C(1) << 20)
#define PROBE_BYTES (UINT64_C(64) << 20)
#define PROBE_MS 1000

struct found {
	struct plan_volume *volume; /* owned */
	char **moving_in;           /* owned */
	size_t count;
	struct plan_sr sr;
	struct error no_way;        /* err 0: there is one */
};

static void clear(struct found *f)
{
	for (size_t i = 0; i < f->count; i++) {
		jsonspec_clear(&plan_volume_spec, &f->volume[i]);
		free(f->moving_in[i]);
	}
	free(f->volume);
	free(f->moving_in);
	jsonspec_clear(&plan_sr_spec, &f->sr);
}

static int find_volume(struct journey *j, const char *source, struct found *f, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "source", source, NULL);
	CLEANUP_FREE char *ok = args ? peer_ask(&j->here, "volume.find", args, JOURNEY_ASK_MS, e) : NULL;
	struct plan_volume *v = &f->volume[f->count];

	if (!ok || jsonspec_decode(&plan_volume_spec, ok, strlen(ok), v, e) == -1)
		return -1;
	f->moving_in[f->count++] = journey_of_disk(v->uri);
	return 0;
}

static int find_sr(struct journey *j, struct found *f, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "sr", j->r.far_sr, NULL);
	CLEANUP_FREE char *ok = args ? peer_ask(&j->there, "sr.find", args, JOURNEY_ASK_MS, e) : NULL;

	if (!ok || jsonspec_decode(&plan_sr_spec, ok, strlen(ok), &f->sr, e) == -1)
		return -1;
	return journey_set(&j->r.far_sr, f->sr.sr, e);
}

/* More of it where the first went quickly: of a fast link 1 MiB says nothing. */
static int64_t probe(struct journey *j, struct error *e)
{
	int64_t rate = peer_probe(&j->there, PROBE_FIRST_BYTES, e), more;

	if (rate <= 0)
		return rate;
	more = peer_probe(&j->there, MIN(MAX((uint64_t)rate * PROBE_MS / 1000, PROBE_FIRST_BYTES), PROBE_BYTES), e);
	return more > 0 ? more : rate;
}

static struct plan_host host_of(const struct peer *p, const char *name)
{
	return (struct plan_host) { .name = name, .version = p->greeting.version, .host = p->greeting.host,
				    .run_dir = p->greeting.run_dir, .round_trip_us = p->greeting.round_trip_us };
}

/* Until both sides are to be the same, for what is allocated. */
static void set_deadline(const struct journey *j, const struct found *f, struct plan_input *in, char at[static COLUMNS_TIME_MAX])
{
	int64_t now_ms = journey_now_ms();
	uint64_t bytes = 0;
	struct deadline d;

	if (!journey_has_deadline(j))
		return;
	for (size_t i = 0; i < f->count; i++)
		bytes += (uint64_t)MAX(f->volume[i].allocated_bytes, INT64_C(0));
	deadline_init(&d, now_ms, j->r.at_s * 1000, j->r.will_verify ? bytes : 0);
	in->left_ms = deadline_left_ms(&d, now_ms);
	in->finish_by = columns_clock(d.at_ms, now_ms, at);
}

static int make(struct journey *j, const struct found *f, int64_t rate, struct plan *p, struct error *e)
{
	char at[COLUMNS_TIME_MAX];
	struct plan_input in = {
		.here = host_of(&j->here, "this host"), .there = host_of(&j->there, j->r.host), .volume = f->volume,
		.count = f->count, .sr = &f->sr, .moving_in = (const char *const *)f->moving_in,
		.domain = *j->r.far_domain ? j->r.far_domain : NULL, .bandwidth_bytes_s = (uint64_t)j->r.bandwidth_bytes_s,
		.will_verify = j->r.will_verify, .keep_s = j->r.keep_s, .transport = j->r.transport, .address = j->r.address,
		.no_way = f->no_way.err ? f->no_way.text : NULL,
	};

	in.there.rate_bytes_s = rate;
	set_deadline(j, f, &in, at);
	return plan_make(&in, p, e);
}

/* --- the record's disks */

static int set_disk(const struct journey *j, struct journey_disk *d, const struct plan_volume *v, struct error *e)
{
	char own[JOURNEY_ID_MAX + 8];
	size_t writers;
	const char *writer = plan_writer(v, &writers);

	snprintf(own, sizeof(own), "sxm-%s", j->r.id);
	d->is_ours = !writer;
	d->size_bytes = v->size_bytes;
	return journey_set(&d->name, v->name, e) == 0 && journey_set(&d->description, v->description, e) == 0 &&
	       journey_set(&d->uri, v->uri, e) == 0 && journey_set(&d->id, v->id, e) == 0 && journey_set(&d->sr, v->sr, e) == 0 &&
	       journey_set(&d->key, v->key, e) == 0 && journey_set(&d->domain, writer ? writer : own, e) == 0 &&
	       journey_set(&d->far_key, "", e) == 0 && journey_set(&d->far_uri, "", e) == 0 &&
	       journey_set(&d->far_id, "", e) == 0 && journey_set(&d->operation, "", e) == 0 &&
	       journey_set(&d->base, "", e) == 0 && journey_set(&d->log, "", e) == 0 ? 0 : -1;
}

/* It came by a move whose source is kept there, and what changed since is noted: only that goes back. Where anything of it is not
 * so, all goes. */
static int find_base(struct journey *j, struct journey_disk *d, const struct plan_volume *v, struct error *e)
{
	const char *mark = jsonspec_map_get(&v->keys, "sxm_moved"), *log = jsonspec_map_get(&v->keys, "sxm_log");
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct plan_volume base;
	struct error why;
	int r = 0;

	d->is_tracked = v->cbt && !log;
	if (!mark || !log || !v->cbt)
		return 0;
	args = question_new(NULL, "sr", j->r.far_sr, "mark", mark, NULL);
	ok = args ? peer_ask(&j->there, "base.find", args, JOURNEY_ASK_MS, &why) : NULL;
	if (!ok || jsonspec_decode(&plan_volume_spec, ok, strlen(ok), &base, &why) == -1)
		return 0;
	if (strcmp(base.owner, "given") == 0 && base.size_bytes == v->size_bytes)
		r = journey_set(&d->base, mark, e) == 0 ? journey_set(&d->log, log, e) : -1;
	jsonspec_clear(&plan_volume_spec, &base);
	return r;
}

static int set_disks(struct journey *j, const struct found *f, struct error *e)
{
	for (size_t i = 0; i < f->count; i++)
		if (set_disk(j, journey_disk(j, i), &f->volume[i], e) == -1 ||
		    find_base(j, journey_disk(j, i), &f->volume[i], e) == -1)
			return -1;
	return 0;
}

static int lose(const struct found *f, struct error *e)
{
	*e = f->no_way;
	return -1;
}

int journey_plan(struct journey *j, const char *const *sources, bool will_probe, struct plan *p, struct error *e)
{
	size_t count = j->r.disks.count;
	struct found f = { .volume = calloc(count, sizeof(*f.volume)), .moving_in = calloc(count, sizeof(*f.moving_in)) };
	int64_t rate = 0;
	int r = f.volume && f.moving_in ? peer_reach(&j->here, e) : error_set(e, ENOMEM, "out of memory");

	for (size_t i = 0; r == 0 && i < count; i++)
		r = find_volume(j, sources[i], &f, e);
	if (r == 0)
		r = peer_reach(&j->there, e);
	if (r == 0 && j->r.is_squeezed && !j->there.greeting.can_squeeze)
		r = error_set(e, EOPNOTSUPP, "the sxm on %s knows nothing of --compress", j->r.host);
	if (r == 0)
		r = find_sr(j, &f, e);
	if (r == 0 && journey_try_way(j, &f.no_way) == -1 && j->there.is_lost)
		r = lose(&f, e);
	will_probe |= journey_has_deadline(j);
	if (r == 0 && will_probe && (rate = probe(j, e)) < 0)
		r = -1;
	if (r == 0)
		r = set_disks(j, &f, e);
	if (r == 0)
		r = make(j, &f, rate, p, e);
	clear(&f);
	return r;
}
