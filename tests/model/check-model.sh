#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The model of the handover holds in every state, and each bug that it can be built with is found.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires spin -V
tmp=$(make_tmp)
cd "$tmp"
cp "$SXM_SRCDIR/tests/model/handover.pml" .

# Searches all states; the output is in ./log.
search() {
	spin "$@" -a handover.pml >log || die "spin does not understand the model: $(cat log)"
	"${CC:-cc}" -O0 -w -DSAFETY -DNOFAIR -o pan pan.c
	./pan -m100000 >log
}
errors() { sed -n 's/.*errors: //p' log; }

search
[ "$(errors)" = 0 ] || die "the model breaks: $(grep 'pan:1' log); to see how: spin -t -p -g handover.pml"
! grep -q 'max search depth too small\|out of memory' log || die "not every state was seen: $(cat log)"
say "holds in all $(sed -n 's/ *\([0-9.e+]*\) states, stored.*/\1/p' log) states"

bugs=$(grep -o 'BUG_[A-Z_]*' handover.pml | sort -u)
for bug in $bugs; do
	search "-D$bug"
	[ "$(errors)" = 1 ] || die "$bug is not found"
	say "$bug is found: $(sed -n 's/^pan:1: //p' log)"
done
