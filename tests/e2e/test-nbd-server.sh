#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The NBD server alone, over a disk in memory, with little room (1 MiB of buffers): other people's clients find what they
# wrote, several at once too; a read-only export stays as it is; clients that are killed leave nothing behind.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdinfo --version
requires nbdcopy --version
requires qemu-io --version
requires qemu-img --version

tmp=$(make_tmp)
sock=$tmp/s
nbd="nbd+unix:///disk?socket=$sock"

# serve OPTIONS...: ready when this returns.
serve() {
	start "$SXM_BUILDDIR/tests/lib/nbd-serve" -c 1MiB -e disk "$@" 64MiB "$sock" "$tmp/image"
	server=$started
	until_true 10 nbdinfo --size "$nbd"
}
# It ends with 0: whatever a sanitizer finds would make that another number.
end_server() {
	kill "$server"
	wait "$server" || die "the server ended with $?"
	[ ! -e "$sock" ] || die "the socket is still there"
}
qemu_io() {
	qemu-io -f raw "$@" "$nbd" >"$tmp/out" 2>&1 || die "$(cat "$tmp/out")"
	! grep -qi 'fail\|error' "$tmp/out" || die "$(cat "$tmp/out")"
}

serve

say "what it says of itself"
nbdinfo --json "$nbd" >"$tmp/info"
for what in export-size:67108864 is_read_only:false can_multi_conn:true can_flush:true can_fua:true can_trim:true can_zero:true \
	can_cache:true can_df:true can_fast_zero:false block_size_minimum:1 block_size_preferred:4096 block_size_maximum:33554432; do
	[ "$(json "exports.0.${what%:*}" <"$tmp/info")" = "${what#*:}" ] || die "not $what: $(cat "$tmp/info")"
done
nbdinfo --list "nbd+unix://?socket=$sock" | grep -qF 'export="disk"' || die "LIST does not name the export"
nbdinfo --size "nbd+unix:///any%20other%20name?socket=$sock" >"$tmp/out" || die "another name was refused"
must_fail nbdinfo --size "nbds+unix:///disk?socket=$sock" 2>"$tmp/out" # no TLS here

say "nbdcopy over four connections, and with the largest requests"
dd if=/dev/urandom of="$tmp/data" bs=1M count=24 status=none
truncate -s 64M "$tmp/data"
nbdcopy --connections=4 --requests=64 "$tmp/data" "$nbd"
nbdcopy --connections=4 --requests=64 "$nbd" "$tmp/back"
cmp "$tmp/data" "$tmp/back"
nbdcopy --request-size=33554432 "$nbd" "$tmp/back2"
cmp "$tmp/data" "$tmp/back2"
nbdinfo --map --totals "$nbd" | grep -q '^ *25165824 .* 0 data' || die "the map is wrong: $(nbdinfo --map "$nbd")"
qemu-img compare -f raw -F raw "$nbd" "$tmp/data" >"$tmp/out" || die "$(cat "$tmp/out")"
qemu-img map -f raw --output=json "$nbd" | grep -q '"length": 25165824, .*"zero": false, "data": true' || die "qemu-img sees another map"
qemu-img info -f raw "$nbd" | grep -q '64 MiB' || die "qemu-img sees another size"

say "qemu-io: odd offsets, FUA, zeroes, discard, several in flight"
qemu_io -c 'write -P 0x11 0 1M' -c 'write -f -P 0x22 513 1000' -c 'write -z -u 65536 65536' -c 'write -z 262144 65536' \
	-c 'discard 131072 65536' -c 'flush' -c 'read -P 0x11 0 513' -c 'read -P 0x22 513 1000' -c 'read -P 0x11 1513 64023' \
	-c 'read -P 0 65536 131072' -c 'read -P 0x11 196608 65536' -c 'read -P 0 262144 65536' -c 'read -P 0x11 327680 720896' \
	-c 'aio_write -P 0x31 4M 2M' -c 'aio_write -P 0x32 6M 2M' -c 'aio_write -P 0x33 8M 1' -c aio_flush \
	-c 'aio_read -P 0x31 4M 2M' -c 'aio_read -P 0x32 6M 2M' -c 'aio_read -P 0x33 8M 1' -c aio_flush

if fio --enghelp=nbd >/dev/null 2>&1; then
	say "fio: four jobs at once, each with verification"
	fio --name=v --verify_state_save=0 --thread --numjobs=4 --offset_increment=8M --ioengine=nbd --uri="$nbd" --rw=randwrite --bsrange=512-128k --offset=32M \
		--size=8M --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 >"$tmp/out" 2>&1 || die "$(cat "$tmp/out")"
fi

if nbdkit nbd --version >/dev/null 2>&1; then
	say "nbdkit's nbd plugin stands on it"
	start_nbdkit "$tmp/nbdkit.sock" nbd uri="$nbd" shared=true
	nbdcopy "nbd+unix:///?socket=$tmp/nbdkit.sock" "$tmp/back"
	nbdcopy "$nbd" "$tmp/back2"
	cmp "$tmp/back" "$tmp/back2"
fi

say "clients that are killed"
for _ in 1 2 3 4 5; do
	nbdcopy --connections=2 "$tmp/data" "$nbd" 2>/dev/null &
	copying=$!
	until_true 10 eval "[ \"\$(grep -cF '$sock' /proc/net/unix)\" -gt 1 ] || is_gone $copying"
	kill -9 "$copying" 2>/dev/null || :
	wait "$copying" 2>/dev/null || :
done
nbdcopy "$tmp/data" "$nbd"
nbdcopy "$nbd" "$tmp/back"
cmp "$tmp/data" "$tmp/back"
end_server
cmp "$tmp/data" "$tmp/image"

say "read-only"
serve -r
[ "$(nbdinfo --json "$nbd" | json exports.0.is_read_only)" = true ] || die "not read-only"
must_fail nbdcopy "$tmp/data" "$nbd" 2>"$tmp/out"
qemu-io -r -f raw -c 'read -P 0 0 1M' "$nbd" >"$tmp/out"
end_server
