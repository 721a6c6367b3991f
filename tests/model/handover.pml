/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The handover of one disk from A to B, every interleaving: crashes and lost messages at every step.  check-model.sh runs it.
 *
 * It is mirror/commit without what does not race: one mirror, which has been complete (so a barrier that fails raises), epochs from 1,
 * generations as "HELLO throws away what came before it", a disk's content as two bits: has_a, has_b: every acknowledged write is there.
 *
 *      record of A      owned -> offered -> given        record of B     receiving -> eligible -> taken, released, gone
 *                                                                            '-> incomplete -> gone
 *      question of A -> (to_b: name's epoch) -> B, durable -> answer (made, sent) -> A, durable -> verb answered
 *
 * A step is one of the options of the one loop. What is durable survives a crash; to_b, to_a, made, call and held do not, except that
 * a question that is under way when A or the link dies may still arrive, as long as no HELLO has.
 *
 * Assumed of the orchestrator: it starts B only after a deactivation of A that succeeded, none before it in this move having raised or
 * been lost. It may stop waiting for anything at any time, cancel, and start the guest on A again.
 */
#define EPOCHS 6 /* no offer above this: three rounds, and it stays small */

mtype = { owned, offered, given,                                        /* A */
	  receiving, eligible, taken, incomplete, released, gone };     /* B */
mtype = { none, hello, commit, reclaim, ack };                          /* questions */
mtype = { idle, begin, sync, asking, succeeded, raising, activate, reclaiming }; /* A's verb */

/* durable */
mtype a = owned; byte ea = 1; bool raised = 0, over = 0, a_knows = 0 /* of TAKEN */;
mtype b = receiving; byte eb = 1; bool acked = 0;
bool has_a = 1, has_b = 0;

/* A's process */
bool guest_a = 1, held = 0;
mtype call = idle;

/* the link */
bool up = 0;              /* HELLO was answered */
mtype to_b = none; byte name = 0, sent_name = 0;
mtype made = none; bool made_ok = 0;   /* B's answer, not sent yet */
mtype to_a = none; bool ok = 0; mtype said = receiving; byte esaid = 0;
mtype waits = none;       /* A's question is unanswered */

/* B's process, and the orchestrator */
bool guest_b = 0;
byte start_b = 0;         /* 1: it may; 2: nobody waits for it any more */
bool destroy_b = 0;
bool success = 0, off = 0, cancelled = 0, heard_raise = 0;

#define b_exists (b != gone)
#define writes_a (guest_a && a == owned && !held)
#define writes_b (guest_b && b == taken)
#define can_a (a == owned || a == offered)
#define can_b (b == eligible || b == taken)
#ifdef BUG_NO_COMPARE
#define late_reclaim (b == taken)
#else
#define late_reclaim false
#endif
#ifdef BUG_UNSYNCED
#define unsynced true
#else
#define unsynced false
#endif
#define quiet_link (waits == none && to_a == none)
#define owns_as (a == owned -> ea : ea - 1)
#define usable (up && quiet_link && name == owns_as) /* else RECLAIM is asked first */

inline no_answer() { to_a = none; ok = 0; said = receiving; esaid = 0 }
inline cut() { up = 0; waits = none; no_answer(); made = none; made_ok = 0; name = 0;
	if :: call == asking -> call = sync :: call == reclaiming -> call = activate :: else fi }
inline ask(q) { waits = q; to_b = q; sent_name = name }
inline own() { a = owned; ea++ }
inline unlearn() { no_answer(); waits = none }

/* What must always hold. The last: nobody can be started: then A, and it is whole: `sxm epoch take` there, the only word that fits. */
inline check() {
	assert(!(writes_a && writes_b));
	assert(!(a == owned && b == taken && ea == eb));
	assert(!guest_b || b == taken);
	assert(!(a == given && b == eligible) || (has_a && has_b));  /* either may be taken */
	assert(!(can_a && b != taken) || has_a);
	assert(!(can_b && a == given) || has_b);
	assert(can_a || can_b || (a == given && !a_knows && has_a));
}

/* Not before A has the disk back, or B said so and the answer was lost. */
inline destroy() {
	assert(a != given || eb == ea + 1 && b != released);
	b = gone; cut(); destroy_b = 0; check()
}

/* A has heard (said, esaid) of B's record: commit_source_heard(). */
inline hear() {
	if
	:: said == receiving && a != owned && esaid == ea + 1 -> own()
	:: said == receiving && a == given && esaid != ea + 1 -> assert(false)
	:: said == eligible -> assert(a == owned -> esaid < ea : esaid == ea)
	:: said == taken && a != owned -> assert(esaid == ea); a = given; a_knows = 1
	:: said == taken && a == owned -> assert(false)
	:: said == released && a != owned -> assert(esaid == ea + 1); own(); over = 1
	:: said == released && a == owned -> over = 1
	:: said == incomplete -> if :: a != owned -> own() :: else fi; over = 1
	:: else
	fi
}

active proctype handover()
{
	do
	/* --- guests */
	:: writes_a -> atomic { has_b = 0; assert(has_a) }
	:: writes_b -> atomic { has_a = 0; assert(has_b) }
	:: usable && b == receiving && eb == name && a != given && !over -> has_b = 1 /* all is sent */

	/* --- A: the link */
	:: !up && waits == none && call != succeeded && call != raising && b_exists -> atomic {
		name = owns_as; ask(hello) }
	:: up && quiet_link && a != given && name != owns_as -> ask(reclaim) /* a withdrawal was faster than HELLO's answer */
	:: (up || waits != none) -> atomic { cut(); check() } /* a question that is under way may still arrive */
	:: (up || waits != none) -> atomic { cut(); to_b = none; sent_name = 0 }

	/* --- A: deactivation */
	:: guest_a && call == idle && start_b != 1 -> atomic { call = begin; start_b = 0; success = 0 }
	:: call == begin -> atomic {
		if :: a == given || over || raised -> call = succeeded
		   :: else -> held = 1; call = sync fi }
#ifdef BUG_OFFERED_LATE
	:: call == sync && a == owned && usable && b == receiving && (has_b || unsynced) && !over && ea < EPOCHS -> atomic {
		ask(commit); call = asking }
#else
	:: call == sync && a == owned && usable && b == receiving && !over && ea < EPOCHS -> atomic { /* while the last is still sent */
		a = offered; ea++; check() }
#endif
	:: call == sync && a == offered && usable && (has_b || unsynced || b != receiving) -> atomic { /* PREPARE's digest */
		ask(commit); call = asking }
	:: call == sync && a == given -> call = succeeded
	:: (call == sync || call == asking) && a != given -> atomic { /* no progress, or ENDED */
		if :: a == offered -> own() :: else fi;
		raised = 1; call = raising; cut(); check() }
	:: call == succeeded -> atomic { /* answered */
		guest_a = 0; held = 0; call = idle;
		success = !off && !cancelled && a == given;
#ifdef BUG_GIVEN_LATE
		if :: a == given && b == eligible -> a = offered :: else fi; /* and a crash */
#endif
		check() }
	:: call == raising -> atomic { held = 0; call = idle; off = 1; success = 0;
		assert(!heard_raise); heard_raise = 1 }
	:: call != idle && call != activate && call != reclaiming && !off -> off = 1 /* it stops waiting */

	/* --- A: activation */
	:: !guest_a && call == idle && start_b != 1 -> atomic { call = activate; success = 0 }
	:: call == activate && up && quiet_link && a != owned && !a_knows -> atomic { ask(reclaim); call = reclaiming }
	:: call == activate && a == given && (!up || a_knows) -> call = idle /* refused */
	:: call == activate && a == offered && !up -> atomic {
#ifdef BUG_WITHDRAW_FORGOTTEN
		a = owned; ea--;
#else
		own();
#endif
		check() }
	:: call == activate && a == owned -> atomic { guest_a = 1; call = idle; off = 0; assert(has_a); check() }

	/* --- A hears */
	:: to_a == hello -> atomic {
		hear();
		if :: ok -> up = 1; unlearn() :: else -> cut() fi;
		check() }
	:: to_a == commit -> atomic {
		if :: ok && esaid == ea && a == offered -> a = given
#ifdef BUG_OFFERED_LATE
		   :: ok && a == owned && esaid == ea + 1 -> a = given; ea++
#endif
		   :: else -> hear() fi;
		unlearn(); if :: call == asking -> call = sync :: else fi;
		check() }
	:: to_a == reclaim -> atomic {
		if :: ok -> name = esaid :: else fi;
		hear(); unlearn(); if :: call == reclaiming -> call = activate :: else fi;
		check() }
	:: to_a == ack -> unlearn()
	:: up && quiet_link && a != owned && !a_knows && (b == taken || b == released || b == incomplete) -> atomic { /* news */
		said = b; esaid = eb; hear(); no_answer();
		if :: b == released -> ask(ack) :: else fi;
		check() }
	:: up && quiet_link && a == owned && b == released && !acked -> ask(ack)

	/* --- A dies */
	:: atomic { call != idle || up || waits != none || held ->
		if :: call == begin || call == sync || call == asking || call == raising || call == succeeded -> off = 1 :: else fi;
		call = idle; cut(); held = 0;
		if :: guest_a = 0 :: skip fi; check() }

	/* --- B: questions. Durable first, then the answer is made, then sent */
	:: to_b == hello && made == none -> atomic {
		made = hello; to_b = none;
		if :: b == receiving || b == eligible ->
			made_ok = 1;
			if :: sent_name > eb -> b = receiving; eb = sent_name :: else fi
		   :: b == released -> made_ok = 1
		   :: b == gone -> cut()
		   :: else -> made_ok = 0 fi;
		sent_name = 0; check() }
	:: to_b == commit && made == none -> atomic {
		made = commit; to_b = none; made_ok = 0;
		if :: b == receiving && eb == sent_name -> b = eligible; eb++; made_ok = 1
		   :: b == eligible && eb == sent_name + 1 -> made_ok = 1
		   :: else fi;
		sent_name = 0; check() }
	:: to_b == reclaim && made == none -> atomic {
		made = reclaim; to_b = none; made_ok = 0;
		if :: (b == receiving && (eb == sent_name || eb == sent_name + 2)) || (b == eligible && eb == sent_name + 1) || late_reclaim ->
			b = receiving; eb = sent_name + 2; made_ok = 1
		   :: else fi;
		sent_name = 0; check() }
	:: to_b == ack && made == none -> atomic { made = ack; to_b = none; sent_name = 0; if :: b == released -> acked = 1 :: else fi }
	:: made != none && waits == made -> atomic { to_a = made; ok = made_ok; said = b; esaid = eb; made = none; made_ok = 0 }
	:: made != none && waits != made -> atomic { made = none; made_ok = 0 } /* nobody is there to hear it */

	/* --- B: what the orchestrator wants of it */
	:: success && start_b == 0 -> start_b = 1
	:: start_b == 1 -> atomic { start_b = 2; success = 0 }
	:: start_b != 0 && b == eligible -> atomic { b = taken; guest_b = 1; start_b = 0; assert(has_b); check() }
	:: start_b != 0 && b != eligible -> atomic { assert(start_b == 2 || b == taken); start_b = 0 }
	:: !cancelled && start_b != 1 && b != taken -> atomic { cancelled = 1; success = 0; destroy_b = 1 }
	:: !cancelled && !success && b == receiving -> atomic { cancelled = 1; b = incomplete; check() } /* MIR* is deactivated */
	:: destroy_b && (b == receiving || b == incomplete) && made == none -> atomic { destroy() }
#ifdef BUG_DESTROY_AT_ONCE
	:: destroy_b && b == eligible -> atomic { destroy() }
#endif
	:: destroy_b && b == eligible && up && made == none -> atomic { b = released; eb++; check() }
	:: destroy_b && b == released && acked -> atomic { destroy() }
	:: destroy_b && (b == taken || (b == eligible && !up)) -> destroy_b = 0 /* refused */

	/* --- B dies; its guest too, or not */
	:: atomic { up || made != none || to_b != none || guest_b ->
		cut(); to_b = none; sent_name = 0;
#ifdef BUG_DISC_IS_COMMIT
		if :: b == receiving -> b = eligible; eb++ :: else fi;
#endif
		if :: guest_b = 0 :: skip fi; check() }
	od
}
