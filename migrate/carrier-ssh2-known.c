/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ssh2-known - is the host who it should be?
 *
 *      known_hosts, the user's and the system's -> what to ask for: keys of the types that are known, first
 *      the key that came                        -> the same: good     another: refused, with file and line     revoked: refused
 *                                                  none known: asked for on the terminal, kept if "yes"; refused without one
 *
 * A key that was accepted stays accepted for later connections of this carrier, and no other is then.
 * Can fail: towards no, always.
 */
#include "migrate/carrier-ssh2-private.h"

#include <errno.h>
#include <fcntl.h>
#include <libssh2.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "migrate/carrier-tty.h"
#include "migrate/known-hosts.h"

#define FILE_MAX_BYTES (16u * 1024 * 1024)
#define HOST_KEYS "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256"
/* Stands for any key: it is the name that is looked up. */
#define SOME_KEY "AAAAB3NzaC1yc2EAAAADAQABAAAAAAAA"

struct asked {
	char name[KNOWN_HOSTS_NAME_MAX];
	struct known_found found;
	const char *file; /* borrowed: whose line it is */
};

/* --- lists of algorithms */

static void append(char *list, size_t max, const char *name, size_t bytes)
{
	size_t used = strlen(list);

	if (bytes && used + bytes + 2 <= max)
		snprintf(list + used, max - used, "%s%.*s", used ? "," : "", (int)bytes, name);
}

static void append_all(char *list, size_t max, const char *names, const char *but)
{
	while (*names) {
		size_t bytes = strcspn(names, ",");
		char name[128];

		snprintf(name, sizeof(name), "%.*s", (int)bytes, names);
		if (!but || !ssh_config_matches(but, strlen(but), name))
			append(list, max, name, strlen(name));
		names += bytes + (names[bytes] == ',');
	}
}

void ssh2_algorithms(const char *ours, const char *said, char *list, size_t max)
{
	*list = '\0';
	if (said && *said == '-') {
		append_all(list, max, ours, said + 1);
	} else if (said && (*said == '+' || *said == '^')) {
		append_all(list, max, *said == '^' ? said + 1 : ours, NULL);
		append_all(list, max, *said == '^' ? ours : said + 1, NULL);
	} else {
		append_all(list, max, said ? said : ours, NULL);
	}
}

/* --- files */

/* libssh2 knows the digest of a name with a salt. */
static bool hash_matches(void *arg, const char *name, const char *salt, const char *hash)
{
	const struct ssh2_link *l = arg;
	LIBSSH2_KNOWNHOSTS *hosts = libssh2_knownhost_init(l->session);
	struct libssh2_knownhost *found;
	char line[256];
	int n, r = LIBSSH2_KNOWNHOST_CHECK_NOTFOUND;

	n = snprintf(line, sizeof(line), "|1|%s|%s ssh-rsa " SOME_KEY "\n", salt, hash);
	if (hosts && n > 0 && (size_t)n < sizeof(line) &&
	    libssh2_knownhost_readline(hosts, line, (size_t)n, LIBSSH2_KNOWNHOST_FILE_OPENSSH) == 0)
		r = libssh2_knownhost_check(hosts, name, SOME_KEY, strlen(SOME_KEY),
					    LIBSSH2_KNOWNHOST_TYPE_PLAIN | LIBSSH2_KNOWNHOST_KEYENC_BASE64, &found);
	if (hosts)
		libssh2_knownhost_free(hosts);
	return r == LIBSSH2_KNOWNHOST_CHECK_MATCH || r == LIBSSH2_KNOWNHOST_CHECK_MISMATCH;
}

