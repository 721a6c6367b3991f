/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirrors - see mirrors.h
 *
 *      SXM_RUN_DIR/<id>/control ---- status ---.
 *                                              |--> a row for each disk that has one: what was known of it stays, as rates and
 *      SXM_STATE_DIR/operations --------------'    predictions are between two looks
 *
 * A process may die between any two questions, and under one. Its row stays for a while, and says so: most of them have a
 * successor within a second. Then its record is what is left: suspended, or ended.
 * Can fail: nothing that is worth an error; what cannot be read is not there.
 */
#include "cmd/mirrors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "cmd/relay-verbs.h"
#include "plugins/meta.h"
#include "plugins/process.h"
#include "plugins/records.h"

#define ASK_MS 2000u
#define ASK_AGAIN_MS 200u /* of one that was silent the last time */
#define GONE_MS 5000

struct looked {
	struct mirrors *m;
	const char *const *wanted;
	int64_t now_ms;
};

/* --- rows */

static unsigned find_row(const struct mirrors *m, const char *id)
{
	unsigned i = 0;

	while (i < m->view.disks && strcmp(m->row[i].id, id) != 0)
		i++;
	return i;
}

static const char *name_of(const char *path, const char *id)
{
	const char *slash = path ? strrchr(path, '/') : NULL;

	return slash && slash[1] ? slash + 1 : path ? path : id;
}

/* The row's number; view.disks: memory is out. */
static unsigned make_row(struct mirrors *m, const char *id, const char *path)
{
	struct mirrors_row *grown;
	struct error e;
	unsigned i = find_row(m, id);

	if (i < m->view.disks)
		return i;
	grown = reallocarray(m->row, i + 1, sizeof(*grown));
	if (!grown)
		return m->view.disks;
	m->row = grown;
	grown[i] = (struct mirrors_row){ .path = path ? strdup(path) : NULL };
	snprintf(grown[i].id, sizeof(grown[i].id), "%s", id);
	if (!view_add_disk(&m->view, name_of(path, id), &e)) {
		free(grown[i].path);
		return m->view.disks;
	}
	return i;
}

static void drop_row(struct mirrors *m, unsigned i)
{
	free(m->row[i].path);
	free(m->row[i].move);
	view_remove_disk(&m->view, i);
	memmove(&m->row[i], &m->row[i + 1], (m->view.disks - i) * sizeof(m->row[0]));
}

/* --- processes */

struct owner_seen {
	char *state;
	int64_t links;
};
static const struct jsonspec_field owner_fields[] = {
	{ "state", JS_STRING, offsetof(struct owner_seen, state) },
	{ "links", JS_INT64, offsetof(struct owner_seen, links) },
	{ NULL },
};
static const struct jsonspec owner_spec = { "owner", sizeof(struct owner_seen), owner_fields };
struct disk_seen {
	char *path;
	struct owner_seen owner;
};
static const struct jsonspec_field disk_fields[] = {
	{ .name = "path", .type = JS_STRING, .offset = offsetof(struct disk_seen, path) },
	{ .name = "owner", .type = JS_RECORD, .offset = offsetof(struct disk_seen, owner), .sub = &owner_spec },
	{ .name = NULL },
};
static const struct jsonspec disk_spec = { "status", sizeof(struct disk_seen), disk_fields };

static bool is_wanted(const struct looked *l, const char *id, const char *operation, const char *path)
{
	for (const char *const *w = l->wanted; w && *w; w++)
		if (strcmp(*w, id) == 0 || strcmp(*w, operation) == 0 || (path && strcmp(*w, path) == 0))
			return true;
	return !l->wanted;
}

/* An operation that is asked for, and is not the disk's newest. */
static const char *operation_of(const struct looked *l, const char *disk)
{
	char id[VDI_ID_MAX];

	for (const char *const *w = l->wanted; w && *w; w++)
		if (vdi_id_of_operation(*w, id) && strcmp(id, disk) == 0)
			return *w;
	return NULL;
}

static bool is_received(const struct disk_seen *s)
{
	return s->owner.links > 0 || strcmp(s->owner.state, "receiving") == 0;
}

static void fill_row(const struct looked *l, const char *id, const struct disk_seen *s, const char *text)
{
	struct move_disk probe = { .is_failed = false };
	CLEANUP_FREE char *move = NULL;
	struct mirrors *m = l->m;
	struct error e;
	unsigned i;

	if (view_from_status(&probe, text, operation_of(l, id), &e) == -1 || (!*probe.operation && !is_received(s)))
		return;
	move = *probe.operation || *s->path != '/' ? NULL : relay_move_of(s->path);
	if (!is_wanted(l, id, probe.operation, s->path) && (!move || !is_wanted(l, move, "", NULL)))
		return;
	i = make_row(m, id, s->path);
	if (i == m->view.disks)
		return;
	view_from_status(&m->view.disk[i], text, operation_of(l, id), &e);
	m->row[i].is_receiver = !*probe.operation;
	free(m->row[i].move);
	m->row[i].move = take_ptr(&move);
	if (m->row[i].is_receiver) {
		struct move_disk *d = &m->view.disk[i];

		snprintf(d->state, sizeof(d->state), "%s", s->owner.state);
		snprintf(d->why, sizeof(d->why), "%s", s->owner.links ? "" : "nobody sends");
	}
	m->row[i].is_recorded = false;
	m->row[i].is_there = true;
	m->row[i].seen_ms = l->now_ms;
}

