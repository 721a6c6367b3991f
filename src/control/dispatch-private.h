/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dispatch-private - what dispatch's files share: a verb's arguments, and the call that owns them until it is answered
 */
#ifndef SXM_CONTROL_DISPATCH_PRIVATE_H
#define SXM_CONTROL_DISPATCH_PRIVATE_H

#include "base/jsonspec.h"
#include "control/dispatch.h"

struct args {
	char *domain, *host, *remote, *id, *mode, *base, *group, *path, *volume, *vm, *device; /* owned, as the next */
	char *mirror, *epoch, *backend;
	bool is_read_only, is_copy, is_forced, is_resume, is_resize, is_bound, is_eager;
	int64_t port, wait_ms, blocksize, rate_bytes, size_bytes;
	bool has_ranges, has_rate, has_tls;
	struct nbdsrv_tls tls;
	struct jsonspec_ranges ranges;
};

struct verb;
struct call {
	const struct dispatch *d;  /* borrowed */
	struct server_request *q;  /* until answered */
	int64_t id;
	const struct verb *verb;
	struct args args;
	char text[128];            /* a socket's path, an operation's id */
	uint16_t port;
	struct vdi_snapshot_result snapshot;
};

/* Answers, once: fits vdi_done_fn. */
void dispatch_done(void *arg, const struct error *e);
void dispatch_fail(struct call *c, int err, const char *text);
/* {"name": the call's text}; heap, NULL: out of memory. */
char *dispatch_text_ok(const struct call *c, const char *name);

/* --- dispatch-mirror.c: rows of the table; *_ok: heap, NULL: out of memory */
void dispatch_mirror_mode(struct call *c);
void dispatch_mirror_start(struct call *c);
char *dispatch_mirror_start_ok(struct call *c);
void dispatch_mirror_stat(struct call *c);
char *dispatch_mirror_stat_ok(struct call *c);
void dispatch_mirror_cancel(struct call *c);
void dispatch_mirror_destroy(struct call *c);
void dispatch_mirror_verify(struct call *c);
void dispatch_mirror_verify_stat(struct call *c);
char *dispatch_mirror_verify_stat_ok(struct call *c);
void dispatch_mirror_verify_cancel(struct call *c);

#endif
