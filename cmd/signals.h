/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * signals - Ctrl-C between two steps, never inside one
 *
 * Nor does it end a command that nobody reads any more what it says: what it is about goes on, and its end is seen to.
 */
#ifndef SXM_CMD_SIGNALS_H
#define SXM_CMD_SIGNALS_H

#include <stdbool.h>

/* SIGINT, SIGTERM and SIGHUP wait from now on. SIGPIPE is ignored: a write fails, which is nothing where it was to say how far
 * it is. */
void signals_hold(void);
/* One of them came, within wait_ms. */
bool signals_came(unsigned wait_ms);
/* They are obeyed again: another one ends the command. */
void signals_release(void);

#endif
