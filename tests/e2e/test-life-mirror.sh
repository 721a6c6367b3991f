#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# An operation's life over the control sockets of two processes: what is answered, raised once, recorded and left behind when
# the far side is not there, says nothing, goes, or the process itself is killed; halted disks, copies of ranges, cancellation.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdinfo --version

tmp=$(make_tmp)
export SXM_RUN_DIR=$tmp/run
datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
at_exit end_datapaths "$SXM_RUN_DIR"
size=$((64 << 20))

a() { control "$SXM_RUN_DIR/a/control" "$@"; }
b() { control "$SXM_RUN_DIR/b/control" "$@"; }
get() { control --get "$1" "$SXM_RUN_DIR/$2/control" "${@:3}"; }
begin_a() { "$datapath" --id a --path "$tmp/a" --keep; }
# A new far side; sets $far.
begin_b() {
	rm -f "$tmp/b" "$tmp/b.owner"
	truncate -s "${1-$size}" "$tmp/b"
	"$datapath" --id b --path "$tmp/b" --keep
	b activate '{"domain":"MIR1"}' >/dev/null
	far="nbd+unix:///b?socket=$(get socket b attach '{"domain":"MIR1"}')"
}
b_is_gone() { [ ! -e "$SXM_RUN_DIR/b" ]; }
end_b() {
	b detach '{"domain":"MIR1"}' >/dev/null
	until_true 5 b_is_gone
}
# After a commit: a guest is started at the far side, which ends the operation, and MIR1. And a is a's again, as a new disk.
take_b() {
	b activate '{"domain":"9"}' >/dev/null
	b detach '{"domain":"9"}' >/dev/null
	until_true 5 b_is_gone
	a_is_closed() { [ "$(get open a status)" = false ]; }
	until_true 5 a_is_closed
	slots "$tmp/a.owner" | grep -q '"given"' || die "not given: $(cat "$tmp/a.owner")"
	rm "$tmp/a.owner"
}
kill_b() {
	local pid keeper

	pid=$(get pid b hello)
	keeper=$(ps -o ppid= -p "$pid" | tr -d ' ')
	kill -9 "$keeper" "$pid"
	until_true 5 is_gone "$pid"
	rm -rf "$SXM_RUN_DIR/b"
}
start_mirror() { get id a mirror.start "{\"domain\":\"${2-3}\",\"remote\":\"$1\"}"; }
stat_of() { get "$2" a mirror.stat "{\"id\":\"$1\",\"wait_ms\":500}"; }
is_complete() { [ "$(stat_of "$1" complete)" = true ]; }
is_failed() { [ "$(stat_of "$1" failed)" = true ] && [ "$(stat_of "$1" complete)" = false ]; }
record() { json "$2" <"$SXM_RUN_DIR/state/operations/$1.json"; }
has_record() { [ -s "$SXM_RUN_DIR/state/operations/$1.json" ]; }
activate_3() { a activate '{"domain":"3"}' >/dev/null; }
deactivate_3() { a deactivate '{"domain":"3"}' >/dev/null; }
raises_once() {
	must_fail deactivate_3 2>"$tmp/raised"
	[ -s "$tmp/raised" ] || die "raised without a sentence"
	[ "$(get domains.0.active a status)" = true ] || die "the domain of a raised deactivation is not active"
	deactivate_3 || die "raised twice"
}

head -c 8M /dev/urandom >"$tmp/a"
truncate -s $size "$tmp/a"
begin_a
a attach '{"domain":"3"}' >/dev/null
activate_3

say "nobody listens: an error, and nothing is left"
must_fail start_mirror "nbd+unix:///x?socket=$tmp/nobody" 2>"$tmp/said"
[ -s "$tmp/said" ] || die "no sentence"
[ "$(get operations a mirror.list)" = "[]" ] || die "left behind: $(a mirror.list)"
[ -z "$(ls "$SXM_RUN_DIR/state/operations")" ] || die "a record of what never began"

say "a target smaller than the source is refused"
begin_b $((size / 2))
must_fail start_mirror "$far" 2>/dev/null
end_b

say "one operation at a time; the barrier; the record; the copy"
begin_b
op=$(start_mirror "$far")
must_fail start_mirror "$far" 2>"$tmp/said"
grep -q "$op" "$tmp/said" || die "does not name the first: $(cat "$tmp/said")"
until_true 20 is_complete "$op"
deactivate_3
is_complete "$op" || die "not complete after the barrier"
[ "$(record "$op" complete)" = true ] || die "its record says no"
take_b
cmp "$tmp/a" "$tmp/b"
a mirror.destroy "{\"id\":\"$op\"}" >/dev/null
! has_record "$op" || die "destroyed, and recorded"

say "a far side that goes after complete is raised, once"
activate_3
begin_b
op=$(start_mirror "$far")
until_true 20 is_complete "$op"
kill_b
raises_once
is_failed "$op" || die "not failed"
until_true 5 has_record "$op"

say "killed after complete: its successor goes on with it, and hands over"
activate_3
begin_b
op=$(start_mirror "$far")
until_true 20 is_complete "$op"
kill -9 "$(get pid a hello)"
is_complete "$op" || die "what was complete is not any more"
deactivate_3
take_b
cmp "$tmp/a" "$tmp/b"

say "cancelled: failed, and the guest goes as usual"
activate_3
begin_b
op=$(start_mirror "$far")
until_true 20 is_complete "$op"
a mirror.cancel "{\"id\":\"$op\"}" >/dev/null
is_failed "$op" || die "not failed"
deactivate_3
end_b

say "a halted disk: the far side has everything, flushed, before it is complete"
begin_b
op=$(start_mirror "$far" -1)
until_true 20 is_complete "$op"
take_b
cmp "$tmp/a" "$tmp/b"

say "a copy of some ranges copies these"
begin_b
op=$(get id a mirror.start "{\"domain\":\"3\",\"remote\":\"$far\",\"copy\":true,\"blocksize\":65536,\"ranges\":[[8,4],[0,1],[9,1]]}")
until_true 20 is_complete "$op"
end_b
python3 - "$tmp/a" "$tmp/b" <<'END'
import sys
a, b = (open(p, "rb").read() for p in sys.argv[1:])
want = bytearray(len(a))
for first, count in (0, 1), (8, 4):
    want[first << 16:first + count << 16] = a[first << 16:first + count << 16]
sys.exit(bytes(want) != b)
END

say "a peer that accepts and says nothing: answered after 10 s, cancelled at once, nothing stays"
python3 -c 'import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); c = s.accept(); time.sleep(1000)' "$tmp/mute" &
at_exit stop $!
until_true 5 test -S "$tmp/mute"
op=$(start_mirror "nbd+unix:///x?socket=$tmp/mute" -1)
[ "$(stat_of "$op" failed)" = false ] || die "failed already"
a mirror.cancel "{\"id\":\"$op\"}" >/dev/null
is_failed "$op" || die "not failed"

say "nothing is left in the end"
a detach '{"domain":"3"}' >/dev/null
a_is_gone() { [ ! -e "$SXM_RUN_DIR/a" ]; }
until_true 5 a_is_gone
