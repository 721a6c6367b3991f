/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-uri - see remote-uri.h
 *
 * libnbd has the last word on a URI, but it says it minutes later, from a thread, in the words of an XML library.  What can
 * be known from the form alone is said here, at once and in one sentence: that the scheme is none of NBD's, that a local
 * socket has no path or a path the kernel cannot take, that an export's name is too long.
 *
 *      "nbd+unix:///disk%201?socket=/run/x.sock"
 *       scheme      path     query
 */
#include "mirror/remote-uri.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "mirror/remote.h"

/* A piece of the caller's string. */
struct piece {
	const char *text;
	size_t bytes;
};

enum transport { TCP, UNIX, VSOCK };

static const struct scheme {
	const char *prefix; /* with its "://" */
	enum transport transport;
	bool has_tls;
} schemes[] = {
	{ "nbd://", TCP, false },         { "nbds://", TCP, true },
	{ "nbd+unix://", UNIX, false },   { "nbds+unix://", UNIX, true },
	{ "nbd+vsock://", VSOCK, false }, { "nbds+vsock://", VSOCK, true },
};

static struct piece until(const char *text, const char *stops)
{
	return (struct piece){ text, strcspn(text, stops) };
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* How long the piece is when its %XX are undone. -1 + e: an escape that is none, or a NUL. */
static int count_decoded(struct piece p, const char *what, size_t *bytes, struct error *e)
{
	*bytes = 0;
	for (size_t i = 0; i < p.bytes; i++, ++*bytes) {
		int high, low;

		if (p.text[i] != '%')
			continue;
		high = i + 1 < p.bytes ? hex_value(p.text[i + 1]) : -1;
		low = i + 2 < p.bytes ? hex_value(p.text[i + 2]) : -1;
		if (high < 0 || low < 0)
			return error_set(e, EINVAL, "the %s in the NBD URI has a %% without two hex digits after it", what);
		if (high == 0 && low == 0)
			return error_set(e, EINVAL, "the %s in the NBD URI contains a NUL byte", what);
		i += 2;
	}
	return 0;
}

/* What may stand in a query. Others would change what TLS checks, or are libnbd's of a later version, or are not heard at all. */
enum parameter { SOCKET, PSK_FILE, CERTIFICATES, UNKNOWN };
static const char *const parameter_name[] = { "socket=", "tls-psk-file=", "tls-certificates=" };

/* The next a=b of a=b&c=d. False: there is none. */
static bool next_parameter(const char **query, enum parameter *name, struct piece *value)
{
	struct piece pair;

	*query += strspn(*query, "&;");
	pair = until(*query, "&;#");
	*query += pair.bytes;
	*value = pair;
	for (*name = SOCKET; *name < UNKNOWN; ++*name) {
		size_t bytes = strlen(parameter_name[*name]);

		if (pair.bytes < bytes || memcmp(pair.text, parameter_name[*name], bytes) != 0)
			continue;
		*value = (struct piece){ pair.text + bytes, pair.bytes - bytes };
		break;
	}
	return pair.bytes > 0;
}

static bool find_socket(const char *query, struct piece *value)
{
	enum parameter name;

	while (next_parameter(&query, &name, value))
		if (name == SOCKET)
			return true;
	return false;
}

static char *decode(struct piece p)
{
	char *text = malloc(p.bytes + 1), *to = text;

	for (size_t i = 0; text && i < p.bytes; i++) {
		if (p.text[i] == '%' && i + 2 < p.bytes) {
			*to++ = (char)(hex_value(p.text[i + 1]) << 4 | hex_value(p.text[i + 2]));
			i += 2;
		} else {
			*to++ = p.text[i];
		}
	}
	if (text)
		*to = '\0';
	return text;
}

char *remote_uri_certificates(const char *normal)
{
	const char *query = strchr(normal, '?');
	enum parameter name;
	struct piece value;

	for (query = query ? query + 1 : ""; next_parameter(&query, &name, &value);)
		if (name == CERTIFICATES)
			return decode(value);
	return NULL;
}

static bool is_absolute(struct piece path)
{
	return (path.bytes > 0 && path.text[0] == '/') || (path.bytes > 2 && strncasecmp(path.text, "%2f", 3) == 0);
}

/* Over TLS it is known who is there, or nobody is talked to: without a key or certificates libnbd takes whoever the system
 * trusts, and where no host is named there is no name that a certificate could have. */
static int check_trust(bool has_key, bool has_certificates, bool is_tcp, struct error *e)
{
	if (!has_key && !has_certificates)
		return error_set(e, EINVAL, "the NBD URI begins with nbds, and says with neither tls-psk-file nor "
				 "tls-certificates how the far side is known");
	if (has_certificates && !is_tcp)
		return error_set(e, EINVAL, "a certificate is for a host, and the NBD URI names a unix socket: use tls-psk-file");
	return 0;
}

static int check_query(const char *query, bool has_tls, bool is_tcp, struct error *e)
{
	bool has[UNKNOWN] = { false };
	enum parameter name;
	struct piece value;
	size_t bytes;

	while (next_parameter(&query, &name, &value)) {
		if (name == UNKNOWN)
			return error_set(e, EINVAL, "the NBD URI has \"%.*s\": it may have socket, tls-psk-file and "
					 "tls-certificates alone", (int)MIN(value.bytes, (size_t)60), value.text);
		has[name] = true;
		if (name == SOCKET)
			continue;
		if (!has_tls)
			return error_set(e, EINVAL, "the NBD URI has %.*s, and no TLS: it has to begin with nbds",
					 (int)strlen(parameter_name[name]) - 1, parameter_name[name]);
		if (count_decoded(value, "path for TLS", &bytes, e) == -1)
			return -1;
		if (!is_absolute(value))
			return error_set(e, EINVAL, "%s in the NBD URI has to be followed by an absolute path",
					 parameter_name[name]);
	}
	return has_tls ? check_trust(has[PSK_FILE], has[CERTIFICATES], is_tcp, e) : 0;
}

static int check_socket_bytes(size_t bytes, struct error *e)
{
	if (bytes == 0)
		return error_set(e, EINVAL, "the NBD URI names no socket: its socket path is empty");
	if (bytes > REMOTE_URI_SOCKET_MAX_BYTES)
		return error_set(e, ENAMETOOLONG, "the socket path in the NBD URI is %zu bytes long, the system takes %u at most",
		                 bytes, REMOTE_URI_SOCKET_MAX_BYTES);
	return 0;
}

static int check_export_bytes(size_t bytes, struct error *e)
{
	if (bytes > REMOTE_URI_EXPORT_MAX_BYTES)
		return error_set(e, ENAMETOOLONG, "the export name in the NBD URI is %zu bytes long, NBD takes %u at most",
		                 bytes, REMOTE_URI_EXPORT_MAX_BYTES);
	return 0;
}

static int check_unix(struct piece authority, const char *query, struct error *e)
{
	struct piece socket;
	size_t bytes;

	if (authority.bytes && authority.text[authority.bytes - 1] != '@') /* a user, for TLS, may stand there */
		return error_set(e, EINVAL, "an NBD URI of a local socket has no host: write nbd+unix:///EXPORT?socket=PATH");
	if (!find_socket(query, &socket))
		return error_set(e, EINVAL, "the NBD URI names no socket: write nbd+unix:///EXPORT?socket=PATH");
	if (count_decoded(socket, "socket path", &bytes, e) == -1)
		return -1;
	return check_socket_bytes(bytes, e);
}

/* rest: what follows "://". */
static int check_standard(const struct scheme *scheme, const char *rest, struct error *e)
{
	struct piece authority = until(rest, "/?#");
	const char *after = rest + authority.bytes;
	struct piece path = until(after, "?#");
	const char *query = after + path.bytes;
	size_t bytes;

	if (*query == '?')
		query++;
	if (count_decoded(path, "export name", &bytes, e) == -1)
		return -1;
	if (check_export_bytes(bytes ? bytes - 1 : 0, e) == -1) /* the first slash is not of the name */
		return -1;
	if (check_query(query, scheme->has_tls, scheme->transport == TCP, e) == -1)
		return -1;
	if (scheme->transport == UNIX)
		return check_unix(authority, query, e);
	if (authority.bytes == 0 || authority.text[authority.bytes - 1] == '@')
		return error_set(e, EINVAL, "the NBD URI names no host");
	return 0;
}

static bool is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c != '\0' && strchr("-._~/", c));
}

