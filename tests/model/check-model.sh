#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The models of the handover hold in every state, and each bug that they can be built with is found.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires spin -V
[ "${SXM_BRIEF-}" != 2 ] || skip "no sanitizer sees anything here: nothing of sxm runs"
tmp=$(make_tmp)
cd "$tmp"

# Searches all states of $model; the output is in ./log.
search() {
	spin "$@" -a "$model.pml" >log || die "spin does not understand $model.pml: $(cat log)"
	${CC:-cc} -O0 -w -DSAFETY -DNOFAIR -o pan pan.c
	./pan -m100000 >log
}
errors() { sed -n 's/.*errors: //p' log; }

for model in handover group; do
	cp "$SXM_SRCDIR/tests/model/$model.pml" .
	search
	[ "$(errors)" = 0 ] || die "$model breaks: $(grep 'pan:1' log); to see how: spin -t -p -g $model.pml"
	! grep -q 'max search depth too small\|out of memory' log || die "not every state was seen: $(cat log)"
	say "$model holds in all $(sed -n 's/ *\([0-9.e+]*\) states, stored.*/\1/p' log) states"
	for bug in $(grep -o 'BUG_[A-Z_]*' "$model.pml" | sort -u); do
		search "-D$bug"
		[ "$(errors)" = 1 ] || die "$bug is not found in $model"
		say "$bug is found: $(sed -n 's/^pan:1: //p' log)"
	done
done
