/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dm-qmp - what libxl asks of a device model before and after a domain runs, answered as by one that has nothing to do
 */
#ifndef SXM_BROKER_DM_QMP_H
#define SXM_BROKER_DM_QMP_H

#include "base/error.h"
#include "loop/loop.h"

struct dm_qmp;

/* Listens at path, or, where it is NULL, on fd, which is taken. on_quit: somebody said quit. NULL + e. */
struct dm_qmp *dm_qmp_new(struct loop *l, const char *path, int fd, void (*on_quit)(void *arg), void *arg, struct error *e);
void dm_qmp_free(struct dm_qmp *q); /* and removes the socket */

#endif
