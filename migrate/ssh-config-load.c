/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ssh-config-load - see ssh-config.h: the files, what they include, and what is so where nobody says anything
 *
 *      ~/.ssh/config, /etc/ssh/ssh_config -> ssh_config_parse() -> tokens and ~ -> ready
 *
 * An Include without a leading / is beside the file that is the user's or the system's, as ssh has it; a pattern that no file
 * fits is none.
 */
#include "migrate/ssh-config.h"

#include <errno.h>
#include <glob.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"

#define SYSTEM_DIR "/etc/ssh"
#define EXPANDED_MAX_BYTES 4096u

struct loading {
	const char *home;
	const char *dir; /* what an Include is relative to */
};

/* --- files */

static int read_one(struct ssh_config *c, const struct ssh_config_source *s, const char *path, unsigned depth, bool may_miss,
		    struct error *e)
{
	struct ssh_config_source own = *s;
	struct error why = { 0 };
	size_t bytes;
	CLEANUP_FREE char *text = proc_read_file(path, SSH_CONFIG_FILE_MAX_BYTES, &bytes, &why);

	own.file = path;
	if (!text && may_miss && why.err == ENOENT)
		return 0;
	if (!text)
		return error_set(e, why.err, "%s", why.text);
	return ssh_config_parse(c, &own, text, bytes, depth, e);
}

static int include(struct ssh_config *c, const struct ssh_config_source *s, const char *pattern, unsigned depth, struct error *e)
{
	const struct loading *loading = s->arg;
	char path[EXPANDED_MAX_BYTES];
	glob_t found;
	int r = 0, n;

	if (strncmp(pattern, "~/", 2) == 0)
		n = snprintf(path, sizeof(path), "%s/%s", loading->home, pattern + 2);
	else if (*pattern == '/')
		n = snprintf(path, sizeof(path), "%s", pattern);
	else
		n = snprintf(path, sizeof(path), "%s/%s", loading->dir, pattern);
	if (n < 0 || (size_t)n >= sizeof(path))
		return error_set(e, ENAMETOOLONG, "%s: the path of an Include is too long", s->file);
	if (glob(path, 0, NULL, &found) != 0)
		return 0;
	for (size_t i = 0; i < found.gl_pathc && r == 0; i++)
		r = read_one(c, s, found.gl_pathv[i], depth, true, e);
	globfree(&found);
	return r;
}

static int load_files(struct ssh_config *c, const char *file, const struct passwd *user, struct error *e)
{
	CLEANUP_FREE char *own = NULL;
	CLEANUP_FREE char *own_dir = NULL;
	struct loading loading = { .home = user->pw_dir };
	struct ssh_config_source s = { .local_user = user->pw_name, .include = include, .arg = &loading };

	if (asprintf(&own_dir, "%s/.ssh", user->pw_dir) < 0 || asprintf(&own, "%s/config", own_dir) < 0)
		return error_set(e, ENOMEM, "out of memory");
	loading.dir = own_dir;
	if (file)
		return strcmp(file, "none") == 0 ? 0 : read_one(c, &s, file, 0, false, e);
	if (read_one(c, &s, own, 0, true, e) == -1)
		return -1;
	loading.dir = SYSTEM_DIR;
	return read_one(c, &s, SYSTEM_DIR "/ssh_config", 0, true, e);
}

/* --- what is said -> what is meant */

struct tokens {
	const struct ssh_config *c;
	const char *home, *local_user;
	bool is_host_name; /* only %h, and it is the host as it was asked for */
};

static const char *find_token(const struct tokens *t, char letter, char port[static 8])
{
	snprintf(port, 8, "%u", t->c->port % 100000);
	switch (letter) {
	case '%': return "%";
	case 'h': return t->is_host_name ? t->c->host : t->c->host_name;
	case 'n': return t->is_host_name ? NULL : t->c->host;
	case 'p': return t->is_host_name ? NULL : port;
	case 'r': return t->is_host_name ? NULL : t->c->user;
	case 'u': return t->is_host_name ? NULL : t->local_user;
	case 'd': return t->is_host_name ? NULL : t->home;
	default: return NULL;
	}
}

