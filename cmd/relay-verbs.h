/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay-verbs - what a relay does for who asks it (migrate/PROTOCOL.relay): the functions of its table
 */
#ifndef SXM_CMD_RELAY_VERBS_H
#define SXM_CMD_RELAY_VERBS_H

#include "base/error.h"
#include "migrate/relay.h"

/* relay-disk.c: what is asked of a datapath process */
int relay_control(const char *args, struct relay_reply *r, struct error *e);
int relay_connect(const char *args, struct relay_reply *r, struct error *e);

/* relay-find.c: which SR, which volume */
int relay_sr_find(const char *args, struct relay_reply *r, struct error *e);
int relay_volume_find(const char *args, struct relay_reply *r, struct error *e);
/* What volume.find answers, of the image at path. NULL + e. */
char *relay_describe(const char *path, struct error *e);
/* "nfs-ng" of a directory that is mounted so; "filebased" where nothing is known of it. */
const char *relay_sr_type(const char *dir);

/* relay-volume.c: what is made, named and removed */
int relay_smapi(const char *args, struct relay_reply *r, struct error *e);
int relay_volume_make(const char *args, struct relay_reply *r, struct error *e);
int relay_volume_name(const char *args, struct relay_reply *r, struct error *e);
int relay_volume_undo(const char *args, struct relay_reply *r, struct error *e);
int relay_volume_keep(const char *args, struct relay_reply *r, struct error *e);
int relay_volume_release(const char *args, struct relay_reply *r, struct error *e);

/* The text is the reply; NULL: out of memory. */
int relay_say(char *text, struct relay_reply *r, struct error *e);

#endif
