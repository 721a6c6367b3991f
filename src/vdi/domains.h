/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * domains - what a process must find again after a kill -9: who is attached, who is active, which operation ran
 *
 * One small JSON file, domains.json, beside the control socket; replaced by rename at every change.
 */
#ifndef SXM_VDI_DOMAINS_H
#define SXM_VDI_DOMAINS_H

#include "base/error.h"
#include "base/jsonspec.h"
#include "nbdsrv/nbdsrv.h"

#define DOMAINS_FILE "domains.json"
#define DOMAINS_MAX 256       /* domains of one disk */
#define DOMAINS_NAME_MAX 256  /* bytes of a domain's name, with the NUL */
#define DOMAINS_LISTEN_MAX 4  /* TCP listeners of one domain */

struct domains_listener {
	char *host; /* owned */
	int64_t port;
	struct nbdsrv_tls tls; /* owned texts */
	bool has_tls;
};

struct domains_entry {
	char *domain; /* owned */
	bool is_active, is_read_only;
	bool is_lingering, is_detached; /* see linger.c */
	char *vm, *device; /* owned; whose figures are written (figures-guest.h), NULL: nobody asked */
	char *backend;         /* owned; a Xen guest's device (guest-device.c), NULL: it has none */
	char *had;             /* owned; the one that was dropped, NULL: none */
	bool is_eager;
	struct jsonspec_records listeners; /* struct domains_listener */
};

struct domains_record {
	struct jsonspec_records domains; /* struct domains_entry */
	char *operation;        /* owned; the live operation's id, NULL: none */
	char *operation_domain; /* owned */
	bool is_copy, is_told;  /* told: complete was, or may have been, answered for it */
	char *owed;             /* owned; what the next deactivation of a writing guest must say, NULL: nothing */
	char *owed_by;          /* owned; the operation of which that is */
	int64_t owed_since;     /* unix time */
};

extern const struct jsonspec domains_spec;
extern const struct jsonspec domains_listener_spec;
extern const struct jsonspec domains_tls_spec; /* struct nbdsrv_tls */

/* Fills r (cleared first). 0 and empty when there is no file. -1 + e: there is one and it says nothing sensible. */
int domains_load(const char *run_dir, struct domains_record *r, struct error *e);
void domains_clear(struct domains_record *r);

/* The domain's socket: run_dir/nbd-XXXXXXXX, by FNV-1a-32 of its name. -1 + e: does not fit sockaddr_un. */
int domains_socket(const char *run_dir, const char *domain, char *out, size_t bytes, struct error *e);

/* Whether a domain stands for a running guest: not dom0's own use (u0_), not the far end of a move (MIR, CP). */
bool domains_is_guest(const char *domain);
/* The far end of a move. */
bool domains_is_mirror(const char *domain);

#endif
