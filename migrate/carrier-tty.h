/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-tty - what is asked of the person at the terminal, whatever standard input and output are
 */
#ifndef SXM_MIGRATE_CARRIER_TTY_H
#define SXM_MIGRATE_CARRIER_TTY_H

#include "base/compiler.h"
#include "base/error.h"

/* Is there a terminal to ask at? */
bool carrier_tty_is_there(void);
/* Shows text (from outside, perhaps: it is made printable; newlines stay) and reads a line. has_echo: what is typed shows.
 * answer: without the newline; wiped where -1 is returned. -1 + e: ENXIO no terminal, ECANCELED end of input or a signal (which
 * is raised again when the terminal is as it was), E2BIG longer than max - 1. */
int carrier_tty_ask(const char *text, bool has_echo, char *answer, size_t max, struct error *e);
/* Asks until the answer is yes (1) or no (0). -1 + e. */
int carrier_tty_confirm(const char *text, struct error *e);

#endif
