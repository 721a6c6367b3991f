/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * watching - what the disks' processes have on record: SXM_RUN_DIR/ID/domains.json, replaced at every change
 *
 *      SXM_RUN_DIR           a directory is made in it: a process of a device's begins
 *      SXM_RUN_DIR/ID        domains.json, or the control socket, is there anew: it may be another's turn to be told
 *
 * The record says who has the disk active, and which devices are served: so a process that was told of a device by an earlier
 * broker is found, also when it is dead at the moment and will come back.  Only of the processes that devices name are the
 * directories watched.
 * Can fail: the kernel's queue overflows; then all of them may have changed.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/proc.h"
#include "broker/driver-private.h"

#define RECORD "domains.json"
#define RECORD_MAX (1u << 20)

struct place {
	int number; /* inotify's */
	char id[BROKER_ID_MAX];
	LIST_ENTRY(place) link;
};
struct watching {
	struct driver *driver;
	int fd;                   /* owned */
	int run;                  /* inotify's number of SXM_RUN_DIR */
	struct loop_watch *watch; /* owned */
	LIST_HEAD(, place) places;
};

struct entry {
	char *backend;
};
static const struct jsonspec_field entry_fields[] = {
	{ .name = "backend", .type = JS_STRING, .offset = offsetof(struct entry, backend), .is_optional = true },
	{ .name = NULL },
};
static const struct jsonspec entry_spec = { "domain", sizeof(struct entry), entry_fields };
struct record {
	struct jsonspec_records domains;
};
static const struct jsonspec_field record_fields[] = {
	{ .name = "domains", .type = JS_RECORDS, .offset = offsetof(struct record, domains), .is_optional = true,
	  .sub = &entry_spec },
	{ .name = NULL },
};
static const struct jsonspec record_spec = { RECORD, sizeof(struct record), record_fields };

/* --- records */

bool watching_has_record(const struct driver *d, const char *id)
{
	CLEANUP_FREE char *path = NULL;

	if (asprintf(&path, "%s/%s/" RECORD, d->spec.run_dir, id) < 0)
		path = NULL;
	return path && access(path, F_OK) == 0;
}

static void recall(struct driver *d, const char *id)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;
	const struct entry *entry;
	struct broker_key key;
	struct record r;
	struct error e;
	size_t bytes;

	if (asprintf(&path, "%s/%s/" RECORD, d->spec.run_dir, id) < 0)
		path = NULL;
	text = path ? proc_read_own_file(path, RECORD_MAX, &bytes, &e) : NULL;
	if (!text || jsonspec_decode(&record_spec, text, bytes, &r, &e) == -1)
		return;
	entry = r.domains.item;
	for (size_t i = 0; i < r.domains.count; i++)
		if (entry[i].backend && facts_of_path(&d->root, entry[i].backend, &key) == FACTS_DEVICE)
			broker_recall_told(d->broker, key, id, driver_now_ms());
	jsonspec_clear(&record_spec, &r);
}

void watching_recall_all(struct driver *d)
{
	DIR *dir = opendir(d->spec.run_dir);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (facts_id_is_valid(entry->d_name, strlen(entry->d_name)))
			recall(d, entry->d_name);
	if (dir)
		closedir(dir);
}

/* --- changes */

static void changed(struct watching *w, const char *id)
{
	recall(w->driver, id);
	broker_process_changed(w->driver->broker, id);
}

static struct place *find(struct watching *w, const char *id, int number)
{
	struct place *p;

	LIST_FOREACH(p, &w->places, link)
		if (id ? strcmp(p->id, id) == 0 : p->number == number)
			return p;
	return NULL;
}

static void drop(struct place *p)
{
	LIST_REMOVE(p, link);
	free(p);
}

void watching_want(struct watching *w, const char *id)
{
	CLEANUP_FREE char *path = NULL;
	struct place *p;

	if (find(w, id, 0))
		return;
	if (asprintf(&path, "%s/%s", w->driver->spec.run_dir, id) < 0) {
		path = NULL;
		return;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return;
	p->number = inotify_add_watch(w->fd, path, IN_MOVED_TO | IN_CREATE | IN_ONLYDIR);
	if (p->number < 0) { /* there is no such process yet; or no memory, and then it is asked again and again */
		free(p);
		return;
	}
	snprintf(p->id, sizeof(p->id), "%s", id);
	LIST_INSERT_HEAD(&w->places, p, link);
}

static void take_event(struct watching *w, const struct inotify_event *ev)
{
	const char *name = ev->len ? ev->name : "";
	struct place *p;

	if (ev->mask & IN_Q_OVERFLOW) {
		LIST_FOREACH(p, &w->places, link)
			changed(w, p->id);
		return;
	}
	if (ev->wd == w->run) {
		if (broker_wants(w->driver->broker, name)) {
			watching_want(w, name);
			changed(w, name);
		}
		return;
	}
	p = find(w, NULL, ev->wd);
	if (!p)
		return;
	if (ev->mask & IN_IGNORED) {
		drop(p);
	} else if (!broker_wants(w->driver->broker, p->id)) {
		inotify_rm_watch(w->fd, p->number);
		drop(p);
	} else if (strcmp(name, RECORD) == 0 || strcmp(name, "control") == 0) {
		changed(w, p->id);
	}
}

static void on_inotify(void *arg, int events UNUSED)
{
	struct watching *w = arg;
	char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t bytes = read(w->fd, buffer, sizeof(buffer));

	for (ssize_t at = 0; at < bytes;) {
		const struct inotify_event *ev = (const void *)(buffer + at);

		take_event(w, ev);
		at += (ssize_t)(sizeof(*ev) + ev->len);
	}
	driver_step(w->driver);
}

struct watching *watching_new(struct driver *d, struct error *e)
{
	struct watching *w = calloc(1, sizeof(*w));

	if (!w) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	w->driver = d;
	w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	w->run = w->fd < 0 ? -1 : inotify_add_watch(w->fd, d->spec.run_dir, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
	w->watch = w->run < 0 ? NULL : loop_watch_new(d->spec.loop, w->fd, LOOP_IN, on_inotify, w);
	if (!w->watch) {
		error_errno(e, errno, "watch %s", d->spec.run_dir);
		watching_free(w);
		return NULL;
	}
	return w;
}

void watching_free(struct watching *w)
{
	if (!w)
		return;
	loop_watch_free(w->watch);
	if (w->fd >= 0)
		close(w->fd);
	while (!LIST_EMPTY(&w->places))
		drop(LIST_FIRST(&w->places));
	free(w);
}
