/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ssh-config - see ssh-config.h: lines -> words -> what is set
 *
 *      line:     [space] keyword [space and/or one '='] words      words may be in "quotes"; # begins a comment
 *      section:  what comes after a Host or Match counts where that matched; before the first one, everywhere
 *
 * The first value counts; of IdentityFile, every one.
 * Can fail: a line without a value where one is needed, numbers that are none, names too long.  A file is a user's own or the
 * system's, so what is wrong in it is said with its line, and nothing is guessed.
 * Invariant: what decides whom we talk to (host key checks) is never made laxer here than a file asks for.
 */
#include "migrate/ssh-config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

#define WORDS_MAX 64u
#define LINE_MAX_BYTES 4096u

enum word {
	W_HOST, W_MATCH, W_INCLUDE, W_HOST_NAME, W_USER, W_PORT, W_IDENTITY_FILE, W_IDENTITIES_ONLY, W_IDENTITY_AGENT,
	W_PROXY_JUMP, W_USER_KNOWN_HOSTS, W_GLOBAL_KNOWN_HOSTS, W_HOST_KEY_ALIAS, W_STRICT, W_CONNECT_TIMEOUT,
	W_ADDRESS_FAMILY, W_CIPHERS, W_MACS, W_KEX, W_HOST_KEY_ALGORITHMS, W_PUBLIC_KEY, W_PASSWORD, W_KEYBOARD,
	W_PROXY_COMMAND, W_REVOKED, W_OTHER_KEY, W_BIND, W_COUNT
};

static const struct {
	const char *name;
	enum word word;
} keywords[] = {
	{ "host", W_HOST }, { "match", W_MATCH }, { "include", W_INCLUDE }, { "hostname", W_HOST_NAME }, { "user", W_USER },
	{ "port", W_PORT }, { "identityfile", W_IDENTITY_FILE }, { "identitiesonly", W_IDENTITIES_ONLY },
	{ "identityagent", W_IDENTITY_AGENT }, { "proxyjump", W_PROXY_JUMP }, { "userknownhostsfile", W_USER_KNOWN_HOSTS },
	{ "globalknownhostsfile", W_GLOBAL_KNOWN_HOSTS }, { "hostkeyalias", W_HOST_KEY_ALIAS },
	{ "stricthostkeychecking", W_STRICT }, { "connecttimeout", W_CONNECT_TIMEOUT }, { "addressfamily", W_ADDRESS_FAMILY },
	{ "ciphers", W_CIPHERS }, { "macs", W_MACS }, { "kexalgorithms", W_KEX }, { "hostkeyalgorithms", W_HOST_KEY_ALGORITHMS },
	{ "pubkeyauthentication", W_PUBLIC_KEY }, { "passwordauthentication", W_PASSWORD },
	{ "kbdinteractiveauthentication", W_KEYBOARD }, { "challengeresponseauthentication", W_KEYBOARD },
	{ "proxycommand", W_PROXY_COMMAND }, { "revokedhostkeys", W_REVOKED }, { "certificatefile", W_OTHER_KEY },
	{ "pkcs11provider", W_OTHER_KEY }, { "securitykeyprovider", W_OTHER_KEY }, { "knownhostscommand", W_OTHER_KEY },
	{ "bindaddress", W_BIND }, { "bindinterface", W_BIND },
};

struct line {
	const struct ssh_config_source *source; /* borrowed */
	unsigned number;
	unsigned depth;
	const char *keyword;     /* as it is written */
	char *words[WORDS_MAX];  /* in text */
	size_t count;
	char text[LINE_MAX_BYTES];
};

/* --- patterns */

static bool glob_matches(const char *p, const char *end, const char *name)
{
	const char *star = NULL, *again = NULL;

	while (*name) {
		if (p < end && *p == '*') {
			star = p++;
			again = name;
		} else if (p < end && (*p == '?' || tolower((unsigned char)*p) == tolower((unsigned char)*name))) {
			p++;
			name++;
		} else if (star) {
			p = star + 1;
			name = ++again;
		} else {
			return false;
		}
	}
	while (p < end && *p == '*')
		p++;
	return p == end;
}

bool ssh_config_matches(const char *patterns, size_t bytes, const char *name)
{
	const char *at = patterns, *end = patterns + bytes;
	bool has_matched = false;

	while (at < end) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		const char *stop = comma ? comma : end;
		bool is_negated = at < stop && *at == '!';

		if (is_negated)
			at++;
		if (at < stop && glob_matches(at, stop, name)) {
			if (is_negated)
				return false;
			has_matched = true;
		}
		at = comma ? comma + 1 : end;
	}
	return has_matched;
}

