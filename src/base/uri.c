/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * uri - see uri.h
 *
 *      file:///srv/my%20sr         scheme, empty or "localhost" authority, path
 *      file:/srv/my%20sr           the same
 */
#include "base/uri.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

static bool is_plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("/-._~", c));
}

char *uri_of_path(const char *scheme, const char *path)
{
	char *uri = malloc(strlen(scheme) + sizeof("://") + 3 * strlen(path));
	char *to = uri;

	if (!uri)
		return NULL;
	to += sprintf(to, "%s://", scheme);
	for (const unsigned char *p = (const unsigned char *)path; *p; p++)
		to += is_plain(*p) ? sprintf(to, "%c", *p) : sprintf(to, "%%%02X", *p);
	return uri;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static char *decode(const char *text, const char *uri, struct error *e)
{
	CLEANUP_FREE char *path = malloc(strlen(text) + 1);
	char *to = path;

	if (!path) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	for (; *text; text++) {
		int high, low;

		if (*text == '?' || *text == '#') {
			error_set(e, EINVAL,
				  "URI %s has a %s, which has no meaning here; a ? or # of a path is written %%3F, %%23", uri,
				  *text == '?' ? "query" : "fragment");
			return NULL;
		}
		if (*text != '%') {
			*to++ = *text;
			continue;
		}
		high = hex_value(text[1]);
		low = high < 0 ? -1 : hex_value(text[2]);
		if (low < 0 || high + low == 0) {
			error_set(e, EINVAL, "URI %s has a %% that is not followed by two hexadecimal digits of a character",
				  uri);
			return NULL;
		}
		*to++ = (char)(high * 16 + low);
		text += 2;
	}
	*to = '\0';
	return take_ptr(&path);
}

char *uri_path(const char *uri, const char *scheme, struct error *e)
{
	size_t length = strlen(scheme);
	const char *rest = uri + length + 1;
	char *path;

	if (strncasecmp(uri, scheme, length) != 0 || uri[length] != ':') {
		error_set(e, EINVAL, "URI %s is not of the form %s:///absolute/path", uri, scheme);
		return NULL;
	}
	if (strncmp(rest, "//localhost/", 12) == 0)
		rest += 11;
	else if (strncmp(rest, "//", 2) == 0)
		rest += 2;
	if (*rest != '/') {
		error_set(e, EINVAL, "URI %s does not name a path on this host; it should look like %s:///absolute/path", uri,
			  scheme);
		return NULL;
	}
	path = decode(rest, uri, e);
	if (path && strlen(path) >= PATH_MAX) {
		error_set(e, ENAMETOOLONG, "the path in the URI is longer than %d bytes", PATH_MAX);
		free(path);
		return NULL;
	}
	return path;
}

static void drop_last_slashes(char *path)
{
	for (char *end = path + strlen(path); end > path + 1 && end[-1] == '/'; end--)
		end[-1] = '\0';
}

char *uri_canonical(const char *path, struct error *e)
{
	CLEANUP_FREE char *copy = strdup(path);
	CLEANUP_FREE char *parent = NULL;
	char *name, *canonical;

	if (!copy) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	drop_last_slashes(copy);
	name = strrchr(copy, '/');
	if (*copy != '/' || strcmp(name, "/.") == 0 || strcmp(name, "/..") == 0) {
		error_set(e, EINVAL, "path %s does not end in a name", path);
		return NULL;
	}
	if (!name[1]) /* the root itself */
		return take_ptr(&copy);
	*name++ = '\0';
	parent = realpath(*copy ? copy : "/", NULL);
	if (!parent) {
		error_errno(e, errno, "find directory %s", *copy ? copy : "/");
		return NULL;
	}
	if (asprintf(&canonical, "%s/%s", parent[1] ? parent : "", name) < 0) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	return canonical;
}

int uri_names(const char *uri, const char *scheme, const char *canonical, struct error *e)
{
	CLEANUP_FREE char *path = uri_path(uri, scheme, e);
	CLEANUP_FREE char *found = NULL;

	if (!path)
		return e->err == ENOMEM ? -1 : 0;
	drop_last_slashes(path);
	if (strcmp(path, canonical) == 0)
		return 1;
	if (strcmp(strrchr(path, '/'), strrchr(canonical, '/')) != 0)
		return 0;
	found = uri_canonical(path, e);
	if (found)
		return strcmp(found, canonical) == 0;
	return e->err == ENOENT || e->err == ENOTDIR || e->err == ELOOP ? 0 : -1;
}
