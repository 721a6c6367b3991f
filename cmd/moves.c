/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * moves - see moves.h
 *
 *      SXM_STATE_DIR/journeys/ID.json -> the step that is done -----> what goes on, in words
 *                           ID.lock   -> does anybody drive it? --'-> what is next
 *
 * Can fail: a record that is damaged, or of another version, is not there; `sxm migrate --list` says so.
 */
#include "cmd/moves.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "migrate/columns.h"
#include "plugins/meta.h"

/* --- in words */

static void say(char text[static MOVES_TEXT_MAX], const char *fmt, ...) PRINTF_LIKE(2, 3);
static void say(char text[static MOVES_TEXT_MAX], const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, MOVES_TEXT_MAX, fmt, args);
	va_end(args);
}

/* It is in sync, and waits for its moment. */
static void say_waiting(struct moves_row *m, int64_t now_ms)
{
	char at[COLUMNS_TIME_MAX];

	if (!m->is_driven)
		say(m->state, "it was in sync");
	else if (strcmp(m->r.switchover, "manual") == 0)
		say(m->state, "in sync, waits for `sxm migrate --go %s`", m->r.id);
	else if (strcmp(m->r.switchover, "at") == 0)
		say(m->state, "in sync, waits until %s", columns_clock(m->r.at_s * 1000, now_ms, at));
	else
		say(m->state, "in sync, about to be handed over");
}

static void say_state(struct moves_row *m, int64_t now_ms)
{
	static const char *const words[] = {
		[JOURNEY_PLANNED] = "nothing is made of it there yet", [JOURNEY_MADE] = "its volumes are made there",
		[JOURNEY_RECEIVING] = "its volumes there are ready to receive", [JOURNEY_MIRRORED] = "mirroring",
		[JOURNEY_SYNCED] = "in sync, both sides are compared", [JOURNEY_VERIFIED] = "",
		[JOURNEY_SWITCHING] = "being handed over", [JOURNEY_MOVED] = "handed over, not yet ready to be started there",
		[JOURNEY_STARTED] = "handed over, the source is not put aside yet",
		[JOURNEY_KEPT] = "handed over, and the source is put aside", [JOURNEY_DONE] = "done",
		[JOURNEY_ABORTING] = "being given up", [JOURNEY_ABORTED] = "given up",
	};
	enum journey_step step = journey_step_of(&m->r);

	if (step == JOURNEY_VERIFIED)
		say_waiting(m, now_ms);
	else if (step == JOURNEY_SYNCED && !m->r.will_verify)
		say(m->state, "in sync");
	else
		say(m->state, "%s", words[step]);
}

