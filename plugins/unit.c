/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * unit - see unit.h
 *
 *      SXM_RUN_DIR/<id>/env        SXM_PATH="<image>"
 *      systemctl start sxm-datapath@<id>
 *        not there     -> the process is started, binds its socket, says READY=1: systemctl ends
 *        runs          -> systemctl ends at once
 *        is ending     -> it said STOPPING=1 before it took its socket away: it is started when it is gone
 *
 * The start belongs to no transaction (--job-mode): it pulls in nothing and waits for nothing, neither for targets of a boot that
 * the caller itself holds up, nor for the end of a service that stops and needs one more disk to do so.
 *
 * What can fail: the process that ends takes the file away between our writing it and systemd's reading it; the unit's condition
 * then does not hold, systemctl is content, and nobody listens. So the caller looks, and starts it again.
 */
#include "plugins/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"

#define NOT_INSTALLED 5 /* systemctl's exit status, as init scripts' */

extern char **environ;

bool unit_is_usable(const struct process *p)
{
	const char *run_dir = getenv("SXM_RUN_DIR");

	return access("/run/systemd/system", F_OK) == 0 && !getenv("SXM_NO_SYSTEMD") && !(run_dir && *run_dir) &&
	       !strchr(p->path, '\n');
}

/* Quoted as systemd wants it. */
static int write_environment(const struct process *p, struct error *e)
{
	CLEANUP_FREE char *text = malloc(2 * strlen(p->path) + sizeof("SXM_PATH=\"\"\n"));
	char path[PROCESS_SOCKET_MAX + 8];
	char *to = text;

	if (!text)
		return error_set(e, ENOMEM, "out of memory");
	to = stpcpy(to, "SXM_PATH=\"");
	for (const char *from = p->path; *from; from++) {
		if (strchr("\\\"`$", *from))
			*to++ = '\\';
		*to++ = *from;
	}
	to = stpcpy(to, "\"\n");
	snprintf(path, sizeof(path), "%s/env", p->dir);
	return proc_replace_file(path, text, (size_t)(to - text), 0600, e);
}

/* Its exit status; -1 + e. It keeps nothing of ours: xapi waits for the end of our output. */
static int run_systemctl(char *unit, struct error *e)
{
	char systemctl[] = "systemctl", mode[] = "--job-mode=ignore-dependencies", start[] = "start";
	char *argv[] = { systemctl, mode, start, unit, NULL };
	posix_spawn_file_actions_t actions;
	int err, status = 0;
	pid_t pid;

	err = posix_spawn_file_actions_init(&actions);
	if (err)
		return error_errno(e, err, "run systemctl");
	for (int fd = 0; fd <= 2 && !err; fd++)
		err = posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
	if (!err)
		err = posix_spawnp(&pid, systemctl, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (err)
		return error_errno(e, err, "run systemctl");
	while (waitpid(pid, &status, 0) == -1)
		if (errno != EINTR)
			return error_errno(e, errno, "wait for systemctl");
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	return error_set(e, EINTR, "systemctl was killed by signal %d", WTERMSIG(status));
}

enum unit_outcome unit_start(const struct process *p, struct error *e)
{
	char unit[VDI_ID_MAX + 32];
	int status;

	if (proc_make_dir(p->dir, e) == -1 || write_environment(p, e) == -1)
		return UNIT_REFUSED;
	snprintf(unit, sizeof(unit), "sxm-datapath@%s.service", p->id);
	status = run_systemctl(unit, e);
	if (status > 0)
		error_set(e, EIO, "systemctl start %s failed with status %d; journalctl -u %s may tell why", unit, status, unit);
	return status == 0 ? UNIT_STARTED : status == NOT_INSTALLED ? UNIT_ABSENT : UNIT_REFUSED;
}
