/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay - the end of a carrier on the host that is asked (PROTOCOL.relay): lines in, a verb of the caller's table, lines out
 *
 *      relay_line()   one line, bounded -> one answer            pure but for what the verb does
 *      relay_serve()  standard input and output, to their end
 *
 * What comes in is hostile. A verb gets its arguments as one JSON object's text, and decodes them with a table of its own.
 */
#ifndef SXM_MIGRATE_RELAY_H
#define SXM_MIGRATE_RELAY_H

#include "base/compiler.h"
#include "base/error.h"

#define RELAY_PROTOCOL 1
#define RELAY_PROTOCOL_OLDEST 1
#define RELAY_LINE_MAX (1u << 20) /* without its end */
#define RELAY_PROBE_MAX (1u << 30)

struct relay_reply {
	int64_t id;             /* of the question that was answered */
	char *ok;               /* owned; one JSON value's text */
	int stream;             /* owned; >= 0: after the answer its bytes are the relay's, both ways */
	bool is_squeezed;       /* ... squeezed on the caller's side */
	uint64_t swallow_bytes; /* after the answer so many bytes come that nobody wants; then it is answered again */
};

struct relay_verb {
	const char *name;
	/* 0: r->ok at least. -1 + e. r is as relay_reply_init() left it. */
	int (*run)(const char *args, struct relay_reply *r, struct error *e);
};
/* Ends with a NULL name. */
struct relay_table {
	const struct relay_verb *verb;
};

/* line: without its end, not NUL-terminated. The answer, one line with its end; heap; NULL: out of memory. r: what is to follow;
 * relay_reply_clear() it in any case. */
char *relay_line(const struct relay_table *t, const char *line, size_t bytes, struct relay_reply *r);
/* As relay_line(), for one that is too long. */
char *relay_refuse(void);
void relay_reply_clear(struct relay_reply *r);

/* An exit status: 0, standard input ended between two lines, or a stream did. */
int relay_serve(const struct relay_table *t, int in, int out);

#endif
