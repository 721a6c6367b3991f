/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * context - metadata contexts: what BLOCK_STATUS can be asked about
 *
 *      query           LIST gives              SET chooses
 *      (none)          all                     nothing
 *      "base:"         all of the namespace    nothing
 *      "base:allocation"       itself          itself
 *      anything else   nothing                 nothing      (unknown names are no error)
 *
 * A new context is a line in the table, and an answer in transmit.c for its bit.
 */
#include <string.h>

#include "nbdsrv/conn.h"

static const struct context {
	unsigned bit;           /* META_; also its id on the wire */
	const char *namespace_; /* with the colon */
	const char *name;       /* whole */
} contexts[] = {
	{ META_BASE_ALLOCATION, "base:", "base:allocation" },
};

static unsigned match(struct wire_meta *m, bool has_wildcards)
{
	struct wire_text query;
	unsigned chosen = 0;

	while (wire_next_query(m, &query))
		for (size_t i = 0; i < ARRAY_LEN(contexts); i++)
			if (wire_text_is(&query, contexts[i].name) ||
			    (has_wildcards && wire_text_is(&query, contexts[i].namespace_)))
				chosen |= contexts[i].bit;
	return chosen;
}

static void answer(struct bytes_writer *w, uint32_t option, unsigned chosen)
{
	for (size_t i = 0; i < ARRAY_LEN(contexts); i++) {
		size_t bytes = strlen(contexts[i].name);

		if (!(chosen & contexts[i].bit))
			continue;
		wire_build_option_reply(w, option, WIRE_REP_META_CONTEXT, (uint32_t)(4 + bytes));
		bytes_put_u32(w, contexts[i].bit);
		bytes_put(w, contexts[i].name, bytes);
	}
	wire_build_option_reply(w, option, WIRE_REP_ACK, 0);
}

void context_list(struct bytes_writer *w, struct wire_meta *m)
{
	answer(w, WIRE_OPT_LIST_META_CONTEXT, m->queries == 0 ? ~0u : match(m, true));
}

unsigned context_set(struct bytes_writer *w, struct wire_meta *m)
{
	unsigned chosen = match(m, false);

	answer(w, WIRE_OPT_SET_META_CONTEXT, chosen);
	return chosen;
}
