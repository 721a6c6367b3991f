/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xenbus-keys - what the texts in xenstore mean; pure
 */
#ifndef SXM_VBD_XENBUS_KEYS_H
#define SXM_VBD_XENBUS_KEYS_H

#include "base/guid.h"
#include "vbd/xenbus.h"

/* A decimal number of 32 bits, and nothing besides. */
bool xenbus_number(const struct xenbus_value *v, uint32_t *out);
bool xenbus_is(const struct xenbus_value *v, const char *text);
/* XENBUS_UNKNOWN where it is missing, or none; 7 and 8 are possible. */
enum xenbus_state xenbus_state_of(const struct xenbus_value *v);
/* The backend's directory is there, and about this guest's device and this disk. */
bool xenbus_is_ours(const struct xenbus_names *n, const struct xenbus_value *value);
/* Its params name no other disk than that of names: an NBD URI is names->params, a volume's is names->volume. What else they may
 * be says nothing here: it was understood by whoever found that this process is to serve it. */
bool xenbus_is_this_disk(const struct xenbus_names *n, const struct xenbus_value *value);
/* Of params that are a volume's URI, it: after the format that libxl puts before it. NULL: they are none. */
const char *xenbus_volume(const struct xenbus_value *value);
/* The uuid of the VM whose guest it is. False: nobody says so whom its guest cannot have told what to say. */
bool xenbus_vm(const struct xenbus_value *value, char uuid[static GUID_MAX]);
/* The ring the frontend offers. -1 + e: it is none that could be. */
int xenbus_read_ring(struct xenbus_ring *ring, const struct xenbus_value *value, struct error *e);

#endif
