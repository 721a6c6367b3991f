/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * doctor - what a move that failed, a crash or a reboot has left on this host and in its SRs, and putting it right
 *
 * What is done cannot lose data: nobody's process, file, socket, mount or mark goes; no volume is removed but a snapshot that a
 * command took for itself and is gone, no guest's disk is deactivated under it, nobody is made the owner of a disk.  Each step
 * looks again, under the lock of what it is about, whether what was found is still so; one that was killed is done by the next.
 * What is wrong with the files of an SR is fsck's (fsck.h): it is asked, and only reported.
 */
#ifndef SXM_PLUGINS_DOCTOR_H
#define SXM_PLUGINS_DOCTOR_H

#include "base/error.h"
#include "base/jsonspec.h"

#define DOCTOR_OLDER_S 3600u
/* The domain of a command, with its process' number after it: when that is no more, nobody lets go of what it had. */
#define DOCTOR_COMMAND "u0_sxm"

/* All borrowed, for the time of the call. */
struct doctor_finding {
	const char *kind;    /* one word of a fixed set, for programs */
	const char *subject; /* the disk, file or directory */
	const char *what;    /* a sentence without its end */
	const char *why;     /* why it matters */
	const char *remedy;  /* what would be done; NULL: nothing by itself */
	const char *advice;  /* what a person can do where nothing is done; NULL: nothing is to be done, it is only told */
};

struct doctor {
	const char *dir;                  /* borrowed: this SR's directory besides those attached; NULL: none */
	const struct jsonspec_list *alive; /* borrowed: the domains that exist; NULL: to be asked of the host */
	unsigned older_s;                 /* an unused receiver or an idle process that is younger may just be in use */
	bool is_only_report;              /* nothing is made or changed, whatever found() says */
	bool (*found)(void *arg, const struct doctor_finding *finding); /* shall the remedy be done? */
	void (*result)(void *arg, const char *text, bool is_done);      /* of a remedy */
	void *arg;
	unsigned findings, repaired, left, told; /* out: findings are repaired, left or, where nothing is to be done, told */
};

/* -1 + e: it cannot be done. */
int doctor_run(struct doctor *d, struct error *e);

/* Who has what attached on this host; fn for each. */
struct doctor_domain {
	const char *domain, *path; /* borrowed */
	bool is_active, is_read_only;
	int64_t clients;
	bool is_guest, is_alive;   /* is_alive: it exists, or that is not known */
};
void doctor_each_domain(const struct jsonspec_list *alive, void (*fn)(const struct doctor_domain *domain, void *arg), void *arg);

#endif
