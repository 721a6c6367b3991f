/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * log - see log.h
 *
 * syslog(3) is thread-safe and survives a restarted syslogd; what it does not do is make text from outside printable, so
 * that is done here, in one place.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/printable.h"

#define LINE_MAX_BYTES 1024
#define WINDOW_NS (10 * NS_PER_S)

static struct {
	const char *tag;
	char vdi[80];
	bool is_stderr, is_debug;
} sink = { .tag = "sxm" };

void log_init(const char *tag)
{
	const char *where = getenv("SXM_LOG");
	const char *debug = getenv("SXM_DEBUG");

	sink.tag = tag;
	sink.is_stderr = where && strcmp(where, "stderr") == 0;
	sink.is_debug = debug && *debug && strcmp(debug, "0") != 0;
	if (!sink.is_stderr)
		openlog(tag, 0, LOG_LOCAL2);
}

bool log_is_on_stderr(void)
{
	return sink.is_stderr;
}

void log_vdi(const char *vdi)
{
	snprintf(sink.vdi, sizeof(sink.vdi), "%s", vdi ? vdi : "");
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char text[LINE_MAX_BYTES];
	va_list ap;

	if (level == LOG_LEVEL_DEBUG && !sink.is_debug)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	printable_make(text, '?');
	if (sink.is_stderr)
		dprintf(STDERR_FILENO, "<%d>%s: [%d] %s%s%s%s\n", (int)level, sink.tag, (int)getpid(), *sink.vdi ? "[" : "",
			sink.vdi, *sink.vdi ? "] " : "", text);
	else
		syslog(LOG_LOCAL2 | (int)level, "[%d] %s%s%s%s", (int)getpid(), *sink.vdi ? "[" : "", sink.vdi,
		       *sink.vdi ? "] " : "", text);
}

bool log_allowed(struct log_limit *limit)
{
	struct timespec ts;
	uint64_t now_ns;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now_ns = (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
	if (limit->window_start_ns == 0 || now_ns - limit->window_start_ns > WINDOW_NS) {
		if (limit->dropped)
			log_warn("%u more lines like the next were left out", limit->dropped);
		limit->window_start_ns = now_ns;
		limit->used = limit->dropped = 0;
	}
	if (limit->used < limit->burst) {
		limit->used++;
		return true;
	}
	limit->dropped++;
	return false;
}
