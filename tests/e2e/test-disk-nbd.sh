#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk whose bytes an NBD server has, through the ordinary verbs: the server dies under a writing guest and comes back, the
# datapath dies under it and comes back, it is mirrored. Nothing the guest was told is done is lost.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdkit --version
requires nbdinfo --version
requires qemu-io --version
requires nbdcopy --version

one_host
dir=$(make_tmp)
truncate -s 64M "$dir/bytes"
threads=16
serve() { start_nbdkit "$dir/s" --threads=$threads --filter=delay --filter=error file "$dir/bytes" "$@"; }
kill_server() {
	kill -9 "$started"
	wait "$started" 2>/dev/null || :
	rm -f "$dir/s"
}
log_grew() { [ "$(stat -c %s "$dir/log" 2>/dev/null || echo 0)" -gt $((log_before + 24000)) ]; }
wait_for_writes() {
	log_before=$(stat -c %s "$dir/log" 2>/dev/null || echo 0)
	until_true 20 log_grew
}

serve
say "what it says of itself: the server's holes, its size"
printf x | dd of="$dir/bytes" bs=1M seek=3 conv=notrunc status=none
start_nbd_disk "$dir/s" 1 keeps-writes
[ "$(nbdinfo --size "$nbd")" = $((64 << 20)) ]
[ "$(control --get engine "$socket_dir/control" status)" = nbd ]
nbdinfo --map "$nbd" >"$dir/map"
grep -q ' 3145728 .* 0 *data' "$dir/map" && grep -q 'hole,zero' "$dir/map" || die "its map: $(cat "$dir/map")"

say "its errors are the guest's, and end with them"
kill_server
serve error-pwrite=EIO error-pwrite-rate=100% error-pwrite-file="$dir/fail"
touch "$dir/fail"
must_fail qemu-io -f raw -c 'write 0 4k' "$nbd" >/dev/null
rm "$dir/fail"
qemu-io -f raw -c 'write -P 9 0 4k' -c flush -c 'read -P 9 0 4k' -c 'write -z 0 4M' "$nbd" >/dev/null
kill_server
serve wdelay=1ms

mkfifo "$dir/next"
"$guest" write --uri "$nbd" --log "$dir/log" --then "$dir/next" --depth 16 --zero-percent 5 --flush-every 100 --overlap \
	>"$dir/guest" &
writer=$!
at_exit stop "$writer"

say "the server is killed under the guest, and comes back; the guest does not notice"
for _round in 1 2 3; do
	wait_for_writes
	kill_server
	sleep 0.2 # a while without it
	serve wdelay=1ms
done
wait_for_writes

say "the datapath is killed under the guest, with writes on their way to the server"
# nbdkit (1.32) with several threads may abort when a client goes while they answer it (raw_send_socket: sock >= 0).
threads=1
kill_server
serve wdelay=1ms
for _round in 1 2 3; do
	wait_for_writes
	kill -9 "$(control --get pid "$socket_dir/control" hello)"
	activate "$uri" 1
	echo "$nbd" >"$dir/next"
done
wait_for_writes
kill "$writer"
wait "$writer" || die "the guest saw an error: $(cat "$dir/guest")"
"$guest" verify --uri "$nbd" --log "$dir/log"

say "it is mirrored to a file while a guest writes"
server=$started
truncate -s 64M "$dir/target"
start_nbdkit "$dir/t" file "$dir/target"
"$guest" write --uri "$nbd" --log "$dir/log2" --depth 4 --seed 2 >"$dir/guest" &
writer=$!
at_exit stop "$writer"
operation=$(mirror "$uri" 1 "nbd+unix:///?socket=$dir/t")
wait_complete "$operation"
kill "$writer"
wait "$writer" || die "the guest saw an error: $(cat "$dir/guest")"
stop_disk
cmp "$dir/bytes" "$dir/target"
stop "$server"

say "a server that makes no promise comes back: a flush says that what was not flushed may be lost, until the disk is activated anew"
rm -f "$dir/s"
serve
start_nbd_disk "$dir/s"
head -c 65536 /dev/urandom >"$dir/some"
qemu-io -f raw -c 'write 0 4k' -c flush "$nbd" >/dev/null
kill_server
serve
qemu-io -f raw -c 'read 0 4k' -c flush "$nbd" >/dev/null || die "nothing was there to be lost"
nbdcopy "$dir/some" "$nbd" # no flush
kill_server
serve
must_fail qemu-io -f raw -c 'write 0 4k' -c flush "$nbd" >"$dir/out" 2>&1
stop_disk || :
uri=sxm://$image
read -r sock export <<<"$(attach "$uri" 1)"
activate "$uri" 1
qemu-io -f raw -c 'write 0 4k' -c flush "$(nbd_uri "$sock" "$export")" >/dev/null
stop_disk

say "a server that is not there is named in the verb's answer"
uri=sxm://$(make_tmp)/none.nbd
echo "nbd+unix:///?socket=$dir/nobody" >"${uri#sxm://}"
datapath_verb Datapath.attach "\"uri\":\"$uri\",\"domain\":\"1\"" >/dev/null
must_fail datapath_verb Datapath.activate "\"uri\":\"$uri\",\"domain\":\"1\"" >"$dir/answer"
grep -q "nbd+unix:.*nobody" "$dir/answer" || die "its answer: $(cat "$dir/answer")"
