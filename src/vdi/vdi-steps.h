/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vdi-steps - what each file of this room does for the others, by file; of the things in vdi-private.h, which includes it
 */
#ifndef SXM_VDI_VDI_STEPS_H
#define SXM_VDI_VDI_STEPS_H

#include "vdi/vdi-private.h"

/* --- jobs.c */
/* Queues a job; NULL + done called with ENOMEM or ESHUTDOWN. done may be NULL. */
struct job *job_add(struct vdi *v, enum job_kind kind, const char *domain, vdi_done_fn *done, void *arg);
int job_join(struct job *j, vdi_done_fn *done, void *arg); /* -1: out of memory */
/* The last job queued or running for the domain; NULL: none. */
struct job *job_last(struct vdi *v, const char *domain);
/* Everybody who waits hears job->error; the job goes on. */
void job_answer(struct job *j);
/* Ends the running job with job->error. */
void job_end(struct vdi *v);
/* ... with what the last step left. */
void job_fail(struct vdi *v, const struct error *e);
void jobs_drop(struct vdi *v);
void jobs_init(struct vdi *v);

/* --- stack.c: the steps; v->step says how they ended, next is called from the loop or at once */
void stack_step_begin(struct vdi *v, step_fn *next); /* for steps made elsewhere */
void stack_step_end(struct vdi *v);
void stack_open(struct vdi *v, bool is_read_only, step_fn *next);  /* at least so: opens, or upgrades */
void stack_close(struct vdi *v, step_fn *next);   /* flush, then close */
void stack_release(struct vdi *v, step_fn *next); /* stack_close() when nobody needs the disk */
void stack_reopen(struct vdi *v, step_fn *next);  /* the disk alone, under nothing; v->open_read_only says how */
void stack_quiet(struct vdi *v, step_fn *next);   /* hold the gate, drain what went past it */
void stack_wake(struct vdi *v);                   /* the reverse */
void stack_refuse(struct vdi *v);                 /* what is held and what comes ends with ESHUTDOWN; stack_wake() reverses */
void stack_drain_gate(struct vdi *v, step_fn *next); /* it does not stop new ones: held or refusing */
void stack_drain_disk(struct vdi *v, step_fn *next);
struct layer *stack_base(const struct vdi *v);    /* what stands under a mirror, or the gate */
void stack_flush(struct vdi *v, step_fn *next);
void stack_flush_beside(struct vdi *v, void (*done)(struct vdi *v, int err)); /* no step: one may run meanwhile. One at a time */
void stack_cut(struct vdi *v, struct domain *d, step_fn *next); /* its server: answered, closed, freed */
int stack_serve(struct vdi *v, struct domain *d, struct error *e);
void stack_work(struct vdi *v, void (*work)(struct vdi *v), step_fn *next); /* on a pool thread */
void stack_save(struct vdi *v, step_fn *next);    /* domains.json as things are now; outlives this process, not the host */
void stack_write(struct vdi *v, char *file, char *text, step_fn *next); /* takes both; text NULL: unlink file */
/* Makes it durable that the disk is so owned; then it is in force, and everybody whom it concerns hears. */
void stack_own(struct vdi *v, const struct commit_record *next, step_fn *after);

/* --- tenancy.c; -1: out of memory */
int tenancy_init(struct vdi *v);
void tenancy_fini(struct vdi *v);
void tenancy_begin(struct vdi *v); /* v->disk is there */
void tenancy_end(struct vdi *v);   /* ... no more: ends the running step */

/* --- vdi.c */
void vdi_begin_resume(struct vdi *v);
void vdi_begin_attach(struct vdi *v);
void vdi_begin_activate(struct vdi *v);
void vdi_begin_deactivate(struct vdi *v);
void vdi_begin_detach(struct vdi *v);
void vdi_begin_stop(struct vdi *v);
/* After the barrier, v->step says how it went: the running deactivation's domain goes, or raises. */
void vdi_handed_over(struct vdi *v);
void vdi_resume_later(struct vdi *v); /* life.c: who is not served is looked for again */
/* Found or made; NULL + e. */
struct domain *vdi_add_domain(struct vdi *v, const char *name, struct error *e);
struct domain *vdi_find(const struct vdi *v, const char *name);
void vdi_remove_domain(struct vdi *v, struct domain *d);
/* Whether somebody other than `but` (NULL: anybody) has it active for writing; is_guest_only: guests of the operation. */
bool vdi_has_writer(const struct vdi *v, const struct domain *but, bool is_guest_only);
bool vdi_has_active(const struct vdi *v);
bool vdi_counts_as_guest(const struct vdi *v, const struct domain *d);

