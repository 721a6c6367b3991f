/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * records - SXM_STATE_DIR/operations: what is known of operations without their processes (src/vdi/record.c writes it)
 *
 * Whatever lies there instead of a record is none.
 */
#ifndef SXM_PLUGINS_RECORDS_H
#define SXM_PLUGINS_RECORDS_H

#include "base/error.h"
#include "base/jsonspec.h"

struct record {
	char *id, *kind, *text;
	bool failed, complete;
	int64_t ended;                          /* unix time; 0: it runs, or is suspended, or ended with its process */
	char *domain, *remote, *path, *journal; /* NULL: not told */
};
extern const struct jsonspec records_spec; /* jsonspec_clear(&records_spec, &r) frees what was read */

/* False: there is none. The operation's name is checked. */
bool records_read(const char *operation, struct record *r);
/* Its end is still to come: it goes on when its disk is active for writing again. */
bool records_is_suspended(const struct record *r);
/* Says that it has failed, with that sentence, now. */
int records_fail(const struct record *r, const char *text, struct error *e);
int records_remove(const char *operation, struct error *e); /* 0 also when there is none */
void records_each(void (*fn)(const struct record *r, void *arg), void *arg);

/* Drops what ended more than a day ago, and what cannot be read and is as old. Cheap: looks at the age of each file, and only
 * into old ones. Never drops what runs or is suspended. */
void records_collect(void);

#endif
