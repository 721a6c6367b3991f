/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * running - one of our verbs as a child process, from the loop
 */
#ifndef SXM_BROKER_RUNNING_H
#define SXM_BROKER_RUNNING_H

#include "base/error.h"
#include "loop/loop.h"

struct running;

/* output: what it wrote to its standard output, as much as is understood. e->err: 0: it succeeded. */
typedef void running_done_fn(void *arg, const char *output, const struct error *e);

/* DIRECTORY/VERB sxm-xenbus URI DOMAIN. done() comes from running_reap(), once; running is gone then. NULL + e:
 * it was not started. */
struct running *running_new(const char *directory, const char *verb, const char *uri, const char *domain, running_done_fn *done,
			    void *arg, struct error *e);
/* A child has ended: SIGCHLD. */
void running_reap(void);
void running_forget_all(void); /* they go on, and nobody is told */

#endif
