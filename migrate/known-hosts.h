/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * known-hosts - what a known_hosts file says about a host's key
 *
 * Pure.  A line is [@marker] names type key [comment]; names are patterns with commas between them, or one hashed name.
 * The key is compared as its text in base64: another spelling of the same bytes is another key.
 */
#ifndef SXM_MIGRATE_KNOWN_HOSTS_H
#define SXM_MIGRATE_KNOWN_HOSTS_H

#include "base/compiler.h"
#include "base/error.h"

#define KNOWN_HOSTS_TYPE_MAX 64u     /* bytes of "ssh-ed25519" and its like with the NUL */
#define KNOWN_HOSTS_KEY_MAX 8192u    /* bytes of a key; RSA's with 16384 bits have 2071 */
#define KNOWN_HOSTS_NAME_MAX 300u    /* "[host]:port" */
#define KNOWN_HOSTS_FINGERPRINT_MAX 64u

enum known_verdict {
	KNOWN_NOT,     /* nothing is said about this host */
	KNOWN_OTHER,   /* only keys of other types are known */
	KNOWN_SAME,
	KNOWN_CHANGED, /* another key of this type is known */
	KNOWN_REVOKED, /* this key is not to be taken from anybody */
};

struct known_query {
	const char *name;   /* known_hosts_name() */
	const uint8_t *key; /* as it came from the host */
	size_t key_bytes;
	/* Whether the name's HMAC-SHA1 with this salt is that hash; both are base64, unchecked, and end with NUL. NULL: hashed
	 * names are nobody's. */
	bool (*hash_matches)(void *arg, const char *name, const char *salt, const char *hash);
	void *arg;
};
struct known_found {
	enum known_verdict verdict;
	unsigned line;      /* which line says so; 0: none */
	char types[256];    /* of keys known for the name, with commas: what to ask the host for */
	bool has_authority; /* a @cert-authority line is about it: certificates are not looked at here */
};

/* "host", or "[host]:port" where that is not 22; lower case. False: too long. */
bool known_hosts_name(const char *host, unsigned port, char name[static KNOWN_HOSTS_NAME_MAX]);

/* One file's text. Adds to `found`, which is all zeros before the first file. Of several lines the gravest counts: revoked, then
 * the same (a host may have several keys of one type), changed, other. True: `found` has a line of this file now.
 * With query->key NULL only the types are found. */
bool known_hosts_search(const char *text, size_t bytes, const struct known_query *query, struct known_found *found);

/* "ssh-ed25519" of such a key; -1: it is no key. */
int known_hosts_type(const uint8_t *key, size_t bytes, char type[static KNOWN_HOSTS_TYPE_MAX]);
/* "SHA256:..." of a digest of 32 bytes. */
void known_hosts_fingerprint(const uint8_t digest[static 32], char text[static KNOWN_HOSTS_FINGERPRINT_MAX]);
/* The line to be added, with its newline; heap; NULL + e. */
char *known_hosts_line(const char *name, const uint8_t *key, size_t bytes, struct error *e);

#endif
