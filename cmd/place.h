/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * place - which disk a person means: a volume, a file or block device, or an export of somebody's NBD server
 *
 *      SR/KEY, sxm://..., the path of a volume's image    PLACE_VOLUME
 *      PATH                                               PLACE_FILE
 *      nbd://..., nbd+unix://..., nbds...                  PLACE_NBD
 *
 * A datapath takes the format from the name, as what is in an image may be a guest's. Where a name says qcow2 and raw is meant,
 * there is a link that says so, in SXM_RUN_DIR/named, for as long as the image is served under that name. A qcow2 image must be
 * called so, as what it stands on is looked for beside it.
 */
#ifndef SXM_CMD_PLACE_H
#define SXM_CMD_PLACE_H

#include "base/error.h"

enum place_kind { PLACE_VOLUME, PLACE_FILE, PLACE_NBD };

struct place {
	enum place_kind kind;
	const char *name;   /* borrowed: as it was given */
	const char *format; /* of a volume or file: "raw", "qcow2", "nbd" */
	char *dir, *key;    /* owned; VOLUME: the SR's directory */
	char *real;         /* owned; VOLUME, FILE: the file or device itself */
	char *image;        /* owned: the name that a datapath is given */
	char *nbd;          /* owned; NBD: its URI */
	char *uri;          /* owned: "sxm://" and image, for the verbs */
	bool is_device;
};

/* format: "raw", "qcow2", or NULL and "auto": as its name says; then a file that begins like a qcow2 image, and is not called so,
 * is refused. -1 + e: ENOENT where nothing has that name; nothing to be cleared. */
int place_find(struct place *p, const char *name, const char *format, struct error *e);
void place_clear(struct place *p);
/* The link, where there is to be one; of an export, a file that names it to a datapath (ENOTSUP: it is on no local socket). */
int place_name(const struct place *p, struct error *e);
void place_unname(const struct place *p);

/* Where that is, whether or not it is there: absolute, its directory resolved; heap. NULL + e. */
char *place_absolute(const char *path, struct error *e);

/* Of a volume or file: -1 + e, EBUSY: somebody here has it open or attached, as far as can be known; e says who. */
int place_check_unused(const struct place *p, bool is_read_only, struct error *e);

#endif
