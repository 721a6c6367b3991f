/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * facts - see facts.h
 *
 *      params                                            whose disk
 *      nbd:unix:RUN_DIR/ID/nbd-XXXXXXXX:exportname=ID    the process' ID: Datapath.attach said so to xapi, which has activated it
 *      [FORMAT:]sxm:///SR/KEY.raw                        that volume: an xl configuration says so, and nobody activates it
 *      nothing                                           none is in the drive
 *      anything else                                     not ours
 *
 * No path is ever taken from here: of a URI counts the process' name in it, which has no slash and no leading dot, and a
 * volume's is only handed on, as one argument.
 */
#include <stdio.h>
#include <string.h>

#include "broker/facts.h"

static const char *const names[] = {
	[FACTS_FRONTEND] = "frontend", [FACTS_FRONTEND_ID] = "frontend-id", [FACTS_PARAMS] = "params", [FACTS_ONLINE] = "online",
	[FACTS_MODE] = "mode", [FACTS_STATE] = "state", [FACTS_HOTPLUG] = "hotplug-status",
};

#define CLEAN "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

bool facts_kind_is_valid(const char *kind)
{
	size_t bytes = strlen(kind);

	return bytes >= 1 && bytes < FACTS_KIND_MAX && strspn(kind, "abcdefghijklmnopqrstuvwxyz0123456789-_") == bytes;
}

bool facts_id_is_valid(const char *id, size_t bytes)
{
	return bytes >= 1 && bytes < BROKER_ID_MAX && *id != '.' && strspn(id, CLEAN) >= bytes;
}

/* --- paths */

void facts_root_path(const struct facts_root *r, char out[static FACTS_PATH_MAX])
{
	snprintf(out, FACTS_PATH_MAX, "/local/domain/%u/backend/%.32s", r->domain, r->kind);
}

void facts_domain_path(const struct facts_root *r, uint16_t domain, char out[static FACTS_PATH_MAX])
{
	snprintf(out, FACTS_PATH_MAX, "/local/domain/%u/backend/%.32s/%u", r->domain, r->kind, domain);
}

void facts_device_path(const struct facts_root *r, struct broker_key key, char out[static FACTS_PATH_MAX])
{
	snprintf(out, FACTS_PATH_MAX, "/local/domain/%u/backend/%.32s/%u/%u", r->domain, r->kind, key.domain, key.device);
}

static void frontend_path(struct broker_key key, char out[static FACTS_PATH_MAX])
{
	snprintf(out, FACTS_PATH_MAX, "/local/domain/%u/device/vbd/%u", key.domain, key.device);
}

void facts_key_path(const struct facts_root *r, struct broker_key key, enum facts_key which, char out[static FACTS_PATH_MAX])
{
	char directory[FACTS_PATH_MAX];

	if (which == FACTS_LIBXL) {
		snprintf(out, FACTS_PATH_MAX, "/libxl/%u/device/vbd/%u", key.domain, key.device);
		return;
	}
	if (which == FACTS_FRONT_STATE)
		frontend_path(key, directory);
	else
		facts_device_path(r, key, directory);
	snprintf(out, FACTS_PATH_MAX, "%.120s/%s", directory, which == FACTS_FRONT_STATE ? "state" : names[which]);
}

/* Decimal digits alone. */
static bool take_number(const char **at, uint32_t *out)
{
	const char *text = *at;
	uint64_t value = 0;

	while (**at >= '0' && **at <= '9' && *at - text < 11)
		value = value * 10 + (uint64_t)(*(*at)++ - '0');
	*out = (uint32_t)value;
	return *at != text && value <= UINT32_MAX;
}

static bool take_text(const char **at, const char *text)
{
	size_t bytes = strlen(text);

	if (strncmp(*at, text, bytes) != 0)
		return false;
	*at += bytes;
	return true;
}

/* Of the keys that we never look at nothing is to be learnt; the backend's state is written by whoever serves it, often. */
static bool is_telling(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (i != FACTS_STATE && strcmp(name, names[i]) == 0)
			return true;
	return false;
}

enum facts_about facts_of_path(const struct facts_root *r, const char *path, struct broker_key *key)
{
	char root[FACTS_PATH_MAX];
	uint32_t domain;
	const char *at = path;

