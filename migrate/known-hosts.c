/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * known-hosts - see known-hosts.h
 *
 *      line -> marker, names, type, key -> is it about this name? -> same key, same type? -> verdict, the gravest stays
 *
 * Can fail: nothing.  A line that cannot be understood is about nobody, as in OpenSSH: it can only make a known host an unknown
 * one, which is asked about or refused.
 */
#include "migrate/known-hosts.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/ssh-config.h"

#define KEY_TEXT_MAX (KNOWN_HOSTS_KEY_MAX / 3u * 4u + 8u)
#define HASHED "|1|"

struct piece {
	const char *at;
	size_t bytes;
};

/* --- base64 */

/* is_padded: with '='. Returns the length. */
static size_t encode(const uint8_t *data, size_t bytes, char *out, bool is_padded)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *to = out;

	for (size_t i = 0; i < bytes; i += 3) {
		size_t left = bytes - i;
		uint32_t word = (uint32_t)data[i] << 16;

		if (left > 1)
			word |= (uint32_t)data[i + 1] << 8;
		if (left > 2)
			word |= data[i + 2];
		*to++ = digit[word >> 18];
		*to++ = digit[word >> 12 & 63];
		if (left > 1 || is_padded)
			*to++ = left > 1 ? digit[word >> 6 & 63] : '=';
		if (left > 2 || is_padded)
			*to++ = left > 2 ? digit[word & 63] : '=';
	}
	*to = '\0';
	return (size_t)(to - out);
}

/* --- names and keys */

bool known_hosts_name(const char *host, unsigned port, char name[static KNOWN_HOSTS_NAME_MAX])
{
	int n = port == 22 ? snprintf(name, KNOWN_HOSTS_NAME_MAX, "%s", host) :
			     snprintf(name, KNOWN_HOSTS_NAME_MAX, "[%s]:%u", host, port);

	for (char *at = name; *at; at++)
		*at = (char)tolower((unsigned char)*at);
	return n > 0 && (unsigned)n < KNOWN_HOSTS_NAME_MAX;
}

int known_hosts_type(const uint8_t *key, size_t bytes, char type[static KNOWN_HOSTS_TYPE_MAX])
{
	size_t length;

	if (bytes < 4 || bytes > KNOWN_HOSTS_KEY_MAX)
		return -1;
	length = (size_t)key[0] << 24 | (size_t)key[1] << 16 | (size_t)key[2] << 8 | key[3];
	if (!length || length >= KNOWN_HOSTS_TYPE_MAX || length > bytes - 4)
		return -1;
	for (size_t i = 0; i < length; i++) {
		if (key[4 + i] <= ' ' || key[4 + i] >= 0x7f)
			return -1;
		type[i] = (char)key[4 + i];
	}
	type[length] = '\0';
	return 0;
}

void known_hosts_fingerprint(const uint8_t digest[static 32], char text[static KNOWN_HOSTS_FINGERPRINT_MAX])
{
	encode(digest, 32, stpcpy(text, "SHA256:"), false);
}

char *known_hosts_line(const char *name, const uint8_t *key, size_t bytes, struct error *e)
{
	char type[KNOWN_HOSTS_TYPE_MAX], key_text[KEY_TEXT_MAX], *line;

	if (known_hosts_type(key, bytes, type) == -1) {
		error_set(e, EINVAL, "the host's key is no key");
		return NULL;
	}
	encode(key, bytes, key_text, true);
	if (asprintf(&line, "%s %s %s\n", name, type, key_text) < 0) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	return line;
}

/* --- one line */

/* The next word of [*at, end); false: there is none. */
static bool take_word(const char **at, const char *end, struct piece *word)
{
	while (*at < end && (**at == ' ' || **at == '\t'))
		++*at;
	word->at = *at;
	while (*at < end && **at != ' ' && **at != '\t' && **at != '\r')
		++*at;
	word->bytes = (size_t)(*at - word->at);
	return word->bytes > 0;
}

static bool is_word(const struct piece *p, const char *word)
{
	return p->bytes == strlen(word) && memcmp(p->at, word, p->bytes) == 0;
}

