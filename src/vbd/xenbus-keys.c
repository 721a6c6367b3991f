/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xenbus-keys - texts of xenstore become numbers, or nothing
 *
 * The frontend's directory is the guest's: any key may be missing, huge, or rubbish, and what is not exactly what is expected is
 * not there.  No path is ever taken from it: ours follow from the backend's path alone, and the `frontend` key, which is
 * the toolstack's, only has to agree.
 *
 *      /local/domain/D/vm = /vm/UUID        /vm/UUID/origin-uuid, final-uuid: while it moves under another one, which ends with
 *                                           000000000000 where it comes from and 000000000001 where it goes
 *
 * Whose a guest's figures are is said by these.  Both directories are domain 0's, and a guest only reads them; but that is the
 * toolstack's to see to, and a guest that could write there could draw into another VM's graphs: so each key is taken for what
 * it says only where nobody but domain 0 may write it, and only if it is a uuid to the letter.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "vbd/xenbus-keys.h"

static const char *const names[] = {
	[XENBUS_B_FRONTEND] = "frontend", [XENBUS_B_FRONTEND_ID] = "frontend-id", [XENBUS_B_STATE] = "state",
	[XENBUS_B_ONLINE] = "online", [XENBUS_B_MODE] = "mode", [XENBUS_B_HOTPLUG] = "hotplug-status",
	[XENBUS_B_DISCARD] = "discard-enable", [XENBUS_B_SECTORS] = "sectors", [XENBUS_B_PARAMS] = "params",
	[XENBUS_F_STATE] = "state", [XENBUS_F_ORDER] = "ring-page-order", [XENBUS_F_CHANNEL] = "event-channel",
	[XENBUS_F_PROTOCOL] = "protocol", [XENBUS_F_QUEUES] = "multi-queue-num-queues", [XENBUS_F_REF] = "ring-ref",
	[XENBUS_B_DEVICE] = "dev",
};

/* Decimal digits alone, no sign, no space; *end is after the last. */
static bool parse_digits(const char *text, uint32_t *out, const char **end)
{
	uint64_t value = 0;
	const char *at = text;

	while (*at >= '0' && *at <= '9' && at - text < 11)
		value = value * 10 + (uint64_t)(*at++ - '0');
	if (at == text || value > UINT32_MAX)
		return false;
	*out = (uint32_t)value;
	*end = at;
	return true;
}

bool xenbus_number(const struct xenbus_value *v, uint32_t *out)
{
	const char *end;
	uint32_t value;

	if (!v->is_there || v->is_long || !parse_digits(v->value, &value, &end) || *end)
		return false;
	*out = value;
	return true;
}

bool xenbus_is(const struct xenbus_value *v, const char *text)
{
	return v->is_there && !v->is_long && strcmp(v->value, text) == 0;
}

enum xenbus_state xenbus_state_of(const struct xenbus_value *v)
{
	uint32_t state;

	return xenbus_number(v, &state) && state <= 8 ? (enum xenbus_state)state : XENBUS_UNKNOWN;
}

static bool is_kind(const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-_", text[i]))
			return false;
	return bytes >= 1 && bytes <= 32;
}

static bool skip(const char **at, const char *text)
{
	size_t bytes = strlen(text);

	if (strncmp(*at, text, bytes) != 0)
		return false;
	*at += bytes;
	return true;
}

int xenbus_parse_backend(struct xenbus_names *n, const char *path, struct error *e)
{
	const char *at = path, *kind;
	uint32_t backend, domain;
	size_t bytes;

	memset(n, 0, sizeof(*n));
	if (!skip(&at, "/local/domain/") || !parse_digits(at, &backend, &at) || !skip(&at, "/backend/"))
		goto bad;
	kind = at;
	bytes = strcspn(kind, "/");
	at += bytes;
	if (!is_kind(kind, bytes) || !skip(&at, "/") || !parse_digits(at, &domain, &at) || !skip(&at, "/") ||
	    !parse_digits(at, &n->device, &at) || *at || backend > UINT16_MAX || domain > UINT16_MAX)
		goto bad;
	n->domain = (uint16_t)domain;
	snprintf(n->backend, sizeof(n->backend), "/local/domain/%u/backend/%.*s/%u/%u", backend, (int)bytes, kind, domain,
		 n->device);
	snprintf(n->frontend, sizeof(n->frontend), "/local/domain/%u/device/vbd/%u", domain, n->device);
	snprintf(n->error, sizeof(n->error), "/local/domain/%u/error/backend/%.*s/%u/%u/error", backend, (int)bytes, kind, domain,
		 n->device);
	return 0;
bad:
	return error_set(e, EINVAL, "%.100s is no backend's directory: /local/domain/0/backend/KIND/DOMID/DEVICE", path);
}

/* --- which VM */

/* That uuid is all that the key says, after the prefix. */
static bool take_uuid(const struct xenbus_value *v, const char *prefix, char uuid[static GUID_MAX])
{
	const char *at = v->value;

	if (!v->is_there || v->is_long || !v->is_toolstacks || !skip(&at, prefix) || !guid_is(at))
		return false;
	memcpy(uuid, at, GUID_MAX);
	return true;
}

