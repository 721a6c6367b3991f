/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * verb - one call as xapi makes it: from the verb's file and standard input to one JSON value and an exit status
 */
#ifndef SXM_PLUGINS_VERB_H
#define SXM_PLUGINS_VERB_H

#include "base/compiler.h"
#include "plugins/failure.h"

/* file: the path of the verb's file, .../volume/org.xen.xapi.storage.<type>/<Verb> or .../datapath/<scheme>/<Verb>.
 * args: what it was called with, ended by NULL: {"--json"}, or static-vdis' manner: the dbg string, then the parameters.
 * Returns the exit status. */
int verb_main(const char *file, char **args);

/* One verb within this process. type: of the SR ("filebased"), for the verbs of volumes. args: its parameters as a JSON object.
 * 0 and *result: one JSON value's text, heap. -1 + f. */
int verb_call(const char *type, const char *name, const char *args, char **result, struct failure *f);

/* Every verb with its parameters, for people. */
void verb_list(void);

#endif
