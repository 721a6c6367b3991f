/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-answer - what an sxm far side's answer amounts to, as a sentence
 *
 * Pure, and apart from the rest: whoever asks through a mirror uses it with any implementation of remote.h.
 */
#include <errno.h>

#include "mirror/remote.h"

const char *remote_state_name(uint32_t state)
{
	static const char *const names[] = { "in no state", "owned there", "offered", "given away", "being received", "eligible",
		"incomplete", "released" };

	return state < ARRAY_LEN(names) ? names[state] : "in a state this version does not know";
}

/* NBD's numbers, which are Linux's; anything else is an I/O error. */
static int wire_errno(uint32_t number)
{
	switch (number) {
	case EPERM: case ENOMEM: case EINVAL: case ENOSPC: case EOVERFLOW: case ENOTSUP:
		return (int)number;
	default:
		return EIO;
	}
}

int remote_ask_check(const struct remote_ask *a, int err, struct error *e)
{
	if (err == ESHUTDOWN)
		return error_set(e, err, "the link to the far side was lost");
	if (err == EPROTO)
		return error_set(e, err, "what the far side answered makes no sense");
	if (err == ENOTSUP)
		return error_set(e, err, "the far side is no sxm");
	if (err)
		return error_errno(e, err, "the far side refused the question");
	switch ((enum remote_status)a->field[0]) {
	case REMOTE_SAYS_OK:
		return 0;
	case REMOTE_SAYS_STALE:
		return error_set(e, ESTALE, "a newer link of this mirror was made: this one is over");
	case REMOTE_SAYS_NOT_YOURS:
		return error_set(e, EBUSY, "the far volume does not take this mirror, it is %s: name another",
		                 remote_state_name(a->field[1]));
	case REMOTE_SAYS_FAILED:
		return error_errno(e, wire_errno(a->field[1]), "the far side could not write it down, or not flush");
	case REMOTE_SAYS_BAD_STATE:
		return error_set(e, EPROTO, "the far volume is %s: this cannot be asked of it now",
		                 remote_state_name(a->field[1]));
	case REMOTE_SAYS_UNKNOWN:
		return error_set(e, ENOTSUP, "the far side's version does not know this question");
	}
	return error_set(e, EPROTO, "the far side answered with a status that this version does not know");
}
