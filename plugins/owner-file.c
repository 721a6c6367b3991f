/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * owner-file - see owner-file.h
 *
 *      image, by any path -> the one its process has it by -> where its records lie (base/beside) -> slots -> members
 *
 * Of a device the record is not beside it: who looks there finds none, and takes for his own what was given away.
 * Can fail: a record that is damaged, or cannot be read. Then it is nobody's whom one could name.
 */
#include "plugins/owner-file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/beside.h"
#include "base/cleanup.h"
#include "base/slots.h"
#include "base/uri.h"
#include "plugins/image.h"

#define MEMBER(member, kind) { #member, kind, offsetof(struct owner_file, member), .is_optional = true }
static const struct jsonspec_field fields[] = {
	MEMBER(state, JS_STRING), MEMBER(role, JS_STRING), MEMBER(mirror, JS_STRING), MEMBER(epoch, JS_STRING),
	MEMBER(written, JS_BOOL), MEMBER(acknowledged, JS_BOOL), MEMBER(unverified, JS_BOOL), MEMBER(told, JS_BOOL),
	MEMBER(raised, JS_BOOL), MEMBER(ended, JS_BOOL), MEMBER(taken, JS_BOOL), { NULL },
};
const struct jsonspec owner_file_spec = { "owner", sizeof(struct owner_file), fields };

/* What is not there any more has the name that it had. */
char *owner_file_path(const char *image)
{
	struct error e;
	CLEANUP_FREE char *canonical = uri_canonical(image, &e);

	return beside_path(canonical ? canonical : image, IMAGE_OWNER_SUFFIX);
}

int owner_file_read(const char *image, struct owner_file *o, struct error *e)
{
	CLEANUP_FREE char *path = owner_file_path(image);
	CLEANUP_FREE char *text = NULL;
	size_t bytes;

	*o = (struct owner_file) { 0 };
	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	text = slots_read(path, &bytes, e);
	if (!text && e->err != ENOENT)
		return -1;
	if (text && jsonspec_decode(&owner_file_spec, text, bytes, o, e) == -1)
		return -1;
	if (text && !o->state) {
		owner_file_clear(o);
		return error_set(e, EBADMSG, "%s does not say whose the disk is", path);
	}
	if (!text)
		o->state = strdup("owned");
	return o->state ? 0 : error_set(e, ENOMEM, "out of memory");
}

void owner_file_clear(struct owner_file *o)
{
	jsonspec_clear(&owner_file_spec, o);
}

bool owner_file_is(const struct owner_file *o, const char *state)
{
	return strcmp(o->state, state) == 0;
}
