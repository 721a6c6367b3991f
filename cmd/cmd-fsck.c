/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-fsck - sxm fsck: an SR's files are looked at, and put right
 *
 *      directory, file URI or uuid -> the SR's directory -> fsck_run() -> a line for each finding -> an exit status of fsck(8)
 *
 * Without -y or -i nothing is changed.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cmd/cmd.h"
#include "cmd/find.h"
#include "plugins/fsck.h"
#include "plugins/mount.h"

enum status { CLEAN = 0, REPAIRED = 1, LEFT = 4, NOT_DONE = 8, USAGE = 16 };
enum answer { NO, YES, ASK };

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
	CLEANUP_FREE char *dir = find_sr_dir(name, &e);
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
