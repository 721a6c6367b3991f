/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * doctor-volume - what is wrong with an SR, and with each of its volumes
 *
 *      SR        half-made volumes -> what fsck says -> merging that stands still, bases nobody stands on
 *      volume    no process has it:  <image>.owner    whose it is, where that is in doubt: only told, as only a person can know
 *                                    <image>.mirror   of a mirror that is over: it and the marks go, as the next process would do
 *                                    <image>.lease    this host's, though nobody here has the image: given back
 *                                    its name         a copy or an import was killed before it was whole
 *                                    its key          an export was killed that had taken this snapshot for itself: removed
 *
 * A volume that a process serves is that one's.  What is changed beside an image is changed with the image's lock.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/host-id.h"
#include "base/lease.h"
#include "base/log.h"
#include "base/uri.h"
#include "plugins/coalesce.h"
#include "plugins/doctor-private.h"
#include "plugins/fsck.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/meta.h"
#include "plugins/owner-file.h"
#include "plugins/smapi.h"
#include "plugins/unfinished.h"

#define COMMAND_YOUNG_S 60u

/* --- the SR's files */

struct files {
	struct doctor *d;
	const char *dir;
	const struct jsonspec_list *half_made;
};

/* What is half made was told already. */
static bool is_told(const struct files *f, const char *what)
{
	for (size_t i = 0; i < f->half_made->count; i++) {
		size_t bytes = strlen(f->half_made->item[i]);

		if (strncmp(what, f->half_made->item[i], bytes) == 0 && what[bytes] == ' ')
			return true;
	}
	return false;
}

static bool on_found(void *arg, const char *what, const char *remedy)
{
	const struct files *f = arg;
	struct error text, advice;

	if (is_told(f, what))
		return false;
	error_set(&text, EUCLEAN, "%s", what);
	error_set(&advice, EUCLEAN, remedy ? "sxm fsck -y %s" : "only a person can: see `sxm fsck %s`", f->dir);
	doctor_found(f->d, &(struct doctor_finding) {
		.kind = "files", .subject = f->dir, .what = text.text,
		.why = "the files of the SR are not as a verb leaves them", .advice = advice.text });
	return false;
}

static void on_result(void *arg UNUSED, const char *text UNUSED)
{
}

static bool has_leftover(const char *dir, const char *name)
{
	struct jsonspec_list now;
	struct error e;
	bool has = false;

	if (meta_leftovers(dir, &now, &e) == -1)
		return true;
	for (size_t i = 0; i < now.count; i++)
		has |= strcmp(now.item[i], name) == 0;
	meta_list_clear(&now);
	return has;
}

static void sweep(struct doctor_view *v, const char *dir, const char *name)
{
	struct error e;

	meta_sweep(dir);
	if (has_leftover(dir, name))
		doctor_done(v->d, error_set(&e, EBUSY, "it is being made just now, or not old enough to be sure"), &e);
	else
		doctor_done(v->d, 0, NULL);
}

static void check_half_made(struct doctor_view *v, const char *dir, const struct jsonspec_list *names)
{
	for (size_t i = 0; i < names->count; i++) {
		struct error what;

		error_set(&what, EUCLEAN, "%s/%s belongs to no volume", dir, names->item[i]);
		if (doctor_found(v->d, &(struct doctor_finding) {
			.kind = "half-made", .subject = dir, .what = what.text,
			.why = "it was left by a verb that was killed, and takes space; the next SR.attach removes it, too",
			.remedy = "remove it, unless it is being made just now" }))
			sweep(v, dir, names->item[i]);
	}
}

static void check_files(struct doctor_view *v, const char *dir)
{
	struct jsonspec_list half_made = { 0 };
	struct files files = { v->d, dir, &half_made };
	struct fsck f = { .dir = dir, .is_only_report = true, .found = on_found, .result = on_result, .arg = &files };
	struct error e, what;

	if (meta_leftovers(dir, &half_made, &e) == 0)
		check_half_made(v, dir, &half_made);
	if (fsck_run(&f, &e) == -1) {
		error_set(&what, e.err, "the files of %s could not be looked at: %.300s", dir, e.text);
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "sr-silent", .subject = dir, .what = what.text, .why = "nothing is known of them",
			.advice = "look again when the verb that is under way has ended" });
	}
	meta_list_clear(&half_made);
}