static char *append_escaped(char *at, struct piece p)
{
	static const char digit[] = "0123456789ABCDEF";

	for (size_t i = 0; i < p.bytes; i++) {
		unsigned char c = (unsigned char)p.text[i];

		if (is_plain((char)c)) {
			*at++ = (char)c;
			continue;
		}
		*at++ = '%';
		*at++ = digit[c >> 4];
		*at++ = digit[c & 15];
	}
	*at = '\0';
	return at;
}

/* xapi's form is split at every colon into exactly four parts; nothing in it is escaped. */
static char *convert_xapi(const char *rest, struct error *e)
{
	static const char key[] = "exportname=";
	struct piece path = until(rest, ":"), name;
	const char *tail = rest + path.bytes;
	size_t bytes;
	char *out;

	if (check_socket_bytes(path.bytes, e) == -1)
		return NULL;
	if (strncmp(tail, ":exportname=", 12) != 0) {
		error_set(e, EINVAL, "the URI is not of the form nbd:unix:PATH:exportname=NAME");
		return NULL;
	}
	name = (struct piece){ tail + 12, strlen(tail + 12) };
	if (name.bytes == 0 || strchr(name.text, ':') || strstr(name.text, key)) {
		error_set(e, EINVAL, "the NAME in nbd:unix:PATH:exportname=NAME is empty, contains a colon or \"%s\"", key);
		return NULL;
	}
	if (check_export_bytes(name.bytes, e) == -1)
		return NULL;
	bytes = sizeof("nbd+unix:///?socket=") + 3 * (path.bytes + name.bytes);
	out = malloc(bytes);
	if (!out) {
		error_errno(e, ENOMEM, "cannot keep the NBD URI");
		return NULL;
	}
	append_escaped(stpcpy(append_escaped(stpcpy(out, "nbd+unix:///"), name), "?socket="), path);
	return out;
}

