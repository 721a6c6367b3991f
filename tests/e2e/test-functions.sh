#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A test that fails says why in its log, also where it has redirected what the command said.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"

tmp=$(make_tmp)

# try LINE: a test of that one line; its log is $tmp/log.
try() {
	printf '. "$SXM_SRCDIR/tests/functions.sh"\n%s\n' "$1" >"$tmp/test.sh"
	bash "$tmp/test.sh" >"$tmp/log" 2>&1
}
says() { grep -q "FAILED: .*$1" "$tmp/log" || die "its log does not say '$1': $(cat "$tmp/log")"; }

try 'must_fail true 2>/dev/null >&2' && die "what should have failed and did not is a success"
says "should have failed (0): true"
try 'must_fail sh -c "kill \$\$" 2>/dev/null' && die "death by a signal is taken for a refusal"
says "should have failed (143)"
try 'f() { die "inside"; }; f >/dev/null 2>&1' && die "it went on after die"
says inside
try 'until_true 0 false >/dev/null 2>&1' && die "it went on after waiting in vain"
says "waited in vain for: false"
# What is started while the others are being killed ends, too.
try 'run=$_tmp/run datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
begin() { (SXM_RUN_DIR=$run exec -a "$datapath" sleep 60) & until_true 5 is_there $!; }
is_there() { datapaths_of "$run" | grep -qx "$1"; }
kill() { [ -e "$_tmp/again" ] || { touch "$_tmp/again"; begin; }; command kill "$@"; }
begin
end_datapaths "$run"
[ -z "$(datapaths_of "$run")" ] || die "there are still $(datapaths_of "$run")"' || die "$(cat "$tmp/log")"
try 'must_fail sh -c "exit 3"; must_fail false' || die "a refusal was no success: $(cat "$tmp/log")"
[ ! -s "$tmp/log" ] || die "it says something where all is well: $(cat "$tmp/log")"
