/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * image - a volume's data: one file, <key>.<format>, of a format that image_ops knows
 *
 *      .<key>.<format>.new: made, filled, durable --image_publish--> <key>.<format>, the same file --record--> image_settle
 *
 * While both names are there the volume is being made, or whoever made it was killed: then meta_sweep() knows, by the passing
 * name, that an image without a record is nobody's, and takes both away.  One that is being removed has both names, too.
 */
#ifndef SXM_PLUGINS_IMAGE_H
#define SXM_PLUGINS_IMAGE_H

#include "base/error.h"

#define IMAGE_ALIGNMENT 512
#define IMAGE_OWNER_SUFFIX ".owner" /* the datapath's file beside an image: whose the disk is */
#define IMAGE_MARKS_SUFFIX ".marks" /* another: what a mirror of it may owe */
#define IMAGE_JOURNAL_SUFFIX ".mirror" /* and how to go on with that */
extern const char *const image_beside[]; /* all of them, and NULL */

#define IMAGE_TRIES 100u /* where an image is opened or closed just now; with image_pause() between them 2 s */
void image_pause(void);

struct image_ops;
struct image {
	const char *dir, *key; /* borrowed */
	const struct image_ops *ops;
};

struct image_info {
	int64_t virtual_bytes;
	int64_t allocated_bytes; /* of all files it is read from, shared ones too */
};

/* One volume's image is made of another's. */
struct image_taking {
	struct image from, to;
	bool may_copy;    /* where nothing can be shared, its data is copied, however long that takes */
	bool is_snapshot; /* the log of changes is cut with it (chain.h) */
	bool was_written; /* in: or may be at any moment (volume_is_doubted()); out: or somebody had it open for writing: so the
			   * content is nobody else's */
};

struct taking_steps;
struct image_ops {
	const char *format;
	/* A descriptor: held while one of its images gets a name, as others look which there are. NULL: nobody does. */
	int (*lock)(const char *dir, struct error *e);
	/* A new file at path, where none is: it reads as zeros. Durable; nothing is left behind on error. */
	int (*make)(const char *path, int64_t bytes, struct error *e);
	/* Of the file at path, which is i's, by whatever name. */
	int (*look)(const struct image *i, const char *path, struct image_info *out, struct error *e);
	/* Whoever has it open goes on, and sees the new size. Nothing to do where it has it. ERANGE: it would get smaller. */
	int (*grow)(const struct image *i, int64_t bytes, struct error *e);
	/* Makes to's passing file, durable, of from as it is at one moment; from and to are of this format, and of one directory.
	 * EOPNOTSUPP: nothing can be shared, and may not be copied. */
	int (*take)(struct image_taking *t, struct error *e);
	/* The same step by step (taking.h). */
	const struct taking_steps *steps;
	/* The file at path, which nobody writes to, as an argument of qemu-img's that makes it open nothing else; heap. */
	char *(*describe)(const struct image *i, const char *path, struct error *e);
	/* Whether nothing was ever written to i. */
	int (*is_blank)(const struct image *i, bool *is_blank, struct error *e);
	/* Where i was never written to it reads as parent from now on, and whatever becomes of that. NULL: it cannot be. */
	int (*compose)(const struct image *i, const struct image *parent, struct error *e);
	/* What images of the directory stood on and no longer do goes. NULL: they stand on nothing. */
	void (*collect)(const char *dir);
};
extern const struct image_ops image_raw, image_qcow2;

/* NULL: there is no such format. */
const struct image_ops *image_by_format(const char *format);
/* Each of them: 0, 1, ... and NULL. */
const struct image_ops *image_format_at(unsigned number);
/* format: what its record says; NULL, or one that is not known: what its file says. */
struct image image_of(const char *dir, const char *key, const char *format);

char *image_path(const struct image *i);         /* heap */
char *image_passing_path(const struct image *i); /* heap */

/* bytes rounded up to what a disk may have. -1 + e (EINVAL, EFBIG): no disk can be that large. */
int image_round(int64_t bytes, int64_t *rounded, struct error *e);

/* Makes it, full of zeros, durable and published; nothing is left behind on error. bytes: rounded. */
int image_create(const struct image *i, int64_t bytes, struct error *e);
/* Before it is removed: a descriptor that keeps everybody else off it. ENOENT: it is not there. EBUSY: somebody has it open. */
int image_claim(const struct image *i, struct error *e);
/* Keeps writers off it. EBUSY: there is one. */
int image_claim_shared(const struct image *i, struct error *e);
/* Before its record goes: a passing name, so that what is left by whoever is killed then is known to be nobody's. */
void image_retire(const struct image *i);
/* What lies beside it goes with it. Good when it is not there. */
int image_unlink(const struct image *i, struct error *e);
int image_look(const struct image *i, struct image_info *out, struct error *e);
int image_grow(const struct image *i, int64_t bytes, struct error *e); /* as ops->grow() */

/* t->to's passing file is made, whatever the formats and directories. */
int image_take(struct image_taking *t, struct error *e);
/* It has its name besides, durable. On error it has none. */
int image_publish(const struct image *i, struct error *e);
void image_settle(const struct image *i); /* the record is there: the passing name goes */
/* It takes the place of the image that is there. */
int image_replace(const struct image *i, struct error *e);
/* Another volume's image, of the same format and directory, takes it, and is no longer there itself; durable. */
int image_take_place(const struct image *i, const struct image *other, struct error *e);
int image_sync_dir(const char *dir); /* 0 or an errno */
/* An empty file with mode 0600, open; what has that name is replaced. */
int image_open_new(const char *path, struct error *e);

/* The blocks of what `from` is open on, shared where the file system can: to_path is made, durable; what is there is replaced,
 * nothing is left behind on error. Where blocks cannot be shared they are copied, or EOPNOTSUPP; what has none needs neither. */
int image_clone(int from, const char *from_path, const char *to_path, bool may_copy, struct error *e);
/* Whether files in dir can share blocks; tried with two that have no name. */
bool image_can_share(const char *dir);

#endif
