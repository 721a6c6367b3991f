/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fsck-private - what the files of fsck share
 */
#ifndef SXM_PLUGINS_FSCK_PRIVATE_H
#define SXM_PLUGINS_FSCK_PRIVATE_H

#include <sys/stat.h>

#include "plugins/fsck.h"
#include "plugins/meta.h"

/* It is a finding. True: remedy is to be done now, and fsck_done() follows. */
bool fsck_found(struct fsck *f, const char *remedy, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* r: 0 or -1 + e. Returns r. */
int fsck_done(struct fsck *f, int r, const struct error *e);

/* The names in the SR's directory, sorted; meta_list_clear(). -1 + e. */
int fsck_list(const struct fsck *f, struct jsonspec_list *names, struct error *e);
char *fsck_path(const struct fsck *f, const char *name); /* heap */
/* False: there is nothing of that name. */
bool fsck_look(const struct fsck *f, const char *name, struct stat *st);
bool fsck_is_file(const struct fsck *f, const char *name);
const char *fsck_type(mode_t mode); /* "a symbolic link" */
/* Out of the way, durable. */
int fsck_put_aside(struct fsck *f, const char *name, struct error *e);
/* A finding, whose remedy is that. */
void fsck_aside(struct fsck *f, const char *name, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* A descriptor with the lock of a file that is no link; nobody else is waited for. -1 + e: EBUSY. */
int fsck_lock(const struct fsck *f, const char *name, struct error *e);
/* Mode and owner are the SR's only. */
void fsck_check_access(struct fsck *f, const char *name, const struct stat *st);

/* --- fsck-volume.c */

/* The images first, for what is said of a record depends on them. */
void fsck_image(struct fsck *f, const char *name);
void fsck_record(struct fsck *f, const char *name);
/* What lies beside an image, and passing names; after the others. */
void fsck_beside(struct fsck *f, const char *name);
void fsck_passing(struct fsck *f, const char *name);

/* --- fsck-chain.c: what volumes have to do with each other; after all that moves files */

void fsck_chain(struct fsck *f, const char *name);
void fsck_log(struct fsck *f, const char *name);

/* --- fsck-salvage.c */

/* The strings that can still be read in a record that cannot be. Heap; NULL: not to be found. */
char *fsck_salvage_string(const char *text, const char *member);
/* Of a volume whose record is text: at least what meta_volume_guess() says. -1: out of memory. */
int fsck_salvage_volume(const char *text, const char *key, const char *format, struct meta_volume *m);

#endif
