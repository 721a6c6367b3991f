#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# When deactivate has returned, the far side has every write the guest was told is done: a link slower than the guest, so that
# much is owed when the barrier begins, and a link that is cut the moment it has ended.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/netns.sh"
requires_netns
requires tc -V
requires unshare --net sh -c 'ip link set lo up && tc qdisc add dev lo root tbf rate 160mbit burst 64kb latency 200ms'

tmp=$(make_tmp)
MiB=1048576
size=$((64 * MiB))

owed() { control "$(dirname "$sock_A")/control" status | json operations.0 | python3 -c 'import json, sys
s = json.load(sys.stdin)
print(s["dirty_bytes"] + s["lag_bytes"])'; }
owes_much() { [ "$(owed)" -gt 65536 ]; }
log_grew() { [ "$(stat -c %s "$tmp/log")" -gt $((log_before + 240000)) ]; }

two_hosts
tc -n "sxm-$$-A" qdisc add dev veth root tbf rate 160mbit burst 64kb latency 200ms
uri_A=$(on A make_volume "$(on A make_sr "$tmp/sr-A")" $size | json uri.0)
uri_B=$(on B make_volume "$(on B make_sr "$tmp/sr-B")" $size | json uri.0)
read -r sock_A export_A <<<"$(on A attach "$uri_A" 1)"
read -r sock_B export_B <<<"$(on B attach "$uri_B" MIR1)"
on A activate "$uri_A" 1
on B activate "$uri_B" MIR1
control "$(dirname "$sock_B")/control" listen "{\"domain\":\"MIR1\",\"host\":\"$address_B\",\"port\":10809}" >/dev/null

say "a guest that writes faster than the link, in sync all the same"
mkfifo "$tmp/next"
"$guest" write --uri "$(nbd_uri "$sock_A" "$export_A")" --log "$tmp/log" --then "$tmp/next" --depth 16 --zero-percent 5 --flush-every 200 --overlap >"$tmp/guest" &
writer=$!
at_exit stop "$writer"
until_true 20 test -s "$tmp/log"
on A wait_complete "$(on A mirror "$uri_A" 1 "nbd://$address_B:10809/$export_B")"
log_before=$(stat -c %s "$tmp/log")
until_true 60 log_grew
until_true 30 owes_much
say "owed when the barrier begins: $(($(owed) / 1024)) KiB"

on A deactivate "$uri_A" 1
ip -n "sxm-$$-A" link set veth down
say "the link is cut: what B has not got by now it never gets"
on B deactivate "$uri_B" MIR1
on B detach "$uri_B" MIR1
read -r sock_B export_B <<<"$(on B attach "$uri_B" 2)"
on B activate "$uri_B" 2
nbd_uri "$sock_B" "$export_B" >"$tmp/next"
log_before=$(stat -c %s "$tmp/log")
until_true 20 log_grew
kill "$writer"
wait "$writer" || die "the guest saw an error: $(cat "$tmp/guest")"
"$guest" verify --uri "$(nbd_uri "$sock_B" "$export_B")" --log "$tmp/log" || die "B has not all"
on B deactivate "$uri_B" 2
on B detach "$uri_B" 2
on A detach "$uri_A" 1
