/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * unit - the datapath process of an image as a service of systemd
 */
#ifndef SXM_PLUGINS_UNIT_H
#define SXM_PLUGINS_UNIT_H

#include "plugins/process.h"

/* systemd runs here and the unit can name this image. */
bool unit_is_usable(const struct process *p);

enum unit_outcome {
	UNIT_STARTED, /* it listened when systemd had started it */
	UNIT_ABSENT,  /* it is not installed */
	UNIT_REFUSED, /* it did not start: another try may */
};
/* Starts sxm-datapath@<id>, waits until it is started. p->path is set. e is set for UNIT_REFUSED. */
enum unit_outcome unit_start(const struct process *p, struct error *e);

#endif
