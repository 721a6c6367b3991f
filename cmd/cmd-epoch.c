/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-epoch - sxm epoch take: a person's word about whose a disk is, where no link can settle it
 *
 *      VOLUME -> its image -> the disk's process, started where there is none: "epoch.take" -> durable in <image>.owner
 *
 * Nothing is decided here: mirror/commit.h says what is refused without --force.  sxm doctor names the volumes, and this command.
 * Can fail: no such volume; the disk is owned here already; it is known not to be complete, or to have been started elsewhere.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/uri.h"
#include "cmd/cmd.h"
#include "cmd/find.h"
#include "plugins/image.h"
#include "plugins/process.h"

enum status { TAKEN = 0, NOT_TAKEN = 1, USAGE = 2 };

static bool is_there(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

/* SR/KEY, as xapi names it. Heap; NULL + e. */
static char *find_in_sr(const char *name, struct error *e)
{
	const char *slash = strrchr(name, '/');
	CLEANUP_FREE char *sr = slash && slash > name ? strndup(name, (size_t)(slash - name)) : NULL;
	CLEANUP_FREE char *dir = sr ? find_sr_dir(sr, e) : NULL;
	CLEANUP_FREE char *path = NULL;

	if (!sr) {
		error_set(e, EINVAL, "%s is neither an image's path nor SR/KEY", name);
		return NULL;
	}
	if (dir) {
		const struct image i = image_of(dir, slash + 1, NULL);

		path = image_path(&i);
	}
	if (dir && (!path || !is_there(path))) {
		error_set(e, ENOENT, "there is no volume %s in %s", slash + 1, dir);
		return NULL;
	}
	return take_ptr(&path);
}

/* The image, canonical, heap. NULL + e. */
static char *find_image(const char *name, struct error *e)
{
	CLEANUP_FREE char *path = strncasecmp(name, "sxm:", 4) == 0 ? uri_path(name, "sxm", e) :
				  is_there(name) ? strdup(name) : find_in_sr(name, e);

	if (!path)
		return NULL;
	if (!is_there(path)) {
		error_set(e, ENOENT, "%s is not there", path);
		return NULL;
	}
	return uri_canonical(path, e);
}

static int take(const char *name, bool is_forced)
{
	struct error e = { 0 };
	CLEANUP_FREE char *path = find_image(name, &e);
	CLEANUP_FREE char *ok = NULL;
	struct process p;

	if (path && process_by_path(&p, path, &e) == 0)
		ok = process_call(&p, "epoch.take", is_forced ? "{\"force\":true}" : "{\"force\":false}", PROCESS_START, 0, &e);
	if (!ok) {
		fprintf(stderr, "sxm epoch take: %s\n", e.text);
		return NOT_TAKEN;
	}
	printf("%s is owned here: its guest may be started from it, and from nowhere else\n", path);
	return TAKEN;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = { { "force", no_argument, NULL, 'f' }, { NULL, 0, NULL, 0 } };
	bool is_forced = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == '?')
			return CMD_USAGE;
		is_forced = true;
	}
	if (argc - optind != 2 || strcmp(argv[optind], "take") != 0)
		return CMD_USAGE;
	return take(argv[optind + 1], is_forced);
}

const struct cmd cmd_epoch = {
	.name = "epoch",
	.summary = "say that a disk is this host's, where a move left that in doubt",
	.usage = "sxm epoch take [--force] VOLUME\n"
		 "  VOLUME   SR/KEY, the path of its image, or its sxm:// URI\n"
		 "  --force  though it is known not to be complete, or to have been started from the other side\n"
		 "Who says so knows that no guest runs from the other side of the move, and that none will.\n"
		 "exit status: 0 it is owned here, 1 it was refused, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
