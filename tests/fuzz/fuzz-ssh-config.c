/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An ssh_config, and the same bytes as a known_hosts file: whatever they are, what is refused is refused with a sentence, and what is
 * accepted names a host and a user that no program could take for an option.
 */
#include <stdlib.h>
#include <string.h>

#include "migrate/known-hosts.h"
#include "migrate/ssh-config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
extern const char *const fuzz_words[];

const char *const fuzz_words[] = { "Host *\n", "Match all\n", "Match host ", "HostName ", "User ", "Port ", "IdentityFile ", "ProxyJump ",
				   "ProxyCommand ", "Include x\n", "StrictHostKeyChecking no\n", "\"", "%h", "=", "!*", "~/", "@revoked ",
				   "@cert-authority ", "|1|", "[host]:22 ", "host ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAABEFBQUE=\n", NULL };

static const uint8_t key[] = "\0\0\0\x0bssh-ed25519\0\0\0\x04" "AAAA";

static int include(struct ssh_config *c, const struct ssh_config_source *s, const char *pattern, unsigned depth, struct error *e)
{
	if (depth > SSH_CONFIG_DEPTH_MAX)
		abort();
	return ssh_config_parse(c, s, pattern, strlen(pattern), depth, e);
}

static bool hash_matches(void *arg, const char *name, const char *salt, const char *hash)
{
	(void)arg;
	return strlen(name) + strlen(salt) > strlen(hash);
}

static void try_config(const char *text, size_t bytes)
{
	const struct ssh_config_source source = { .file = "f", .local_user = "me", .include = include };
	struct ssh_config c;
	struct error e = { 0 };

	if (ssh_config_init(&c, "host", NULL, 0, &e) == -1)
		abort();
	if (ssh_config_parse(&c, &source, text, bytes, 0, &e) == -1 || ssh_config_finish(&c, "/home/me", "me", &e) == -1) {
		if (!e.err || !*e.text)
			abort();
	} else if (!ssh_config_is_host(c.host_name) || !ssh_config_is_user(c.user) || *c.host_name == '-' || *c.user == '-' ||
		   c.port < 1 || c.port > 65535) {
		abort();
	}
	ssh_config_fini(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const struct known_query q = { .name = "host", .key = key, .key_bytes = sizeof(key) - 1, .hash_matches = hash_matches };
	const struct known_query raw = { .name = "host", .key = data, .key_bytes = bytes };
	struct known_found f = { 0 };

	try_config((const char *)data, bytes);
	known_hosts_search((const char *)data, bytes, &q, &f);
	if ((f.verdict == KNOWN_NOT) != (f.line == 0) || strlen(f.types) >= sizeof(f.types))
		abort();
	known_hosts_search((const char *)data, bytes, &raw, &f);
	return 0;
}
