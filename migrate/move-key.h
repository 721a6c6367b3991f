/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * move-key - the key of one move, by which its two hosts know each other where the disks' bytes go over TLS
 *
 * SXM_RUN_DIR/journeys/<id>/key on both hosts, mode 0600: "<id>:<64 hexadecimal digits>", as GnuTLS' programs have it.
 * It is made on the host that moves its disks, goes to the other one through its relay's standard input, and stands nowhere else.
 */
#ifndef SXM_MIGRATE_MOVE_KEY_H
#define SXM_MIGRATE_MOVE_KEY_H

#include "base/compiler.h"
#include "base/error.h"

#define MOVE_KEY_BYTES 32u
#define MOVE_KEY_DIGITS (2 * MOVE_KEY_BYTES)

/* Who has it wipes it, with move_key_wipe(). */
struct move_key {
	char digits[MOVE_KEY_DIGITS + 1];
};

/* Its file: heap; NULL: out of memory. */
char *move_key_path(const char *id);
bool move_key_is_valid(const char *digits);
/* -1 + e: no random numbers. */
int move_key_make(struct move_key *k, struct error *e);
/* -1 + e: there is none, or the file is not as it was written. */
int move_key_read(const char *id, struct move_key *k, struct error *e);
int move_key_write(const char *id, const char *digits, struct error *e);
/* It is gone, and its directory where nothing else is in it. */
int move_key_drop(const char *id, struct error *e);
void move_key_wipe(struct move_key *k);

#endif
