/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * keeper - starts a datapath process again that died, and closes the door behind one that went
 */
#ifndef SXM_KEEPER_H
#define SXM_KEEPER_H

#include "base/error.h"

struct keeper_spec {
	const char *id;      /* borrowed */
	const char *run_dir; /* borrowed; SXM_RUN_DIR/<id> */
	int fd;              /* the listening control socket */
	bool (*is_needed)(const char *run_dir); /* somebody is on record there: a dead process must live again */
	void (*sweep)(const char *run_dir);     /* nobody is: what is ours there goes */
};

/* Returns in each child it forks, and only there: that one serves. The keeper itself ends in here. */
void keeper_run(const struct keeper_spec *k);

/* Binds SXM_RUN_DIR/<id>/control and listens. -1 + e: somebody listens there already, or it cannot be. */
int keeper_bind(const struct keeper_spec *k, struct error *e);

/* A process ended because nothing was left to do. True: somebody knocked meanwhile, serve him. False: the socket is gone, and
 * with it the directory where it is empty. */
bool keeper_close_door(const struct keeper_spec *k);

#endif
