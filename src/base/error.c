/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * error - see error.h
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/printable.h"

/* The numbers that cross a border by name: the control socket's and the records'. */
static const struct {
	int number;
	const char *name;
} names[] = {
	{ EPERM, "EPERM" },         { ENOENT, "ENOENT" },       { EINTR, "EINTR" },
	{ EIO, "EIO" },             { E2BIG, "E2BIG" },         { EBADF, "EBADF" },
	{ EAGAIN, "EAGAIN" },       { ENOMEM, "ENOMEM" },       { EACCES, "EACCES" },
	{ EBUSY, "EBUSY" },         { EEXIST, "EEXIST" },       { ENODEV, "ENODEV" },
	{ ENOTDIR, "ENOTDIR" },     { EISDIR, "EISDIR" },       { EINVAL, "EINVAL" },
	{ ENFILE, "ENFILE" },       { EMFILE, "EMFILE" },       { EFBIG, "EFBIG" },
	{ ENOSPC, "ENOSPC" },       { ESPIPE, "ESPIPE" },       { EROFS, "EROFS" },
	{ EPIPE, "EPIPE" },         { ERANGE, "ERANGE" },       { ENAMETOOLONG, "ENAMETOOLONG" },
	{ ENOSYS, "ENOSYS" },       { ENOTEMPTY, "ENOTEMPTY" }, { EPROTO, "EPROTO" },
	{ EBADMSG, "EBADMSG" },     { EOVERFLOW, "EOVERFLOW" }, { EOPNOTSUPP, "EOPNOTSUPP" },
	{ EADDRINUSE, "EADDRINUSE" }, { EADDRNOTAVAIL, "EADDRNOTAVAIL" }, { ENETDOWN, "ENETDOWN" },
	{ ENETUNREACH, "ENETUNREACH" }, { ECONNABORTED, "ECONNABORTED" }, { ECONNRESET, "ECONNRESET" },
	{ ENOTCONN, "ENOTCONN" },   { ESHUTDOWN, "ESHUTDOWN" }, { ETIMEDOUT, "ETIMEDOUT" },
	{ ECONNREFUSED, "ECONNREFUSED" }, { EHOSTUNREACH, "EHOSTUNREACH" }, { EALREADY, "EALREADY" },
	{ EINPROGRESS, "EINPROGRESS" }, { ESTALE, "ESTALE" },   { EDQUOT, "EDQUOT" },
	{ ECANCELED, "ECANCELED" }, { ENOLINK, "ENOLINK" },     { ENOTSOCK, "ENOTSOCK" },
	{ EREMOTE, "EREMOTE" },     { EKEYREJECTED, "EKEYREJECTED" }, { ENOEXEC, "ENOEXEC" },
	{ ELOOP, "ELOOP" },         { ENXIO, "ENXIO" },         { ESRCH, "ESRCH" },
	{ ENODATA, "ENODATA" },     { EPROTONOSUPPORT, "EPROTONOSUPPORT" }, { EREMOTEIO, "EREMOTEIO" },
};

/* A sentence is one line, whatever its parts were. */
static void flatten(char *text)
{
	printable_make(text, ' ');
}

int error_set(struct error *e, int err, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -1;
	e->err = err > 0 ? err : EIO;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	flatten(e->text);
	return -1;
}

int error_errno(struct error *e, int err, const char *fmt, ...)
{
	va_list ap;
	char reason[128];
	size_t used;

	if (!e)
		return -1;
	e->err = err > 0 ? err : EIO;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	used = strlen(e->text);
	snprintf(e->text + used, sizeof(e->text) - used, ": %s", strerror_r(e->err, reason, sizeof(reason)));
	flatten(e->text);
	return -1;
}

int error_prefix(struct error *e, const char *fmt, ...)
{
	va_list ap;
	char old[sizeof(e->text)];
	size_t used;

	if (!e)
		return -1;
	memcpy(old, e->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	used = strlen(e->text);
	snprintf(e->text + used, sizeof(e->text) - used, ": %s", old);
	flatten(e->text);
	return -1;
}

void error_clear(struct error *e)
{
	if (e)
		*e = (struct error){ 0 };
}

const char *error_name(int err)
{
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (names[i].number == err)
			return names[i].name;
	return "EIO";
}

int error_number(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i].name, name) == 0)
			return names[i].number;
	return EIO;
}
