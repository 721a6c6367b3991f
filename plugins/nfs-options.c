/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * nfs-options - see nfs-options.h
 *
 * What we say ourselves:
 *      hard                    a write waits for the server: a guest's disk must not lose one that was given up
 *      retry=0                 mount(8) tries once; xapi tries again
 *      acdirmin=0,acdirmax=0   records are replaced by rename, by other hosts too: what a name means is asked of the server
 * A later word overrules an earlier, so the configuration's come last.
 */
#include "plugins/nfs-options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/uri.h"

#define OURS "hard,retry=0,acdirmin=0,acdirmax=0"
#define NAME_MAX_BYTES 253

enum value { NONE, NUMBER, WORD };

static const struct option {
	const char *name;
	enum value value;
	const char *words; /* |a|b|: what a WORD may be */
} allowed[] = {
	{ "hard", NONE, NULL },      { "soft", NONE, NULL },      { "softerr", NONE, NULL },  { "tcp", NONE, NULL },
	{ "ac", NONE, NULL },        { "noac", NONE, NULL },      { "cto", NONE, NULL },      { "resvport", NONE, NULL },
	{ "noresvport", NONE, NULL }, { "sharecache", NONE, NULL }, { "nosharecache", NONE, NULL },
	{ "timeo", NUMBER, NULL },   { "retrans", NUMBER, NULL }, { "rsize", NUMBER, NULL },  { "wsize", NUMBER, NULL },
	{ "port", NUMBER, NULL },    { "mountport", NUMBER, NULL }, { "nconnect", NUMBER, NULL }, { "max_connect", NUMBER, NULL },
	{ "acregmin", NUMBER, NULL }, { "acregmax", NUMBER, NULL }, { "acdirmin", NUMBER, NULL }, { "acdirmax", NUMBER, NULL },
	{ "actimeo", NUMBER, NULL }, { "retry", NUMBER, NULL },
	{ "proto", WORD, "|tcp|tcp6|rdma|rdma6|" },
	{ "mountproto", WORD, "|tcp|tcp6|udp|udp6|" },
	{ "sec", WORD, "|sys|krb5|krb5i|krb5p|" },
	{ "lookupcache", WORD, "|all|none|pos|positive|" },
	{ "trunkdiscovery", NONE, NULL },
	{ "xprtsec", WORD, "|none|tls|mtls|" },
};

static bool has_only(const char *text, const char *more)
{
	for (const char *c = text; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr(more, *c)))
			return false;
	return true;
}

static bool is_printable(const char *text)
{
	for (const unsigned char *c = (const unsigned char *)text; *c; c++)
		if (*c < ' ' || *c == 127)
			return false;
	return true;
}

int nfs_options_check_server(const char *server, struct error *e)
{
	size_t bytes = strlen(server);
	bool is_bracketed = bytes > 2 && server[0] == '[' && server[bytes - 1] == ']';
	CLEANUP_FREE char *inside = is_bracketed ? strndup(server + 1, bytes - 2) : strdup(server);

	if (!inside)
		return error_set(e, ENOMEM, "out of memory");
	if (!bytes || bytes > NAME_MAX_BYTES || *inside == '-' || *inside == '.' || !has_only(inside, ".-_:%"))
		return error_set(e, EINVAL, "server %.80s is neither a host's name nor an address",
				 is_printable(server) ? server : "(unprintable)");
	return 0;
}

int nfs_options_check_path(const char *path, struct error *e)
{
	size_t bytes = strlen(path);

	if (!is_printable(path))
		return error_set(e, EINVAL, "serverpath has a control character in it");
	if (*path != '/' || bytes > 1000)
		return error_set(e, EINVAL, "serverpath %.80s is not an absolute path on the server", path);
	if (strstr(path, "/../") || (bytes >= 3 && strcmp(path + bytes - 3, "/..") == 0))
		return error_set(e, EINVAL, "serverpath %.80s leads upwards (..)", path);
	return 0;
}

int nfs_options_check_version(const char *version, struct error *e)
{
	static const char *const known[] = { "3", "4", "4.0", "4.1", "4.2" };

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (strcmp(version, known[i]) == 0)
			return 0;
	return error_set(e, EINVAL, "NFS version %.20s is not one of 3, 4, 4.0, 4.1, 4.2",
			 is_printable(version) ? version : "(unprintable)");
}

static const struct option *find_option(const char *word, size_t bytes)
{
	for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
		if (strlen(allowed[i].name) == bytes && memcmp(allowed[i].name, word, bytes) == 0)
			return &allowed[i];
	return NULL;
}

static bool is_value(const struct option *option, const char *value)
{
	char word[32];

	if (option->value == NONE)
		return !value;
	if (!value || !*value || strlen(value) > 16)
		return false;
	if (option->value == NUMBER)
		return strlen(value) <= 9 && strspn(value, "0123456789") == strlen(value);
	snprintf(word, sizeof(word), "|%s|", value);
	return strchr(value, '|') == NULL && strstr(option->words, word) != NULL;
}

int nfs_options_check(const char *options, struct error *e)
{
	CLEANUP_FREE char *copy = strdup(options);
	char *rest = copy, *word;

	if (!copy)
		return error_set(e, ENOMEM, "out of memory");
	if (!is_printable(options))
		return error_set(e, EINVAL, "options have a control character in them");
	while (*copy && (word = strsep(&rest, ","))) {
		char *value = strchr(word, '=');
		size_t bytes = value ? (size_t)(value - word) : strlen(word);
		const struct option *option = find_option(word, bytes);

		if (!option)
			return error_set(e, EINVAL, "option \"%.40s\" is not among those that are allowed for NFS here: "
					 "hard, soft, timeo=, retrans=, "
					 "rsize=, wsize=, nconnect=, proto=, port=, sec= and the like", word);
		if (!is_value(option, value ? value + 1 : NULL))
			return error_set(e, EINVAL, "option \"%.40s\": %s", word, option->value == NONE ? "it takes no value" :
					 option->value == NUMBER ? "it takes a number" : "it does not take that value");
	}
	return 0;
}

char *nfs_options_text(const char *version, const char *options, bool is_read_only)
{
	bool has_options = options && *options;
	char *text;

	return asprintf(&text, OURS "%s%s%s%s%s", is_read_only ? ",ro" : "", version ? ",vers=" : "", version ? version : "",
			has_options ? "," : "", has_options ? options : "") < 0 ? NULL : text;
}

char *nfs_options_source(const char *server, const char *path)
{
	bool is_bare = strchr(server, ':') && *server != '['; /* IPv6 */
	char *text;

	return asprintf(&text, "%s%s%s:%s", is_bare ? "[" : "", server, is_bare ? "]" : "", path) < 0 ? NULL : text;
}

int nfs_options_split_uri(const char *uri, char **server, char **path, struct error *e)
{
	const char *slash = strncasecmp(uri, "nfs://", 6) == 0 ? strchr(uri + 6, '/') : NULL;
	CLEANUP_FREE char *rest = NULL;

	*server = *path = NULL;
	if (!slash || slash == uri + 6)
		return error_set(e, EINVAL, "URI %.200s is not of the form nfs://server/path", uri);
	*server = strndup(uri + 6, (size_t)(slash - uri - 6));
	if (asprintf(&rest, "nfs://%s", slash) < 0) /* the form that uri_path() decodes */
		rest = NULL;
	*path = rest ? uri_path(rest, "nfs", e) : NULL;
	if (*server && *path)
		return 0;
	if (!*server || !rest)
		error_set(e, ENOMEM, "out of memory");
	free(*path);
	*path = NULL;
	free(*server);
	*server = NULL;
	return -1;
}