/* |1|salt|hash */
static bool hashed_name_matches(const struct piece *names, const struct known_query *q)
{
	char salt[64], hash[64];
	const char *start = names->at + strlen(HASHED), *end = names->at + names->bytes;
	const char *bar = memchr(start, '|', (size_t)(end - start));

	if (!bar || !q->hash_matches || (size_t)(bar - start) >= sizeof(salt) || (size_t)(end - bar - 1) >= sizeof(hash))
		return false;
	snprintf(salt, sizeof(salt), "%.*s", (int)(bar - start), start);
	snprintf(hash, sizeof(hash), "%.*s", (int)(end - bar - 1), bar + 1);
	return q->hash_matches(q->arg, q->name, salt, hash);
}

static bool names_match(const struct piece *names, const struct known_query *q)
{
	if (names->bytes > strlen(HASHED) && memcmp(names->at, HASHED, strlen(HASHED)) == 0)
		return hashed_name_matches(names, q);
	return ssh_config_matches(names->at, names->bytes, q->name);
}

static void add_type(struct known_found *f, const struct piece *type)
{
	size_t used = strlen(f->types);

	for (const char *at = f->types; *at; at += strcspn(at, ","), at += *at == ',') {
		size_t bytes = strcspn(at, ",");

		if (bytes == type->bytes && memcmp(at, type->at, bytes) == 0)
			return;
	}
	if (type->bytes < KNOWN_HOSTS_TYPE_MAX && used + type->bytes + 2 < sizeof(f->types) &&
	    !memchr(type->at, ',', type->bytes))
		snprintf(f->types + used, sizeof(f->types) - used, "%s%.*s", used ? "," : "", (int)type->bytes, type->at);
}

struct own_key {
	char type[KNOWN_HOSTS_TYPE_MAX];
	char text[KEY_TEXT_MAX];
};

static enum known_verdict judge(const char *at, const char *end, const struct known_query *q, const struct own_key *own,
				struct known_found *f)
{
	struct piece first, names, type, key;
	bool is_revoked, is_authority, is_same;

	if (!take_word(&at, end, &first) || *first.at == '#')
		return KNOWN_NOT;
	is_revoked = is_word(&first, "@revoked");
	is_authority = is_word(&first, "@cert-authority");
	names = first;
	if (*first.at == '@' && ((!is_revoked && !is_authority) || !take_word(&at, end, &names)))
		return KNOWN_NOT;
	if (!take_word(&at, end, &type) || !take_word(&at, end, &key) || !names_match(&names, q))
		return KNOWN_NOT;
	if (is_authority) {
		f->has_authority = true;
		return KNOWN_NOT;
	}
	is_same = is_word(&key, own->text);
	if (is_revoked)
		return is_same ? KNOWN_REVOKED : KNOWN_NOT;
	add_type(f, &type);
	return is_same ? KNOWN_SAME : is_word(&type, own->type) ? KNOWN_CHANGED : KNOWN_OTHER;
}

/* KNOWN_SAME heals KNOWN_CHANGED: a host may have several keys of one type. */
static unsigned gravity(enum known_verdict v)
{
	switch (v) {
	case KNOWN_REVOKED: return 4;
	case KNOWN_SAME: return 3;
	case KNOWN_CHANGED: return 2;
	case KNOWN_OTHER: return 1;
	default: return 0;
	}
}

bool known_hosts_search(const char *text, size_t bytes, const struct known_query *q, struct known_found *f)
{
	const char *at = text, *end = text + bytes;
	struct own_key own = { "", "" };
	unsigned number = 0;
	bool is_ours = false;

	if (q->key && known_hosts_type(q->key, q->key_bytes, own.type) == 0)
		encode(q->key, q->key_bytes, own.text, true);
	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *stop = newline ? newline : end;
		enum known_verdict verdict = judge(at, stop, q, &own, f);

		number++;
		if (gravity(verdict) > gravity(f->verdict)) {
			f->verdict = verdict;
			f->line = number;
			is_ours = true;
		}
		at = newline ? newline + 1 : end;
	}
	return is_ours;
}
