#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A mirror to another sxm outlives its link, the far side's process and its own: it goes on by itself and sends again little.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires qemu-io --version

tmp=$(make_tmp)
export SXM_RUN_DIR=$tmp/run
datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
at_exit end_datapaths "$SXM_RUN_DIR"
MiB=1048576
size=$((256 * MiB))

a() { control "$SXM_RUN_DIR/a/control" "$@"; }
b() { control "$SXM_RUN_DIR/b/control" "$@"; }
get() { control --get "$1" "$SXM_RUN_DIR/$2/control" "${@:3}"; }
of() { get "operations.0.$1" a status; }
is() { [ "$(of "$1")" = "$2" ]; }
is_complete() { [ "$(get complete a mirror.stat "{\"id\":\"$op\"}")" = true ]; }
sent() { of sent_bytes; }
write_a() { qemu-io -f raw -c "write -P $1 $2 $3" "nbd+unix:///a?socket=$socket_a" >/dev/null; }
pid_of() { get pid "$1" hello; }
has_another_pid() { [ "$(pid_of "$1" 2>/dev/null)" != "$2" ] && [ -n "$(pid_of "$1" 2>/dev/null)" ]; }
kill_process() {
	local pid

	pid=$(pid_of "$1")
	kill -9 "$pid"
	until_true 5 has_another_pid "$1" "$pid"
}
is_in_step() { is state synced && is dirty_bytes 0 && is lag_bytes 0; }

begin() {
	head -c $((size / 2)) /dev/urandom >"$tmp/a"
	truncate -s $size "$tmp/a" "$tmp/b"
	"$datapath" --id a --path "$tmp/a" --keep
	"$datapath" --id b --path "$tmp/b" --keep
	a activate '{"domain":"3"}' >/dev/null
	b activate '{"domain":"MIR1"}' >/dev/null
	socket_a=$(get socket a attach '{"domain":"3"}')
	socket_b=$(get socket b attach '{"domain":"MIR1"}')
	op=$(get id a mirror.start "{\"domain\":\"3\",\"remote\":\"nbd+unix:///b?socket=$socket_b\",\"mode\":\"$1\"}")
}
# What the sides hold when the barrier is over, and that the far side may be started.
hand_over() {
	a deactivate '{"domain":"3"}' >/dev/null
	cmp "$tmp/a" "$tmp/b" || die "the sides differ after the barrier"
	[ "$(get owner.state b status)" = eligible ] || die "the far side is $(get owner.state b status)"
	b detach '{"domain":"MIR1"}' >/dev/null
	b activate '{"domain":"4"}' >/dev/null || die "the guest is not let in at the far side"
	a detach '{"domain":"3"}' >/dev/null
	b detach '{"domain":"4"}' >/dev/null
	is_over() { [ ! -e "$SXM_RUN_DIR/a" ] && [ ! -e "$SXM_RUN_DIR/b" ]; }
	until_true 10 is_over
	for file in a.mirror a.marks; do
		[ ! -e "$tmp/$file" ] || die "$file was left behind"
	done
	rm -f "$tmp"/a "$tmp"/b "$tmp"/a.* "$tmp"/b.*
}

say "the far side's process is killed after complete: the guest writes on, only the difference is sent again"
begin lag
until_true 20 is_complete
until_true 20 is_in_step
kill_process b
write_a 0x11 0 8M
until_true 20 is_in_step
is links_lost 1 || die "links lost: $(of links_lost)"
again=$(($(sent) - size / 2 - 8 * MiB))
say "$((again / 1024)) KiB sent beyond what the disk held and the guest wrote"
[ $again -lt $((4 * MiB)) ] || die "too much was sent again"
hand_over

say "this side's process is killed after complete, and goes on by the map"
begin lag
until_true 20 is_complete
until_true 20 is_in_step
kill_process a
[ "$(get complete a mirror.stat "{\"id\":\"$op\"}")" = true ] || die "complete was taken back"
write_a 0x22 1M 8M
until_true 20 is_in_step
say "$(($(sent) / 1024)) KiB sent by the second process, of $((size / 2048)) KiB"
[ "$(sent)" -lt $((12 * MiB)) ] || die "too much was sent again"
hand_over

say "the mode is changed while it runs, and survives"
begin sync
until_true 20 is_complete
is sync true || die "not in sync mode"
a mirror.mode "{\"id\":\"$op\",\"mode\":\"lag\"}" >/dev/null
is sync false || die "still in sync mode"
a mirror.mode "{\"id\":\"$op\",\"mode\":\"sync\"}" >/dev/null
must_fail a mirror.mode "{\"id\":\"$op\",\"mode\":\"fast\"}" 2>/dev/null
is_noted() { grep -q '"sync":true' "$tmp/a.mirror"; }
until_true 5 is_noted
kill_process a
until_true 20 is_in_step
is sync true || die "the mode did not survive"
write_a 0x33 64M 1M
hand_over

say "both are killed in the middle of the pass"
begin lag
kill_process a
kill_process b
until_true 20 is_complete
hand_over

say "the far volume received another mirror in between: nothing is gone on with"
begin lag
until_true 20 is_complete
pid=$(pid_of a)
keeper=$(ps -o ppid= -p "$pid" | tr -d ' ')
kill -9 "$keeper" "$pid"
until_true 5 is_gone "$pid"
head -c 8M /dev/urandom >"$tmp/c"
truncate -s $size "$tmp/c"
"$datapath" --id c --path "$tmp/c" --keep
control "$SXM_RUN_DIR/c/control" activate '{"domain":"5"}' >/dev/null
other=$(get id c mirror.start "{\"domain\":\"5\",\"remote\":\"nbd+unix:///b?socket=$socket_b\"}")
is_other_complete() { [ "$(get complete c mirror.stat "{\"id\":\"$other\"}")" = true ]; }
until_true 20 is_other_complete
control "$SXM_RUN_DIR/c/control" mirror.cancel "{\"id\":\"$other\"}" >/dev/null
"$datapath" --id a --path "$tmp/a" --keep
is_failed() { [ "$(get failed a mirror.stat "{\"id\":\"$op\"}")" = true ]; }
until_true 20 is_failed
get text a mirror.stat "{\"id\":\"$op\"}" | grep -q "another mirror" || die "failed for another reason: $(a mirror.stat "{\"id\":\"$op\"}")"
