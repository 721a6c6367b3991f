/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * say - text that others chose, on an administrator's terminal
 */
#ifndef SXM_CMD_SAY_H
#define SXM_CMD_SAY_H

#include <stdio.h>

/* What controls a terminal, breaks or turns a line, or is no UTF-8, as \xNN for each byte; a backslash twice. */
void say_text(FILE *to, const char *text);
/* One line of JSON and its end; what JSON allows and a terminal obeys (DEL, C1) as \u00NN. NULL: memory is out. -1 then. */
int say_json(const char *text);

#endif
