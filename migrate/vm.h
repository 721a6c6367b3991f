/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vm - a VM that moves with its disks: what is done next, from what both QEMUs say of themselves; pure (THEORY-vm argues)
 *
 * Nothing is remembered but what stands in the journey's record: whoever takes a move up asks both, and goes on from there.
 */
#ifndef SXM_MIGRATE_VM_H
#define SXM_MIGRATE_VM_H

#include "base/compiler.h"

/* QEMU's RunState, as far as it matters. */
enum vm_run {
	VM_RUN_OTHER = 0, /* whatever it is, it is not executed, and not because of us: shutdown, guest-panicked, io-error */
	VM_RUN_RUNNING,
	VM_RUN_PAUSED,
	VM_RUN_WAITING,   /* inmigrate: a VM is to come */
	VM_RUN_FINISHING, /* finish-migrate: stopped, and on its way */
	VM_RUN_LEFT,      /* postmigrate: stopped, since it was sent */
};
/* QEMU's MigrationStatus, of the memory that it sends or receives. */
enum vm_memory {
	VM_MEMORY_NONE = 0,
	VM_MEMORY_MOVING,     /* setup, active */
	VM_MEMORY_READY,      /* pre-switchover */
	VM_MEMORY_LAST,       /* device */
	VM_MEMORY_COMPLETED,
	VM_MEMORY_FAILED,
	VM_MEMORY_CANCELLING,
	VM_MEMORY_CANCELLED,
	VM_MEMORY_OTHER,      /* what this is no part of: postcopy, colo */
};
struct vm_side {
	bool is_known; /* asked since anything was done there */
	bool is_gone;  /* there is no QEMU any more */
	enum vm_run run;
	enum vm_memory memory;
};
struct vm_seen {
	struct vm_side here, there;
	bool is_begun;      /* on record: memory may be on its way */
	bool was_running;   /* on record: before that, it ran */
	bool is_sent;       /* this very caller began to send */
	bool is_plugged;    /* this very caller gave the disks to the one there */
	bool is_cut_off;    /* the other host cannot be asked */
	/* Of the disks, which a person may have taken back by force. */
	bool are_disks_known; /* asked since anything was done: */
	bool are_disks_its;   /* here: what they were when it stopped, and no other guest's */
	bool are_disks_apart; /* decided to move, and not all of them have */
};

/* What is wanted. The last two are said by the decision on the disks, and only by that. */
enum vm_goal {
	VM_GOAL_READY, /* all but what is sent while it stands still is there, and here it stands still */
	VM_GOAL_WHOLE, /* there it is whole, and stands still; here too */
	VM_GOAL_STAY,  /* decided, or nothing was: here it is what it was */
	VM_GOAL_MOVE,  /* decided: there it is what it was here */
};
enum vm_do {
	VM_DONE,
	VM_FAIL,       /* `why` says why */
	VM_WAIT,       /* for the one here */
	VM_ASK_THERE,
	VM_ASK_DISKS,  /* are_disks_its */
	VM_SEND,       /* on record first that it is begun */
	VM_CONTINUE,   /* here: what is sent while it stands still */
	VM_CANCEL,     /* here */
	VM_RUN_HERE,
	VM_END_THERE,
	VM_PLUG_THERE, /* its disks, and it runs if it did */
	VM_END_HERE,
};
enum vm_why {
	VM_WHY_NONE,
	VM_WHY_GONE_HERE,
	VM_WHY_GONE_THERE,
	VM_WHY_NOT_WAITING,   /* the one there does not wait for a VM */
	VM_WHY_BUSY,          /* the one here sends its memory already, for somebody else */
	VM_WHY_NOT_A_VM,      /* the one here neither runs nor is paused */
	VM_WHY_FAILED_HERE,   /* QEMU said so, or it was cancelled */
	VM_WHY_FAILED_THERE,
	VM_WHY_TOO_FAR,       /* it did not stop before the switchover */
	VM_WHY_RUNS_THERE,    /* somebody else started it */
	VM_WHY_RUNS_HERE,
	VM_WHY_OTHER_TIME,    /* its memory and its disks here are not of one time */
	VM_WHY_APART,         /* its disks are not all on one side */
};
struct vm_verdict {
	enum vm_do does;
	enum vm_why why;
};
struct vm_verdict vm_next(enum vm_goal goal, const struct vm_seen *s);
const char *vm_why_text(enum vm_why why); /* a sentence's second half */

enum vm_run vm_run_of(const char *status);
enum vm_memory vm_memory_of(const char *status); /* NULL, "": none */

#endif
