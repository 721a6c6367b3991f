/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * main-sxm - the command sxm: finds the one of its commands that is meant
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/log.h"
#include "cmd/cmd.h"

#define STATUS_USAGE 2

static const struct cmd *const commands[] = {
	&cmd_copy,
	&cmd_doctor,
	&cmd_epoch,
	&cmd_export,
	&cmd_fsck,
	&cmd_import,
	&cmd_ls,
	&cmd_migrate,
	&cmd_relay,
	&cmd_report,
	&cmd_serve,
	&cmd_snapshot,
	&cmd_status,
	&cmd_vbd,
};

static int explain(FILE *to)
{
	fprintf(to, "usage: sxm COMMAND ...     sxm COMMAND --help     sxm --version\n");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(to, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
	return to == stdout ? 0 : STATUS_USAGE;
}

static const struct cmd *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(name, commands[i]->name) == 0)
			return commands[i];
	return NULL;
}

static int help(const struct cmd *cmd)
{
	printf("usage: %s\n", cmd->usage);
	return 0;
}

/* How it is called, without what each option does: what was wrong has just been said, and is not to be scrolled away. */
static void remind(const struct cmd *cmd)
{
	const char *end = cmd->usage;

	do
		end += strcspn(end + (*end == '\n'), "\n") + (*end == '\n');
	while (strncmp(end, "\n     ", 6) == 0);
	fprintf(stderr, "usage: %.*s\nsxm %s --help says more\n", (int)(end - cmd->usage), cmd->usage, cmd->name);
}

static int run(const struct cmd *cmd, int argc, char **argv)
{
	char name[32];
	int status;

	snprintf(name, sizeof(name), "sxm %s", cmd->name);
	argv[0] = name; /* as getopt() says it */
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0)
			return help(cmd);
	status = cmd->run(argc, argv);
	if (status != CMD_USAGE)
		return status;
	remind(cmd);
	return cmd->usage_status;
}

/* sxm help, sxm help COMMAND */
static int run_help(int argc, char **argv)
{
	const struct cmd *cmd = argc > 1 ? find(argv[1]) : NULL;

	if (argc < 2 || cmd)
		return cmd ? help(cmd) : explain(stdout);
	fprintf(stderr, "sxm: there is no command %s\n", argv[1]);
	return explain(stderr);
}

int main(int argc, char **argv)
{
	const struct cmd *cmd;

	log_init("sxm");
	if (argc < 2)
		return explain(stderr);
	if (strcmp(argv[1], "--help") == 0)
		return explain(stdout);
	if (strcmp(argv[1], "--version") == 0) {
		printf("sxm %s\n", PACKAGE_VERSION);
		return 0;
	}
	if (strcmp(argv[1], "help") == 0)
		return run_help(argc - 1, argv + 1);
	cmd = find(argv[1]);
	if (cmd)
		return run(cmd, argc - 1, argv + 1);
	fprintf(stderr, "sxm: there is no command %s\n", argv[1]);
	return explain(stderr);
}