static int check_bytes(const char *uri, struct error *e)
{
	if (!uri || !*uri)
		return error_set(e, EINVAL, "the NBD URI is empty");
	if (strnlen(uri, REMOTE_URI_MAX_BYTES + 1) > REMOTE_URI_MAX_BYTES)
		return error_set(e, ENAMETOOLONG, "the NBD URI is longer than %u bytes", REMOTE_URI_MAX_BYTES);
	for (const char *c = uri; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return error_set(e, EINVAL, "the NBD URI contains a control character");
	return 0;
}

char *remote_uri_normalize(const char *uri, struct error *e)
{
	char *out;

	if (check_bytes(uri, e) == -1)
		return NULL;
	if (strncmp(uri, "nbd:unix:", 9) == 0)
		return convert_xapi(uri + 9, e);
	if (strchr(uri, ' ')) {
		error_set(e, EINVAL, "the NBD URI contains a space: write it as %%20");
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		size_t bytes = strlen(schemes[i].prefix);

		if (strncmp(uri, schemes[i].prefix, bytes) != 0)
			continue;
		if (check_standard(&schemes[i], uri + bytes, e) == -1)
			return NULL;
		out = strdup(uri);
		if (!out)
			error_errno(e, ENOMEM, "cannot keep the NBD URI");
		return out;
	}
	error_set(e, EINVAL, "not an NBD URI: it starts with none of nbd://, nbds://, nbd+unix://, nbds+unix://, nbd+vsock://, "
	          "nbds+vsock://, nbd:unix:");
	return NULL;
}

int remote_nbd_check_uri(const char *uri, struct error *e)
{
	CLEANUP_FREE char *normal = remote_uri_normalize(uri, e);

	return normal ? 0 : -1;
}
