/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xen-none - see xen.h; for a build without Xen's libraries: a guest's ring is refused with a reason
 */
#include "vbd/xen.h"

const struct xen_ops *xen_ops(void)
{
	return NULL;
}
