/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * wire-xsxm - the name of the x-sxm context
 *
 *      x-sxm: VERSION / MIRROR / EPOCH / GENERATION
 *
 * Written by strangers: numbers have no sign, no leading zero, and fit; there is one way to write a name, so two names are
 * the same if their bytes are.
 */
#include "nbdsrv/wire-xsxm.h"

#include <string.h>

#define VERSION_MAX 99u

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static bool is_in_id(uint8_t c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
}

/* Takes it off the front of the text. */
static bool take_literal(struct wire_text *t, const char *literal)
{
	uint32_t bytes = (uint32_t)strlen(literal);

	if (t->bytes < bytes || memcmp(t->at, literal, bytes) != 0)
		return false;
	t->at += bytes;
	t->bytes -= bytes;
	return true;
}

static bool take_number(struct wire_text *t, uint64_t max, uint64_t *out)
{
	uint64_t n = 0;

	if (!t->bytes || t->at[0] == '0')
		return false;
	for (; t->bytes && is_digit(t->at[0]); t->at++, t->bytes--) {
		unsigned digit = t->at[0] - (unsigned)'0';

		if (n > (max - digit) / 10)
			return false;
		n = 10 * n + digit;
	}
	*out = n;
	return n > 0;
}

static bool take_mirror(struct wire_text *t, char out[static XSXM_MIRROR_MAX])
{
	uint32_t bytes = 0;

	while (bytes < t->bytes && is_in_id(t->at[bytes]))
		bytes++;
	if (!bytes || bytes >= XSXM_MIRROR_MAX || t->at[0] == '.')
		return false;
	memcpy(out, t->at, bytes);
	out[bytes] = '\0';
	t->at += bytes;
	t->bytes -= bytes;
	return true;
}

bool wire_xsxm_parse(const struct wire_text *text, struct xsxm_name *out)
{
	struct wire_text t = *text;
	uint64_t version = 0;
	bool is_good;

	*out = (struct xsxm_name){ 0 };
	is_good = take_literal(&t, XSXM_NAMESPACE) && take_number(&t, VERSION_MAX, &version) && take_literal(&t, "/") &&
		  take_mirror(&t, out->mirror) && take_literal(&t, "/") && take_number(&t, UINT64_MAX, &out->epoch) &&
		  take_literal(&t, "/") && take_number(&t, UINT64_MAX, &out->generation) && t.bytes == 0;
	out->version = (unsigned)version;
	return is_good;
}
