#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A mirror to somebody else's NBD server holds the same bytes when deactivate has returned, whatever the guest did meanwhile:
# nbdkit (quick, slow, and one that cannot zero) and qemu-nbd, raw and qcow2.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdkit --version
requires qemu-nbd --version
requires nbdcopy --version

tmp=$(make_tmp)
one_host
size=$((48 << 20))
dd if=/dev/urandom of="$tmp/data" bs=1M count=16 status=none
truncate -s "$size" "$tmp/data"

# mirror_to NAME REMOTE TARGET-AS-URI-OR-FILE: under a guest that overlaps itself, zeroes and flushes.
mirror_to() {
	local name=$1 remote=$2 target=$3 operation writer

	say "$name"
	start_disk "$size"
	nbdcopy "$tmp/data" "$nbd"
	"$guest" write --uri "$nbd" --log "$tmp/log" --region 24M:24M --iops 1500 --depth 16 --zero-percent 10 --flush-every 50 --overlap >"$tmp/guest" &
	writer=$!
	at_exit stop "$writer"
	until_true 10 test -s "$tmp/log"
	operation=$(mirror "$uri" 1 "$remote")
	wait_complete "$operation"
	log_before=$(stat -c %s "$tmp/log")
	until_true 20 log_grew
	kill -STOP "$writer" # in mid-flight
	deactivate "$uri" 1
	kill -TERM "$writer"
	kill -CONT "$writer"
	wait "$writer" || die "the guest saw an error: $(cat "$tmp/guest")"
	nbdcopy "$target" "$tmp/far"
	cmp -n "$size" "$tmp/far" "$image" || die "$name: the sides differ"
	deactivate "$uri" 1
	detach "$uri" 1
	volume_verb Volume.destroy "\"sr\":\"$sr\",\"key\":\"$(printf '%s' "$volume" | json key)\"" >/dev/null
}
log_grew() { [ "$(stat -c %s "$tmp/log")" -gt $((log_before + 24000)) ]; }

truncate -s "$size" "$tmp/t1"
start_nbdkit "$tmp/t1.sock" file "$tmp/t1"
mirror_to "nbdkit file" "nbd+unix:///?socket=$tmp/t1.sock" "nbd+unix:///?socket=$tmp/t1.sock"

start_nbdkit "$tmp/t2.sock" --filter=delay memory "$size" wdelay=20ms
mirror_to "nbdkit memory, 20 ms away" "nbd+unix:///?socket=$tmp/t2.sock" "nbd+unix:///?socket=$tmp/t2.sock"

# Old bytes there: holes of the source must become zeros.
cp "$tmp/data" "$tmp/t3"
dd if=/dev/urandom of="$tmp/t3" bs=1M seek=16 count=32 conv=notrunc status=none
start_nbdkit "$tmp/t3.sock" --filter=nozero --filter=noextents file "$tmp/t3"
mirror_to "nbdkit without zeroes, with old bytes" "nbd+unix:///?socket=$tmp/t3.sock" "nbd+unix:///?socket=$tmp/t3.sock"

qemu-img create -q -f qcow2 "$tmp/t4" "$size"
start qemu-nbd -f qcow2 -t -e 4 -k "$tmp/t4.sock" -x far --discard=unmap "$tmp/t4"
until_true 10 nbdinfo --size "nbd+unix:///far?socket=$tmp/t4.sock"
mirror_to "qemu-nbd, qcow2" "nbd:unix:$tmp/t4.sock:exportname=far" "nbd+unix:///far?socket=$tmp/t4.sock"
