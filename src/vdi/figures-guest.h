/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * figures-guest - the file of one domain's figures (figures.h), for as long as the domain has the disk attached
 *
 * SXM_METRICS_DIR/sxm-<id>-<hash of the domain>; a successor of a killed process goes on in the same file.
 */
#ifndef SXM_VDI_FIGURES_GUEST_H
#define SXM_VDI_FIGURES_GUEST_H

#include "base/error.h"
#include "nbdsrv/nbdsrv.h"
#include "vdi/figures.h"

#define FIGURES_MS 5000u /* xcp-rrdd reads as often */

struct figures;
/* socket: the domain's, by which the file is named. ENOENT: no xcp-rrdd is here. */
struct figures *figures_new(const char *id, const char *socket, const char *vm, const char *device,
			    const struct nbdsrv_stats *counted, struct error *e);
/* By all that is counted for it now. Writes the file. */
void figures_update(struct figures *f, const struct nbdsrv_stats *counted);
/* So much of that is not counted there any more: whoever counts next begins anew. */
void figures_keep(struct figures *f, const struct nbdsrv_stats *gone);
void figures_free(struct figures *f); /* the file stays. NULL allowed */
/* Nobody will go on in that file. */
void figures_remove(const char *id, const char *socket);
/* Removes all files of a disk without a process. Blocks no longer than tmpfs does. */
void figures_sweep(const char *id);

#endif