static bool has_only(const char *name, const char *others)
{
	if (!*name || *name == '-' || strlen(name) >= SSH_CONFIG_NAME_MAX)
		return false;
	for (; *name; name++)
		if (!(*name >= 'a' && *name <= 'z') && !(*name >= 'A' && *name <= 'Z') && !(*name >= '0' && *name <= '9') &&
		    !strchr(others, *name))
			return false;
	return true;
}

bool ssh_config_is_host(const char *name)
{
	return has_only(name, ".-_:%");
}

bool ssh_config_is_user(const char *name)
{
	return has_only(name, ".-_+@\\");
}

/* --- one line */

static int fail_at(const struct line *l, struct error *e, const char *why)
{
	return error_set(e, EINVAL, "%s, line %u: %s: %s", l->source->file, l->number, l->keyword, why);
}

static void note(struct ssh_config *c, const struct line *l, const char *what)
{
	char *text;

	if (c->note_count == SSH_CONFIG_NOTES_MAX)
		return;
	if (asprintf(&text, "%s, line %u: %s %s", l->source->file, l->number, l->keyword, what) >= 0)
		c->notes[c->note_count++] = text;
}

/* Out of l->text, from `at` on. */
static int split_words(struct line *l, char *at, struct error *e)
{
	l->count = 0;
	for (;;) {
		char quote = '\0', *to;

		while (*at == ' ' || *at == '\t')
			at++;
		if (!*at || *at == '#')
			return 0;
		if (l->count == WORDS_MAX)
			return fail_at(l, e, "there are too many words");
		l->words[l->count++] = to = at;
		for (; *at && (quote || (*at != ' ' && *at != '\t')); at++) {
			if (*at == quote || (!quote && (*at == '"' || *at == '\'')))
				quote = quote ? '\0' : *at;
			else
				*to++ = *at;
		}
		if (quote)
			return fail_at(l, e, "a quote is not closed");
		if (*at)
			at++;
		*to = '\0';
	}
}

/* 1: a line with a keyword; 0: none. */
static int split_line(struct line *l, const char *text, size_t bytes, struct error *e)
{
	char *at = l->text;
	size_t n;

	l->keyword = "this line";
	if (bytes >= LINE_MAX_BYTES || memchr(text, '\0', bytes))
		return fail_at(l, e, bytes >= LINE_MAX_BYTES ? "it is too long" : "there is a zero byte in it");
	memcpy(l->text, text, bytes);
	l->text[bytes] = '\0';
	while (bytes && isspace((unsigned char)l->text[bytes - 1]))
		l->text[--bytes] = '\0';
	while (*at == ' ' || *at == '\t' || *at == '\f')
		at++;
	if (!*at || *at == '#')
		return 0;
	l->keyword = at;
	n = strcspn(at, " \t=");
	at += n;
	while (*at == ' ' || *at == '\t')
		*at++ = '\0';
	if (*at == '=')
		*at++ = '\0';
	return split_words(l, at, e) == 0 ? 1 : -1;
}

/* --- what a line sets */

static bool is_yes(const char *word)
{
	return strcasecmp(word, "yes") == 0 || strcasecmp(word, "true") == 0;
}

static bool is_none(const char *word)
{
	return strcasecmp(word, "none") == 0;
}

static int set_name(char name[static SSH_CONFIG_NAME_MAX], const struct line *l, struct error *e)
{
	if (strlen(l->words[0]) >= SSH_CONFIG_NAME_MAX)
		return fail_at(l, e, "the name is too long");
	strcpy(name, l->words[0]);
	return 0;
}

static int set_text(char **text, const struct line *l, struct error *e)
{
	*text = strdup(l->words[0]);
	return *text ? 0 : error_set(e, ENOMEM, "out of memory");
}

static int set_number(unsigned *number, unsigned max, const struct line *l, struct error *e)
{
	char *end;
	unsigned long value = strtoul(l->words[0], &end, 10);

	if (!isdigit((unsigned char)*l->words[0]) || *end || value == 0 || value > max)
		return fail_at(l, e, "that is no number it may have");
	*number = (unsigned)value;
	return 0;
}

