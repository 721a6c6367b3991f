/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * proc - what a long-lived process owes to whoever started it
 */
#ifndef SXM_BASE_PROC_H
#define SXM_BASE_PROC_H

#include "base/compiler.h"
#include "base/error.h"

/* chdir /, umask 077, SIGPIPE ignored, signal mask cleared, 0-2 on /dev/null (2 kept when SXM_LOG=stderr), every other
 * descriptor closed but those >= keep_from and < keep_to (both 0: none kept). */
int proc_settle(int keep_from, int keep_to, struct error *e);

/* Room for so many descriptors, made while there is one thread. Where there are more, Linux makes it only when every processor
 * has been elsewhere (expand_fdtable waits for RCU): that took 12 ms. It may not be had; then it takes that long later. */
void proc_make_room(int descriptors);

/* This process comes before others for a processor, where it may: it is short, and a guest waits for it. What it starts and
 * leaves behind calms down again, before exec. */
void proc_hurry(void);
void proc_calm(void);

/* This process takes short turns on a processor, and so comes sooner when it wakes: beside others that compute it would wait
 * for the end of theirs. It gets no more of the time than before. From Linux 6.12 on; before that nothing comes of it. */
void proc_take_short_turns(void);

/* READY=1 or STOPPING=1 to $NOTIFY_SOCKET, as systemd's Type=notify wants; nothing where there is none. */
void proc_notify(const char *state);

/* SXM_RUN_DIR or /run/sxm; SXM_STATE_DIR, or SXM_RUN_DIR/state when SXM_RUN_DIR is set, or /var/lib/sxm. */
const char *proc_run_dir(void);
const char *proc_state_dir(void);
/* mkdir -p with mode 0700; a symbolic link or a directory of another owner at the end is refused. */
int proc_make_dir(const char *path, struct error *e);

/* Whole file, at most max bytes, NUL after it; heap; NULL + e. */
char *proc_read_file(const char *path, size_t max, size_t *bytes, struct error *e);
/* The same of a file that is ours: EBADMSG in e where it is a symbolic link, or anything but a file. */
char *proc_read_own_file(const char *path, size_t max, size_t *bytes, struct error *e);
/* write to a temporary, fsync, rename, fsync of the directory. mode as for open. */
int proc_replace_file(const char *path, const char *text, size_t bytes, unsigned mode, struct error *e);
/* As proc_replace_file(), by whoever has the old file locked (flock) with *lock: the new one is locked before it has its name,
 * and *lock is then its. Without that others may lock the new file while the old one's lock is still held. */
int proc_replace_locked_file(const char *path, const char *text, size_t bytes, unsigned mode, int *lock, struct error *e);
/* write to a temporary, rename: old or new, whoever reads it and whoever is killed. After a power loss it may be empty. */
int proc_swap_file(const char *path, const char *text, size_t bytes, unsigned mode, struct error *e);
/* fsync of the directory that path is in. */
int proc_sync_dir(const char *path, struct error *e);
/* As proc_replace_file(), but only where there is none: EEXIST else, and the one that is there is durable then, too. */
int proc_create_file(const char *path, const char *text, size_t bytes, unsigned mode, struct error *e);

#endif