static int expand(const struct tokens *t, const char *text, char out[static EXPANDED_MAX_BYTES], struct error *e)
{
	size_t used = 0;

	for (const char *at = text; *at; at++) {
		char port[8], single[2] = { *at, '\0' };
		const char *piece = single;

		if (at == text && strncmp(at, "~/", 2) == 0) {
			piece = t->home;
		} else if (*at == '%') {
			piece = find_token(t, *++at, port);
			if (!piece)
				return error_set(e, EINVAL, "\"%.100s\": what %%%.1s stands for is not known here; use --carrier "
						 "ssh", text, at);
		}
		if (used + strlen(piece) >= EXPANDED_MAX_BYTES)
			return error_set(e, ENAMETOOLONG, "\"%.100s\" becomes too long", text);
		used = (size_t)(stpcpy(out + used, piece) - out);
	}
	out[used] = '\0';
	return 0;
}

static int expand_in_place(const struct tokens *t, char **text, struct error *e)
{
	char out[EXPANDED_MAX_BYTES];
	char *copy;

	if (!*text)
		return 0;
	if (expand(t, *text, out, e) == -1)
		return -1;
	copy = strdup(out);
	if (!copy)
		return error_set(e, ENOMEM, "out of memory");
	free(*text);
	*text = copy;
	return 0;
}

static int finish_files(struct ssh_config_files *f, const struct tokens *t, const char *const *otherwise, struct error *e)
{
	for (size_t i = 0; !f->is_said && otherwise[i]; i++) {
		f->path[f->count] = strdup(otherwise[i]);
		if (!f->path[f->count])
			return error_set(e, ENOMEM, "out of memory");
		f->count++;
	}
	for (size_t i = 0; i < f->count; i++)
		if (expand_in_place(t, &f->path[i], e) == -1)
			return -1;
	return 0;
}

static int finish_host_name(struct ssh_config *c, const char *home, const char *local_user, struct error *e)
{
	const struct tokens t = { .c = c, .home = home, .local_user = local_user, .is_host_name = true };
	char out[EXPANDED_MAX_BYTES];

	if (expand(&t, *c->host_name ? c->host_name : c->host, out, e) == -1)
		return error_prefix(e, "HostName of %s", c->host);
	if (!ssh_config_is_host(out))
		return error_set(e, EINVAL, "HostName of %s, \"%.60s\", is no name or address of a host", c->host, out);
	strcpy(c->host_name, out);
	return 0;
}

int ssh_config_finish(struct ssh_config *c, const char *home, const char *local_user, struct error *e)
{
	static const char *const identities[] = { "~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa", NULL };
	static const char *const own_hosts[] = { "~/.ssh/known_hosts", "~/.ssh/known_hosts2", NULL };
	static const char *const global_hosts[] = { SYSTEM_DIR "/ssh_known_hosts", SYSTEM_DIR "/ssh_known_hosts2", NULL };
	const struct tokens t = { .c = c, .home = home, .local_user = local_user };

	if (!*c->user)
		snprintf(c->user, sizeof(c->user), "%s", local_user);
	if (!ssh_config_is_user(c->user))
		return error_set(e, EINVAL, "\"%.60s\" is no name of a user", c->user);
	c->port = c->port ? c->port : 22;
	if (finish_host_name(c, home, local_user, e) == -1 || finish_files(&c->identity, &t, identities, e) == -1 ||
	    finish_files(&c->user_known_hosts, &t, own_hosts, e) == -1 ||
	    finish_files(&c->global_known_hosts, &t, global_hosts, e) == -1)
		return -1;
	if (c->identity_agent && strcmp(c->identity_agent, "SSH_AUTH_SOCK") != 0 && *c->identity_agent != '$')
		return expand_in_place(&t, &c->identity_agent, e);
	return 0;
}

int ssh_config_load(struct ssh_config *c, const char *file, struct error *e)
{
	const struct passwd *user = getpwuid(getuid());

	if (!user)
		return error_set(e, ENOENT, "who user %u is cannot be found out", (unsigned)getuid());
	if (load_files(c, file, user, e) == -1)
		return -1;
	return ssh_config_finish(c, user->pw_dir, user->pw_name, e);
}