	facts_root_path(r, root);
	if (!take_text(&at, root))
		return FACTS_NOTHING;
	if (!*at)
		return FACTS_ALL;
	if (!take_text(&at, "/") || !take_number(&at, &domain) || domain > UINT16_MAX)
		return FACTS_NOTHING;
	key->domain = (uint16_t)domain;
	if (!*at)
		return FACTS_DOMAIN;
	if (!take_text(&at, "/") || !take_number(&at, &key->device))
		return FACTS_NOTHING;
	return !*at || (*at == '/' && is_telling(at + 1)) ? FACTS_DEVICE : FACTS_NOTHING;
}

/* --- values */

static bool is(const struct facts_value *v, const char *text)
{
	return v->is_there && !v->is_long && strcmp(v->value, text) == 0;
}

static bool is_number(const struct facts_value *v, uint32_t number)
{
	const char *at = v->value;
	uint32_t value;

	return v->is_there && !v->is_long && take_number(&at, &value) && !*at && value == number;
}

bool facts_process_of(const char *uri, const char *run_dir, char id[static BROKER_ID_MAX])
{
	const char *at = uri, *name;
	size_t bytes;

	if (!take_text(&at, "nbd:unix:") || !take_text(&at, run_dir) || !take_text(&at, "/"))
		return false;
	name = at;
	bytes = strcspn(name, "/");
	at += bytes;
	if (!facts_id_is_valid(name, bytes) || !take_text(&at, "/nbd-") || strspn(at, "0123456789abcdef") != 8)
		return false;
	at += 8;
	if (!take_text(&at, ":exportname=") || strlen(at) != bytes || strncmp(at, name, bytes) != 0)
		return false;
	memcpy(id, name, bytes);
	id[bytes] = '\0';
	return true;
}

/* After the format that libxl puts before it. */
static const char *find_volume(const char *params)
{
	size_t format = strspn(params, "abcdefghijklmnopqrstuvwxyz0123456789");
	const char *uri = strncmp(params, "sxm://", 6) != 0 && params[format] == ':' ? params + format + 1 : params;
	size_t bytes = strlen(uri);

	return strncmp(uri, "sxm:///", 7) == 0 && bytes < BROKER_NAME_MAX && strspn(uri, CLEAN "/%:~") == bytes ? uri : NULL;
}

static void read_params(struct broker_facts *f, const struct facts_root *r, const struct facts_value *v)
{
	const char *volume = v->is_there && !v->is_long ? find_volume(v->value) : NULL;
	char id[BROKER_ID_MAX];

	f->kind = v->is_there && (v->is_long || *v->value) ? BROKER_NOBODYS : BROKER_EMPTY;
	if (volume) {
		f->kind = BROKER_VOLUME;
		memcpy(f->name, volume, strlen(volume) + 1); /* find_volume() has measured it */
	} else if (f->kind == BROKER_NOBODYS && facts_process_of(v->value, r->run_dir, id)) {
		f->kind = BROKER_PROCESS;
		snprintf(f->name, sizeof(f->name), "%s", id);
	}
}

void facts_read(struct broker_facts *f, const struct facts_root *r, struct broker_key key, const struct facts_value *value)
{
	char frontend[FACTS_PATH_MAX];

	memset(f, 0, sizeof(*f));
	frontend_path(key, frontend);
	f->is_there = is(&value[FACTS_FRONTEND], frontend) && is_number(&value[FACTS_FRONTEND_ID], key.domain) &&
		      value[FACTS_ONLINE].is_there; /* it is being made: toolstacks need not write all at once */
	if (!f->is_there)
		return;
	f->is_online = is(&value[FACTS_ONLINE], "1");
	f->is_read_only = !is(&value[FACTS_MODE], "w");
	f->is_libxl = value[FACTS_LIBXL].is_there;
	f->is_front_open = value[FACTS_FRONT_STATE].is_there && !is(&value[FACTS_FRONT_STATE], "6");
	f->is_settled = is(&value[FACTS_STATE], "6") && !value[FACTS_HOTPLUG].is_there;
	f->is_young = !value[FACTS_STATE].is_there || is(&value[FACTS_STATE], "1");
	read_params(f, r, &value[FACTS_PARAMS]);
}
