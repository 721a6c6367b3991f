/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ownership - which host may write to a volume of an SR that several have attached (base/lease.h)
 */
#ifndef SXM_PLUGINS_OWNERSHIP_H
#define SXM_PLUGINS_OWNERSHIP_H

#include "base/jsonspec.h"
#include "plugins/failure.h"

/* Several hosts may have the SR attached, as its type or its configuration says. */
bool ownership_is_shared(bool is_type_shared, const struct jsonspec_map *configuration);
/* At SR.attach: where it is so, the record of the SR in dir says it from now on. */
int ownership_share(const char *dir, bool is_type_shared, const struct jsonspec_map *configuration, struct failure *f);
/* Before its datapath is asked for it: where the SR is shared there is a lease beside the image from now on, or a mark that the
 * volume is sharable. */
int ownership_prepare(const char *image, struct failure *f);
/* There is such a lease, or mark: hosts share the volume. */
bool ownership_applies(const char *image);
/* Before a volume is changed, or read as a whole, by a verb: -1 + f: it is active on another host. The lease of one that is dead
 * is ended. Takes until the other host is seen to live, or to be dead. */
int ownership_check(const char *image, struct failure *f);
/* What a datapath said: Activated_on_another_host where that is why, else as failure_from(). -1. */
int ownership_explain(const char *image, struct failure *f, enum failure_kind kind, const struct error *e);

#endif
