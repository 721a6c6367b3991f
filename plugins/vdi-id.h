/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vdi-id - the short name of an image on this host
 *
 *      /srv/sr/7428de2e-e180-4ec8-947b-6dd4a8288937.raw  ->  7428de2e-e180-4ec8-947b-6dd4a8288937-1c2d3e4f
 *
 * It names the directory of the datapath process in SXM_RUN_DIR, its control socket, its NBD export and (with a number) its
 * operations.  The first part is for people, the second, a hash of the whole path, tells equal names apart.
 */
#ifndef SXM_PLUGINS_VDI_ID_H
#define SXM_PLUGINS_VDI_ID_H

#include "base/compiler.h"

#define VDI_ID_MAX 46 /* with the NUL */

/* path: canonical and absolute. Returns id. */
char *vdi_id_of_path(const char *path, char id[static VDI_ID_MAX]);

/* Has it the form of one? Then it is also safe as a name in a directory. */
bool vdi_id_is_valid(const char *text);

/* The VDI of an operation "<id>.<number>". False: not the name of an operation. */
bool vdi_id_of_operation(const char *operation, char id[static VDI_ID_MAX]);

#endif
