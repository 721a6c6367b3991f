#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Hosts lose their power under a writing guest, and their disks what was not flushed: the mirror goes on by the marks, both sides
# are the same in the end, and what the guest had flushed is there. (What is not real here: reboots.sh.)
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/reboots.sh"

rounds=${SXM_POWER_ROUNDS:-1}
size=$((96 * MiB))

boot() {
	spin_up "$1"
	power_on "$1" "$tmp/$1.nbd"
	let_in "$1" "$2" >/dev/null
}
uri_a() { nbd_uri "$(get a socket attach '{"domain":"3"}')" a; }
has_written() { [ "$(stat -c %s "$tmp/log")" -gt $((log_before + 24 * $1)) ]; }
let_write() {
	log_before=$(stat -c %s "$tmp/log" 2>/dev/null || echo 0)
	until_true 20 has_written "$1"
}
lose_a() { boot a 3; echo "lost $(uri_a)" >"$tmp/then"; say "$(owed_by 'the marks') bytes owed by the marks"; }

# The marks of what no guest writes to are gone, on the medium.
is_first_half_settled() { [ $(($(od -An -tu1 -j16384 -N1 "$tmp/a.nbd.marks") & 7)) = 0 ]; }

# one_move MODE
one_move() {
	rm -f "$tmp"/[ab].nbd* "$tmp/log"
	head -c $((size / 2)) /dev/urandom >"$tmp/a.bytes"
	truncate -s 0 "$tmp/b.bytes"
	truncate -s $size "$tmp/a.bytes" "$tmp/b.bytes"
	boot a 3
	boot b MIR1
	[ -p "$tmp/then" ] || mkfifo "$tmp/then"
	"$guest" write --uri "$(uri_a)" --log "$tmp/log" --then "$tmp/then" --region $((size / 2)):$((size / 2)) --iops 2000 --depth 16 \
		--flush-every 50 --zero-percent 5 --overlap >"$tmp/guest" &
	guest_pid=$!
	at_exit stop "$guest_pid"
	let_write 100
	mirror_to_b "$1"
	say "$1: this host, in the pass"
	cut_power a
	lose_a
	until_true 20 is state synced
	let_write 500
	say "$1: this host, in sync"
	[ "$1" != lag ] || until_true 20 is_first_half_settled
	cut_power a
	lose_a
	[ "$1" != lag ] || [ "$(owed_by 'the marks')" -le $((size / 2)) ] || die "what no guest wrote to is owed"
	let_write 100
	say "$1: the other host"
	cut_power b
	let_write 100
	boot b MIR1
	let_write 500
	say "$1: both, the other one first"
	cut_power b
	let_write 20
	cut_power a
	boot b MIR1
	lose_a
	until_true 20 is state synced
	let_write 200
	kill -TERM "$guest_pid"
	wait "$guest_pid" || die "the guest was told of an error: $(cat "$tmp/guest")"
	ask a deactivate '{"domain":"3"}' >/dev/null
	cut_power b # after the barrier: nothing there may depend on the power any more
	cut_power a
	cmp "$tmp/a.bytes" "$tmp/b.bytes" || die "the sides differ after the barrier"
	spin_up b
	"$guest" verify --uri "nbd+unix:///?socket=$tmp/b.sock" --log "$tmp/log" || die "what was flushed was lost"
	stop "${disk_pid[b]}"
	unset "disk_pid[b]"
}

for ((i = 0; i < rounds; i++)); do
	one_move lag
	one_move sync
done
