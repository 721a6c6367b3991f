#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A foreign far side is lost: the mirror has failed, and what the guest writes from then on is remembered. It is resumed when that
# is asked for: in the same process, after a kill, after a reboot of this host.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires qemu-io --version
requires nbdkit --version

tmp=$(make_tmp)
export SXM_RUN_DIR=$tmp/run SXM_STATE_DIR=$tmp/state
datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
kill_far() {
	[ -z "$far" ] || kill -9 "$far"
	far=
}
far=
at_exit end_datapaths "$SXM_RUN_DIR"
at_exit kill_far
MiB=1048576
size=$((256 * MiB))

a() { control "$SXM_RUN_DIR/a/control" "$@"; }
get() { control --get "$1" "$SXM_RUN_DIR/a/control" "${@:2}"; }
of() { get "operations.0.$1" status; }
is() { [ "$(of "$1")" = "$2" ]; }
write_a() { qemu-io -f raw -c "write -P $1 $2 $3" "nbd+unix:///a?socket=$socket_a" >/dev/null; }
is_over() { [ ! -e "$SXM_RUN_DIR/a" ]; }
is_still() { is dirty_bytes 0 && is lag_bytes 0; }
is_complete() { [ "$(get complete mirror.stat "{\"id\":\"$op\"}")" = true ]; }
has_failed() { [ "$(get failed mirror.stat "{\"id\":\"$op\"}")" = true ]; }
has_sent() { [ "$(of sent_bytes)" -ge "$1" ]; }
recorded() { grep -q "$1" "$SXM_STATE_DIR/operations/$op.json"; }

serve_far() { # filters and their parameters
	rm -f "$tmp/socket"
	nbdkit -f -U "$tmp/socket" "$@" >"$tmp/nbdkit.log" 2>&1 &
	far=$!
	is_up() { [ -S "$tmp/socket" ]; }
	until_true 5 is_up
}
slowly() { serve_far --filter=rate --threads=1 file "$tmp/b" rate=250M burstiness=0.1; }
begin() {
	head -c $((size / 2)) /dev/urandom >"$tmp/a"
	truncate -s $size "$tmp/a" "$tmp/b"
	"$datapath" --id a --path "$tmp/a" --keep
	socket_a=$(get socket attach '{"domain":"3"}')
	a activate '{"domain":"3"}' >/dev/null
	slowly
	start
}
start() { op=$(get id mirror.start "{\"domain\":\"3\",\"remote\":\"nbd+unix://?socket=$tmp/socket\"}"); }
resume() { get id mirror.start "{\"domain\":\"3\",\"remote\":\"nbd+unix://?socket=$tmp/socket\",\"resume\":true}"; }
# At half the pass.
lose() {
	until_true 20 has_sent $((size / 4))
	kill_far
	until_true 10 has_failed
	until_true 10 is remembered true
	until_true 5 recorded '"failed":true'
	! recorded '"ended":0' || die "it is not on record as ended"
	sent=$(of sent_bytes)
}
finish() {
	until_true 20 is_complete
	a deactivate '{"domain":"3"}' >/dev/null
	cmp "$tmp/a" "$tmp/b" || die "the sides differ after the barrier"
	a detach '{"domain":"3"}' >/dev/null
	until_true 10 is_over
	[ ! -e "$tmp/a.mirror" ] && [ ! -e "$tmp/a.marks" ] || die "files were left behind"
	kill_far
	rm -f "$tmp"/a "$tmp"/b "$tmp"/a.*
}
pid_of() { get pid hello; }
is_another() { [ -n "$(pid_of 2>/dev/null)" ] && [ "$(pid_of)" != "$1" ]; }

resumed() {
	say "the far side is killed at half the pass, the guest writes on, it is resumed"
	begin
	lose
	write_a 0x11 1M 4M
	write_a 0x12 200M 1M
	must_fail a mirror.start '{"domain":"3","remote":"nbd+unix://?socket=/elsewhere","resume":true}' 2>/dev/null
	must_fail resume 2>/dev/null # nobody is there
	is remembered true || die "an attempt that failed was the end of it"
	has_failed || die "it is not failed any more"
	slowly
	[ "$(resume)" = "$op" ] || die "it is not called as it was"
	! has_failed || die "it is resumed, and failed"
	recorded '"ended":0' || die "its record says that it is over"
	until_true 20 is_complete
	again=$(($(of sent_bytes) - size / 2 - 5 * MiB))
	say "$((again / 1024)) KiB sent again, of $((size / 2048)) KiB; $((sent / 1024)) KiB were there"
	[ $again -lt $((64 * MiB)) ] || die "too much was sent again"
	finish
}

lost_when_complete() {
	say "it is lost when it was complete: the deactivation would raise; resumed, it does not"
	begin
	until_true 20 is_complete
	until_true 10 is_still
	kill_far
	until_true 10 is remembered true
	write_a 0x21 0 8M
	[ -n "$(get owed status)" ] || die "nothing is owed"
	must_fail is_complete
	slowly
	resume >/dev/null
	until_true 20 is_complete
	sent=$(of sent_bytes)
	say "$(((sent - size / 2) / 1024)) KiB sent again and anew"
	[ $sent -lt $((size / 2 + 8 * MiB + 80 * MiB)) ] || die "too much was sent again"
	finish
}

killed_while_remembered() {
	say "the process is killed while it is remembered"
	begin
	lose
	pid=$(pid_of)
	kill -9 "$pid"
	until_true 5 is_another "$pid"
	until_true 5 is remembered true
	has_failed || die "it is not failed any more"
	write_a 0x31 2M 2M
	write_a 0x32 255M 1M
	slowly
	[ "$(resume)" = "$op" ] || die "it is not called as it was"
	until_true 20 is_complete
	say "$(($(of sent_bytes) / 1024)) KiB sent by the second process, of $((size / 2048)) KiB"
	[ "$(of sent_bytes)" -lt $((size / 2 - sent + 64 * MiB)) ] || die "too much was sent again"
	finish
}

kill_process() {
	pid=$(pid_of)
	kill -9 "$pid"
	until_true 5 is_another "$pid"
	until_true 5 is remembered true
	has_failed || die "it is remembered, and not failed"
}

killed_while_the_far_side_lives() {
	say "the process is killed while the far side lives: nothing is sent before that is asked for"
	begin
	until_true 20 has_sent $((size / 4))
	kill_process
	write_a 0x51 2M 2M
	recorded '"failed":true' || die "its record does not say that it has failed"
	is sent_bytes 0 || die "$(of sent_bytes) bytes were sent"
	kill_process # once more
	write_a 0x52 9M 1M
	[ "$(resume)" = "$op" ] || die "it is not called as it was"
	until_true 20 is_complete
	say "$(($(of sent_bytes) / 1024)) KiB sent by the third process, of $((size / 2048)) KiB"
	finish
}

killed_when_complete() {
	say "likewise when it was complete, and nobody can be connected to: that is not tried"
	begin
	until_true 20 is_complete
	kill -STOP "$far"
	kill_process
	must_fail is_complete
	[ -n "$(get owed status)" ] || die "nothing is owed"
	write_a 0x61 0 8M
	kill -CONT "$far"
	resume >/dev/null
	until_true 20 is_complete
	finish
}

killed_and_the_journal_says_nothing() {
	say "likewise by a journal that does not say what the far side is"
	begin
	until_true 20 has_sent $((size / 4))
	pid=$(pid_of)
	kill -9 "$(ps -o ppid= -p "$pid" | tr -d ' ')" "$pid"
	until_true 5 is_gone "$pid"
	sed -i 's/,"foreign":true//' "$tmp/a.mirror"
	! grep foreign "$tmp/a.mirror" || die "the journal is of another form: $(cat "$tmp/a.mirror")"
	"$datapath" --id a --path "$tmp/a" --keep
	until_true 20 is remembered true
	has_failed || die "it is remembered, and not failed"
	is sent_bytes 0 || die "$(of sent_bytes) bytes were sent"
	resume >/dev/null
	until_true 20 is_complete
	finish
}

rebooted() {
	say "the host is rebooted while it is remembered"
	begin
	lose
	end_datapaths "$SXM_RUN_DIR"
	rm -rf "$SXM_RUN_DIR"
	"$datapath" --id a --path "$tmp/a" --keep
	socket_a=$(get socket attach '{"domain":"4"}')
	a activate '{"domain":"4"}' >/dev/null
	is remembered true || die "it is forgotten"
	write_a 0x41 3M 2M
	slowly
	a mirror.start "{\"domain\":\"4\",\"remote\":\"nbd+unix://?socket=$tmp/socket\",\"resume\":true}" >/dev/null
	until_true 20 is_complete
	say "$(($(of sent_bytes) / 1024)) KiB sent after it, by the marks"
	a deactivate '{"domain":"4"}' >/dev/null
	cmp "$tmp/a" "$tmp/b" || die "the sides differ after the barrier"
	a detach '{"domain":"4"}' >/dev/null
	until_true 10 is_over
	kill_far
	rm -f "$tmp"/a "$tmp"/b "$tmp"/a.*
}

what_ends_it() {
	say "what ends it: another mirror, a cancellation, the last writer's leaving"
	begin
	lose
	slowly
	first=$op
	start
	[ "$op" != "$first" ] || die "nobody asked to resume it"
	until_true 20 is_complete
	kill_far
	until_true 10 has_failed
	a mirror.cancel "{\"id\":\"$op\"}" >/dev/null
	[ -z "$(get owed status)" ] || die "it was cancelled, and is owed for"
	must_fail resume 2>/dev/null
	[ ! -e "$tmp/a.mirror" ] || die "its journal was left behind"
	slowly
	start
	until_true 20 is_complete
	kill_far
	until_true 10 has_failed
	must_fail a deactivate '{"domain":"3"}' 2>/dev/null # owed
	a deactivate '{"domain":"3"}' >/dev/null
	a detach '{"domain":"3"}' >/dev/null
	until_true 10 is_over
	[ ! -e "$tmp/a.mirror" ] && [ ! -e "$tmp/a.marks" ] || die "files were left behind"
}

for name in ${SXM_CASES:-$(fewer 3 resumed lost_when_complete killed_while_remembered killed_while_the_far_side_lives \
	killed_when_complete killed_and_the_journal_says_nothing rebooted what_ends_it)}; do
	"$name"
done
