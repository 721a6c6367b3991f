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

static int run(const struct cmd *cmd, int argc, char **argv)
{
	int status;

	if (argc > 1 && strcmp(argv[1], "--help") == 0) {
		printf("usage: %s\n", cmd->usage);
		return 0;
	}
	status = cmd->run(argc, argv);
	if (status != CMD_USAGE)
		return status;
	fprintf(stderr, "usage: %s\n", cmd->usage);
	return cmd->usage_status;
}

int main(int argc, char **argv)
{
	log_init("sxm");
	if (argc < 2)
		return explain(stderr);
	if (strcmp(argv[1], "--help") == 0)
		return explain(stdout);
	if (strcmp(argv[1], "--version") == 0) {
		printf("sxm %s\n", PACKAGE_VERSION);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(argv[1], commands[i]->name) == 0)
			return run(commands[i], argc - 1, argv + 1);
	fprintf(stderr, "sxm: there is no command %s\n", argv[1]);
	return explain(stderr);
}
