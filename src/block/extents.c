/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * extents - see extents.h
 */
#include "block/extents.h"

#include <stdlib.h>

void extents_init(struct extents *x, size_t max)
{
	*x = (struct extents){ .max = max };
}

void extents_fini(struct extents *x)
{
	free(x->item);
	*x = (struct extents){ .max = x->max };
}

int extents_add(struct extents *x, struct range r, unsigned type)
{
	struct extent *last = x->count ? &x->item[x->count - 1] : NULL;

	if (range_is_empty(r))
		return 0;
	assert(!last || last->range.end <= r.start);
	if (last && last->type == type && last->range.end == r.start) {
		last->range.end = r.end;
		return 0;
	}
	if (x->max && x->count == x->max)
		return 1;
	if (x->count == x->capacity) {
		size_t capacity = x->capacity ? 2 * x->capacity : 16;
		struct extent *item = reallocarray(x->item, capacity, sizeof(*item));

		if (!item)
			return -1;
		x->item = item;
		x->capacity = capacity;
	}
	x->item[x->count++] = (struct extent){ r, type };
	return 0;
}
