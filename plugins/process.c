/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * process - see process.h
 *
 *      ask -> answered: good       refused: the process' own error
 *       ^  -> nobody there: start one, if that is wanted, and ask again
 *       |  -> hung up on: it died (the keeper starts the next one, which takes the connection) or ended: ask again
 *       '--------------------------
 *
 * Between two questions that got no answer there is a growing pause; after ASKED_MAX of them the last error stands.
 */
#include "plugins/process.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/proc.h"
#include "control/client.h"
#include "plugins/records.h"
#include "plugins/spawn.h"

#define ASKED_MAX 40u
#define PAUSE_MAX_MS 500u

int process_by_id(struct process *p, const char *id, struct error *e)
{
	const char *run = proc_run_dir();

	*p = (struct process) { 0 };
	snprintf(p->id, sizeof(p->id), "%s", id);
	if (*run != '/')
		return error_set(e, EINVAL, "SXM_RUN_DIR is %s, which is not an absolute path", run);
	if (strchr(run, ':'))
		return error_set(e, EINVAL,
				 "SXM_RUN_DIR is %s: no NBD URI of xapi's form can name a socket there, because of the colon",
				 run);
	snprintf(p->dir, sizeof(p->dir), "%s/%s", run, id);
	if ((size_t)snprintf(p->control, sizeof(p->control), "%s/%s/nbd-00000000", run, id) >= sizeof(p->control))
		return error_set(e, ENAMETOOLONG,
				 "SXM_RUN_DIR is %s, which is too long: a socket's path has at most %d bytes", run,
				 PROCESS_SOCKET_MAX - 1);
	snprintf(p->control, sizeof(p->control), "%s/%s/control", run, id);
	return 0;
}

int process_by_path(struct process *p, const char *path, struct error *e)
{
	char id[VDI_ID_MAX];

	if (process_by_id(p, vdi_id_of_path(path, id), e) == -1)
		return -1;
	p->path = path;
	return 0;
}

static char *say_absent(const struct process *p, struct error *e)
{
	error_set(e, ESRCH, "no datapath process serves %s", p->path ? p->path : p->id);
	return NULL;
}

char *process_ask(const struct process *p, const char *verb, const char *args, unsigned wait_ms, struct error *e)
{
	char *ok = NULL;
	enum client_outcome outcome = client_ask(p->control, verb, args, wait_ms, &ok, e);

	return outcome == CLIENT_ANSWERED ? ok : outcome == CLIENT_ABSENT ? say_absent(p, e) : NULL;
}

/* Did a process end here that still had something attached, or owes an answer? */
static bool has_left_something(const struct process *p)
{
	char path[PROCESS_SOCKET_MAX + 16];

	snprintf(path, sizeof(path), "%s/domains.json", p->dir);
	return access(path, F_OK) == 0;
}

static void pause_before(unsigned attempt)
{
	unsigned ms = attempt < 7 ? 5u << attempt : PAUSE_MAX_MS;
	struct timespec pause = { .tv_sec = 0, .tv_nsec = (long)ms * (long)NS_PER_MS };

	nanosleep(&pause, NULL);
}

char *process_call(const struct process *p, const char *verb, const char *args, enum process_start start, unsigned wait_ms,
		   struct error *e)
{
	for (unsigned attempt = 0; attempt < ASKED_MAX; attempt++) {
		char *ok = NULL;

		switch (client_ask(p->control, verb, args, wait_ms, &ok, e)) {
		case CLIENT_ANSWERED:
			return ok;
		case CLIENT_ABSENT:
			if (start == PROCESS_RESTART && (!p->path || !has_left_something(p)))
				return say_absent(p, e);
			if (spawn_start(p, e) == -1)
				return NULL;
			records_collect(); /* while it comes up */
			continue;
		case CLIENT_REFUSED:
			if (e->err != ESHUTDOWN) /* told to end; a successor will be there */
				return NULL;
			break;
		case CLIENT_LOST:
			if (start == PROCESS_ONCE)
				return NULL;
			break;
		case CLIENT_LATE:
		case CLIENT_BROKEN:
			return NULL;
		}
		log_debug("%s: asking again: %s", verb, e->text);
		pause_before(attempt);
	}
	return NULL;
}

void process_each(void (*fn)(const char *id, void *arg), void *arg)
{
	DIR *d = opendir(proc_run_dir());
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (vdi_id_is_valid(entry->d_name))
			fn(entry->d_name, arg);
	if (d)
		closedir(d);
}
