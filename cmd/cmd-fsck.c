/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-fsck - sxm fsck: an SR's files are looked at, and put right
 *
 *      directory, file URI or uuid -> the SR's directory -> fsck_run() -> a line for each finding -> an exit status of fsck(8)
 *
 * Without -y or -i nothing is changed.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cmd/cmd.h"
#include "plugins/fsck.h"
#include "plugins/mount.h"
#include "plugins/sr.h"
#include "plugins/uri.h"

enum status { CLEAN = 0, REPAIRED = 1, LEFT = 4, NOT_DONE = 8, USAGE = 16 };
enum answer { NO, YES, ASK };

/* --- which SR */

/* Of the SRs that are attached here. Heap; NULL + e. */
static char *find_attached(const char *uuid, struct error *e)
{
	struct jsonspec_list handles;
	char *found = NULL;

	if (sr_attached(&handles, e) == -1)
		return NULL;
	for (size_t i = 0; i < handles.count && !found; i++) {
		struct error why;
		CLEANUP_FREE char *dir = uri_path(handles.item[i], "file", &why);
		const char *last = dir ? strrchr(dir, '/') : NULL;
		struct meta_sr m;

		if (!dir)
			continue;
		if (meta_sr_read(dir, &m, &why) == 0) {
			if (strcmp(m.uuid, uuid) == 0)
				found = take_ptr(&dir);
			meta_sr_clear(&m);
		} else if (last && mount_is_dir(dir) && strcmp(last + 1, uuid) == 0) {
			found = take_ptr(&dir);
		}
	}
	meta_list_clear(&handles);
	if (!found)
		error_set(e, ENOENT, "no SR %s is attached here; attach it, or give its directory", uuid);
	return found;
}

static char *find_sr(const char *name, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	struct stat st;
	char *dir;

	if (strncasecmp(name, "file:", 5) == 0)
		path = uri_path(name, "file", e);
	else if (!strchr(name, '/') && stat(name, &st) == -1)
		return find_attached(name, e);
	else
		path = strdup(name);
	if (!path)
		return NULL;
	dir = realpath(path, NULL);
	if (!dir)
		error_errno(e, errno, "look at %s", path);
	return dir;
}

/* --- what is said */

struct talk {
	enum answer answer;
};

static bool ask(const char *remedy)
{
	char line[16] = "";

	printf(": %s? ", remedy);
	fflush(stdout);
	if (fgets(line, sizeof(line), stdin) && (*line == 'y' || *line == 'Y'))
		return true;
	printf("left\n");
	return false;
}

static bool on_found(void *arg, const char *what, const char *remedy)
{
	struct talk *t = arg;

	printf("%s", what);
	if (!remedy) {
		printf(": only a person can put that right\n");
		return false;
	}
	if (t->answer == NO) {
		printf(" (-y: %s)\n", remedy);
		return false;
	}
	if (t->answer == ASK)
		return ask(remedy);
	printf(": %s", remedy);
	return true;
}

static void on_result(void *arg UNUSED, const char *text)
{
	printf(": %s\n", text);
}

/* --- the command */

static int check(const char *name, const char *uuid, enum answer answer)
{
	struct talk talk = { .answer = answer };
	struct error e = { 0 };
	CLEANUP_FREE char *dir = find_sr(name, &e);
	struct fsck f = { .dir = dir, .uuid = uuid, .is_only_report = answer == NO, .found = on_found,
			  .result = on_result, .arg = &talk };

	if (dir && !uuid && mount_is_dir(dir))
		f.uuid = strrchr(dir, '/') + 1;
	if (!dir || fsck_run(&f, &e) == -1) {
		fflush(stdout);
		fprintf(stderr, "sxm fsck: %s\n", e.text);
		return NOT_DONE;
	}
	if (!f.findings)
		printf("%s: clean\n", dir);
	else
		printf("%s: %u found, %u repaired, %u left\n", dir, f.findings, f.repaired, f.left);
	return (f.repaired ? REPAIRED : CLEAN) | (f.left ? LEFT : CLEAN);
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "repair", no_argument, NULL, 'y' }, { "ask", no_argument, NULL, 'i' }, { "uuid", required_argument, NULL, 'u' },
		{ NULL, 0, NULL, 0 },
	};
	enum answer answer = NO;
	const char *uuid = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "niyu:", options, NULL)) != -1) {
		if (c == 'u')
			uuid = optarg;
		else if (c == '?')
			return CMD_USAGE;
		else
			answer = c == 'y' ? YES : c == 'i' ? ASK : NO;
	}
	if (argc - optind == 1)
		return check(argv[optind], uuid, answer);
	fprintf(stderr, "sxm fsck: %s\n",
		argc == optind ? "which SR? A directory, its URI or its uuid is missing" : "one SR at a time");
	return CMD_USAGE;
}

const struct cmd cmd_fsck = {
	.name = "fsck",
	.summary = "look at the files of an SR for what is wrong, and put it right",
	.usage = "sxm fsck [-n | -y | -i] [--uuid UUID] DIRECTORY | file://DIRECTORY | UUID\n"
		 "  -n             only report (the default)\n"
		 "  -y, --repair   put right what can be; nothing is deleted\n"
		 "  -i, --ask      the same, asking about each\n"
		 "  --uuid UUID    the SR's, where its own record does not tell it any more\n"
		 "exit status: 0 clean, 1 repaired, 4 something is left, 8 it could not be done, 16 usage",
	.run = run,
	.usage_status = USAGE,
};