static void note_lost(const struct looked *l, const char *id, const char *why)
{
	unsigned i = find_row(l->m, id);

	if (i == l->m->view.disks || l->m->row[i].is_recorded)
		return;
	view_lost(&l->m->view.disk[i], why);
	l->m->row[i].is_there = true;
}

static void look_at_process(const struct looked *l, const char *id)
{
	CLEANUP_FREE char *text = NULL;
	unsigned i = find_row(l->m, id);
	bool was_silent = i < l->m->view.disks && strcmp(l->m->view.disk[i].state, "lost") == 0;
	struct disk_seen s;
	struct process p;
	struct error e;

	if (process_by_id(&p, id, &e) == -1)
		return;
	text = process_ask(&p, "status", NULL, was_silent ? ASK_AGAIN_MS : ASK_MS, &e);
	if (text && jsonspec_decode(&disk_spec, text, strlen(text), &s, &e) == 0) {
		fill_row(l, id, &s, text);
		jsonspec_clear(&disk_spec, &s);
	} else if (e.err == ESRCH || e.err == ECONNRESET) {
		if (i < l->m->view.disks && l->now_ms - l->m->row[i].seen_ms < GONE_MS)
			note_lost(l, id, "its process has ended; one that died is started again");
	} else {
		if (i == l->m->view.disks && is_wanted(l, id, "", NULL))
			make_row(l->m, id, NULL);
		note_lost(l, id, e.text);
	}
}

static void note_id(const char *id, void *arg)
{
	jsonspec_list_add(arg, id);
}

/* --- records */

static void fill_recorded(struct mirrors *m, unsigned i, const struct record *r)
{
	bool is_suspended = records_is_suspended(r), is_stale = !r->ended && !is_suspended;
	struct move_disk *d = &m->view.disk[i];

	snprintf(d->operation, sizeof(d->operation), "%s", r->id);
	snprintf(d->remote, sizeof(d->remote), "%s", r->remote ? r->remote : "");
	snprintf(d->state, sizeof(d->state), "%s", is_suspended ? "suspended" : r->complete ? "finished" : "failed");
	snprintf(d->why, sizeof(d->why), "%s", is_suspended ? "it goes on when its disk is active for writing again" :
		 is_stale ? "it ended with its process" : r->failed ? r->text : "");
	d->is_copy = strcmp(r->kind, "copy") == 0;
	d->is_failed = r->failed || is_stale;
	d->is_complete = r->complete && !d->is_failed;
	d->is_ended = !is_suspended;
	d->is_linked = false;
	m->row[i].is_recorded = true;
	m->row[i].is_receiver = false;
	m->row[i].ended_s = r->ended;
	m->row[i].is_there = true;
}

static uint64_t number_of(const char *operation)
{
	const char *dot = strrchr(operation, '.');

	return dot ? strtoull(dot + 1, NULL, 10) : 0;
}

/* Of several of a disk the newest. What its process told of it stays as it was told. */
static void look_at_record(const struct record *r, void *arg)
{
	const struct looked *l = arg;
	struct mirrors *m = l->m;
	char id[VDI_ID_MAX];
	unsigned i;

	if (!vdi_id_of_operation(r->id, id) || !is_wanted(l, id, r->id, r->path))
		return;
	i = find_row(m, id);
	if (i < m->view.disks && m->row[i].is_there &&
	    (!m->row[i].is_recorded || number_of(m->view.disk[i].operation) > number_of(r->id)))
		return;
	i = make_row(m, id, r->path);
	if (i < m->view.disks)
		fill_recorded(m, i, r);
}

/* --- */

static int order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void mirrors_look(struct mirrors *m, const char *const *wanted, int64_t now_ms)
{
	struct looked l = { m, wanted, now_ms };
	struct jsonspec_list ids = { 0 };

	for (unsigned i = 0; i < m->view.disks; i++)
		m->row[i].is_there = false;
	process_each(note_id, &ids);
	if (ids.count)
		qsort(ids.item, ids.count, sizeof(ids.item[0]), order);
	for (size_t i = 0; i < ids.count; i++)
		look_at_process(&l, ids.item[i]);
	meta_list_clear(&ids);
	records_each(look_at_record, &l);
	for (unsigned i = m->view.disks; i-- > 0;)
		if (!m->row[i].is_there)
			drop_row(m, i);
	m->view.now_ms = now_ms;
	view_advance(&m->view);
}

void mirrors_clear(struct mirrors *m)
{
	while (m->view.disks)
		drop_row(m, m->view.disks - 1);
	free(m->row);
	view_clear(&m->view);
	*m = (struct mirrors){ 0 };
}
