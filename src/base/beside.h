/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * beside - where the records of a disk lie that outlive this host's processes
 *
 *      /srv/sr/a.raw   /srv/sr/a.raw.owner                         beside a file: who takes the SR elsewhere takes them along
 *      /dev/vg1/x      SXM_STATE_DIR/%2Fdev%2Fvg1%2Fx.owner        of what is no file: beside it is /dev, which forgets
 *
 * Two paths never have the same name.
 */
#ifndef SXM_BASE_BESIDE_H
#define SXM_BASE_BESIDE_H

#include "base/compiler.h"

/* Blocks. It has a file's path on this host, whether it is there now or not. */
bool beside_is_file(const char *image);
/* Blocks. Heap; NULL: out of memory. suffix: begins with a dot. The directory may not be there yet. */
char *beside_path(const char *image, const char *suffix);

#endif