static void say_kept(struct moves_row *m)
{
	time_t until = (time_t)m->r.until_s;
	struct tm tm;
	char date[32] = "";

	if (localtime_r(&until, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d", &tm);
	say(m->next, "its source is kept until %s or longer: sxm migrate --release %s removes it", date, m->r.id);
}

static void say_next(struct moves_row *m)
{
	enum journey_step step = journey_step_of(&m->r);
	const char *id = m->r.id;

	if (step == JOURNEY_DONE)
		say_kept(m);
	if (m->is_driven || m->is_over)
		return;
	if (step == JOURNEY_ABORTING)
		say(m->next, "nobody drives it: sxm migrate --abort %s goes on giving it up", id);
	else if (step >= JOURNEY_MOVED)
		say(m->next, "nobody drives it; its disks have moved: sxm migrate --resume %s does what is left", id);
	else if (step == JOURNEY_SWITCHING && *m->r.group)
		say(m->next, "nobody drives it; start its guest nowhere before it was resumed: sxm migrate --resume %s", id);
	else
		say(m->next, "nobody drives it; its guest goes on here. To go on: sxm migrate --resume %s; to give it up: "
			     "sxm migrate --abort %s", id, id);
}

/* --- records */

/* False: there is no such one, or it is not wanted. */
static bool take(struct moves_row *m, const char *id, bool is_asked_for, int64_t now_ms)
{
	struct error e;

	*m = (struct moves_row){ .is_driven = journey_is_driven(id) }; /* first: what ends meanwhile is over, not left alone */
	if (journey_read(id, &m->r, &e) == -1)
		return false;
	m->is_over = journey_is_over(&m->r);
	if (m->is_over && !is_asked_for) {
		jsonspec_clear(&journey_record_spec, &m->r);
		return false;
	}
	say_state(m, now_ms);
	say_next(m);
	return true;
}

void moves_look(struct moves *m, const char *id, int64_t now_ms)
{
	struct jsonspec_list ids = { 0 };
	struct error e;

	moves_clear(m);
	if (id)
		jsonspec_list_add(&ids, id);
	else if (journey_list(&ids, &e) == -1)
		return;
	m->row = calloc(ids.count + 1, sizeof(*m->row));
	for (size_t i = 0; m->row && i < ids.count; i++)
		m->count += take(&m->row[m->count], ids.item[i], id != NULL, now_ms);
	meta_list_clear(&ids);
}

void moves_clear(struct moves *m)
{
	for (size_t i = 0; i < m->count; i++)
		jsonspec_clear(&journey_record_spec, &m->row[i].r);
	free(m->row);
	*m = (struct moves){ 0 };
}

bool moves_is_id(const char *id)
{
	struct journey_record r;
	struct error e;

	if (!journey_id_is_valid(id) || journey_read(id, &r, &e) == -1)
		return false;
	jsonspec_clear(&journey_record_spec, &r);
	return true;
}

/* --- JSON */

struct shown_disk {
	char *name, *id, *uri, *far_uri, *operation;
};
#define DISK(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct shown_disk, field) }
static const struct jsonspec_field disk_fields[] = {
	DISK("name", JS_STRING, name), DISK("disk", JS_STRING, id), DISK("uri", JS_STRING, uri),
	DISK("far_uri", JS_STRING, far_uri), DISK("operation", JS_STRING, operation), { .name = NULL },
};
static const struct jsonspec disk_spec = { "disk", sizeof(struct shown_disk), disk_fields };
struct shown {
	char *id, *host, *step, *state, *why, *next, *switchover;
	bool is_driven, is_over;
	int64_t started, at;
	struct jsonspec_records disks;
};
#define MOVE(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct shown, field) }
static const struct jsonspec_field move_fields[] = {
	MOVE("id", JS_STRING, id), MOVE("host", JS_STRING, host), MOVE("step", JS_STRING, step), MOVE("state", JS_STRING, state),
	MOVE("why", JS_STRING, why), MOVE("next", JS_STRING, next), MOVE("switchover", JS_STRING, switchover),
	MOVE("driven", JS_BOOL, is_driven), MOVE("over", JS_BOOL, is_over), MOVE("started", JS_INT64, started),
	MOVE("at", JS_INT64, at),
	{ .name = "disks", .type = JS_RECORDS, .offset = offsetof(struct shown, disks), .sub = &disk_spec }, { .name = NULL },
};
static const struct jsonspec move_spec = { "move", sizeof(struct shown), move_fields };

/* disk: as many as it has. What is encoded is not changed. */
static struct shown show(const struct moves_row *m, struct shown_disk *disk)
{
	const struct journey_disk *d = m->r.disks.item;

	for (size_t i = 0; i < m->r.disks.count; i++)
		disk[i] = (struct shown_disk){ d[i].name, d[i].id, d[i].uri, d[i].far_uri, d[i].operation };
	return (struct shown){
		.id = m->r.id, .host = m->r.host, .step = m->r.step, .state = (char *)(uintptr_t)m->state, .why = m->r.why,
		.next = (char *)(uintptr_t)m->next, .switchover = m->r.switchover, .is_driven = m->is_driven,
		.is_over = m->is_over, .started = m->r.started_ms, .at = m->r.at_s * 1000, .disks = { m->r.disks.count, disk },
	};
}

char *moves_encode(const struct moves *m)
{
	CLEANUP_FREE struct shown *shown = calloc(m->count + 1, sizeof(*shown));
	CLEANUP_FREE struct shown_disk *disks = calloc(m->count * JOURNEY_DISKS_MAX + 1, sizeof(*disks));

	if (!shown || !disks)
		return NULL;
	for (size_t i = 0; i < m->count; i++) {
		if (m->row[i].r.disks.count > JOURNEY_DISKS_MAX)
			return NULL;
		shown[i] = show(&m->row[i], &disks[i * JOURNEY_DISKS_MAX]);
	}
	return jsonspec_array(&move_spec, shown, m->count);
}