static int add_files(struct ssh_config_files *f, const struct line *l, struct error *e)
{
	f->is_said = true;
	for (size_t i = 0; i < l->count && !is_none(l->words[i]); i++) {
		if (f->count == SSH_CONFIG_FILES_MAX)
			return fail_at(l, e, "there are too many of them");
		f->path[f->count] = strdup(l->words[i]);
		if (!f->path[f->count])
			return error_set(e, ENOMEM, "out of memory");
		f->count++;
	}
	return 0;
}

static void set_cannot(struct ssh_config *c, const struct line *l, const char *what)
{
	if (!*c->cannot)
		snprintf(c->cannot, sizeof(c->cannot), "%.120s, line %u: %.30s %s; use --carrier ssh", l->source->file, l->number,
			 l->keyword, what);
}

static int set_address_family(struct ssh_config *c, const struct line *l, struct error *e)
{
	const char *word = l->words[0];

	if (strcasecmp(word, "any") != 0 && strcasecmp(word, "inet") != 0 && strcasecmp(word, "inet6") != 0)
		return fail_at(l, e, "it is any, inet or inet6");
	c->address_family = strcasecmp(word, "inet") == 0 ? 4 : strcasecmp(word, "inet6") == 0 ? 6 : 0;
	return 0;
}

/* What has no effect but that this way cannot be gone, or is gone with less. */
static int set_unable(struct ssh_config *c, enum word word, const struct line *l)
{
	if (is_none(l->words[0]))
		return 0;
	if (word == W_PROXY_COMMAND)
		set_cannot(c, l, "is not followed here");
	else if (word == W_REVOKED)
		set_cannot(c, l, "cannot be checked here");
	else if (word == W_BIND)
		set_cannot(c, l, "is not followed here");
	else
		note(c, l, "is not used here: where it is needed, use --carrier ssh");
	return 0;
}

static int set_value(struct ssh_config *c, enum word word, const struct line *l, struct error *e)
{
	switch (word) {
	case W_HOST_NAME: return set_name(c->host_name, l, e);
	case W_USER: return set_name(c->user, l, e);
	case W_HOST_KEY_ALIAS: return set_name(c->host_key_alias, l, e);
	case W_PORT: return set_number(&c->port, 65535, l, e);
	case W_CONNECT_TIMEOUT: return is_none(l->words[0]) ? 0 : set_number(&c->connect_timeout_s, 86400, l, e);
	case W_IDENTITY_FILE: return add_files(&c->identity, l, e);
	case W_USER_KNOWN_HOSTS: return add_files(&c->user_known_hosts, l, e);
	case W_GLOBAL_KNOWN_HOSTS: return add_files(&c->global_known_hosts, l, e);
	case W_IDENTITY_AGENT: return set_text(&c->identity_agent, l, e);
	case W_PROXY_JUMP: return set_text(&c->jump, l, e);
	case W_CIPHERS: return set_text(&c->ciphers, l, e);
	case W_MACS: return set_text(&c->macs, l, e);
	case W_KEX: return set_text(&c->kex, l, e);
	case W_HOST_KEY_ALGORITHMS: return set_text(&c->host_key_algorithms, l, e);
	case W_ADDRESS_FAMILY: return set_address_family(c, l, e);
	case W_STRICT: c->is_strict = is_yes(l->words[0]); return 0;
	case W_IDENTITIES_ONLY: c->has_identities_only = is_yes(l->words[0]); return 0;
	case W_PUBLIC_KEY: c->has_no_public_key = strcasecmp(l->words[0], "no") == 0; return 0;
	case W_PASSWORD: c->has_no_password = strcasecmp(l->words[0], "no") == 0; return 0;
	case W_KEYBOARD: c->has_no_keyboard = strcasecmp(l->words[0], "no") == 0; return 0;
	default: return set_unable(c, word, l);
	}
}

/* ProxyCommand and ProxyJump are one: whichever is first. */
static uint64_t word_bit(enum word word)
{
	return UINT64_C(1) << (word == W_PROXY_COMMAND ? W_PROXY_JUMP : word);
}

static int set_once(struct ssh_config *c, enum word word, const struct line *l, struct error *e)
{
	if (!l->count || !*l->words[0])
		return fail_at(l, e, "nothing comes after it");
	if ((c->seen & word_bit(word)) && word != W_IDENTITY_FILE && word != W_OTHER_KEY && word != W_BIND)
		return 0;
	c->seen |= word_bit(word);
	return set_value(c, word, l, e);
}

