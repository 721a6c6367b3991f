#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Which branches of the mirror's core its simulation and its unit tests take: at least 95 in a hundred, those of assertions not
# counted. With ./check.sh --long, and by hand:  ./run tests/sim/coverage.sh
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires gcov --version
tmp=$(make_tmp)
src=$SXM_SRCDIR
flags=(-std=gnu11 -O1 -I"$src/src" -I"$src" -D_GNU_SOURCE -DNDEBUG -DCORE_ACTIONS_MAX=4 -w)
core=("$src"/mirror/core*.c)
core=("${core[@]##*/}")
core=("${core[@]%.c}")
cd "$tmp"

for file in "${core[@]}"; do gcc "${flags[@]}" -O0 --coverage -c "$src/mirror/$file.c"; done
for file in claim pace; do gcc "${flags[@]}" -c "$src/mirror/$file.c"; done
gcc "${flags[@]}" -c "$src/src/base/bitmap.c"
link() { # PROGRAM SOURCE ...
	local program=$1

	shift
	# The tests need their own assertions.
	gcc "${flags[@]}" -UNDEBUG --coverage -o "$program" "$@" ./*.o -lcmocka
}
sim=("$src/tests/lib/sim.c" "$src/tests/lib/sim-oracle.c")
link sim-random "$src/tests/sim/sim-random.c" "$src/tests/sim/schedule.c" "${sim[@]}"
for golden in golden golden-ends golden-links; do
	link "sim-$golden" "$src/tests/sim/sim-$golden.c" "$src/tests/sim/golden.c" "${sim[@]}"
done
link test-core-map "$src/tests/unit/test-core-map.c"
link test-core-limit "$src/tests/unit/test-core-limit.c"
link test-core-reading "$src/tests/unit/test-core-reading.c"
link test-core-odd "$src/tests/unit/test-core-odd.c" -Wl,--wrap=calloc
SIM_SCHEDULES=${SIM_SCHEDULES_COVERED:-100000} ./sim-random >/dev/null
# With room for four actions a step their traces are others; here they only have to run.
for golden in golden golden-ends golden-links; do "./sim-$golden" >/dev/null || :; done
for unit in core-map core-odd core-limit core-reading; do "./test-$unit" >/dev/null 2>&1; done

taken=0 all=0
for file in "${core[@]}"; do
	# "Taken at least once:P% of N" belongs to the file that was named last.
	read -r percent of < <(LC_ALL=C gcov -b "$file.gcda" 2>/dev/null |
		awk -v name="mirror/$file.c'" 'index($0, "File ") { is_it = index($0, name) > 0 }
			is_it && /Taken at least once/ { sub(/.*once:/, ""); sub(/% of/, ""); print; exit }')
	say "$percent % of $of branches in $file.c"
	hits=$(awk -v p="$percent" -v n="$of" 'BEGIN { printf "%d", p * n / 100 + 0.5 }')
	taken=$((taken + hits)) all=$((all + of))
done
say "$taken of $all branches of core*.c are taken: $(awk -v t=$taken -v a=$all 'BEGIN { printf "%.1f", 100 * t / a }') %"
[ $((taken * 100)) -ge $((all * 95)) ] || die "less than 95 %"
