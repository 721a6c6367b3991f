#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The NBD server is understood by other people's clients, and they find there what they wrote: nbdinfo, nbdcopy, qemu-io,
# qemu-img, fio and nbdkit's nbd plugin; several at once, coherent with each other.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdinfo --version
requires nbdcopy --version
requires qemu-io --version
requires qemu-img --version
requires nbdkit nbd --version

tmp=$(make_tmp)
one_host
start_disk $((64 << 20))

say "nbdinfo"
nbdinfo --json "$nbd" >"$tmp/info"
[ "$(json exports.0.export-size <"$tmp/info")" = $((64 << 20)) ] || die "wrong size: $(cat "$tmp/info")"
for flag in can_multi_conn can_flush can_fua can_trim can_zero can_cache; do
	[ "$(json "exports.0.$flag" <"$tmp/info")" = true ] || die "$flag is not offered"
done
[ "$(json structured <"$tmp/info")" = true ] || die "no structured replies"
nbdinfo --list "nbd+unix://?socket=$sock" | grep -qF "export=\"$export\"" || die "LIST does not name $export"
nbdinfo --map "$nbd" | grep -q '67108864 *3 *hole,zero' || die "an empty disk is not one hole: $(nbdinfo --map "$nbd")"

say "nbdcopy, there and back, and a hole stays a hole"
dd if=/dev/urandom of="$tmp/data" bs=1M count=8 status=none
truncate -s 64M "$tmp/data"
nbdcopy "$tmp/data" "$nbd"
nbdcopy "$nbd" "$tmp/back"
cmp "$tmp/data" "$tmp/back"
nbdinfo --map --totals "$nbd" | grep -q '^ *8388608 .* 0 data' || die "the map is wrong: $(nbdinfo --map "$nbd")"

say "qemu-img"
qemu-img compare -f raw -F raw "$nbd" "$tmp/data" >"$tmp/out" || die "$(cat "$tmp/out")"
qemu-img convert -n -W -f raw -O raw "$tmp/data" "$nbd"
qemu-img compare -s -f raw -F raw "$nbd" "$tmp/data" >"$tmp/out" || die "$(cat "$tmp/out")"

say "qemu-io: odd offsets, FUA, zeroes, discard"
qemu-io -f raw -c 'write -P 0x11 0 1M' -c 'write -f -P 0x22 513 1000' -c 'write -z -u 65536 65536' -c 'discard 131072 65536' \
	-c 'flush' -c 'read -P 0x11 0 513' -c 'read -P 0x22 513 1000' -c 'read -P 0x11 1513 64023' -c 'read -P 0 65536 131072' \
	-c 'read -P 0x11 196608 851968' "$nbd" >"$tmp/out"
! grep -qi 'fail\|error' "$tmp/out" || die "$(cat "$tmp/out")"
nbdinfo --map "$nbd" | awk '$1 == 65536 && /hole/ { found = 1 } END { exit !found }' || die "zeroed, but not a hole"

say "two clients see each other's writes"
exec 7> >(qemu-io -f raw "$nbd" >"$tmp/out7" 2>&1)
echo 'write -P 0x77 2M 4k' >&7
until_true 10 grep -q 'wrote 4096' "$tmp/out7"
qemu-io -r -f raw -c 'read -P 0x77 2M 4k' "$nbd" >"$tmp/out"
! grep -qi 'fail' "$tmp/out" || die "$(cat "$tmp/out")"
exec 7>&-

say "nbdkit's nbd plugin stands on it"
start_nbdkit "$tmp/nbdkit.sock" nbd uri="$nbd" shared=true
"$guest" write --uri "nbd+unix:///?socket=$tmp/nbdkit.sock" --log "$tmp/log" --region 32M:16M --count 3000 --zero-percent 5 --flush-every 100
"$guest" verify --uri "$nbd" --log "$tmp/log"

if fio --enghelp=nbd >/dev/null 2>&1; then
	say "fio's nbd engine, with verification"
	fio --name=v --verify_state_save=0 --thread --ioengine=nbd --uri="$nbd" --rw=randwrite --bs=512-64k --bs_unaligned=0 --offset=48M --size=16M --iodepth=16 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 >"$tmp/out" 2>&1 || die "$(cat "$tmp/out")"
fi

say "the bytes are in the file"
nbdcopy "$nbd" "$tmp/back"
stop_disk
cmp "$tmp/back" "$image"
gone() { [ -z "$(processes_of "$SXM_RUN_DIR")" ]; }
until_true 5 gone
