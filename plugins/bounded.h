/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bounded - verbs on what may not answer: a server across a network
 *
 * Such an SR's type has a patience (sr.h). Its verbs run in a child that is given up when that is over; those that may take
 * hours by their nature only begin with a look at the SR, in a child.
 */
#ifndef SXM_PLUGINS_BOUNDED_H
#define SXM_PLUGINS_BOUNDED_H

#include "plugins/smapi.h"

/* fn, in a child that is given up after wait_ms (ETIMEDOUT) where the call's type of SR has a patience; else here. */
int bounded_call(smapi_fn *fn, struct smapi_call *call, unsigned wait_ms, char **result, struct failure *f);

/* Does what the path of that URI is in answer, where the verbs have mounted it? Whatever it says is an answer. -1 + f: none
 * came. */
int bounded_look(const char *uri, const char *scheme, struct failure *f);

/* Can the records of the SR in dir be read? Asked in a child, as its server may not answer. -1 + e: ETIMEDOUT after wait_ms, or
 * why not; that of the SR itself may be damaged. */
int bounded_look_at_sr(const char *dir, unsigned wait_ms, struct error *e);

#endif
