/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * domains - what a process must find again after a kill -9
 *
 * Knows the file's table and the names; does no I/O but reading it.  Writing is stack.c's, off the loop.
 *
 *      {"domains":[{"domain":"3","active":true,"read_only":false,"listen":[{"host":"10.0.0.2","port":10809}]}],
 *       "operation":"5e6f.1700000000000","operation_domain":"3","copy":false,"told":true}
 *
 * Can fail: the file is not ours (broken JSON, absurd counts): an error, and nothing is taken from it.
 * Invariant: "told" is in the file before complete=true is in any answer, so that a successor of a killed process knows that
 * it owes the orchestrator an error.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "vdi/domains.h"

#define FILE_MAX (256u << 10)

static const struct jsonspec_field tls_fields[] = {
	{ .name = "psk_username", .type = JS_STRING, .offset = offsetof(struct nbdsrv_tls, psk_username), .is_optional = true },
	{ .name = "psk_file", .type = JS_STRING, .offset = offsetof(struct nbdsrv_tls, psk_file), .is_optional = true },
	{ .name = "certificates", .type = JS_STRING, .offset = offsetof(struct nbdsrv_tls, certificates), .is_optional = true },
	{ .name = "verify_peer", .type = JS_BOOL, .offset = offsetof(struct nbdsrv_tls, verifies_peer), .is_optional = true,
	  .has = offsetof(struct nbdsrv_tls, has_verifies_peer) },
	{ .name = NULL },
};
const struct jsonspec domains_tls_spec = { "tls", sizeof(struct nbdsrv_tls), tls_fields };

static const struct jsonspec_field listener_fields[] = {
	{ .name = "host", .type = JS_STRING, .offset = offsetof(struct domains_listener, host) },
	{ .name = "port", .type = JS_INT64, .offset = offsetof(struct domains_listener, port) },
	{ .name = "tls", .type = JS_RECORD, .offset = offsetof(struct domains_listener, tls), .is_optional = true,
	  .has = offsetof(struct domains_listener, has_tls), .sub = &domains_tls_spec },
	{ .name = NULL },
};
const struct jsonspec domains_listener_spec = { "listener", sizeof(struct domains_listener), listener_fields };

static const struct jsonspec_field entry_fields[] = {
	{ .name = "domain", .type = JS_STRING, .offset = offsetof(struct domains_entry, domain) },
	{ .name = "active", .type = JS_BOOL, .offset = offsetof(struct domains_entry, is_active) },
	{ .name = "read_only", .type = JS_BOOL, .offset = offsetof(struct domains_entry, is_read_only) },
	{ .name = "lingering", .type = JS_BOOL, .offset = offsetof(struct domains_entry, is_lingering), .is_optional = true },
	{ .name = "detached", .type = JS_BOOL, .offset = offsetof(struct domains_entry, is_detached), .is_optional = true },
	{ .name = "vm", .type = JS_STRING, .offset = offsetof(struct domains_entry, vm), .is_optional = true },
	{ .name = "device", .type = JS_STRING, .offset = offsetof(struct domains_entry, device), .is_optional = true },
	{ .name = "backend", .type = JS_STRING, .offset = offsetof(struct domains_entry, backend), .is_optional = true },
	{ .name = "had", .type = JS_STRING, .offset = offsetof(struct domains_entry, had), .is_optional = true },
	{ .name = "eager", .type = JS_BOOL, .offset = offsetof(struct domains_entry, is_eager), .is_optional = true },
	{ .name = "listen", .type = JS_RECORDS, .offset = offsetof(struct domains_entry, listeners), .is_optional = true,
	  .sub = &domains_listener_spec },
	{ .name = NULL },
};
static const struct jsonspec entry_spec = { "domain", sizeof(struct domains_entry), entry_fields };

