/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * context - metadata contexts: what BLOCK_STATUS can be asked about
 *
 *      query           LIST gives              SET chooses
 *      (none)          all                     nothing
 *      "base:"         all of the namespace    nothing
 *      "base:allocation"       itself          itself
 *      "x-sxm:"        "x-sxm:2"               nothing
 *      "x-sxm:V/M/E/G" nothing                 the newest V of those asked for that is spoken here; answered by that name
 *      anything else   nothing                 nothing      (unknown names are no error)
 *
 * A new context is a bit, a place in both functions below, and an answer in reply.c for its bit.
 */
#include <string.h>

#include "nbdsrv/conn.h"

static bool offers_xsxm(const struct conn *c)
{
	return c->server->links && c->server->top->geometry.size_bytes >= XSXM_EXPORT_MIN_BYTES;
}

static void put_name(struct bytes_writer *w, uint32_t option, unsigned context, const char *name)
{
	size_t bytes = strlen(name);

	wire_build_option_reply(w, option, WIRE_REP_META_CONTEXT, (uint32_t)(4 + bytes));
	bytes_put_u32(w, context);
	bytes_put(w, name, bytes);
}

void context_list(struct conn *c, struct bytes_writer *w, struct wire_meta *m)
{
	bool is_base = m->queries == 0, is_xsxm = is_base;
	struct wire_text query;

	while (wire_next_query(m, &query)) {
		is_base |= wire_text_is(&query, "base:") || wire_text_is(&query, "base:allocation");
		is_xsxm |= wire_text_is(&query, XSXM_NAMESPACE) || wire_text_is(&query, XSXM_LISTED);
	}
	if (is_base)
		put_name(w, WIRE_OPT_LIST_META_CONTEXT, META_BASE_ALLOCATION, "base:allocation");
	if (is_xsxm && offers_xsxm(c))
		put_name(w, WIRE_OPT_LIST_META_CONTEXT, META_XSXM, XSXM_LISTED);
	wire_build_option_reply(w, WIRE_OPT_LIST_META_CONTEXT, WIRE_REP_ACK, 0);
}

static void consider(struct conn *c, const struct wire_text *query)
{
	struct xsxm_name name;

	if (!wire_xsxm_parse(query, &name) || !wire_xsxm_speaks(name.version, c->server->xsxm_newest))
		return;
	if ((c->contexts & META_XSXM) && name.version <= c->xsxm.name.version)
		return;
	c->contexts |= META_XSXM;
	c->xsxm.name = name;
	memcpy(c->xsxm_name, query->at, query->bytes);
	c->xsxm_name[query->bytes] = '\0';
}

void context_set(struct conn *c, struct bytes_writer *w, struct wire_meta *m)
{
	struct wire_text query;

	c->contexts = 0;
	while (wire_next_query(m, &query))
		if (wire_text_is(&query, "base:allocation"))
			c->contexts |= META_BASE_ALLOCATION;
		else if (offers_xsxm(c))
			consider(c, &query);
	if (c->contexts & META_BASE_ALLOCATION)
		put_name(w, WIRE_OPT_SET_META_CONTEXT, META_BASE_ALLOCATION, "base:allocation");
	if (c->contexts & META_XSXM)
		put_name(w, WIRE_OPT_SET_META_CONTEXT, META_XSXM, c->xsxm_name);
	wire_build_option_reply(w, WIRE_OPT_SET_META_CONTEXT, WIRE_REP_ACK, 0);
}
