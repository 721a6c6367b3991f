/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * failure - see failure.h
 *
 * The report has exactly the members the interface's reader insists on: with one of them missing
 * xapi would show SCRIPT_FAILED and our sentence would be lost.
 */
#include "plugins/failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "plugins/types.h"

static const struct kind {
	const char *code;
	const char *text;
	bool is_exception; /* params are [text, argument] */
} kinds[] = {
	[FAILURE_REQUEST]               = { "SR_BACKEND_FAILURE", "The request is not valid", false },
	[FAILURE_CONFIGURATION]         = { "SR_BACKEND_FAILURE", "The SR's configuration is not valid", false },
	[FAILURE_SR_IN_USE]             = { "SR_BACKEND_FAILURE_16", "The SR device is currently in use", false },
	[FAILURE_SR_UNAVAILABLE]        = { "SR_BACKEND_FAILURE_47", "The SR is not available", false },
	[FAILURE_NO_SPACE]              = { "SR_BACKEND_FAILURE_44", "There is insufficient space", false },
	[FAILURE_VDI_IN_USE]            = { "SR_BACKEND_FAILURE_24", "The VDI is currently in use", false },
	[FAILURE_VDI_UNAVAILABLE]       = { "SR_BACKEND_FAILURE_46", "The VDI is not available", false },
	[FAILURE_VDI_SIZE]              = { "SR_BACKEND_FAILURE_79", "VDI Invalid size", false },
	[FAILURE_VDI_CREATE]            = { "SR_BACKEND_FAILURE_78", "VDI Creation failed", false },
	[FAILURE_VDI_DELETE]            = { "SR_BACKEND_FAILURE_80", "VDI deletion failed", false },
	[FAILURE_VDI_SNAPSHOT]          = { "SR_BACKEND_FAILURE_82", "Failed to snapshot VDI", false },
	[FAILURE_VDI_CLONE]             = { "SR_BACKEND_FAILURE_81", "Failed to clone VDI", false },
	[FAILURE_MIRROR]                = { "SR_BACKEND_FAILURE", "The VDI cannot be mirrored", false },
	[FAILURE_SR_DOES_NOT_EXIST]     = { "SR_BACKEND_FAILURE", "SR_does_not_exist", true },
	[FAILURE_SR_NOT_ATTACHED]       = { "SR_BACKEND_FAILURE", "Sr_not_attached", true },
	[FAILURE_VOLUME_DOES_NOT_EXIST] = { "SR_BACKEND_FAILURE", "Volume_does_not_exist", true },
	[FAILURE_ELSEWHERE]             = { "SR_BACKEND_FAILURE", "Activated_on_another_host", true },
	[FAILURE_UNIMPLEMENTED]         = { "SR_BACKEND_FAILURE", "Unimplemented", true },
};

int failure_set(struct failure *f, enum failure_kind kind, int err, const char *fmt, ...)
{
	char text[sizeof(f->e.text)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	f->kind = kind;
	f->argument[0] = '\0';
	return error_set(&f->e, err, "%s", text);
}

int failure_raise(struct failure *f, enum failure_kind kind, const char *argument, const char *fmt, ...)
{
	char text[sizeof(f->e.text)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	f->kind = kind;
	snprintf(f->argument, sizeof(f->argument), "%s", argument);
	return error_set(&f->e, ENOENT, "%s", text);
}

int failure_from(struct failure *f, enum failure_kind kind, const struct error *e)
{
	if (e->err == ENOSPC || e->err == EDQUOT)
		kind = FAILURE_NO_SPACE;
	else if (e->err == EBUSY && kind != FAILURE_SR_IN_USE)
		kind = FAILURE_VDI_IN_USE;
	return failure_set(f, kind, e->err, "%s", e->text);
}

char *failure_report(const struct failure *f)
{
	const struct kind *kind = &kinds[f->kind];
	struct types_error_report report = { .code = (char *)(uintptr_t)kind->code };
	char argument[sizeof(f->argument)], sentence[sizeof(f->e.text)], none[1] = "";
	char *params[3] = { none, (char *)(uintptr_t)kind->text, sentence };

	snprintf(argument, sizeof(argument), "%s", f->argument);
	snprintf(sentence, sizeof(sentence), "%s", f->e.text);
	if (kind->is_exception) {
		params[0] = params[1];
		params[1] = argument;
	}
	report.params.item = params;
	report.params.count = kind->is_exception ? 2 : 3;
	report.backtrace.error = sentence;
	return jsonspec_encode(&types_error_report, &report);
}