/* --- listening.c */
void vdi_begin_listen(struct vdi *v); /* JOB_LISTEN */
void listening_forget(struct domain *d); /* where it listens; what does so ends with its server */
void listening_again(struct domain *d);  /* its server is new */
/* To and from domains.json. out borrows, item has room for DOMAINS_LISTEN_MAX. */
void listening_note(const struct domain *d, struct domains_entry *out, struct domains_listener *item);
void listening_take_up(struct domain *d, const struct domains_entry *entry);

/* --- guest-device.c */
void guest_device_begin(struct vdi *v);  /* JOB_DEVICE */
void guest_device_serve(struct vdi *v, struct domain *d); /* its server is new */
void guest_device_stop(struct vdi *v, step_fn *next); /* of job->cut: its guest's memory is not touched any more */
void guest_device_forget(struct domain *d);               /* it is not active any more */
void guest_device_drop_book(const struct domain *d);      /* nor attached */
void guest_device_resized(struct vdi *v);                 /* the disk may have another size */
void guest_device_count(const struct domain *d, struct nbdsrv_stats *s); /* adds what went over its ring */
void guest_device_status(const struct domain *d, struct vdi_domain_status *out);
void guest_device_note(struct domain *d, struct domains_entry *out); /* borrowed */
void guest_device_take_up(struct domain *d, const struct domains_entry *entry);

/* --- far-ask.c */
void far_begin_link(struct vdi *v); /* JOB_LINK */

/* --- far.c */
extern const struct nbdsrv_link_ops far_links; /* arg: the vdi */
void far_init(struct vdi *v);
void far_begin_foreign(struct vdi *v); /* JOB_FOREIGN */
bool far_is_open(const struct far_link *l);
bool far_is_of_generation(const struct far_link *l, const struct commit_link *name);
void far_refuse_plain(struct vdi *v); /* until far_apply() */
/* Fields of an answer; far_say() starts anew with the status and what the disk is now, far_say_failed() is all of it. */
void far_put(struct question *q, uint32_t field);
void far_put_u64(struct question *q, uint64_t value);
void far_say(struct question *q, const struct commit_record *r, enum commit_status status);
void far_say_failed(struct question *q, int err);
/* Who may write by what the record says: to be said to servers and links anew after each change of either. */
void far_apply(struct vdi *v);
/* v->owner.record has changed: applies it, answers WAITs. */
void far_on_change(struct vdi *v);
bool far_is_linked(const struct vdi *v);
/* Closes every admitted link but those of the generation of `but` (NULL: every one). What they submitted goes on. */
void far_shut_out(struct vdi *v, const struct commit_link *but);
/* The running job's domain, which is active, goes: its clients are cut, what it received is given up; or its server lingers. */
void far_leave(struct vdi *v, step_fn *next);

/* --- linger.c */
void linger_begin_end(struct vdi *v);     /* JOB_UNLINGER */
void linger_begin_destroy(struct vdi *v); /* JOB_DESTROY */
bool linger_is_wanted(const struct vdi *v);
/* After a change of the record, of links or of what lingers. */
void linger_look(struct vdi *v);

/* --- source-news.c */
void source_queue_heard(struct operation *op, enum commit_status status, enum commit_state state, uint64_t epoch);
/* From on_change(): asks for news, notes that the link came or went. */
void source_look(struct operation *op);
void source_begin_heard(struct vdi *v);  /* JOB_HEARD */
void source_begin_linked(struct vdi *v); /* JOB_LINKED */
/* On record: more numbers for links than were ever used; the last that may have been used before. */
void source_reserve(struct vdi *v, step_fn *next);
uint64_t source_next_links(const struct vdi *v);
void source_let_go(struct vdi *v, step_fn *next);   /* a given disk's operation ends here */

/* --- source-prepare.c */
int source_compare(struct vdi *v);        /* PREPARE's answer is in v->op->ask. -1 + the step's error: not all is there */
void source_prepare_early(struct vdi *v); /* guests are held, and what they had under way may still land */
void source_after_early(struct vdi *v, step_fn *then);   /* in the midst of a step: one question at a time */
void source_await_prepare(struct vdi *v, step_fn *next); /* until that is answered, if it was asked */
/* Nothing is under way: did that answer settle it? Then it is in v->op->ask + the step's error. */
bool source_was_prepared(struct vdi *v);
bool source_may_lack(struct vdi *v);      /* + the step's error: PREPARE would say nothing of what was sent before */

