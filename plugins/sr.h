/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr - what one type of SR must know how to do, and an SR as the verbs see it
 *
 * Every type ends in a directory with volumes in it (meta.h).  What differs is how a configuration names the place and how the
 * place becomes a directory: a type that mounts something does so in make() and attach().
 *
 *      configuration --check--> --make / attach--> DIR --uri_of_path("file", DIR)--> the handle xapi keeps
 */
#ifndef SXM_PLUGINS_SR_H
#define SXM_PLUGINS_SR_H

#include "base/jsonspec.h"
#include "plugins/failure.h"
#include "plugins/meta.h"

struct sr_ops {
	const char *type; /* the plugin directory's last part, xapi's SR type */
	const char *name, *description;
	const char *const *features; /* ends with NULL; those xapi cannot derive from the verbs' files */
	const struct sr_option {
		const char *key, *description; /* ends with a NULL key */
	} *options;

	/* Pure: is the configuration complete and sensible? Puts it in its one final form (old names replaced, defaults
	 * filled in). */
	int (*check)(struct jsonspec_map *configuration, struct failure *f);
	/* The directory of that configuration, heap; nothing is made or mounted. NULL + f (FAILURE_SR_DOES_NOT_EXIST): not
	 * there. */
	char *(*find)(const struct jsonspec_map *configuration, struct failure *f);
	/* SR.create: makes the place. Returns the directory, heap. has_made: unmake() would remove something. */
	char *(*make)(const struct jsonspec_map *configuration, bool *has_made, struct failure *f);
	/* Undoes make() when the rest of SR.create failed. */
	void (*unmake)(const char *dir);
	/* SR.probe: could make() work? */
	bool (*can_make)(const struct jsonspec_map *configuration);
	/* SR.attach, SR.detach: as the place needs it. NULL: nothing to do. */
	int (*attach)(const struct jsonspec_map *configuration, const char *dir, struct failure *f);
	int (*detach)(const char *dir, struct failure *f);
};

extern const struct sr_ops sr_filebased;
/* NULL: no such type. */
const struct sr_ops *sr_type(const char *type);

struct sr {
	const char *handle; /* borrowed */
	char *dir;          /* owned */
	struct meta_sr meta;
};
/* From the handle SR.attach returned. -1 + f: Sr_not_attached when it is no handle, SR_does_not_exist when the record is not
 * there: then nothing may be said about its volumes, least of all that there are none. */
int sr_open(struct sr *sr, const char *handle, struct failure *f);
void sr_close(struct sr *sr);

/* SXM_RUN_DIR/srs: the SRs attached on this host. */
int sr_attached(struct jsonspec_list *handles, struct error *e);

#endif
