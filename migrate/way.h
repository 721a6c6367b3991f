/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * way - is an address of the other host reached from here? Tried with a port of its own, before anything is moved
 *
 *      there: way_open()  a child waits at a port of that address for one who connects, says a word to him, and ends
 *      here:  way_try()   connects, and hears whether it is that word
 *
 * So neither another host that has the same address here, nor something that answers for it, is taken for the one that is meant.
 */
#ifndef SXM_MIGRATE_WAY_H
#define SXM_MIGRATE_WAY_H

#include <sys/socket.h>

#include "base/compiler.h"
#include "base/error.h"

#define WAY_WORD_MAX 33

/* A numeric one, v4 or v6. False: it is none. */
bool way_is_address(const char *address);
/* -1 + e: one cannot listen there. */
int way_open(const char *address, uint16_t *port, char word[static WAY_WORD_MAX], struct error *e);
/* -1 + e: why it is not to be had. */
int way_try(const char *address, uint16_t port, const char *word, struct error *e);

#endif