static int start_merging(const char *dir, struct error *e)
{
	coalesce_start(dir);
	(void)e;
	return 0;
}

static void check_merging(struct doctor_view *v, const char *dir)
{
	static const char why[] = "chains of images grow, and space is not freed";
	struct coalesce_state s;
	struct error e = { 0 }, what;

	if (coalesce_look(dir, &s, &e) == -1) {
		error_set(&what, e.err, "nothing can be merged in %s: %.300s", dir, e.text);
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "merge-stopped", .subject = dir, .what = what.text, .why = why,
			.advice = "repair or remove the image that is named" });
		return;
	}
	if (s.is_running || (!s.pairs && !s.childless))
		return;
	error_set(&what, EAGAIN, "in %s %zu images can be merged and %zu removed, and nobody does%s%.200s", dir, s.pairs,
		  s.childless, *s.last ? "; last: " : "", s.last);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "merge-stopped", .subject = dir, .what = what.text, .why = why,
		.remedy = "start the process that does, in the background" }))
		doctor_done(v->d, start_merging(dir, &e), &e);
}

void doctor_check_sr(struct doctor_view *v, const char *dir)
{
	check_files(v, dir);
	check_merging(v, dir);
}

/* --- whose a volume is */

/* As the process of a source would go on with its mirror (vdi/revive.c). */
static bool can_go_on(const struct owner_file *o)
{
	return o->role && strcmp(o->role, "source") == 0 && strcmp(o->state, "owned") == 0 && o->mirror && *o->mirror &&
	       !o->ended && !o->raised;
}

static bool is_over(const struct owner_file *o)
{
	if (can_go_on(o) || strcmp(o->state, "offered") == 0)
		return false;
	return strcmp(o->state, "given") != 0 || o->taken;
}

struct doubt {
	const char *state, *kind, *what, *why, *advice;
	bool can_be_taken; /* the advice ends with the command */
};
static const struct doubt doubts[] = {
	{ "receiving", "volume-half", "is the far side of a move that nobody goes on with, and has not everything",
	  "no guest can be started from it; its source has the disk, and goes on with the move when that is active there again",
	  "if the move is over, remove the volume", false },
	{ "incomplete", "volume-half", "is the far side of a move that ended before it had everything",
	  "no guest can be started from it; its source has the disk", "remove the volume", false },
	{ "eligible", "volume-in-doubt", "has everything of a move, and no guest was started from it",
	  "its source has given it away: this may be the only copy that is up to date",
	  "start the guest here, or at the source, which asks it back; remove neither before one of them runs", false },
	{ "released", "volume-in-doubt", "was given back to its source, which has not said that it has it",
	  "both sides are whole, and neither is sure",
	  "if no guest runs from the source, say there that it is its owner (sxm epoch take), then remove this one", false },
	{ "offered", "volume-in-doubt", "was about to be handed over when its process ended",
	  "the far side may, or may not, have heard that it may be started",
	  "if no guest was started from the far side, activate it here: that takes the offer back", false },
	{ "given", "volume-in-doubt", "was handed over, and nobody here has heard that a guest was started there",
	  "if it was not, the disk has no owner but by asking",
	  "start the guest here: the far side is asked; if that cannot be reached, and no guest runs there nor will", true },
};

static void say_doubt(struct doctor_view *v, const char *path, const struct doubt *doubt)
{
	struct error what, advice;

	error_set(&what, EUCLEAN, "%s %s", path, doubt->what);
	if (doubt->can_be_taken)
		error_set(&advice, EUCLEAN, "%s: sxm epoch take %s", doubt->advice, path);
	else
		error_set(&advice, EUCLEAN, "%s", doubt->advice);
	doctor_found(v->d, &(struct doctor_finding) {
		.kind = doubt->kind, .subject = path, .what = what.text, .why = doubt->why, .advice = advice.text });
}

void doctor_say_state(struct doctor_view *v, const char *path, const char *state)
{
	for (size_t i = 0; i < ARRAY_LEN(doubts); i++)
		if (strcmp(state, doubts[i].state) == 0)
			say_doubt(v, path, &doubts[i]);
}

