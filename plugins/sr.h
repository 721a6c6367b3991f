/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr - what one type of SR must know how to do, and an SR as the verbs see it
 *
 * Every type ends in a directory with volumes in it (meta.h).  What differs is how a configuration names the place and how the
 * place becomes a directory: a type that mounts something does so in make() and attach().
 *
 *      configuration --check--> --make / attach--> DIR --uri_of_path("file", DIR)--> the handle xapi keeps
 *
 * What is to be mounted is mounted at SXM_RUN_DIR/mnt/<sr_uuid> (mount.h).
 */
#ifndef SXM_PLUGINS_SR_H
#define SXM_PLUGINS_SR_H

#include "base/jsonspec.h"
#include "plugins/failure.h"
#include "plugins/meta.h"

/* What make() found or made. */
struct sr_place {
	char *dir;    /* owned */
	bool is_new;  /* made just now: leave() takes it away when the rest of SR.create failed */
	bool is_held; /* mounted for SR.create alone: leave() unmounts it */
	int lock;     /* -1, or what make() keeps others off with: leave() closes it */
};

struct sr_device;
struct probe;

struct sr_ops {
	const char *type; /* the plugin directory's last part, xapi's SR type */
	const char *name, *description;
	const struct sr_option {
		const char *key, *description; /* ends with a NULL key */
	} *options;
	bool is_shared;                 /* several hosts may have it attached */
	unsigned patience_ms;           /* how long its verbs may take before they are given up (bounded.h); 0: for ever */
	const struct sr_device *device; /* of a type that is one file system on a block device (sr-device.h) */

	/* Pure: is the configuration complete and sensible? Puts it in its one final form (old names replaced, defaults
	 * filled in). */
	int (*check)(struct jsonspec_map *configuration, struct failure *f);
	/* The directory of that configuration, heap; nothing is made or mounted. NULL + f (FAILURE_SR_DOES_NOT_EXIST): not
	 * there. */
	char *(*find)(const struct jsonspec_map *configuration, struct failure *f);
	/* SR.create: makes the place, unless it is there already. sr_uuid and all that check() left is in the configuration,
	 * which may be completed. -1 + f: nothing is left behind. */
	int (*make)(const struct sr_ops *type, struct jsonspec_map *configuration, struct sr_place *place, struct failure *f);
	/* The end of SR.create, once for each make(). NULL: nothing to do. */
	int (*leave)(const struct sr_ops *type, const struct jsonspec_map *configuration, const struct sr_place *place,
		     bool has_failed, struct failure *f);
	/* SR.probe: what is, or could be, where the configuration points; it is what came in, not checked. */
	int (*probe)(const struct sr_ops *type, struct jsonspec_map *configuration, struct probe *p, struct failure *f);
	/* SR.attach, SR.detach: as the place needs it. NULL: nothing to do. */
	int (*attach)(const struct sr_ops *type, const struct jsonspec_map *configuration, const char *dir, struct failure *f);
	int (*detach)(const struct sr_ops *type, const char *dir, struct failure *f);
	/* SR.destroy, when the record is gone: detach(), and what make() made. NULL: nothing to do. */
	int (*destroy)(const struct sr_ops *type, const char *dir, struct failure *f);
};

/* What every type has: the format of new volumes. Fills it in. */
#define SR_OPTION_FORMAT { "format", "of new volumes: raw, qcow2, or auto (default): raw where files share blocks, else qcow2" }
int sr_check_format(struct jsonspec_map *configuration, struct failure *f);
/* Of one that was checked. */
struct image_ops;
const struct image_ops *sr_choose_format(const struct jsonspec_map *configuration, const char *dir);

/* In a configuration of SR.create and SR.attach, and never kept in one: do what is otherwise refused for safety. */
bool sr_is_forced(const struct jsonspec_map *configuration);

extern const struct sr_ops sr_filebased, sr_ext4, sr_xfs, sr_nfs;
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
