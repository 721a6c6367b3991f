/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * smapi - one call of a verb: what came in, and the functions that do the verbs
 */
#ifndef SXM_PLUGINS_SMAPI_H
#define SXM_PLUGINS_SMAPI_H

#include "plugins/failure.h"
#include "plugins/sr.h"
#include "plugins/types.h"

/* The parameters of every verb by their names in the interface; a verb's table says which it has. */
struct smapi_args {
	char *dbg;
	char *sr, *key, *key2, *snapshot, *dest_sr;
	char *uuid, *name, *description, *new_name, *new_description;
	struct jsonspec_map configuration;
	int64_t size, new_size, offset, length;
	bool sharable;
	char *k, *v; /* Volume.snapshot takes them from a command: a key that the snapshot has from its first moment on */
	char *uri, *domain, *remote;
	bool persistent;
	struct types_blocklist blocklist;
	struct jsonspec_variant operation;
};

struct smapi_call {
	const char *verb;             /* "Volume.create" */
	const struct sr_ops *sr_type; /* NULL: a datapath verb */
	struct smapi_args args;
};

/* 0 and *result: one JSON value's text, heap. -1 and *f. */
typedef int smapi_fn(struct smapi_call *call, char **result, struct failure *f);

/* For a verb whose result is nothing; and for the end of any verb: NULL means out of memory. */
int smapi_unit(char **result, struct failure *f);
int smapi_result(char *text, char **result, struct failure *f);

/* plugin.c */
smapi_fn plugin_query, plugin_ls, plugin_diagnostics;
/* sr.c */
smapi_fn sr_probe, sr_create, sr_attach, sr_detach, sr_destroy, sr_stat, sr_set_name, sr_set_description, sr_ls;
/* volume.c */
smapi_fn volume_create, volume_destroy, volume_stat, volume_set, volume_unset, volume_set_name, volume_set_description,
	volume_resize;
/* volume-cbt.c */
smapi_fn volume_enable_cbt, volume_disable_cbt, volume_data_destroy, volume_list_changed_blocks;
/* volume-clone.c, volume-compare.c, volume-compose.c */
smapi_fn volume_compose, volume_snapshot, volume_clone, volume_copy, volume_revert, volume_compare, volume_similar_content;
/* datapath.c */
smapi_fn datapath_open, datapath_attach, datapath_activate, datapath_activate_readonly, datapath_deactivate, datapath_detach,
	datapath_import_activate, datapath_close;
/* data.c */
smapi_fn data_copy, data_mirror, data_stat, data_cancel, data_destroy, data_ls;

/* volume.c: a volume as the interface shows it, to be freed with jsonspec_clear(&types_volume). 1: there is none of that key,
 * 0: good, -1 + e. */
int volume_describe(const char *dir, const char *key, struct types_volume *v, struct error *e);

#endif
