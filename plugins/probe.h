/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * probe - the answer of SR.probe, as the types of SR fill it
 *
 * xapi refuses the whole answer when sr_uuid stands in a configuration without the SR being told too, or the reverse: these
 * functions see to that.
 */
#ifndef SXM_PLUGINS_PROBE_H
#define SXM_PLUGINS_PROBE_H

#include "plugins/failure.h"
#include "plugins/types.h"

struct probe {
	struct types_probe_result *item; /* owned */
	size_t count;
};

enum probe_kind {
	PROBE_PARTIAL, /* something is missing: a choice, or a key that is not given yet */
	PROBE_FREE,    /* SR.create could make an SR of it */
};
/* info: may be NULL. Both maps are copied, sr_uuid is left out. */
int probe_add(struct probe *p, enum probe_kind kind, const struct jsonspec_map *configuration, const struct jsonspec_map *info,
	      struct failure *f);
/* An SR is there. stat: what can be said of it; its strings are copied. */
int probe_add_sr(struct probe *p, const struct jsonspec_map *configuration, const char *sr_uuid, const struct types_sr_stat *stat,
		 struct failure *f);
/* An SR in a directory that can be read as it is. 1: added; 0: there is none; -1 + f: there is another one, or it cannot be
 * read. */
int probe_look(struct probe *p, const struct jsonspec_map *configuration, const char *dir, bool is_shared, struct failure *f);

void probe_fini(struct probe *p);

#endif
