/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * facts - texts of xenstore -> what is known of a device; pure
 *
 * All that is read is the toolstack's, but for one key of the guest's, of which only counts whether it is there, and a digit.
 * What is not exactly what is expected is not there.
 */
#ifndef SXM_BROKER_FACTS_H
#define SXM_BROKER_FACTS_H

#include "base/error.h"
#include "broker/broker.h"

#define FACTS_PATH_MAX 160
#define FACTS_VALUE_MAX 400 /* nothing that we understand is longer */
#define FACTS_KIND_MAX 33

/* Whose backends are brokered: /local/domain/<domain>/backend/<kind>. */
struct facts_root {
	uint16_t domain;
	char kind[FACTS_KIND_MAX];
	const char *run_dir; /* borrowed: SXM_RUN_DIR */
};
bool facts_kind_is_valid(const char *kind);
void facts_root_path(const struct facts_root *r, char out[static FACTS_PATH_MAX]);
void facts_domain_path(const struct facts_root *r, uint16_t domain, char out[static FACTS_PATH_MAX]);
void facts_device_path(const struct facts_root *r, struct broker_key key, char out[static FACTS_PATH_MAX]);

enum facts_key {
	/* the toolstack's */
	FACTS_FRONTEND, FACTS_FRONTEND_ID, FACTS_PARAMS, FACTS_ONLINE, FACTS_MODE, FACTS_STATE, FACTS_HOTPLUG,
	FACTS_LIBXL,       /* ... elsewhere: libxl's record of the device */
	FACTS_FRONT_STATE, /* the guest's */
	FACTS_KEYS
};
void facts_key_path(const struct facts_root *r, struct broker_key key, enum facts_key which, char out[static FACTS_PATH_MAX]);

struct facts_value {
	bool is_there;
	bool is_long; /* longer than that, or with a NUL in it: value is empty */
	char value[FACTS_VALUE_MAX];
};
/* is_alive is the caller's. */
void facts_read(struct broker_facts *f, const struct facts_root *r, struct broker_key key, const struct facts_value *value);

/* What a path that a watch reported is about. */
enum facts_about {
	FACTS_NOTHING, /* of ours, or that decides anything */
	FACTS_ALL, FACTS_DOMAIN, FACTS_DEVICE,
};
enum facts_about facts_of_path(const struct facts_root *r, const char *path, struct broker_key *key);

/* The process in an NBD URI as xapi writes it, nbd:unix:RUN_DIR/ID/nbd-XXXXXXXX:exportname=ID. False: not one of ours. */
bool facts_process_of(const char *uri, const char *run_dir, char id[static BROKER_ID_MAX]);
/* May be the name of a directory of a process'. */
bool facts_id_is_valid(const char *id, size_t bytes);

#endif
