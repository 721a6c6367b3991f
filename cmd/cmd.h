/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd - what one command of sxm is
 */
#ifndef SXM_CMD_CMD_H
#define SXM_CMD_CMD_H

struct cmd {
	const char *name, *summary;
	const char *usage; /* the lines after "usage: ", the first one begins with "sxm NAME" */
	/* argv[0] is the command's name; getopt's state is fresh. An exit status; CMD_USAGE: what is wrong was said, the usage
	 * is still to be shown. */
	int (*run)(int argc, char **argv);
	int usage_status; /* the exit status where CMD_USAGE is returned */
};
#define CMD_USAGE (-1)

/* In the order of their names. */
extern const struct cmd cmd_copy;
extern const struct cmd cmd_doctor;
extern const struct cmd cmd_epoch;
extern const struct cmd cmd_export;
extern const struct cmd cmd_fsck;
extern const struct cmd cmd_import;
extern const struct cmd cmd_ls;
extern const struct cmd cmd_migrate;
extern const struct cmd cmd_relay;
extern const struct cmd cmd_report;
extern const struct cmd cmd_serve;
extern const struct cmd cmd_snapshot;
extern const struct cmd cmd_status;
extern const struct cmd cmd_vbd;

#endif