static void check_owner(struct doctor_view *v, const struct doctor_volume *volume, const struct owner_file *o)
{
	static const struct doubt moved = {
		"given", "volume-moved", "was handed over, and its guest runs from the far side",
		"it is old, and takes space; xapi removes it at the end of a move that went well", "remove the volume", false };
	static const struct doubt unsettled = {
		"owned", "volume-in-doubt", "had a mirror that was complete, and what became of it was never settled",
		"it cannot be removed, as it may be the only good copy",
		"activate it, or end the mirror (Data.destroy), if its guest does not run from the far side", false };

	if (strcmp(o->state, "given") == 0 && o->taken) {
		say_doubt(v, volume->path, &moved);
		return;
	}
	if (strcmp(o->state, "released") == 0 && o->acknowledged)
		return;
	if (strcmp(o->state, "owned") == 0) {
		if (o->told && !o->raised && !o->ended)
			say_doubt(v, volume->path, &unsettled);
		return;
	}
	doctor_say_state(v, volume->path, o->state);
}

/* --- what lies beside it */

static char *beside(const struct doctor_volume *volume, const char *suffix)
{
	char *path;

	return asprintf(&path, "%s%s", volume->path, suffix) < 0 ? NULL : path;
}

static int drop(const char *path, struct error *e)
{
	return unlink(path) == 0 || errno == ENOENT ? 0 : error_errno(e, errno, "remove %s", path);
}

/* With the image's lock: nobody has it open, and its record says still that the mirror is over. */
static int forget_mirror(const struct doctor_volume *volume, struct error *e)
{
	CLEANUP_FREE char *journal = beside(volume, IMAGE_JOURNAL_SUFFIX);
	CLEANUP_FREE char *marks = beside(volume, IMAGE_MARKS_SUFFIX);
	CLEANUP_LOCK int lock = lock_try(volume->path, e);
	struct owner_file o;
	bool is_it;

	if (lock < 0)
		return -1;
	if (!journal || !marks)
		return error_set(e, ENOMEM, "out of memory");
	if (owner_file_read(volume->path, &o, e) == -1)
		return -1;
	is_it = is_over(&o);
	owner_file_clear(&o);
	if (!is_it)
		return error_set(e, EBUSY, "it goes on after all");
	return drop(journal, e) == 0 ? drop(marks, e) : -1; /* without its journal a mirror is not gone on with */
}

static void check_journal(struct doctor_view *v, const struct doctor_volume *volume, const struct owner_file *o)
{
	CLEANUP_FREE char *journal = beside(volume, IMAGE_JOURNAL_SUFFIX);
	CLEANUP_FREE char *marks = beside(volume, IMAGE_MARKS_SUFFIX);
	struct error what, e;

	if (!journal || !marks || (access(journal, F_OK) == -1 && access(marks, F_OK) == -1) || !is_over(o))
		return;
	error_set(&what, EUCLEAN, "%s has the journal or the marks of a mirror that is over", volume->path);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "journal-left", .subject = volume->path, .what = what.text,
		.why = "they take space, and nothing will ever be resumed from them", .remedy = "remove them" }))
		doctor_done(v->d, forget_mirror(volume, &e), &e);
}

/* With the image's lock no process of this host has the lease. */
static int give_lease_back(const struct doctor_volume *volume, const struct lease *seen, struct error *e)
{
	CLEANUP_LOCK int lock = lock_try(volume->path, e);
	const struct lease next = lease_given_back(seen);

	return lock < 0 ? -1 : lease_change(volume->path, seen, &next, e);
}

static void check_lease(struct doctor_view *v, const struct doctor_volume *volume)
{
	char host[HOST_ID_MAX];
	struct error e, what;
	struct lease seen;

	if (lease_look(volume->path, &seen, &e) == -1) {
		error_set(&what, e.err, "%s: who has it cannot be known: %.300s", volume->path, e.text);
		doctor_found(v->d, &(struct doctor_finding) {
			.kind = "lease-damaged", .subject = volume->path, .what = what.text, .why = "it can be activated nowhere",
			.advice = "if no host uses it, remove the directory that is named" });
		return;
	}
	if (seen.kind != LEASE_HELD || host_id(host, &e) == -1 || strcmp(host, seen.host) != 0)
		return; /* another host's: that one renews it, or it ends by itself */
	error_set(&what, EBUSY, "%s is leased by this host, and nobody here has it", volume->path);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "lease-left", .subject = volume->path, .what = what.text,
		.why = "another host that activates it waits for a minute before it believes that this one is dead",
		.remedy = "give it back" }))
		doctor_done(v->d, give_lease_back(volume, &seen, &e), &e);
}

