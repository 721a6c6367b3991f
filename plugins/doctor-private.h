/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * doctor-private - what the files of the doctor share
 */
#ifndef SXM_PLUGINS_DOCTOR_PRIVATE_H
#define SXM_PLUGINS_DOCTOR_PRIVATE_H

#include "plugins/doctor.h"
#include "plugins/process.h"

/* It is a finding. True: its remedy is to be done now, and doctor_done() follows. */
bool doctor_found(struct doctor *d, const struct doctor_finding *finding);
/* r: 0 or -1 + e. */
void doctor_done(struct doctor *d, int r, const struct error *e);

/* --- what is known of the disks */

struct doctor_volume {
	char *dir, *key, *path; /* owned; path: its image, canonical */
	char id[VDI_ID_MAX];
};
struct doctor_domains {
	bool is_known;
	struct jsonspec_list list; /* owned, where it was asked */
	const struct jsonspec_list *alive;
};
struct doctor_view {
	struct doctor *d;
	struct jsonspec_list handles; /* owned: of the SRs that are attached */
	struct jsonspec_list dirs;    /* owned: of the SRs that answer */
	struct doctor_volume *volume; /* owned: all volumes of those */
	size_t volumes;
	struct doctor_domains domains;
};
const struct doctor_volume *doctor_volume_of(const struct doctor_view *v, const char *id); /* NULL: not known */
void doctor_find_domains(struct doctor_domains *n, const struct jsonspec_list *alive);
bool doctor_is_alive(const struct doctor_domains *n, const char *domain); /* where it is not known: true */
void doctor_clear_domains(struct doctor_domains *n);
bool doctor_is_guest(const char *domain); /* a number */

/* Of a process' status. */
struct doctor_user {
	char *domain;
	bool is_active, is_read_only;
	int64_t clients;
};
struct doctor_operation {
	char *id, *state, *why;
	bool is_copy, is_failed, is_complete, is_ended, is_linked, is_given, is_remembered;
	int64_t links_lost;
};
struct doctor_owner {
	char *state;
	int64_t links;
};
struct doctor_status {
	char *path, *owed, *lease;
	int64_t pid, lease_left_ms;
	bool is_open;
	struct doctor_owner owner;
	struct jsonspec_records users, operations;
};
extern const struct jsonspec doctor_status_spec;
#define DOCTOR_ASK_MS 3000u
#define DOCTOR_MARK_SUFFIX ".json" /* of a mount's mark, beside its directory */
/* -1 + e: as process_ask(). */
int doctor_ask(const struct process *p, struct doctor_status *s, struct error *e);
bool doctor_has_live_operation(const struct doctor_status *s);
/* Nobody serves this image here. */
bool doctor_is_unserved(const char *path);
/* The text of a file that is ours, decoded. False: it is not there, or says nothing. */
bool doctor_read(const char *path, const struct jsonspec *spec, void *out);
/* How long ago the file at DIR/name was changed; 0: it is not there. */
unsigned doctor_age_s(const char *dir, const char *name);

/* --- the rounds */

void doctor_check_processes(struct doctor_view *v);
void doctor_check_host(struct doctor_view *v);                   /* SRs, mounts, records, groups, sockets of xapi's */
void doctor_check_sr(struct doctor_view *v, const char *dir);    /* its files as a whole */
void doctor_check_volume(struct doctor_view *v, const struct doctor_volume *volume);
/* Where that state of its record leaves it in doubt whose the disk is, or says that it is but half there. */
void doctor_say_state(struct doctor_view *v, const char *path, const char *state);

#endif
