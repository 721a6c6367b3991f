/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * program - where the programs are that the verbs and the commands start
 */
#ifndef SXM_PLUGINS_PROGRAM_H
#define SXM_PLUGINS_PROGRAM_H

#include <limits.h>

#include "base/error.h"

/* Beside the program that runs, else where it was to be installed. */
int program_find(const char *name, char path[static PATH_MAX], struct error *e);

#endif