/* --- source.c */
/* Makes a verdict's record durable, or goes on at once. */
void source_decide(struct vdi *v, const struct commit_verdict *verdict, step_fn *next);
/* Asks over the link; what remote_ask_check() says is the step's error, the answer in v->op->ask. */
void source_ask(struct vdi *v, enum remote_question question, step_fn *next);
void source_send(struct vdi *v, const struct remote_ask *ask, step_fn *next); /* likewise; ask->done is set here */
void source_look_for_link(struct vdi *v); /* a step waits for one: is it there? */
void source_back(struct vdi *v);          /* the record says that the disk is owned again: the mirror goes on; then committed() */
/* Whether a mirror of this disk may begin. -1 + e. */
int source_check(const struct vdi *v, struct error *e);
void source_fill(struct operation *op, struct mirror_spec *spec);
void source_reach_is_over(void *op); /* its timer's */
bool source_is_linked(const struct vdi *v);
/* Steps; v->step says how they ended. */
void source_begin(struct vdi *v, step_fn *next);    /* on record: v->op is this disk's mirror */
void source_tell(struct vdi *v, step_fn *next);     /* on record: complete=true may be answered */
/* All was sent and flushed: the far side, an sxm, gets the disk; v->op->is_given then. */
void source_commit(struct vdi *v, step_fn *next);
void source_part(struct vdi *v, step_fn *next);     /* ... a foreign one: nothing is owed any more */
/* The barrier has failed: on record, and the far side hears where it can. v->step means nothing afterwards. */
void source_withdraw(struct vdi *v, step_fn *next);
/* ... that half of it: the disk is owned here, job->was_offered says from what. */
void source_say_end(struct vdi *v, step_fn *next);
/* Nothing is owed any more for the mirror of this name. */
void source_settle(struct vdi *v, const char *id, step_fn *next);
/* Asks for the disk back. Whether it was given: the record says. */
void source_reclaim(struct vdi *v, step_fn *next);

/* --- envoy.c */
/* The disk was given by a process that is no more: asks it back. What came of it: the record says. */
void envoy_reclaim(struct vdi *v, step_fn *next);
/* The disk was offered by a process that is no more, and is to be given: likewise. v->step: why it could not be. */
void envoy_commit(struct vdi *v, step_fn *next);

/* --- group.c */
void group_begin_prepare(struct vdi *v);  /* JOB_PREPARE */
bool group_is_prepared(const struct vdi *v); /* guests are held until the decision */
void group_hurry(struct vdi *v);          /* patience is over now */
/* v->decided: what is; final: cancelled if nothing was. DECISION_NONE and v->step: it cannot be known. */
void group_ask(struct vdi *v, const char *group, bool is_final, step_fn *next);

/* --- group-doubt.c */
void group_begin_follow(struct vdi *v);   /* JOB_FOLLOW */
/* The record is offered with a group: follows its decision, made final first. v->step, or a record as before: not yet. */
void group_resolve(struct vdi *v, step_fn *next);
/* Given with a group: who wrote here is inactive now (to be saved: true). */
bool group_leave(struct vdi *v);

/* --- snapshot.c */
struct snapshot;
void snapshot_begin(struct vdi *v); /* JOB_SNAPSHOT */
void snapshot_free(struct snapshot *s); /* NULL is allowed */
void snapshot_is_over(struct snapshot *s); /* nobody wants it any more */

/* --- resize.c */
void resize_begin(struct vdi *v); /* JOB_RESIZE */
int resize_check(const struct vdi *v, struct error *e); /* whether the open disk may change its size; -1 + e */
void resize_look_for_journal(struct vdi *v);            /* ... as to a mirror that is suspended: on a pool thread, in v->step */

/* --- pause.c */
void pause_begin(struct vdi *v); /* JOB_PAUSE */
void pause_free(struct pause *p); /* NULL is allowed */
void pause_hurry(struct vdi *v); /* it is over now */
void pause_is_over(struct pause *p); /* nobody needs an answer */

/* --- tracking.c */
int tracking_open(struct vdi *v, struct error *e); /* on the pool: v->opened is open for writing; v->tracked then */
int tracking_put(struct vdi *v, struct error *e);  /* v->cbt over v->disk, where it is tracked */
void tracking_close(struct vdi *v, step_fn *next); /* drained; v->step stays. v->cbt is gone then */
void tracking_rest(struct vdi *v, step_fn *next);  /* a step: it is, until cbt_go_on(); at once, where nothing is tracked */
void tracking_begin(struct vdi *v); /* JOB_TRACK */

/* --- take.c */
void take_begin(struct vdi *v); /* JOB_TAKE */

/* --- operation.c: its steps */
void operation_begin(struct vdi *v);        /* JOB_MIRROR */
void operation_settle(struct vdi *v);       /* JOB_SETTLE: settle.c */
void operation_remove(struct vdi *v);       /* JOB_REMOVE */
void operation_drop(struct vdi *v);         /* JOB_FORGET */
/* After a change of who writes: an operation in sync may be told, or finish. */
void operation_look(struct vdi *v);
/* Ends v->op. The gate is held or refusing, the mirror finished or aborted: drains, takes the mirror out, wakes the gate,
 * writes the record and domains.json. v->step says how the writing went. */