/* NULL: this is no uuid that a VM has only while it moves. */
static const char *key_of_stable(const char *uuid)
{
	const char *end = uuid + GUID_MAX - 1 - strlen("000000000000");

	if (strcmp(end, "000000000000") == 0)
		return "origin-uuid";
	return strcmp(end, "000000000001") == 0 ? "final-uuid" : NULL;
}

bool xenbus_vm(const struct xenbus_value *value, char uuid[static GUID_MAX])
{
	if (!take_uuid(&value[XENBUS_D_VM], "/vm/", uuid))
		return false;
	return !key_of_stable(uuid) || take_uuid(&value[XENBUS_V_STABLE], "", uuid);
}

static bool put_stable_path(const struct xenbus_value *value, char *out)
{
	char uuid[GUID_MAX];
	const char *key = value && take_uuid(&value[XENBUS_D_VM], "/vm/", uuid) ? key_of_stable(uuid) : NULL;

	if (key)
		snprintf(out, XENBUS_PATH_MAX, "/vm/%s/%s", uuid, key);
	return key != NULL;
}

bool xenbus_key_path(const struct xenbus_names *n, const struct xenbus_value *value, unsigned key, char *out)
{
	bool is_frontends = key >= XENBUS_F_STATE && key < XENBUS_B_DEVICE;
	const char *directory = is_frontends ? n->frontend : n->backend;

	if (key == XENBUS_V_STABLE)
		return put_stable_path(value, out);
	if (key == XENBUS_D_VM)
		snprintf(out, XENBUS_PATH_MAX, "/local/domain/%u/vm", n->domain);
	else if (is_frontends && key >= XENBUS_F_REF0)
		snprintf(out, XENBUS_PATH_MAX, "%.90s/ring-ref%u", directory, key - XENBUS_F_REF0);
	else
		snprintf(out, XENBUS_PATH_MAX, "%.90s/%s", directory, names[key]);
	return true;
}

/* --- which disk, which ring */

bool xenbus_is_ours(const struct xenbus_names *n, const struct xenbus_value *value)
{
	uint32_t domain;

	return xenbus_is(&value[XENBUS_B_FRONTEND], n->frontend) && xenbus_number(&value[XENBUS_B_FRONTEND_ID], &domain) &&
	       domain == n->domain && xenbus_is_this_disk(n, value);
}

bool xenbus_is_this_disk(const struct xenbus_names *n, const struct xenbus_value *value)
{
	const struct xenbus_value *v = &value[XENBUS_B_PARAMS];
	const char *volume = xenbus_volume(value);

	if (!*n->params || !v->is_there)
		return true;
	if (volume)
		return strcmp(volume, n->volume) == 0;
	return (!v->is_long && strncmp(v->value, "nbd:", 4) != 0) || xenbus_is(v, n->params);
}

const char *xenbus_volume(const struct xenbus_value *value)
{
	const struct xenbus_value *v = &value[XENBUS_B_PARAMS];
	size_t format = strspn(v->value, "abcdefghijklmnopqrstuvwxyz0123456789");
	const char *uri = strncasecmp(v->value, "sxm:", 4) != 0 && v->value[format] == ':' ? v->value + format + 1 : v->value;

	return strncasecmp(uri, "sxm:", 4) == 0 ? uri : NULL;
}

static int fill_refs(struct xenbus_ring *ring, const struct xenbus_value *value, struct error *e)
{
	bool is_alone = ring->order == 0 && !value[XENBUS_F_REF0].is_there; /* older ones number not even the first */
	const struct xenbus_value *first = &value[is_alone ? XENBUS_F_REF : XENBUS_F_REF0];

	for (unsigned i = 0; i < 1u << ring->order; i++)
		if (!xenbus_number(&first[i], &ring->gref[i]))
			return error_set(e, EINVAL, "the frontend says a ring of %u pages, and page %u has no reference",
					 1u << ring->order, i);
	return 0;
}

int xenbus_read_ring(struct xenbus_ring *ring, const struct xenbus_value *value, struct error *e)
{
	const struct xenbus_value *protocol = &value[XENBUS_F_PROTOCOL];
	uint32_t order = 0, queues;

	memset(ring, 0, sizeof(*ring));
	if (value[XENBUS_F_ORDER].is_there && (!xenbus_number(&value[XENBUS_F_ORDER], &order) || order > RING_ORDER_MAX))
		return error_set(e, EINVAL, "ring-page-order is no number up to %u", RING_ORDER_MAX);
	if (value[XENBUS_F_QUEUES].is_there && (!xenbus_number(&value[XENBUS_F_QUEUES], &queues) || queues != 1))
		return error_set(e, EINVAL, "multi-queue-num-queues is not 1, and no more were offered");
	if (!xenbus_number(&value[XENBUS_F_CHANNEL], &ring->channel))
		return error_set(e, EINVAL, "event-channel is no number");
	if (!protocol->is_there || xenbus_is(protocol, "x86_64-abi") || xenbus_is(protocol, "arm-abi"))
		ring->abi = RING_X86_64;
	else if (xenbus_is(protocol, "x86_32-abi"))
		ring->abi = RING_X86_32;
	else
		return error_set(e, EINVAL, "the protocol is none of x86_64-abi, x86_32-abi, arm-abi");
	ring->order = order;
	return fill_refs(ring, value, e);
}
