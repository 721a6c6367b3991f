/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * driver-verb - a device of xl's is given its volume, as xapi does it for its own
 *
 *      TAKE     record -> Datapath.attach (who is its process?) -> Datapath.activate, for writing or not; or another guest has it
 *      RELEASE  Datapath.deactivate (the barrier) -> Datapath.detach -> no record
 *
 * The record, SXM_RUN_DIR/xenbus/KIND.DOMAIN.DEVICE, is there before anything is done and until all is undone: it is what the
 * next broker knows of that, the URI, and " r" where it is only read.  It is in a tmpfs, like all there, so it is written here
 * and now.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "broker/driver-private.h"
#include "broker/running.h"

#define TELL_EACH 32u
#define TO_READ " r" /* no URI has a space in it */

static void begin_step(struct driver_errand *r);

/* --- records */

static char *record_path(const struct driver *d, struct broker_key key)
{
	char *path;
	int n = asprintf(&path, "%s/" DRIVER_DIR "/%s.%u.%u", d->spec.run_dir, d->root.kind, key.domain, key.device);

	return n < 0 ? NULL : path;
}

static int write_record(const struct driver *d, const struct broker_action *a, struct error *e)
{
	CLEANUP_FREE char *path = record_path(d, a->key);
	char text[BROKER_NAME_MAX + sizeof(TO_READ)];
	int bytes = snprintf(text, sizeof(text), "%s%s", a->name, a->is_read_only ? TO_READ : "");

	return path ? proc_swap_file(path, text, (size_t)bytes, 0600, e) : error_set(e, ENOMEM, "out of memory");
}

static void recall(struct driver *d, const char *name)
{
	size_t bytes = strlen(d->root.kind);
	unsigned domain, device;
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *uri = NULL;
	struct broker_key key;
	char *to_read;
	struct error e;
	int end = 0;

	if (strncmp(name, d->root.kind, bytes) != 0 || sscanf(name + bytes, ".%u.%u%n", &domain, &device, &end) != 2 ||
	    name[bytes + (size_t)end] || domain > UINT16_MAX)
		return;
	key = (struct broker_key){ .domain = (uint16_t)domain, .device = device };
	path = record_path(d, key);
	uri = path ? proc_read_own_file(path, BROKER_NAME_MAX + strlen(TO_READ), NULL, &e) : NULL;
	to_read = uri ? strstr(uri, TO_READ) : NULL;
	if (to_read)
		*to_read = '\0';
	if (uri && *uri)
		broker_recall_taken(d->broker, key, uri, to_read);
	else
		log_error("%s says nothing: what device %u/%u had is not known", name, domain, device);
}

void driver_recall_taken(struct driver *d)
{
	CLEANUP_FREE char *path = NULL;
	struct dirent *entry;
	DIR *dir;

	if (asprintf(&path, "%s/" DRIVER_DIR, d->spec.run_dir) < 0) {
		path = NULL;
		return;
	}
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		recall(d, entry->d_name);
	if (dir)
		closedir(dir);
}

/* --- verbs */

static const char *const take_verbs[] = { "Datapath.attach", "Datapath.activate" };
static const char *const release_verbs[] = { "Datapath.deactivate", "Datapath.detach" };

static void finish(struct driver_errand *r, const struct error *e)
{
	struct driver *d = r->driver;
	const struct broker_action *a = &r->action;
	bool is_take = a->what == BROKER_TAKE;
	static struct log_limit limit = LOG_LIMIT(20);

	if (!e->err && log_allowed(&limit))
		log_info("%u/%u: %s is %s", a->key.domain, a->key.device, a->name, is_take ? "activated" : "let go of");
	else if (e->err && a->failures % TELL_EACH == 0 && log_allowed(&limit))
		log_warn("%u/%u: %s: %s", a->key.domain, a->key.device, a->name, e->text);
	if (!is_take && !e->err) {
		CLEANUP_FREE char *path = record_path(d, a->key);

		if (path)
			unlink(path);
	}
	LIST_REMOVE(r, link);
	d->running--;
	if (is_take)
		broker_taken(d->broker, a->key, e->err, r->id, driver_now_ms());
	else
		broker_ended(d->broker, a->key, e->err, driver_now_ms());
	free(r);
	driver_step(d);
}

/* Anywhere in what Datapath.attach answered: the URI of the one that is ours. */
static void find_process(struct driver_errand *r, const char *output, struct error *e)
{
	const char *at = output;
	char uri[BROKER_NAME_MAX];

	while ((at = strstr(at, "nbd:unix:"))) {
		size_t bytes = strcspn(at, "\"");

		snprintf(uri, sizeof(uri), "%.*s", (int)MIN(bytes, sizeof(uri) - 1), at);
		if (facts_process_of(uri, r->driver->spec.run_dir, r->id))
			return;
		at += bytes;
	}
	error_set(e, EPROTO, "Datapath.attach named no process");
}

static void on_verb(void *arg, const char *output, const struct error *e)
{
	struct driver_errand *r = arg;
	struct error why = *e;

	if (!why.err && r->action.what == BROKER_TAKE && r->step == 0)
		find_process(r, output, &why);
	if (why.err || ++r->step == 2)
		finish(r, &why);
	else
		begin_step(r);
}

static const char *verb_of(const struct driver_errand *r)
{
	if (r->action.what == BROKER_RELEASE)
		return release_verbs[r->step];
	return r->step == 1 && r->action.is_read_only ? "Datapath.activate_readonly" : take_verbs[r->step];
}

static void begin_step(struct driver_errand *r)
{
	const struct broker_action *a = &r->action;
	char domain[8];
	struct error e = { 0 };

	snprintf(domain, sizeof(domain), "%u", a->key.domain);
	if (!running_new(r->driver->spec.verbs, verb_of(r), a->name, domain, on_verb, r, &e))
		finish(r, &e);
}

void driver_run(struct driver *d, const struct broker_action *a)
{
	struct driver_errand *r = calloc(1, sizeof(*r));
	struct error e = { 0 };

	if (!r) {
		if (a->what == BROKER_TAKE)
			broker_taken(d->broker, a->key, ENOMEM, "", driver_now_ms());
		else
			broker_ended(d->broker, a->key, ENOMEM, driver_now_ms());
		return;
	}
	r->driver = d;
	r->action = *a;
	LIST_INSERT_HEAD(&d->errands, r, link);
	d->running++;
	if (a->is_held)
		error_set(&e, EBUSY, "domain %u has it: this one gets it when that has let go", a->holder);
	if (a->is_held || (a->what == BROKER_TAKE && write_record(d, a, &e) == -1))
		finish(r, &e);
	else
		begin_step(r);
}

void driver_drop_errands(struct driver *d)
{
	struct driver_errand *r;

	running_forget_all();
	while ((r = LIST_FIRST(&d->errands))) {
		LIST_REMOVE(r, link);
		free(r);
	}
}
