/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * chain - the logs of what changed, of a directory's volumes: begun, cut at a snapshot, walked, merged
 *
 *      <key>.cbt       of a volume whose changes are tracked; whether the file is there is whether they are (cbt/cbt-log.h)
 *
 * For images that no process has open for writing: whoever calls these holds the image's lock, shared at least, where that is
 * said, and the SR's, shared, so that logs are not merged meanwhile. What a process has open it does itself (datapath.h).
 */
#ifndef SXM_PLUGINS_CHAIN_H
#define SXM_PLUGINS_CHAIN_H

#include "base/error.h"
#include "cbt/cbt-log.h"

bool chain_has(const char *dir, const char *key);

/* --- with the image's lock */
int chain_enable(const char *dir, const char *key, uint64_t size_bytes, struct error *e); /* nothing where it is */
int chain_disable(const char *dir, const char *key, struct error *e);
/* What changed up to now is the log of new_key, sealed; a new one begins. Nothing where there is no log; where it is damaged,
 * new_key gets none, and key's begins anew. */
int chain_cut(const char *dir, const char *key, const char *new_key, struct error *e);
/* A new log in the place of the one that is there, as since `parent`, "": since nothing that is known. Nothing where there is
 * none. */
int chain_restart(const char *dir, const char *key, const char *parent, struct error *e);
/* Of a disk that nobody writes. ENOENT: it has none. */
int chain_load(const char *dir, const char *key, struct cbt_log *log, struct error *e);

/* A snapshot's log, which no longer changes. */
bool chain_is_sealed(const char *dir, const char *key);
/* log is to's, and becomes what changed since from, or since what from is a copy of (cbt/cbt-moved.h): as its record says under
 * CHAIN_COPY_OF. ENODATA: no unbroken chain leads there. */
#define CHAIN_COPY_OF "copy_of"
int chain_walk(const char *dir, const char *from, const char *to, struct cbt_log *log, struct error *e);

/* Logs of volumes that are no more go into those they come before; of those nobody has open for writing, and when nobody makes a
 * volume now. What cannot be done is left for the next time. */
void chain_collect(const char *dir);

/* The id of its log, 16 hexadecimal digits: another one each time tracking begins. -1 + e: ENOENT where it is not tracked. */
#define CHAIN_ID_MAX 17
int chain_log_id(const char *dir, const char *key, char id[static CHAIN_ID_MAX], struct error *e);

#endif
