/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * budget-share - the level to which everybody is filled
 *
 *      demand  |    #               what is left by those below the level is the others', until nobody is below it any more
 *              |....#..#....level
 *              | #  #  #
 *              | #  #  #
 *
 * Pure.
 */
#include "vdi/budget.h"

#define LEAST_BYTES UINT64_C(65536) /* a share is never less: a mirror that stands still would be taken for dead */

uint64_t budget_share(uint64_t limit, const uint64_t *demand, size_t count)
{
	bool is_settled[BUDGET_MIRRORS_MAX] = { false };
	uint64_t left = limit, level = 0;
	size_t open = count;
	bool has_changed = true;

	while (open && has_changed) {
		has_changed = false;
		level = left / open;
		for (size_t i = 0; i < count && open; i++)
			if (!is_settled[i] && demand[i] <= level) {
				is_settled[i] = has_changed = true;
				left -= demand[i];
				open--;
			}
	}
	return MAX(level, LEAST_BYTES);
}
