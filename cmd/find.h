/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * find - which SR a person means
 */
#ifndef SXM_CMD_FIND_H
#define SXM_CMD_FIND_H

#include "base/error.h"

/* name: a directory, a file URI of one (what SR.attach returned), or the uuid of an SR that is attached here. Its directory,
 * canonical, heap; whether an SR is in it was not looked at. NULL + e. */
char *find_sr_dir(const char *name, struct error *e);

#endif
