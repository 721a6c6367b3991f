/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * client - asks a datapath process over its control socket (src/PROTOCOL.control). Blocking; for plugins and commands.
 */
#ifndef SXM_CONTROL_CLIENT_H
#define SXM_CONTROL_CLIENT_H

#include "base/error.h"

/* One verb on one connection. args: a JSON object's text, NULL for {}. Returns the "ok" value's text, heap.
 * NULL + e: the process' own error (code and sentence), or ECONNREFUSED / ENOENT when nobody listens, ETIMEDOUT.
 * wait_ms bounds the whole; 0: no bound. */
char *client_call(const char *socket_path, const char *verb, const char *args, unsigned wait_ms, struct error *e);

#endif