/* A file that is not there knows nobody; one that cannot be read is an error: a key may be revoked in it. */
static int search_files(const struct ssh_config_files *files, const struct known_query *q, struct asked *a, struct error *e)
{
	for (size_t i = 0; i < files->count; i++) {
		struct error why = { 0 };
		size_t bytes;
		CLEANUP_FREE char *text = proc_read_file(files->path[i], FILE_MAX_BYTES, &bytes, &why);

		if (!text && why.err != ENOENT && why.err != ENOTDIR)
			return error_set(e, why.err, "%s", why.text);
		if (text && known_hosts_search(text, bytes, q, &a->found))
			a->file = files->path[i];
	}
	return 0;
}

static int search(struct ssh2_link *l, const uint8_t *key, size_t bytes, struct asked *a, struct error *e)
{
	const struct ssh_config *c = &l->way->config;
	const struct known_query q = { .name = a->name, .key = key, .key_bytes = bytes, .hash_matches = hash_matches, .arg = l };
	bool is_named = *c->host_key_alias ? known_hosts_name(c->host_key_alias, 22, a->name) :
					     known_hosts_name(c->host_name, c->port, a->name);

	if (!is_named)
		return error_set(e, ENAMETOOLONG, "the name %s is too long", c->host_name);
	if (search_files(&c->user_known_hosts, &q, a, e) == -1)
		return -1;
	return search_files(&c->global_known_hosts, &q, a, e);
}

/* --- before: what to ask for */

int ssh2_known_prefer(struct ssh2_link *l, struct error *e)
{
	const char *said = l->way->config.host_key_algorithms, *type;
	struct asked a = { .file = NULL };
	char ours[512], first[512] = "", list[2048];

	if (search(l, NULL, 0, &a, e) == -1)
		return -1;
	ssh2_algorithms(HOST_KEYS, said, ours, sizeof(ours));
	for (type = a.found.types; *type && !said; type += strcspn(type, ","), type += *type == ',') {
		size_t bytes = strcspn(type, ",");
		bool is_rsa = bytes == strlen("ssh-rsa") && memcmp(type, "ssh-rsa", bytes) == 0;

		if (is_rsa)
			append_all(first, sizeof(first), "rsa-sha2-512,rsa-sha2-256", NULL);
		else if (bytes < 64)
			append(first, sizeof(first), type, bytes);
	}
	*list = '\0';
	append_all(list, sizeof(list), first, NULL);
	append_all(list, sizeof(list), ours, *first ? first : NULL);
	if (ssh2_link_prefer(l, LIBSSH2_METHOD_HOSTKEY, list) == 0)
		return 0;
	return error_set(e, ENOTSUP, "libssh2 can check no key of the kinds that the host may have (%.200s); use --carrier ssh",
			 list);
}

/* --- after: what came */

