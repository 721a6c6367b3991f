/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-private - what the files of a journey share
 */
#ifndef SXM_MIGRATE_JOURNEY_PRIVATE_H
#define SXM_MIGRATE_JOURNEY_PRIVATE_H

#include "migrate/journey.h"

#define JOURNEY_ASK_MS 60000u
#define JOURNEY_LONG_MS 180000u

/* --- journey.c */
struct journey_disk *journey_disk(const struct journey *j, size_t i);
void journey_say(const struct journey *j, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* -1 + ECANCELED: Ctrl-C was pressed. */
int journey_check(const struct journey *j, struct error *e);
/* The step is done: on record. */
int journey_set_step(struct journey *j, enum journey_step step, struct error *e);
int journey_save(const struct journey *j, struct error *e);
/* What is shown has a place for each disk. */
int journey_open_view(struct journey *j, struct error *e);
/* The way to the far host, and its disks' sockets here where the step after that needs them. */
int journey_prepare(struct journey *j, enum journey_step after, struct error *e);
/* Replaces an owned text. */
int journey_set(char **text, const char *value, struct error *e);
int64_t journey_now_ms(void);
void journey_pause(unsigned ms);

/* --- journey-ask.c: questions. NULL + e, -1 + e. */
/* The far host, for as long as it may be away. */
char *journey_ask_there(struct journey *j, const char *verb, const char *args, struct error *e);
/* A verb of the far host's plugins: its result is not wanted. Takes args. */
int journey_call_there(struct journey *j, const char *verb, char *args, struct error *e);
int journey_call_here(struct journey *j, const char *verb, char *args, struct error *e);
/* Of a disk's process here: the answer. args NULL: {}. */
char *journey_control(struct journey *j, size_t i, const char *verb, const char *args, struct error *e);
/* The same of all disks at once. args: one for all. e: the first failure; *failed: how many, of which `refused` answered. */
int journey_control_all(struct journey *j, const char *verb, const char *args, unsigned wait_ms, struct error *e);

/* --- journey-look.c: what goes on */
struct journey_look {
	char operation[VIEW_NAME_MAX]; /* "": none of ours */
	char writer[VIEW_NAME_MAX];    /* "": nobody */
	char why[VIEW_TEXT_MAX], owner[32], group[64];
	size_t writers;
	bool is_failed, is_complete, is_remembered, is_linked, is_sync, is_lagging, is_ended, is_given;
	int64_t lag_bytes, dirty_bytes;
};
/* Of one disk; the view's, too. */
int journey_look(struct journey *j, size_t i, struct journey_look *l, struct error *e);
/* Looks at all, and shows them. */
void journey_show(struct journey *j, const char *phase);
/* It is over: of each disk what became of it. */
void journey_show_end(struct journey *j);
/* Until every mirror is complete: those that lost their link are resumed. */
int journey_await_sync(struct journey *j, struct error *e);

/* --- journey-limit.c */
/* It is to be done by a moment. */
bool journey_has_deadline(const struct journey *j);
/* All disks together; 0: no limit. */
void journey_set_limit(struct journey *j, uint64_t bytes_s);
/* What was said of the rate, or what its moment needs as it is seen now, to the disks. */
void journey_apply_limit(struct journey *j);

/* --- journey-whose.c: what the disks' records here say */
struct journey_owner {
	char state[32], epoch[24], mirror[64];
};
int journey_ask_owner(struct journey *j, size_t i, struct journey_owner *o, struct error *e);
/* Each is given. */
bool journey_have_all_moved(struct journey *j);
/* It is decided that they move: which have, and which were taken back since, and stay. -1 + e: of one it is not known yet. */
int journey_sort(struct journey *j, size_t *stay, struct error *e);
/* What is given and was not decided to be is asked back. -1 + e: EALREADY: it runs there. */
int journey_take_back(struct journey *j, struct error *e);

/* --- journey-undo.c */
/* Our mirror of it and our domain here; what was made of it there. EPERM: what is there is not ours to remove. */
int journey_undo_here(struct journey *j, size_t i, struct error *e);
int journey_undo_there(struct journey *j, size_t i, struct error *e);

/* --- journey-steps.c */
int journey_make(struct journey *j, struct error *e);
int journey_receive(struct journey *j, struct error *e);
int journey_mirror(struct journey *j, struct error *e);
int journey_verify(struct journey *j, struct error *e);
int journey_start(struct journey *j, struct error *e);
int journey_keep(struct journey *j, struct error *e);
/* A mirror of that disk begins, or is taken up. */
int journey_start_mirror(struct journey *j, size_t i, bool is_resumed, struct error *e);
/* Somebody writes to it here: a guest, or we. */
int journey_ensure_writer(struct journey *j, size_t i, const struct journey_look *l, struct error *e);

/* --- journey-transport.c */
#define TRANSPORT_SSH "ssh"
#define TRANSPORT_TCP "tcp"
#define TRANSPORT_TLS "tcp+tls"
bool journey_is_tcp(const struct journey *j);
/* Before anything is done: the far host can do it, and its address, which is on record then, is reached. -1 + e: why not. */
int journey_try_way(struct journey *j, struct error *e);
/* The mirrors' way is there, as long as it is wanted: asked each time when the journey is gone on with. */
int journey_open_way(struct journey *j, struct error *e);
/* ... and when a mirror lost it: what can be done now is done. */
void journey_reopen_way(struct journey *j);
/* What was made for it is gone, on both hosts. */
void journey_close_way(struct journey *j);
/* What mirror.start is told: heap; NULL: out of memory. */
char *journey_remote(const struct journey *j, size_t i);
/* It is such a one. */
bool journey_is_remote(const struct journey *j, size_t i, const char *remote);

/* --- journey-switch.c */
int journey_switch(struct journey *j, struct error *e);
/* A handover that was begun and not ended. 1: it is decided to be moved, and has; 0: none is under way. */
int journey_settle(struct journey *j, struct error *e);
/* -1 + e: it may be paused yet. */
int journey_resume_guest(struct journey *j, bool has_moved, struct error *e);
/* A VM that may stand still since somebody died is not to wait until the other host is reached, unless it is decided that it
 * moves. */
int journey_unpause(struct journey *j, struct error *e);
/* What the mirrors still have to send is brought to little. */
void journey_tighten(struct journey *j);

#endif
