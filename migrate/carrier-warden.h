/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-warden - a process that runs a program for one channel and tells how it ended
 */
#ifndef SXM_MIGRATE_CARRIER_WARDEN_H
#define SXM_MIGRATE_CARRIER_WARDEN_H

#include <sys/types.h>

#include "migrate/carrier-ends.h"

/* argv[0] is looked for in PATH; stream becomes its standard input and output; its standard error is shown, with name before each
 * line; how it ended goes to tell (struct carrier_said). lost_status: the exit status that means CARRIER_END_LOST; -1: none.
 * stream and tell stay the caller's to close. The warden's pid, which is in a session of its own: SIGTERM ends both.
 * -1 + e. */
pid_t carrier_warden_start(char *const argv[], int stream, int tell, const char *name, int lost_status, struct error *e);

#endif
