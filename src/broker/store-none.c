/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * store-none - see store.h; for a build without Xen's libraries
 */
#include "broker/store.h"

const struct store_ops *store_ops(void)
{
	return NULL;
}
