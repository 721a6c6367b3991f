#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A Xen guest moves with its disk: a mirror gets everything while the guest writes over its ring; when deactivate has returned the
# guest's memory is touched no more, whether it was suspended or still asks; and over its new ring, to the other host's process, it
# asks again what it has no answer to, and reads what it wrote last. Twice. Xen is one in a directory (tests/lib/fake-xen).
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"

tmp=$(make_tmp)
export SXM_RUN_DIR=$tmp/run SXM_FAKE_XEN=$tmp
at_exit end_run_dir "$SXM_RUN_DIR"
datapath=$SXM_BUILDDIR/tests/lib/xen-datapath
backend='{"domain":"5","backend":"/local/domain/0/backend/qdisk/5/51712","eager":true}'
guest() { "$SXM_BUILDDIR/tests/lib/xen-guest" 5 51712 "$@"; }
at() { control "$SXM_RUN_DIR/$1/control" "${@:2}"; }
get() { control --get "$2" "$SXM_RUN_DIR/$1/control" "${@:3}"; }
has_more_than() { [ "$(wc -l <"$tmp/out")" -gt "$1" ]; }
works() {
	local lines

	lines=$(wc -l <"$tmp/out")
	until_true 30 has_more_than "$lines"
}
# copies and rings, and all memory: once more and again the same.
touched() { guest count && sha256sum <"$tmp/world"; }

# begin HOST: the guest's disk there, active for it and served over its ring.
begin() {
	at "$1" attach '{"domain":"5"}' >/dev/null
	at "$1" activate '{"domain":"5"}' >/dev/null
	at "$1" vbd "$backend" >/dev/null
}
is_complete() { [ "$(get "$1" complete mirror.stat "{\"id\":\"$2\",\"wait_ms\":500}")" = true ]; }
# mirror_to FROM TO: until it has everything, under the guest.
mirror_to() {
	local id

	at "$2" attach '{"domain":"MIR1"}' >/dev/null
	at "$2" activate '{"domain":"MIR1"}' >/dev/null
	id=$(get "$1" id mirror.start "{\"domain\":\"5\",\"remote\":\"nbd+unix:///$2?socket=$(get "$2" domains.0.socket status)\"}")
	until_true 60 is_complete "$1" "$id"
}
# move FROM TO suspended|running
move() {
	local before

	say "$1 to $2, the guest ${3/running/still asks}"
	mirror_to "$1" "$2"
	works
	[ "$3" = running ] || kill -STOP "$pid"
	at "$1" deactivate '{"domain":"5"}' >/dev/null
	before=$(guest count)
	kill -STOP "$pid"
	[ "${before#* }" = "$rings" ] || die "its ring is still mapped: $before"
	before=$(touched)
	sleep 0.3
	[ "$before" = "$(touched)" ] || die "its memory was touched after deactivate"
	at "$2" deactivate '{"domain":"MIR1"}' >/dev/null
	at "$2" detach '{"domain":"MIR1"}' >/dev/null
	cmp "$tmp/$1.img" "$tmp/$2.img" || die "the disks differ"
	guest put F/state 1 # what a toolstack writes for the domain that goes on
	guest put B/state 1
	begin "$2"
	kill -USR1 "$pid"
	kill -CONT "$pid"
	works
	at "$1" detach '{"domain":"5"}' >/dev/null
}

for host in a b c; do
	truncate -s 16M "$tmp/$host.img"
	"$datapath" --id "$host" --path "$tmp/$host.img" --keep
done
begin a
guest plug
start "$SXM_BUILDDIR/tests/lib/xen-guest" 5 51712 run 100000000 32 1 >"$tmp/out"
pid=$started
until_true 20 grep -q 'to go' "$tmp/out"
rings=0
move a b suspended
move b c running
kill -USR2 "$pid"
wait "$pid" || die "the guest failed: $(tail -1 "$tmp/out")"
at c deactivate '{"domain":"5"}' >/dev/null
at c detach '{"domain":"5"}' >/dev/null