void operation_take_out(struct vdi *v, step_fn *next);
void operation_record(struct vdi *v, step_fn *next); /* writes its record, as it is now */
/* v->op fails by `why`: aborts it and takes it out, whatever the gate does. */
void operation_give_up(struct vdi *v, const struct error *why, step_fn *next);
/* v->op ends with this process, to be taken up by the next one. */
void operation_suspend(struct vdi *v, step_fn *next);
/* An operation of a dead process becomes a failed record, and a debt where complete may have been told. */
void operation_bury(struct vdi *v, const struct remains *r, step_fn *next);
void operation_on_change(void *op); /* its mirror's */
void operation_on_timer(void *op);

/* --- begin.c */
/* Makes op->mirror; of a mirror op->debt is filled. peer: of an earlier process; NULL: there was none. -1 + e. */
int operation_make_mirror(struct operation *op, const char *remote, const struct extents *only, const struct mirror_peer *peer,
			  struct error *e);
void operation_begin_journal(struct vdi *v); /* JOB_JOURNAL */
void operation_note(struct operation *op);   /* what its journal says has changed */

/* --- remember.c */
/* v->op has failed; -1: it is not one to remember. Else the running job, JOB_REMOVE, goes on there. */
int remember_begin(struct vdi *v);
void remember_resume(struct vdi *v); /* JOB_MIRROR, asked to */
void remember_found(struct operation *op, const char *why); /* an earlier process': its mirror is to begin remembering */
void remember_anew(struct vdi *v, step_fn *next);           /* ... and that is written down */
void remember_drop(struct vdi *v, step_fn *next);
void operation_owe(struct vdi *v, const struct operation *op); /* what was told of it and cannot be kept */
void operation_hand_starter(struct job *j, struct operation *op);
void operation_write_journal(struct vdi *v, step_fn *next);

/* --- revive.c */
void revive_note(struct vdi *v, const struct domains_record *r); /* it says that one ran */
/* The disk is open. Takes up the mirror of a dead process or host, if there is one that can be; buries it else. Never fails. */
void revive(struct vdi *v, step_fn *next);

/* --- record.c: what is kept of operations, and who waits for news of them */
struct operation *record_find(const struct vdi *v, const char *id);
struct operation *record_by_number(const struct vdi *v, uint64_t number);
uint64_t record_number(struct vdi *v); /* ms of now; unique among all processes of this disk */
/* A new operation, not live yet; domain, id and number set. NULL: out of memory. */
struct operation *record_new(struct vdi *v, const char *domain, bool is_copy);
void record_free(struct vdi *v, struct operation *op);
void record_trim(struct vdi *v); /* drops the oldest ended ones */
int record_make_dir(struct error *e); /* where the files are; blocks */
char *record_path(const char *id); /* heap; NULL: out of memory */
char *record_encode(const struct operation *op); /* heap; NULL: out of memory */
/* Whether there is a record of this id and it has ended; and how. Blocks; at start only. */
bool record_says_ended(const char *id, bool *is_complete);
void record_news(struct vdi *v, const char *id);
void record_drop_news(struct vdi *v); /* everybody hears */

/* --- verification.c */
void verification_begin(struct vdi *v);     /* JOB_VERIFY */
void verification_ended(struct vdi *v);     /* JOB_VERIFIED */
void verification_close(struct vdi *v);     /* the gate is about to be closed: nothing more is read */
void verification_wait(struct vdi *v, step_fn *next); /* a step: none is alive */
void verification_drop_all(struct vdi *v);  /* those that are over; none is alive */

/* --- figures-guest.c */
/* From now on d's figures are written for xcp-rrdd, as those of that VM's device; because somebody said so, or xenstore, to which
 * nobody listens who was told. */
int figures_tell(struct vdi *v, struct domain *d, const char *vm, const char *device, struct error *e);
void figures_found(void *domain, const char *vm, const char *device);
void figures_end(struct domain *d);          /* it is detached */
char *figures_vm(const struct domain *d);    /* borrowed: what was told; NULL: nothing */
char *figures_device(const struct domain *d);
void figures_serve(struct vdi *v, struct domain *d); /* its server is new */
void figures_cut(struct domain *d, const struct nbdsrv_stats *gone); /* whoever counted that is about to be freed; NULL: all */
void figures_begin_job(struct vdi *v);       /* JOB_FIGURES */

/* --- handover.c */
/* The barrier of v->op: v->step says whether the far side has everything; the mirror is out either way. d: whose clients are
 * cut once it has, NULL: nobody's. */
void handover_begin(struct vdi *v, struct domain *d, step_fn *next);
void handover_committed(struct vdi *v); /* its second half: the commit has ended so; then job->handed_over */

#endif
