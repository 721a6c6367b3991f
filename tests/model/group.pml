/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Two disks of A that are handed over together: one decision, every interleaving.  check-model.sh runs it.
 *
 * What one disk and its far side do besides is handover.pml's; here a link is there or not, and B is asked COMMIT, or has ended.
 *
 *      record of a disk     owned -> offered, with the name -> given | back (withdrawn, two epochs on)
 *      the decision         none -> commit | cancel: seen at once by all of A, durable when somebody has synced it
 *      the coordinator      prepares each -> decides -> removes the decision when none is offered any more; may die, be run again
 *
 * Process deaths, A's host's death, lost questions and answers, far sides that end, impatient disks, a cancel before a disk is prepared
 * (it fails): at any step. The name is used once.
 */
mtype = { owned, offered, given, back };
mtype = { receiving, eligible, incomplete };
mtype = { none, commit, cancel };
mtype = { prepares, has_decided, gone }; /* the coordinator */

mtype a[2] = owned, b[2] = receiving;
bool job[2], prepared[2]; /* a process holds the guests; and has said yes */
bool yes[2];              /* as the coordinator heard it */
bool torn[2];             /* its far side ended after it had said yes */
bool to_b[2], to_a[2];    /* COMMIT, and its answer */
mtype seen = none, durable = none;
mtype who = prepares;
bool refused = 0, removed = 0;

#ifdef BUG_UNPREPARED
#define all_prepared (yes[0] || yes[1])
#else
#define all_prepared (yes[0] && yes[1])
#endif
#ifdef BUG_REMOVED
#define all_followed (a[0] != offered || a[1] != offered)
#else
#define all_followed (a[0] != offered && a[1] != offered)
#endif
#ifdef BUG_UNDECIDED
#define may_commit(i) (prepared[i] || seen == commit)
#else
#define may_commit(i) (seen == commit)
#endif
#define in_doubt(i) (a[i] == offered && (prepared[i] || !job[i]))

#ifdef BUG_OVERRULED
inline make(d) { seen = d }
#else
inline make(d) { if :: seen == none -> seen = d :: else fi }
#endif
#ifdef BUG_LATE
inline sync() { skip }
#else
inline sync() { durable = seen }
#endif
inline free(i) { job[i] = 0; prepared[i] = 0 }
inline check() {
	assert(!(a[0] == given && a[1] == back && !torn[1]));
	assert(!(a[1] == given && a[0] == back && !torn[0]));
	assert(!(b[0] == eligible && (a[0] == back || a[0] == owned)));
	assert(!(b[1] == eligible && (a[1] == back || a[1] == owned)))
}

active proctype group()
{
	byte i;

end:	do
	:: atomic { true -> if :: i = 0 :: i = 1 fi };
	   if
	   /* --- the coordinator */
	   :: who == prepares && a[i] == owned && !job[i] && seen == none && !refused -> atomic {
		job[i] = 1; a[i] = offered }
	   :: who == prepares && prepared[i] -> yes[i] = 1
	   :: who == prepares && all_prepared -> atomic { make(commit); who = has_decided }
	   :: who == prepares -> atomic { make(cancel); who = has_decided }
	   :: who == has_decided && all_followed -> atomic { seen = none; durable = none; removed = 1; who = gone }
	   :: who != gone -> atomic { who = gone; yes[0] = 0; yes[1] = 0 }
	   :: who == gone && !removed -> atomic { who = prepares; refused = 0 }

	   /* --- a disk, up to its yes */
	   :: job[i] && !prepared[i] && b[i] == receiving -> prepared[i] = 1
	   :: job[i] && !prepared[i] -> atomic { a[i] = back; free(i); refused = 1; check() }

	   /* --- between: told, impatient, or taken up again by whoever comes */
	   :: in_doubt(i) && seen == none -> atomic {
#ifdef BUG_ABSENCE
		a[i] = back; free(i)
#else
		make(cancel)
#endif
		; check() }
	   :: in_doubt(i) && seen == cancel -> atomic { sync(); a[i] = back; free(i); check() }
	   :: in_doubt(i) && may_commit(i) && !to_b[i] && !to_a[i] -> atomic { sync(); to_b[i] = 1 }
#ifdef BUG_OVERRULED
	   :: in_doubt(i) -> make(cancel)
#endif
#ifdef BUG_UNNAMED
	   :: a[i] == offered && !job[i] -> atomic { a[i] = back; check() }
#endif
	   :: a[i] == offered && b[i] == incomplete -> atomic { /* heard over a link */
		torn[i] = prepared[i] || !job[i];
		if :: job[i] && !prepared[i] -> refused = 1 :: else fi;
		a[i] = back; free(i); check() }
	   :: to_a[i] -> atomic { to_a[i] = 0; if :: a[i] == offered -> a[i] = given; free(i) :: else fi; check() }

	   /* --- its far side */
	   :: to_b[i] -> atomic { to_b[i] = 0; if :: b[i] != incomplete -> b[i] = eligible; to_a[i] = 1 :: else fi; check() }
	   :: b[i] == receiving -> b[i] = incomplete

	   /* --- what goes wrong */
	   :: to_b[i] -> to_b[i] = 0
	   :: to_a[i] -> to_a[i] = 0
	   :: job[i] -> atomic { free(i); to_a[i] = 0 }
	   :: atomic { durable != seen || who != gone || job[0] || job[1] ->
		seen = durable; who = gone; yes[0] = 0; yes[1] = 0; free(0); free(1); to_a[0] = 0; to_a[1] = 0; check() }
	   :: else
	   fi
	od
}
