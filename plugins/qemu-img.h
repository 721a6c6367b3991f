/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qemu-img - the program that changes qcow2 images, run without a shell and with a bound
 *
 * It is never left to open what an image names: an image is an absolute path where only its own file is touched, else "json:..."
 * with every file of its chain (tree_describe()). It takes no locks of its own: ours are held by whoever calls.
 */
#ifndef SXM_PLUGINS_QEMU_IMG_H
#define SXM_PLUGINS_QEMU_IMG_H

#include "base/error.h"

/* Is there such a program? */
bool qemu_img_is_there(void);

/* path: where a file is made, mode 0600, durable; what has that name is replaced, nothing is left behind on error. */
int qemu_img_make(const char *path, int64_t bytes, struct error *e);
/* The same, on top of backing: the plain name of a base in the same directory, which need not be there yet. */
int qemu_img_overlay(const char *path, const char *backing, int64_t bytes, struct error *e);
/* May take hours. from: described; format: of what is made; bytes: of the disk. */
int qemu_img_convert(const char *from, const char *path, const char *format, int64_t bytes, struct error *e);
/* The file of an image whose disk has so many bytes is made as long as one that was made here (qemu-img.c says why), if it can
 * be. Nobody has the image open. */
void qemu_img_lengthen(const char *path, int64_t bytes);
/* The image itself, and nothing it stands on. */
int qemu_img_resize(const char *described, int64_t bytes, struct error *e);
/* The image itself stands on another base from now on, NAME; no data is changed. */
int qemu_img_rebase(const char *described, const char *backing, struct error *e);
/* What the first file has is put into the second. Neither needs to be unused, as long as the second is only read through the
 * first. Stopped at any point, it can be done again. */
int qemu_img_commit(const char *described, struct error *e);
/* Where its data is, as JSON: heap. NULL + e. */
char *qemu_img_map(const char *described, struct error *e);

#endif