/* Follows a symbolic link, so that it stays one. */
static int save(const struct ssh2_link *l, const char *line, struct error *e)
{
	const struct ssh_config_files *files = &l->way->config.user_known_hosts;
	char path[PATH_MAX];
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *all = NULL;
	struct error why = { 0 };
	size_t bytes = 0;
	int n;

	if (!files->count)
		return error_set(e, ENOENT, "ssh_config names no file for it");
	if (!realpath(files->path[0], path))
		snprintf(path, sizeof(path), "%s", files->path[0]);
	text = proc_read_file(path, FILE_MAX_BYTES, &bytes, &why);
	if (!text && why.err != ENOENT)
		return error_set(e, why.err, "%s", why.text);
	if (!text) {
		CLEANUP_FREE char *dir = strdup(path);
		char *slash = dir ? strrchr(dir, '/') : NULL;

		if (slash && slash != dir) {
			*slash = '\0';
			(void)mkdir(dir, 0700);
		}
	}
	n = asprintf(&all, "%s%s%s", text ? text : "", bytes && text[bytes - 1] != '\n' ? "\n" : "", line);
	if (n < 0) {
		all = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	return proc_replace_file(path, all, (size_t)n, 0600, e);
}

static int accept_key(struct ssh2_link *l, const uint8_t *key, size_t bytes, struct error *e)
{
	uint8_t *copy = malloc(bytes);

	if (!copy)
		return error_set(e, ENOMEM, "out of memory");
	memcpy(copy, key, bytes);
	free(l->way->key);
	l->way->key = copy;
	l->way->key_bytes = bytes;
	return 0;
}

struct shown {
	char type[KNOWN_HOSTS_TYPE_MAX];
	char fingerprint[KNOWN_HOSTS_FINGERPRINT_MAX];
};

static int ask_person(struct ssh2_link *l, const struct asked *a, const struct shown *s, const char *line, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	struct error why = { 0 };
	int r;

	if (asprintf(&text,
		     "It is not known whether %s is who it should be.\n"
		     "Its %s key has the fingerprint %s.\n%s"
		     "Is that its key? If so, it is kept. (yes/no) ",
		     a->name, s->type, s->fingerprint,
		     a->found.verdict == KNOWN_OTHER ? "Keys of other kinds are known for it, this one is not.\n" : "") < 0) {
		text = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	r = carrier_tty_confirm(text, e);
	if (r == -1)
		return -1;
	if (r == 0)
		return error_set(e, EKEYREJECTED, "its key was not accepted");
	if (save(l, line, &why) == -1)
		dprintf(STDERR_FILENO, "%s: its key is not kept: %s\n", l->way->name, why.text);
	return 0;
}

static int decide_unknown(struct ssh2_link *l, const struct asked *a, const struct shown *s, const uint8_t *key, size_t bytes,
			  struct error *e)
{
	const struct ssh_config *c = &l->way->config;
	CLEANUP_FREE char *line = NULL;

	if (l->way->may_ask && !c->is_strict) {
		line = known_hosts_line(a->name, key, bytes, e);
		return line ? ask_person(l, a, s, line, e) : -1;
	}
	if (a->found.has_authority)
		return error_set(e, EKEYREJECTED, "it is known by an authority's certificate only, which is not looked at here; "
				 "use --carrier ssh");
	return error_set(e, EKEYREJECTED, "its %s key, %s, is not known (%s has no %s)%s", s->type, s->fingerprint,
			 c->user_known_hosts.count ? c->user_known_hosts.path[0] : "known_hosts", a->name,
			 c->is_strict ? ", and StrictHostKeyChecking forbids to ask" :
					", and there is no terminal to ask at: connect from one once");
}

int ssh2_known_check(struct ssh2_link *l, struct error *e)
{
	const struct ssh2_way *w = l->way;
	size_t bytes = 0;
	int type;
	const uint8_t *key = (const uint8_t *)libssh2_session_hostkey(l->session, &bytes, &type);
	const uint8_t *digest = (const uint8_t *)libssh2_hostkey_hash(l->session, LIBSSH2_HOSTKEY_HASH_SHA256);
	struct asked a = { .file = NULL };
	struct shown s;

	if (!key || !digest || known_hosts_type(key, bytes, s.type) == -1)
		return error_set(e, EKEYREJECTED, "it shows no key that is one");
	known_hosts_fingerprint(digest, s.fingerprint);
	if (search(l, key, bytes, &a, e) == -1)
		return -1;
	if (a.found.verdict == KNOWN_REVOKED)
		return error_set(e, EKEYREJECTED, "its key %s is revoked: %s, line %u", s.fingerprint, a.file, a.found.line);
	if (w->key && (w->key_bytes != bytes || memcmp(w->key, key, bytes) != 0))
		return error_set(e, EKEYREJECTED, "it shows another key than before, %s: this is not the host we were connected "
				 "to", s.fingerprint);
	if (w->key)
		return 0;
	if (a.found.verdict == KNOWN_CHANGED)
		return error_set(e, EKEYREJECTED, "its %s key is %s, and another is known (%s, line %u): somebody may be in "
				 "between; if the host was installed anew, remove that line", s.type, s.fingerprint, a.file,
				 a.found.line);
	if (a.found.verdict != KNOWN_SAME && decide_unknown(l, &a, &s, key, bytes, e) == -1)
		return -1;
	return accept_key(l, key, bytes, e);
}
