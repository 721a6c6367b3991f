/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * unfinished - what a command makes, and has not finished: which command that is, so that what it leaves is known when it is gone
 *
 *      a volume    is called NAME (incomplete) until it is whole
 *      a file      has another name until it is whole; SXM_STATE_DIR/unfinished/ID.json says so, and lies there before the file
 *      a snapshot  that goes when the command ends: its key says which command
 */
#ifndef SXM_PLUGINS_UNFINISHED_H
#define SXM_PLUGINS_UNFINISHED_H

#include "base/error.h"

#define UNFINISHED_SUFFIX " (incomplete)" /* of a volume's name */
#define UNFINISHED_KEY "sxm_command"      /* of a snapshot's keys */
#define UNFINISHED_DIR "unfinished"       /* in SXM_STATE_DIR */
#define UNFINISHED_TEXT 192

/* This process: HOST BOOT PID, and when it was started. */
int unfinished_command(char text[static UNFINISHED_TEXT], struct error *e);
/* It was one of this host, and is no more; where that is not sure, false. */
bool unfinished_is_gone(const char *command);

/* path is going to be made by this process; durable. */
int unfinished_note(const char *path, struct error *e);
void unfinished_forget(const char *path);
/* What the record of that name (without .json) tells of: its path, heap. NULL: nothing, or its command may still run. */
char *unfinished_path(const char *record);

#endif