/* --- sections */

static bool host_matches(const struct ssh_config *c, const struct line *l)
{
	bool has_matched = false;

	for (size_t i = 0; i < l->count; i++) {
		const char *pattern = l->words[i];
		bool is_negated = *pattern == '!';

		if (!glob_matches(pattern + is_negated, pattern + strlen(pattern), c->host))
			continue;
		if (is_negated)
			return false;
		has_matched = true;
	}
	return has_matched;
}

/* all, host and originalhost; what else there is asks about things that are not known here, or runs programs. */
static bool match_matches(struct ssh_config *c, const struct line *l)
{
	bool matches = true;

	if (l->count == 1 && strcasecmp(l->words[0], "all") == 0)
		return true;
	for (size_t i = 0; i < l->count; i += 2) {
		bool is_original = strcasecmp(l->words[i], "originalhost") == 0;
		const char *name = is_original || !*c->host_name ? c->host : c->host_name;

		if (i + 1 == l->count || (!is_original && strcasecmp(l->words[i], "host") != 0)) {
			note(c, l, "asks for more than host and originalhost: what comes under it is passed over; use --carrier "
			     "ssh where it matters");
			return false;
		}
		matches = matches && ssh_config_matches(l->words[i + 1], strlen(l->words[i + 1]), name);
	}
	return matches && l->count;
}

static enum word find_word(const char *keyword)
{
	for (size_t i = 0; i < ARRAY_LEN(keywords); i++)
		if (strcasecmp(keywords[i].name, keyword) == 0)
			return keywords[i].word;
	return W_COUNT;
}

static int include_files(struct ssh_config *c, const struct line *l, struct error *e)
{
	if (l->depth >= SSH_CONFIG_DEPTH_MAX)
		return fail_at(l, e, "files include one another too deeply");
	for (size_t i = 0; i < l->count && l->source->include; i++)
		if (l->source->include(c, l->source, l->words[i], l->depth + 1, e) == -1)
			return -1;
	return 0;
}

static int take_line(struct ssh_config *c, const struct line *l, bool *applies, struct error *e)
{
	enum word word = find_word(l->keyword);

	if (word == W_HOST)
		*applies = host_matches(c, l);
	else if (word == W_MATCH)
		*applies = match_matches(c, l);
	else if (!*applies || word == W_COUNT)
		return 0;
	else if (word == W_INCLUDE)
		return include_files(c, l, e);
	else
		return set_once(c, word, l, e);
	return 0;
}

int ssh_config_parse(struct ssh_config *c, const struct ssh_config_source *s, const char *text, size_t bytes, unsigned depth,
		     struct error *e)
{
	struct line l = { .source = s, .depth = depth };
	const char *at = text, *end = text + bytes;
	bool applies = true;

	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *stop = newline ? newline : end;
		int r;

		l.number++;
		r = split_line(&l, at, (size_t)(stop - at), e);
		if (r == -1 || (r == 1 && take_line(c, &l, &applies, e) == -1))
			return -1;
		at = newline ? newline + 1 : end;
	}
	return 0;
}

/* --- the beginning and the end */

int ssh_config_init(struct ssh_config *c, const char *host, const char *user, unsigned port, struct error *e)
{
	*c = (struct ssh_config){ .port = port };
	if (!host || !ssh_config_is_host(host))
		return error_set(e, EINVAL, "\"%.60s\" is no name or address of a host", host ? host : "");
	if (user && !ssh_config_is_user(user))
		return error_set(e, EINVAL, "\"%.60s\" is no name of a user", user);
	strcpy(c->host, host);
	strcpy(c->user, user ? user : "");
	c->seen = (user ? word_bit(W_USER) : 0) | (port ? word_bit(W_PORT) : 0);
	return port > 65535 ? error_set(e, EINVAL, "%u is no port", port) : 0;
}

static void free_files(struct ssh_config_files *f)
{
	while (f->count)
		free(f->path[--f->count]);
}

void ssh_config_fini(struct ssh_config *c)
{
	free_files(&c->identity);
	free_files(&c->user_known_hosts);
	free_files(&c->global_known_hosts);
	free(c->identity_agent);
	free(c->jump);
	free(c->ciphers);
	free(c->macs);
	free(c->kex);
	free(c->host_key_algorithms);
	while (c->note_count)
		free(c->notes[--c->note_count]);
	*c = (struct ssh_config){ 0 };
}
