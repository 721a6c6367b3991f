#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A mirror outlives its hosts: whoever activates the disk again after a reboot finds it going on, by the marks. (reboots.sh says what is not real here.)
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires qemu-io --version
requires qemu-nbd --version
. "$SXM_SRCDIR/tests/e2e/reboots.sh"

size=$((256 * MiB))
data=$((192 * MiB))

write_a() { qemu-io -f raw -c "write -P $1 $2 $3" "nbd+unix:///a?socket=$(get a socket attach '{"domain":"3"}')" >/dev/null; }
boot_a() { power_on a "$tmp/a.raw"; let_in a 3 >/dev/null; }
boot_b() { power_on b "$tmp/b.raw"; let_in b MIR1 >/dev/null; }

begin() {
	rm -f "$tmp"/[ab].raw*
	head -c $data /dev/urandom >"$tmp/a.raw"
	truncate -s $size "$tmp/a.raw" "$tmp/b.raw"
	boot_a
	boot_b
	mirror_to_b "$@"
}
hand_over() {
	ask a deactivate '{"domain":"3"}' >/dev/null
	cmp "$tmp/a.raw" "$tmp/b.raw" || die "the sides differ after the barrier"
	[ "$(get b owner.state status)" = eligible ] || die "the far side is $(get b owner.state status)"
	ask b detach '{"domain":"MIR1"}' >/dev/null
	ask b activate '{"domain":"4"}' >/dev/null || die "the guest is not let in at the far side"
	ask a detach '{"domain":"3"}' >/dev/null
	ask b detach '{"domain":"4"}' >/dev/null
	is_over() { [ ! -e "$tmp/a/run/a" ] && [ ! -e "$tmp/b/run/b" ]; }
	until_true 10 is_over
	for file in a.raw.mirror a.raw.marks; do
		[ ! -e "$tmp/$file" ] || die "$file was left behind"
	done
}
# in_step_again ALLOWED: nothing is owed; what the process of now has sent is at most that.
in_step_again() {
	until_true 20 is_in_step
	say "$(owed_by 'the marks') bytes owed by the marks, $(($(of sent_bytes) / 1024)) KiB sent by the new process, of $((data / 1024)) KiB"
	[ "$(of sent_bytes)" -le "$1" ] || die "too much was sent again"
}
has_no_marks() { [ "$(tail -c +16385 "$tmp/a.raw.marks" | tr -d '\0' | wc -c)" = 0 ]; }
start_guest() {
	mkfifo "$tmp/then"
	"$guest" write --uri "nbd+unix:///a?socket=$(get a socket attach '{"domain":"3"}')" --log "$tmp/log" --then "$tmp/then" \
		--region $data:$((size - data)) --iops 2000 --depth 8 --seed "$1" --flush-every 100 --zero-percent 5 >"$tmp/guest.out" &
	guest_pid=$!
	at_exit stop "$guest_pid"
}
end_guest() {
	kill -TERM "$guest_pid"
	wait "$guest_pid" || die "the guest was told of an error: $(cat "$tmp/guest.out")"
	rm "$tmp/then"
}

say "this host reboots when all was flushed and nobody wrote since: nothing is sent again"
begin
until_true 20 is_in_step
until_true 20 has_no_marks
cut_power a
boot_a
in_step_again $((data / 50))

say "... and after a guest wrote to one region: that region"
write_a 0x22 33M 1M
until_true 20 is_in_step
cut_power a
boot_a
in_step_again $((17 * MiB))
[ "$(get a complete mirror.stat "{\"id\":\"$op\"}")" = true ] || die "complete was taken back"
hand_over

say "the other host reboots: what was not flushed there"
begin
until_true 20 is_in_step
before=$(of sent_bytes)
cut_power b
write_a 0x33 33M 1M
boot_b
until_true 20 is_in_step
say "$((($(of sent_bytes) - before) / 1024)) KiB sent for 1024 KiB written, of $((data / 1024)) KiB"
[ $(($(of sent_bytes) - before)) -le $((10 * MiB)) ] || die "too much was sent again"
hand_over

say "in the middle of the pass, under a guest: this host reboots, the other one, then both at once"
begin
# shellcheck disable=SC2046 # the keeper and its child
kill -STOP $(processes_of "$tmp/b/run")
start_guest 7
has_written() { [ "$(stat -c %s "$tmp/log")" -gt "$1" ]; }
until_true 20 has_written 24000
is state syncing || die "the pass is over before the cut: $(of state)"
cut_power a
# shellcheck disable=SC2046
kill -CONT $(processes_of "$tmp/b/run")
boot_under_guest() {
	boot_a
	nbd_uri "$(get a socket attach '{"domain":"3"}')" a >"$tmp/then"
	say "$(owed_by 'the marks') bytes owed by the marks"
}
boot_under_guest
until_true 20 has_written 48000
cut_power b
boot_b
until_true 20 has_written 96000
cut_power a
cut_power b
boot_b
boot_under_guest
until_true 30 is state synced
end_guest
hand_over
start qemu-nbd --persistent -r -f raw -k "$tmp/verify.sock" "$tmp/b.raw"
until_true 5 test -S "$tmp/verify.sock"
"$guest" verify --uri "nbd+unix:///?socket=$tmp/verify.sock" --log "$tmp/log" || die "writes were lost"
