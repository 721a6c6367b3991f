/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * process - the datapath process of one image, as the verbs speak to it
 */
#ifndef SXM_PLUGINS_PROCESS_H
#define SXM_PLUGINS_PROCESS_H

#include "base/error.h"
#include "plugins/vdi-id.h"

#define PROCESS_SOCKET_MAX 108 /* struct sockaddr_un's path, with the NUL */

struct process {
	char id[VDI_ID_MAX];
	const char *path;                 /* borrowed: the image; NULL: only asked, never started */
	char dir[PROCESS_SOCKET_MAX];     /* SXM_RUN_DIR/<id> */
	char control[PROCESS_SOCKET_MAX]; /* its control socket */
};

/* path: canonical. -1 + e: SXM_RUN_DIR is too long, or not absolute. */
int process_by_path(struct process *p, const char *path, struct error *e);
/* id: valid. */
int process_by_id(struct process *p, const char *id, struct error *e);

/* Asks the process that is there; the "ok" value's text, heap. NULL + e: its error; ESRCH when there is none. wait_ms 0: for
 * ever. */
char *process_ask(const struct process *p, const char *verb, const char *args, unsigned wait_ms, struct error *e);

enum process_start {
	PROCESS_START,   /* start one when there is none */
	PROCESS_ONCE,    /* the same, for a verb that must not be repeated: not asked again when the process died under it */
	PROCESS_RESTART, /* only when the one that is gone left something to take up and we know its image: ESRCH when not */
};
/* As process_ask(), and asks again when the process died or ended under the question. wait_ms: of one question; 0: no bound. */
char *process_call(const struct process *p, const char *verb, const char *args, enum process_start start, unsigned wait_ms,
		   struct error *e);

/* fn for every id that has a directory in SXM_RUN_DIR. */
void process_each(void (*fn)(const char *id, void *arg), void *arg);

#endif
