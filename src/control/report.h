/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * report - what the verbs that only ask answer, as JSON. All heap; NULL: out of memory.
 */
#ifndef SXM_CONTROL_REPORT_H
#define SXM_CONTROL_REPORT_H

#include "vdi/vdi.h"

char *report_hello(const char *id, const char *path);
char *report_attach(const char *socket, const char *export);
/* An operation that is not there is failed. */
char *report_stat(const struct vdi *v, const char *id);
/* NULL too when it is not there. */
char *report_verification(const struct vdi *v, const char *id);
char *report_snapshot(const struct vdi_snapshot_result *r);
char *report_list(const struct vdi *v);
char *report_status(const struct vdi *v, const char *id, const char *path);

#endif
