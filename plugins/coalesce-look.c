/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * coalesce-look - what is to be told of merging: what is left to merge, and what whoever does it has written into the SR's lock
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "plugins/coalesce.h"
#include "plugins/lock.h"
#include "plugins/merge.h"
#include "plugins/tree.h"

static void look_at_lock(const char *dir, struct coalesce_state *s)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;
	CLEANUP_LOCK int lock = -1;
	struct error e = { 0 };

	if (asprintf(&path, "%s/" COALESCE_SR_LOCK, dir) < 0) {
		path = NULL;
		return;
	}
	lock = lock_try_shared(path, &e);
	if (lock < 0 && e.err != EBUSY)
		return; /* it never ran */
	s->is_running = lock < 0;
	text = proc_read_file(path, 1024, NULL, &e);
	if (text)
		snprintf(s->last, sizeof(s->last), "%.*s", (int)strcspn(text, "\n"), text);
}

static void count(const struct tree *t, struct coalesce_state *s)
{
	for (size_t i = 0; i < t->count; i++) {
		s->bases += t->node[i].is_base;
		s->childless += t->node[i].is_base && !t->node[i].children;
		s->pairs += merge_is_possible(t, &t->node[i]);
	}
}

int coalesce_look(const char *dir, struct coalesce_state *s, struct error *e)
{
	CLEANUP_LOCK int lock = -1;
	struct tree t;

	*s = (struct coalesce_state) { 0 };
	if (!tree_has_bases(dir))
		return 0;
	lock = tree_lock(dir, e);
	if (lock < 0 || tree_scan(dir, &t, e) == -1)
		return -1;
	count(&t, s);
	tree_clear(&t);
	look_at_lock(dir, s);
	return 0;
}

static void report_state(const char *dir, FILE *to)
{
	struct coalesce_state s = { 0 };

	look_at_lock(dir, &s);
	if (*s.last)
		fprintf(to, "    coalescing %s: %s\n", s.is_running ? "runs" : "does not run; last", s.last);
}

void coalesce_report(const char *dir, FILE *to)
{
	struct coalesce_state s = { 0 };
	CLEANUP_LOCK int lock = -1;
	struct tree t;
	struct error e;

	if (!tree_has_bases(dir))
		return;
	lock = tree_lock(dir, &e);
	if (lock < 0 || tree_scan(dir, &t, &e) == -1) {
		fprintf(to, "    nothing can be coalesced or removed: %s\n", e.text);
		return;
	}
	count(&t, &s);
	for (size_t i = 0; i < t.count; i++)
		if (*t.node[i].on && t.node[i].parent == TREE_NONE)
			fprintf(to, "    %s/%s stands on %s, which is missing\n", dir, t.node[i].name, t.node[i].on);
	if (s.bases)
		fprintf(to, "    %zu images that others stand on; %zu can be merged, %zu can be removed\n", s.bases, s.pairs,
			s.childless);
	tree_clear(&t);
	report_state(dir, to);
}
