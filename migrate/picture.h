/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * picture - a move as one picture: an SVG of what its history has
 *
 * Pure, and the same history gives the same bytes. Texts that others chose are made fit for XML.
 */
#ifndef SXM_MIGRATE_PICTURE_H
#define SXM_MIGRATE_PICTURE_H

#include "base/error.h"
#include "migrate/view.h"

struct picture;
/* NULL: out of memory. */
struct picture *picture_new(void);
/* In the order of time; what goes back in time is left out. */
void picture_add(struct picture *r, const struct move_view *v);
/* Heap. NULL: out of memory. */
char *picture_svg(const struct picture *r);
void picture_free(struct picture *r);

#endif
