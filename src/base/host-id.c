/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * host-id - see host-id.h
 *
 * /etc/xensource-inventory has a line INSTALLATION_UUID='...', which is the host's uuid in the pool; /etc/machine-id is the one
 * other systems have.  Hosts that were cloned without a new machine-id would be one to us; xapi's never are.
 */
#include "base/host-id.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/proc.h"

#define FILE_MAX_BYTES 65536u

/* The first word of text that is made of what an id is made of. False: there is none. */
static bool take_word(const char *text, char id[static HOST_ID_MAX])
{
	size_t bytes = strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.");

	if (!bytes || bytes >= HOST_ID_MAX)
		return false;
	memcpy(id, text, bytes);
	id[bytes] = '\0';
	return true;
}

static bool take_from(const char *path, const char *before, char id[static HOST_ID_MAX])
{
	CLEANUP_FREE char *text = proc_read_file(path, FILE_MAX_BYTES, NULL, NULL);
	const char *at = text ? strstr(text, before) : NULL;

	return at && take_word(at + strlen(before), id);
}

int host_id(char id[static HOST_ID_MAX], struct error *e)
{
	const char *given = getenv("SXM_HOST_ID");

	if ((given && take_word(given, id)) || take_from("/etc/xensource-inventory", "INSTALLATION_UUID='", id) ||
	    take_from("/etc/machine-id", "", id))
		return 0;
	return error_set(e, ENOENT, "which host this is cannot be told: neither /etc/xensource-inventory nor "
			 "/etc/machine-id says it");
}

int host_boot(char id[static HOST_ID_MAX], struct error *e)
{
	if (take_from("/proc/sys/kernel/random/boot_id", "", id))
		return 0;
	return error_set(e, ENOENT, "which boot this is cannot be read from /proc/sys/kernel/random/boot_id");
}
