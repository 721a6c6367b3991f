/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qmp - questions to one QEMU, over its QMP socket on this host
 *
 *      qmp_init() -> qmp_ask(), which connects and agrees on the protocol where there is no connection -> qmp_fini()
 *
 * Blocking, with a deadline on every wait; what comes back is bounded and hostile. After any failure that is not an answer the
 * connection is closed, as what would come later could be taken for the answer to another command. Nothing is asked twice.
 * A QMP socket serves one client at a time: who keeps one keeps the others out.
 */
#ifndef SXM_MIGRATE_QMP_H
#define SXM_MIGRATE_QMP_H

#include "base/compiler.h"
#include "base/error.h"

struct qmp {
	const char *path; /* borrowed */
	int fd;           /* owned; -1: none */
	int64_t next_id;
	char *buffer;     /* owned: what came and is not a whole line */
	size_t used, room;
};

void qmp_init(struct qmp *q, const char *path);
/* The next question connects anew. */
void qmp_fini(struct qmp *q);

/* What the command returns, as JSON text, heap. args: a JSON object; NULL: none. NULL + e: ESRCH, there is no QEMU;
 * ECONNRESET, it ended or hung up: which of the two, whoever asks again hears; EREMOTEIO, it refused; ETIMEDOUT, EPROTO. */
char *qmp_ask(struct qmp *q, const char *command, const char *args, unsigned wait_ms, struct error *e);
/* The descriptor is that QEMU's, too, as `name`, until the connection ends or a command has used it. -1 + e. */
int qmp_pass(struct qmp *q, const char *name, int fd, unsigned wait_ms, struct error *e);

/* Until it has ended, or hung up. -1 + e: it has not. Whoever connects anew to a QEMU that is about to end holds it up. */
int qmp_await_end(struct qmp *q, unsigned wait_ms, struct error *e);

#endif
