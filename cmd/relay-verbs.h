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
/* Where that domain is served: both owned by the caller. -1 + e. */
int relay_attach(const char *uri, const char *domain, char **socket, char **export, struct error *e);

/* relay-vm.c: what is asked of a QEMU of this host */
int relay_vm_look(const char *args, struct relay_reply *r, struct error *e);
int relay_vm_receive(const char *args, struct relay_reply *r, struct error *e);
int relay_vm_run(const char *args, struct relay_reply *r, struct error *e);
int relay_vm_end(const char *args, struct relay_reply *r, struct error *e);

/* relay-way.c: of a move whose bytes go by a connection of their own */
int relay_key_put(const char *args, struct relay_reply *r, struct error *e);
int relay_key_drop(const char *args, struct relay_reply *r, struct error *e);
int relay_way_open(const char *args, struct relay_reply *r, struct error *e);

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

/* ... and for relay-base.c. v NULL, of relay_has_key(): any. NULL + e, -1 + e. */
struct relay_mark {
	char *sr, *key;
	const char *k, *v;
};
int relay_set_key(const struct relay_mark *m, struct error *e);
bool relay_has_key(const char *dir, const char *key, const char *k, const char *v);
int relay_do(const char *verb, char *sr, char *key, struct error *e);
/* The volume that is being received with that mark: its key, heap; NULL with e->err 0: there is none. */
char *relay_find_marked(const char *dir, const char *mark, struct error *e);
/* It is, from now on, and kept for nobody. */
int relay_mark_volume(char *sr, char *key, const char *mark, struct error *e);
/* The source that is kept, and is about to be that: whoever takes it may have been killed in the middle. As above. */
char *relay_find_taken(const char *dir, const char *mark, struct error *e);
/* The mark of the move that it receives, or came by; heap. NULL: of none, or not known. */
char *relay_mark_of(const char *dir, const char *key);
/* The move whose disk the image at path is: its id on the host that it comes from; heap. NULL likewise. */
char *relay_move_of(const char *path);
char *relay_image_of(const char *dir, const char *key, struct error *e);

/* relay-mark.c: what is made for a move, one at a time. A descriptor; -1 + e: EPERM: it was undone. */
int relay_mark_begin(const char *mark, struct error *e);
void relay_mark_end(const char *mark, int lock);
/* From now on nothing is made for it. A descriptor, to be closed when that is done; -1 + e. */
int relay_mark_undo(const char *mark, struct error *e);

/* relay-owner.c: what the record of the image at path allows. False, NULL: e says why not. */
#define RELAY_KEY_GIFT "sxm_gift" /* of the source that was kept: relay_gift_of() when it was */
#define RELAY_KEY_TAKEN "sxm_taken" /* ... and that is being taken as a base: the mark of the move that goes back to it */
bool relay_is_untaken(const char *path, struct error *e);     /* it was handed over whole, and no guest has had it since */
bool relay_is_handed_over(const char *path, struct error *e); /* it was handed over whole */
bool relay_may_undo(const char *path, struct error *e);       /* it never was */
char *relay_state_on_record(const char *path, struct error *e); /* of an image that no process has; heap */
char *relay_gift_of(const char *path, struct error *e);       /* to whom it was given: "EPOCH MIRROR", heap */
/* It is still given as it was when it was kept. */
bool relay_is_still_given(const char *dir, const char *key, struct error *e);
/* ... or it was that, and was dropped by who takes it as a base: it starts nobody, and is owned elsewhere. */
bool relay_is_base(const char *dir, const char *key, struct error *e);

int relay_volume_owner(const char *args, struct relay_reply *r, struct error *e);
/* The source of that mirror owns the disk in that epoch, on record: what the image at path has of it starts nobody any more. */
int relay_recall(const char *path, const char *mirror, const char *epoch, struct error *e);

/* relay-base.c: the way back */
int relay_volume_track(const char *args, struct relay_reply *r, struct error *e);
int relay_base_find(const char *args, struct relay_reply *r, struct error *e);
int relay_base_take(const char *args, struct relay_reply *r, struct error *e);

/* The text is the reply; NULL: out of memory. */
int relay_say(char *text, struct relay_reply *r, struct error *e);

#endif
