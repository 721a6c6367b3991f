/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * plug - a guest's block device as a toolstack writes it into xenstore: its names, and the keys of both ends; pure
 */
#ifndef SXM_CMD_PLUG_H
#define SXM_CMD_PLUG_H

#include "cmd/xenstore.h"

#define PLUG_DOMAIN_MAX 32751u /* beyond are Xen's own */

enum plug_state { PLUG_NONE = 0, PLUG_NEW = 1, PLUG_OFFERED = 2, PLUG_CONNECTED = 4, PLUG_CLOSING = 5, PLUG_CLOSED = 6 };

/* xvdb, xvdb1, xvdaa, sda, hdc; or the number itself. */
bool plug_device(const char *name, uint32_t *device);
/* The name of such a number; a number where it has none. out: 16 bytes. */
void plug_device_name(uint32_t device, char out[static 16]);
bool plug_domain(const char *text, uint16_t *domain);

struct plug {
	uint16_t domain;
	uint32_t device;
	const char *kind;   /* borrowed: of the backend */
	char backend[XENSTORE_PATH_MAX], frontend[XENSTORE_PATH_MAX];
	char libxl[XENSTORE_PATH_MAX]; /* libxl's own record of it; "": it knows no such kind */
	char error[XENSTORE_PATH_MAX], front_error[XENSTORE_PATH_MAX]; /* why it failed, by the backend and by the guest */
};
void plug_init(struct plug *p, uint16_t domain, uint32_t device, const char *kind);

/* All keys of a device that is new. params: where its disk is served. has_libxl: libxl made the domain, and is to take its end
 * for the domain's, as it does with devices of its own. */
void plug_attach(const struct plug *p, const char *params, bool is_read_only, bool has_libxl, struct xenstore_steps *out);
/* The guest is asked to let go of it. */
void plug_close(const struct plug *p, struct xenstore_steps *out);
/* It is taken from the guest: the backend lets go of it, too. */
void plug_force(const struct plug *p, struct xenstore_steps *out);
/* Nothing is left of it. */
void plug_remove(const struct plug *p, struct xenstore_steps *out);

#endif
