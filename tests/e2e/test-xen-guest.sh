#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Xen guests over their rings, from the handshake to the last byte, against sxm-datapath itself; Xen is one in a directory
# (tests/lib/fake-xen). What a guest wrote last is what it reads: while its process is killed, its disk grows, it goes on over a
# new ring, another guest writes rubbish. And after deactivate its memory is touched no more.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"

one_host
export SXM_RUN_DIR
SXM_FAKE_XEN=$(make_tmp)
export SXM_FAKE_XEN
image=$(make_tmp)/image
truncate -s 16M "$image"
guest="$SXM_BUILDDIR/tests/lib/xen-guest"
socket=$SXM_RUN_DIR/d/control
backend() { printf '{"domain":"%s","backend":"/local/domain/0/backend/qdisk/%s/51712","eager":%s}' "$1" "$1" "${2-true}"; }
domain() { control --get "domains.${2-0}.$1" "$socket" status; }
is_domain() { [ "$(domain "$1")" = "$2" ]; }
datapath() { control --get pid "$socket" hello; }
is_another() { now=$(datapath) && [ "$now" != "$1" ]; }
has_more_than() { [ "$(wc -l <"$SXM_FAKE_XEN/out")" -gt "$1" ]; }
has_resumed() { [ "$(grep -c resumed "$SXM_FAKE_XEN/out")" = "$1" ]; }

"$SXM_BUILDDIR/tests/lib/xen-datapath" --id d --path "$image" --keep
control "$socket" activate '{"domain":"5"}' >/dev/null
must_fail control "$socket" vbd "$(backend 6)"
must_fail control "$socket" vbd '{"domain":"5","backend":"/local/domain/0/device/vbd/5/51712"}'
control "$socket" vbd "$(backend 5 false)" >/dev/null

say "a hotplug script is waited for; the frontend is met, in each layout and size of ring"
"$guest" 5 51712 plug
"$guest" 5 51712 wait B/state 1
"$guest" 5 51712 put B/hotplug-status connected
"$guest" 5 51712 wait B/state 2
features=$("$guest" 5 51712 get B/feature-flush-cache)/$("$guest" 5 51712 get B/max-ring-page-order)
[ "$features/$("$guest" 5 51712 get B/feature-max-indirect-segments)" = 1/4/32 ] || die "features"
"$guest" 5 51712 run 3000 16
[ "$("$guest" 5 51712 get B/sectors)" = 32768 ] || die "sectors"
fewer 2 "0 32" 1 "4 32" >"$SXM_FAKE_XEN/rings"
while read -r ring; do
	"$guest" 5 51712 put F/state 1
	# shellcheck disable=SC2086 # order, and layout
	"$guest" 5 51712 run 2000 100 $ring
done <"$SXM_FAKE_XEN/rings"

# begin_guest DOMID OPERATIONS: it is at work when this returns; $started is its pid.
begin_guest() {
	"$guest" "$1" 51712 put F/state 1
	start "$guest" "$1" 51712 run "$2" 32 1 >"$SXM_FAKE_XEN/out"
	until_true 20 grep -q 'to go' "$SXM_FAKE_XEN/out"
}
end_guest() {
	kill -USR2 "$1"
	wait "$1" || die "the guest failed"
}

say "its params come to name another volume: it is let go of; its own, however that is spelled, is served"
begin_guest 5 100000000
pid=$started
"$guest" 5 51712 put B/params "aio:sxm://$(make_tmp)/image"
until_true 20 is_domain connected false
ln -s "${image%/*}" "$SXM_FAKE_XEN/link"
"$guest" 5 51712 put B/params "aio:sxm://$SXM_FAKE_XEN/link/%69mage"
until_true 20 is_domain connected true

say "its process is killed, over and over: the next one goes on where it ended"
for _ in $(fewer 3 1 2 3 4 5 6); do
	killed=$(datapath)
	kill -9 "$killed"
	until_true 20 is_another "$killed"
	until_true 20 is_domain connected true
	lines=$(wc -l <"$SXM_FAKE_XEN/out")
	until_true 20 has_more_than "$lines"
done
say "it goes on over a new ring, and asks again"
for n in 1 2; do
	kill -USR1 "$pid"
	until_true 20 has_resumed $n
	lines=$(wc -l <"$SXM_FAKE_XEN/out")
	until_true 20 has_more_than "$lines"
done
say "it grows"
control "$socket" resize '{"size_bytes":33554432}' >/dev/null
"$guest" 5 51712 wait B/sectors 65536
say "a guest that writes rubbish, of the same disk, costs it nothing"
serving=$(datapath)
control "$socket" activate '{"domain":"6","read_only":true}' >/dev/null
control "$socket" vbd "$(backend 6)" >/dev/null
"$guest" 6 51712 plug
"$guest" 6 51712 rubbish "$(fewer 2 2 1 | head -1)"
"$guest" 6 51712 wait B/state 6
[ "$(datapath)" = "$serving" ] || die "the process died"
control "$socket" deactivate '{"domain":"6"}' >/dev/null
control "$socket" detach '{"domain":"6"}' >/dev/null

say "suspended and deactivated: its memory is touched no more; activated again, it goes on"
kill -STOP "$pid"
mapped=$("$guest" 5 51712 count) # with those of the dead
control "$socket" deactivate '{"domain":"5"}' >/dev/null
before=$("$guest" 5 51712 count)
[ "${before#* }" = $((${mapped#* } - 1)) ] || die "its ring is still mapped: $before"
ring=$(sha256sum <"$SXM_FAKE_XEN/world")
sleep 0.3
[ "$before $ring" = "$("$guest" 5 51712 count) $(sha256sum <"$SXM_FAKE_XEN/world")" ] || die "its memory was written to"
control "$socket" activate '{"domain":"5"}' >/dev/null
control "$socket" vbd "$(backend 5)" >/dev/null
kill -CONT "$pid"
lines=$(wc -l <"$SXM_FAKE_XEN/out")
until_true 20 has_more_than "$lines"
end_guest "$pid"

say "the toolstack takes it away"
begin_guest 5 100000000
"$guest" 5 51712 put B/online 0
"$guest" 5 51712 put F/
"$guest" 5 51712 wait B/state 6
must_fail "$guest" 5 51712 get B/hotplug-status
stop "$started" # it may have ended: it has no disk any more
control "$socket" deactivate '{"domain":"5"}' >/dev/null
control "$socket" detach '{"domain":"5"}' >/dev/null
until_true 20 test ! -e "$socket"
