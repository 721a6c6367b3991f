/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * types - the interface's records, as structs and as the tables that encode them
 *
 * Strings and lists are owned by the record when it was decoded (jsonspec_clear() frees them), and may be borrowed when it is
 * only filled to be encoded.
 */
#ifndef SXM_PLUGINS_TYPES_H
#define SXM_PLUGINS_TYPES_H

#include "base/jsonspec.h"

struct types_backtrace {
	char *error;
	struct jsonspec_list files, lines; /* empty: we have no stack to show */
};
struct types_error_report {
	char *code;
	struct jsonspec_list params;
	struct types_backtrace backtrace;
};

struct types_query_result {
	char *plugin, *name, *description, *vendor, *copyright, *version, *required_api_version;
	struct jsonspec_list features;
	struct jsonspec_map configuration;
	struct jsonspec_list required_cluster_stack;
};

struct types_sr_stat {
	char *sr, *name;
	char *uuid; /* NULL: absent */
	char *description;
	int64_t free_space, total_space;
	struct jsonspec_list datasources;
	bool clustered;
	struct jsonspec_variant health;
};

struct types_probe_result {
	struct jsonspec_map configuration;
	bool complete;
	bool has_sr;
	struct types_sr_stat sr;
	struct jsonspec_map extra_info;
};

struct types_volume {
	char *key;
	char *uuid; /* NULL: absent */
	char *name, *description;
	bool read_write, sharable;
	int64_t virtual_size, physical_utilisation;
	struct jsonspec_list uri;
	struct jsonspec_map keys;
	bool has_cbt_enabled, cbt_enabled;
};

struct types_xendisk {
	char *params;
	struct jsonspec_map extra;
	char *backend_type;
};
struct types_nbd {
	char *uri;
};

struct types_status {
	bool failed, complete;
	bool has_progress;
	double progress;
};

struct types_blocklist {
	int64_t blocksize;
	struct jsonspec_ranges ranges;
};

struct types_changed_blocks {
	int64_t granularity;
	char *bitmap; /* base64 */
};

extern const struct jsonspec types_error_report, types_query_result, types_sr_stat, types_probe_result, types_volume,
	types_xendisk, types_nbd, types_status, types_blocklist, types_changed_blocks;

/* {"implementations":[["XenDisk",...],["Nbd",...]]}: heap. A Xen backend is given the NBD URI as its params: who finds it
 * in xenstore knows by its export's name which process has the disk. kind: of the backend. NULL: out of memory. */
char *types_backend(const char *nbd_uri, const char *kind);

#endif
