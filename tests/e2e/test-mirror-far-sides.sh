#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# When finish has returned the far side holds the same bytes, whatever the guest did meanwhile and whatever the far side can
# and cannot do. Zeroes are not sent to where zeroes are.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/mirror-try.sh"
requires nbdkit --version
requires nbdcopy --version
requires nbdinfo --version
tmp=$(make_tmp)
sock=$tmp/sock

# mirror_to NAME TRY-ARGS... -- NBDKIT-ARGS...: a guest at work, then both sides must be the same.
mirror_to() {
	local name=$1 args=() server

	shift
	while [ "$1" != -- ]; do args+=("$1"); shift; done
	shift
	rm -f "$sock" "$tmp/source"
	fill "$tmp/source"
	start_nbdkit "$sock" "$@"
	server=$started
	try "${args[@]}" "$tmp/source" "$(far_uri "$sock")"
	expect_finished "$name"
	nbdcopy --request-size=65536 "$(far_uri "$sock")" "$tmp/far"
	cmp -n "$size" "$tmp/source" "$tmp/far" || die "$name: the sides differ"
	stop "$server"
	say "$name: sent $(number sent), zeroed $(number zeroed), skipped $(number skipped)"
}
old_bytes() { dd if=/dev/urandom of="$1" bs=1M count=$((size >> 20)) status=none; }
# operations KIND: how many the stats filter counted.
operations() { sed -n "s/.*($1: \([0-9]*\) ops.*/\1/p; s/^$1: \([0-9]*\) ops.*/\1/p" "$tmp/stats" | head -1; }
none_of() { [ -z "$(operations "$1")" ] || die "$(operations "$1") x $1 to a far side that was zero: $(cat "$tmp/stats")"; }

# A new file is all zeroes, and says so.
truncate -s "$size" "$tmp/new"
mirror_to "a new file, no guest" -- --filter=stats file "$tmp/new" statsfile="$tmp/stats"
none_of zero
none_of trim
[ "$(number sent)" -lt $((7 << 20)) ] || die "zeroes went over as data: $out"
[ "$(number skipped)" -ge $((2 << 20)) ] || die "written zeroes were not left out: $out"
[ "$(du -k "$tmp/new" | cut -f1)" -lt $((8 << 10)) ] || die "the far side is not sparse"

mirror_to "memory, a guest at work" --writes 1500 --seed 2 --depth 16 -- memory "$size"
truncate -s "$size" "$tmp/new2"
mirror_to "a new file, a guest in a small place" --writes 2000 --region 262144 --depth 32 --seed 3 -- file "$tmp/new2"
mirror_to "a larger far side" --writes 200 -- memory $((size + (1 << 20)))
mirror_to "one request at a time" --writes 300 -- --filter=noparallel memory "$size" serialize=requests
mirror_to "20 ms away" --writes 300 --depth 8 -- --filter=delay memory "$size" delay-write=20ms delay-zero=20ms

old_bytes "$tmp/old1"
mirror_to "old bytes" --writes 500 --seed 4 -- file "$tmp/old1"
old_bytes "$tmp/old2"
mirror_to "old bytes, and nothing told of allocation" --writes 500 --seed 5 -- --filter=noextents file "$tmp/old2"
old_bytes "$tmp/old3"
mirror_to "old bytes, and no zeroing" --writes 500 --seed 6 -- --filter=nozero file "$tmp/old3"
old_bytes "$tmp/old4"
mirror_to "old bytes, neither" --writes 500 --seed 7 -- --filter=nozero --filter=noextents file "$tmp/old4"

mirror_to "blocks of 4096 bytes" --writes 800 --seed 8 -- \
	--filter=blocksize-policy memory "$size" blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=1M \
	blocksize-error-policy=error
mirror_to "requests of 64 KiB" --writes 800 --seed 9 -- \
	--filter=blocksize-policy memory "$size" blocksize-minimum=512 blocksize-preferred=4096 blocksize-maximum=64K \
	blocksize-error-policy=error

# qemu-nbd, whose block status knows qcow2's clusters.
if qemu-nbd --version >/dev/null 2>&1; then
	rm -f "$sock" "$tmp/source"
	fill "$tmp/source"
	qemu-img create -q -f qcow2 "$tmp/far.qcow2" "$size"
	start qemu-nbd -f qcow2 -t -e 4 -k "$sock" --discard=unmap "$tmp/far.qcow2"
	server=$started
	until_true 10 nbdinfo --size "$(far_uri "$sock")"
	try --writes 1000 --seed 10 --depth 16 "$tmp/source" "$(far_uri "$sock")"
	expect_finished "qemu-nbd"
	stop "$server"
	qemu-img compare -q -f raw -F qcow2 "$tmp/source" "$tmp/far.qcow2" || die "qemu-nbd: the sides differ"
fi

# Data.copy ends by itself; with ranges it touches nothing else.
truncate -s "$size" "$tmp/copy"
mirror_to "a copy" --copy -- file "$tmp/copy"
old_bytes "$tmp/old5"
cp "$tmp/old5" "$tmp/before"
rm -f "$sock" "$tmp/source"
fill "$tmp/source"
start_nbdkit "$sock" file "$tmp/old5"
try --copy --only 1048576-2097152,8388608-10485760 "$tmp/source" "$(far_uri "$sock")"
expect_finished "a copy of two ranges"
dd if="$tmp/source" of="$tmp/before" bs=1M skip=1 seek=1 count=1 conv=notrunc status=none
dd if="$tmp/source" of="$tmp/before" bs=1M skip=8 seek=8 count=2 conv=notrunc status=none
cmp "$tmp/before" "$tmp/old5" || die "a copy of two ranges: wrong bytes"