static const struct jsonspec_field record_fields[] = {
	{ .name = "domains", .type = JS_RECORDS, .offset = offsetof(struct domains_record, domains), .sub = &entry_spec },
	{ .name = "operation", .type = JS_STRING, .offset = offsetof(struct domains_record, operation), .is_optional = true },
	{ .name = "operation_domain", .type = JS_STRING, .offset = offsetof(struct domains_record, operation_domain),
	  .is_optional = true },
	{ .name = "copy", .type = JS_BOOL, .offset = offsetof(struct domains_record, is_copy), .is_optional = true },
	{ .name = "told", .type = JS_BOOL, .offset = offsetof(struct domains_record, is_told), .is_optional = true },
	{ .name = "owed", .type = JS_STRING, .offset = offsetof(struct domains_record, owed), .is_optional = true },
	{ .name = "owed_by", .type = JS_STRING, .offset = offsetof(struct domains_record, owed_by), .is_optional = true },
	{ .name = "owed_since", .type = JS_INT64, .offset = offsetof(struct domains_record, owed_since), .is_optional = true },
	{ .name = NULL },
};
const struct jsonspec domains_spec = { DOMAINS_FILE, sizeof(struct domains_record), record_fields };

static int check(const struct domains_record *r, struct error *e)
{
	const struct domains_entry *d = r->domains.item;

	if (r->domains.count > DOMAINS_MAX)
		return error_set(e, EINVAL, "%zu domains in %s, at most %d can be", r->domains.count, DOMAINS_FILE, DOMAINS_MAX);
	for (size_t i = 0; i < r->domains.count; i++) {
		const struct domains_listener *t = d[i].listeners.item;

		if (strlen(d[i].domain) >= DOMAINS_NAME_MAX || d[i].listeners.count > DOMAINS_LISTEN_MAX)
			return error_set(e, EINVAL, "a domain in %s has too long a name or too many listeners", DOMAINS_FILE);
		for (size_t j = 0; j < d[i].listeners.count; j++)
			if (t[j].port < 1 || t[j].port > UINT16_MAX || strlen(t[j].host) >= 64)
				return error_set(e, EINVAL, "a listener in %s is no address and port", DOMAINS_FILE);
	}
	return 0;
}

int domains_load(const char *run_dir, struct domains_record *r, struct error *e)
{
	CLEANUP_FREE char *path = NULL, *text = NULL;
	struct error why = { 0 };
	size_t bytes = 0;

	memset(r, 0, sizeof(*r));
	if (asprintf(&path, "%s/%s", run_dir, DOMAINS_FILE) == -1) {
		path = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	text = proc_read_file(path, FILE_MAX, &bytes, &why);
	if (!text && why.err == ENOENT)
		return 0;
	if (!text)
		return error_set(e, why.err, "%s", why.text);
	if (jsonspec_decode(&domains_spec, text, bytes, r, e) == -1)
		return error_prefix(e, "%s", path);
	if (check(r, e) == -1) {
		domains_clear(r);
		return -1;
	}
	return 0;
}

void domains_clear(struct domains_record *r)
{
	jsonspec_clear(&domains_spec, r);
	memset(r, 0, sizeof(*r));
}

static uint32_t hash(const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 16777619u;
	return h;
}

int domains_socket(const char *run_dir, const char *domain, char *out, size_t bytes, struct error *e)
{
	struct sockaddr_un un;
	int n = snprintf(out, bytes, "%s/nbd-%08x", run_dir, hash(domain));

	if (n < 0 || (size_t)n >= bytes || (size_t)n >= sizeof(un.sun_path))
		return error_set(e, ENAMETOOLONG, "%s is too long a directory for sockets", run_dir);
	return 0;
}

bool domains_is_guest(const char *domain)
{
	static const char *const others[] = { "u0_", "MIR", "CP" };

	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		if (strncmp(domain, others[i], strlen(others[i])) == 0)
			return false;
	return true;
}

bool domains_is_mirror(const char *domain)
{
	return strncmp(domain, "MIR", 3) == 0;
}
