/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cleanup - owned locals that free themselves, and the words that hand them on
 *
 *      CLEANUP_FREE char *path = strdup(...);
 *      CLEANUP_CLOSE int fd = open(...);
 *      ...
 *      return take_fd(&fd);            the caller owns it now
 *
 * Use either these or one `goto fail` in a function, never both.
 */
#ifndef SXM_BASE_CLEANUP_H
#define SXM_BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/compiler.h"

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define CLEANUP_FREE __attribute__((cleanup(cleanup_free)))
#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_close)))
#define CLEANUP_FCLOSE __attribute__((cleanup(cleanup_fclose)))

/* Gives up ownership: the variable is empty afterwards. */
#define take_ptr(p) ({ __typeof__(*(p)) taken_ = *(p); *(p) = NULL; taken_; })

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#endif
