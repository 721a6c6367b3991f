#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Whatever the far side does, the guest goes on (mirror-try ends with 3 when a request fails or takes 10 s), and the mirror
# either holds or says in a sentence why not.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/mirror-try.sh"
requires nbdkit --version
requires nbdinfo --version
tmp=$(make_tmp)
sock=$tmp/sock
uri=$(far_uri "$sock")

# anew NBDKIT-ARGS...: a new source, a new far side.
anew() {
	[ -z "${server-}" ] || stop "$server"
	rm -f "$sock" "$tmp/source"
	fill "$tmp/source"
	start_nbdkit "$sock" "$@"
	server=$started
}
# in_background TRY-ARGS...: then ended waits for it.
in_background() {
	: >"$tmp/out" # here: what the last one said must be gone before this one is asked
	"$mirror_try" "$@" >"$tmp/out" &
	tried=$!
	at_exit stop "$tried"
}
ended() {
	status=0
	until_true 60 is_gone "$tried"
	wait "$tried" || status=$?
	out=$(cat "$tmp/out")
	[ "$status" -lt 2 ] || die "mirror-try ended with $status: $out"
}

# --- never reached

fill "$tmp/source"
try --connect 200 --writes 100 "$tmp/source" "$(far_uri "$tmp/none")"
expect_failed "no socket" "No such file"
try --writes 100 "$tmp/source" "file:///x"
expect_failed "no NBD URI" "not an NBD URI"
anew memory $((size - 512))
try --writes 100 "$tmp/source" "$uri"
expect_failed "too small" "too small.*$((size - 512)).*$size"
anew -r memory "$size"
try --writes 100 "$tmp/source" "$uri"
expect_failed "read-only" "read-only"

# A server that accepts (the kernel does) and never speaks.
stop "$server"
start python3 -c 'import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(8)
time.sleep(600)' "$tmp/mute"
until_true 10 test -S "$tmp/mute"
try --handshake 300 --writes 100 "$tmp/source" "$(far_uri "$tmp/mute")"
expect_failed "a mute server" "does not answer"
try --handshake 600000 --writes 1 --abort-at 500 "$tmp/source" "$(far_uri "$tmp/mute")"
grep -qx aborted "$tmp/out" || die "aborting while connecting: $out"

# The socket of xapi's relay appears after its name was handed out.
rm -f "$sock"
fill "$tmp/source"
in_background --connect 10000 --writes 300 "$tmp/source" "$uri"
sleep 0.3 # what is tested is that this does no harm
start nbdkit -f -U "$sock" memory "$size"
server=$started
ended
expect_finished "a socket that comes late"

# --- lost on the way

anew memory "$size"
in_background --writes 100 --stay "$tmp/source" "$uri"
until_true 30 was_said synced
kill -9 "$server"
ended
expect_failed "killed when in step" "link to the far side"

anew --filter=delay memory "$size" delay-write=50ms
in_background --writes 100 "$tmp/source" "$uri"
until_true 30 was_said connected
kill -9 "$server"
ended
expect_failed "killed in the middle" "link to the far side"

# Stopped, not dead: nothing comes, nothing breaks.
anew memory "$size"
in_background --writes 5000 --stay --dead 1000 "$tmp/source" "$uri"
until_true 30 was_said synced
kill -STOP "$server"
ended
kill -CONT "$server"
expect_failed "silent" "no progress for so long"

# For a while only: that is no loss.
anew memory "$size"
in_background --writes 4000 --dead 20000 "$tmp/source" "$uri"
until_true 30 was_said connected
kill -STOP "$server"
sleep 0.5 # how long it is silent
kill -CONT "$server"
ended
expect_finished "silent for a while"

# --- errors of the far side

anew --filter=error memory "$size" error-pwrite=ENOSPC error-pwrite-rate=100%
try --writes 300 "$tmp/source" "$uri"
expect_failed "no space there" "No space left"
anew --filter=error memory "$size" error-pwrite=EIO error-pwrite-rate=5%
try --writes 300 "$tmp/source" "$uri"
[ "$status" = 0 ] || expect_failed "errors now and then" "the far side failed a"

# --- ended from here

anew --filter=delay memory "$size" delay-write=50ms
try --writes 100000 --abort-at 200 "$tmp/source" "$uri"
grep -qx aborted "$tmp/out" || die "aborting in the middle: $out"
