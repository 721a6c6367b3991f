/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * host-id - which host this is, and which boot of it
 */
#ifndef SXM_BASE_HOST_ID_H
#define SXM_BASE_HOST_ID_H

#include "base/error.h"

#define HOST_ID_MAX 65 /* with the NUL */

/* $SXM_HOST_ID; xapi's uuid of the host; the machine's id. -1 + e: none can be found. */
int host_id(char id[static HOST_ID_MAX], struct error *e);
/* The kernel's: another one after each boot. */
int host_boot(char id[static HOST_ID_MAX], struct error *e);

#endif
