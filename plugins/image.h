/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * image - a volume's data: a sparse raw file
 */
#ifndef SXM_PLUGINS_IMAGE_H
#define SXM_PLUGINS_IMAGE_H

#include "base/error.h"

#define IMAGE_ALIGNMENT 512
#define IMAGE_OWNER_SUFFIX ".owner" /* the datapath's file beside an image: whose the disk is */
#define IMAGE_MARKS_SUFFIX ".marks" /* another: what a mirror of it may owe */
#define IMAGE_JOURNAL_SUFFIX ".mirror" /* and how to go on with that */
extern const char *const image_beside[]; /* all of them, and NULL */

char *image_path(const char *dir, const char *key); /* heap */

/* bytes rounded up to what a disk may have. -1 + e (EINVAL, EFBIG): no disk can be that large. */
int image_round(int64_t bytes, int64_t *rounded, struct error *e);

/* Makes it, full of zeros, durable and published; nothing is left behind on error. bytes: rounded. */
int image_create(const char *dir, const char *key, int64_t bytes, struct error *e);
/* EBUSY in e: somebody has it open. ERANGE: it would get smaller. Nothing to do when it has that size. */
int image_grow(const char *dir, const char *key, int64_t bytes, struct error *e);
/* Before it is removed: a descriptor that keeps everybody else off it. ENOENT: it is not there. EBUSY: somebody has it open. */
int image_claim(const char *dir, const char *key, struct error *e);
/* Before its record goes: a passing name, so that what is left by whoever is killed then is known to be nobody's. */
void image_retire(const char *dir, const char *key);
/* What lies beside it goes with it. Good when it is not there. */
int image_unlink(const char *dir, const char *key, struct error *e);

/* --- image-clone.c: a new image, under a passing name until the volume has a record */

char *image_passing_path(const char *dir, const char *key); /* heap */
/* Makes to_path, durable, of what `from` is open on; what is there is replaced, nothing is left behind on error. Where blocks
 * cannot be shared they are copied, or EOPNOTSUPP. */
int image_clone(int from, const char *from_path, const char *to_path, bool may_copy, struct error *e);
/* It has its name besides, durable. On error it has none. */
int image_publish(const char *dir, const char *key, struct error *e);
void image_settle(const char *dir, const char *key); /* the record is there: the passing name goes */
/* It takes the place of the image that is there. */
int image_replace(const char *dir, const char *key, struct error *e);
int image_sync_dir(const char *dir); /* 0 or an errno */

struct image_info {
	int64_t virtual_bytes, allocated_bytes;
};
int image_look(const char *dir, const char *key, struct image_info *out, struct error *e);

#endif
