/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * log - one line per change of state
 *
 * Lines go to syslog, facility local2, which XenServer and XCP-ng write to /var/log/SMlog, in its manner:
 * `sxm-datapath: [PID] [VDI] text`.  With SXM_LOG=stderr they go to stderr instead, with a "<N>" journal prefix.
 * Any thread may log.  Text from outside (dbg, names, guests' strings) is made printable on the way.
 */
#ifndef SXM_BASE_LOG_H
#define SXM_BASE_LOG_H

#include "base/compiler.h"

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARN = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* tag: the program's name, kept by pointer. Call once, before any other function here. SXM_DEBUG=1 turns debug on. */
void log_init(const char *tag);

/* Lines go to stderr: whoever starts what logs as well leaves it that. */
bool log_is_on_stderr(void);

/* Which VDI every further line is about; copied. NULL: none. */
void log_vdi(const char *vdi);

void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* For what a guest or a client can cause: at most `burst` lines per 10 s and place; then one line says how many were left out.
 *
 *      static struct log_limit limit = LOG_LIMIT(5);
 *      if (log_allowed(&limit))
 *              log_warn(...);
 */
struct log_limit {
	unsigned burst;
	unsigned used;
	unsigned dropped;
	uint64_t window_start_ns;
};
#define LOG_LIMIT(n) { .burst = (n) }
bool log_allowed(struct log_limit *limit);

#endif