/* --- what a command left */

static bool is_named_so(const char *name, const char *suffix)
{
	size_t bytes = strlen(name), tail = strlen(suffix);

	return bytes >= tail && strcmp(name + bytes - tail, suffix) == 0;
}

/* One that runs serves it, but for a moment. */
static void check_filled(struct doctor_view *v, const struct doctor_volume *volume, const struct meta_volume *m)
{
	CLEANUP_FREE char *record = meta_volume_path(volume->dir, volume->key);
	struct error what;

	if (!is_named_so(m->name, UNFINISHED_SUFFIX) || !record ||
	    doctor_age_s(volume->dir, strrchr(record, '/') + 1) < MIN(v->d->older_s, COMMAND_YOUNG_S))
		return;
	error_set(&what, EUCLEAN, "volume %s (%.100s) was left by a copy or an import that was killed", volume->key, m->name);
	doctor_found(v->d, &(struct doctor_finding) {
		.kind = "copy-left", .subject = volume->path, .what = what.text,
		.why = "it takes space, and nobody knows whether it is whole: one that is has another name",
		.advice = "remove the volume" });
}

static bool is_abandoned(const struct meta_volume *m)
{
	const char *command = jsonspec_map_get(&m->keys, UNFINISHED_KEY);

	return command && !m->read_write && unfinished_is_gone(command);
}

/* As Volume.destroy does it, which refuses what is in use. */
static int remove_snapshot(const struct doctor_volume *volume, struct error *e)
{
	CLEANUP_FREE char *sr = uri_of_path("file", volume->dir);
	struct smapi_call c = { .verb = "Volume.destroy",
				.args = { .dbg = (char *)(uintptr_t)"", .sr = sr, .key = volume->key } };
	CLEANUP_FREE char *result = NULL;
	struct failure f = { 0 };
	struct meta_volume m;
	bool is_it;

	if (!sr)
		return error_set(e, ENOMEM, "out of memory");
	if (meta_volume_read(volume->dir, volume->key, &m, e) == -1)
		return -1;
	is_it = is_abandoned(&m);
	meta_volume_clear(&m);
	if (!is_it)
		return error_set(e, EBUSY, "it is another one now");
	if (volume_destroy(&c, &result, &f) == 0)
		return 0;
	*e = f.e;
	return -1;
}

static void check_snapshot(struct doctor_view *v, const struct doctor_volume *volume, const struct meta_volume *m)
{
	struct error what, e;

	if (!is_abandoned(m))
		return;
	error_set(&what, EUCLEAN, "snapshot %s was taken by an export that was killed", volume->key);
	if (doctor_found(v->d, &(struct doctor_finding) {
		.kind = "snapshot-left", .subject = volume->path, .what = what.text,
		.why = "it takes space, and looks like one that somebody wanted",
		.remedy = "remove it" }))
		doctor_done(v->d, remove_snapshot(volume, &e), &e);
}

static void check_command(struct doctor_view *v, const struct doctor_volume *volume)
{
	struct meta_volume m;
	struct error e;

	if (meta_volume_read(volume->dir, volume->key, &m, &e) == -1)
		return;
	check_filled(v, volume, &m);
	check_snapshot(v, volume, &m);
	meta_volume_clear(&m);
}

void doctor_check_volume(struct doctor_view *v, const struct doctor_volume *volume)
{
	struct owner_file o;
	struct error e;

	if (access(volume->path, F_OK) == -1 || !doctor_is_unserved(volume->path))
		return;
	if (owner_file_read(volume->path, &o, &e) == 0) { /* else fsck says that it cannot be known */
		check_owner(v, volume, &o);
		check_journal(v, volume, &o);
		owner_file_clear(&o);
	}
	check_lease(v, volume);
	check_command(v, volume);
}
