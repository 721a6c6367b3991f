/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * nfs-options - a configuration's words about NFS, checked, and as mount(8) takes them
 *
 * Pure.  What is not in the list is refused: a mount option can make a set-user-ID program, a local file or another server of
 * what an administrator of the pool typed.
 */
#ifndef SXM_PLUGINS_NFS_OPTIONS_H
#define SXM_PLUGINS_NFS_OPTIONS_H

#include "base/error.h"

/* A name, an IPv4 address, or an IPv6 one, with or without brackets. */
int nfs_options_check_server(const char *server, struct error *e);
/* Absolute, without .. */
int nfs_options_check_path(const char *path, struct error *e);
/* 3, 4, 4.0, 4.1, 4.2 */
int nfs_options_check_version(const char *version, struct error *e);
/* name[=value],...; every one of the list. */
int nfs_options_check(const char *options, struct error *e);

/* For -o, heap: ours, then version and options (each may be NULL). NULL: out of memory. */
char *nfs_options_text(const char *version, const char *options, bool is_read_only);
/* server:/path, heap. NULL: out of memory. */
char *nfs_options_source(const char *server, const char *path);

/* nfs://server/path, taken apart; heap. */
int nfs_options_split_uri(const char *uri, char **server, char **path, struct error *e);

#endif
