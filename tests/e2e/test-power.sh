#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# An emulated machine mirrors a disk to this host and is cut off: its kernel's cache, its file system's journal and its disk's cache go
# with it. It boots, activates the disk, and the mirror goes on by the marks. Minutes: part of ./check.sh --long.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/machine.sh"
requires qemu-nbd --version

one_host
tmp=$(make_tmp)
MiB=1048576
size=$((256 * MiB))
data=$((192 * MiB)) # what the disk holds; the guest has the rest
export SXM_RUN_DIR

a() { control "$machine_control" "$@"; }
get() { control --get "$1" "$machine_control" "${@:2}"; }
of() { get "operations.0.$1" status; }
is() { [ "$(of "$1")" = "$2" ]; }
b() { control "$SXM_RUN_DIR/b/control" "$@"; }
owed() { sed -n 's/.*taken up again, \([0-9]*\) bytes owed by the marks.*/\1/p' "$machine_dir/console" | tail -n 1; }
has_written() { [ "$(stat -c %s "$tmp/log")" -gt $((log_before + 24 * $1)) ]; }
let_write() {
	log_before=$(stat -c %s "$tmp/log" 2>/dev/null || echo 0)
	until_true 60 has_written "$1"
}
cut_and_boot() {
	cut_machine
	boot_machine
	until_true 20 grep -q 'taken up again' "$machine_dir/console"
	say "$(($(owed) / MiB)) MiB owed by the marks, of $((size / MiB))"
}
# goes_on ALLOWED: bytes copied by the new process; what a guest writes meanwhile is not counted.
goes_on() {
	until_true 120 is state synced
	say "$(($(of copied_bytes) / 1024)) KiB copied again, of $((data / 1024)); $(of marked_regions) regions are marked"
	[ "$(of copied_bytes)" -le "$1" ] || die "too much was copied again: at most $1 bytes"
}

add_to_machine() { copy_program "$SXM_BUILDDIR/tests/lib/relay" bin/relay; }
make_initramfs "$SXM_SRCDIR/tests/e2e/machine-power" failover net_failover virtio_net virtio_blk crc16 mbcache jbd2 ext4
mkdir -p "$tmp/sr"
head -c $data /dev/urandom >"$tmp/sr/a.raw"
truncate -s $size "$tmp/sr/a.raw" "$tmp/b.raw"
make_machine_disk "$tmp/sr" $((size + 64 * MiB))
rm -r "$tmp/sr"
"$SXM_LIBEXECDIR/sxm/sxm-datapath" --id b --path "$tmp/b.raw" --keep
b activate '{"domain":"MIR1"}' >/dev/null
port=$(control --get port "$SXM_RUN_DIR/b/control" listen '{"domain":"MIR1","host":"127.0.0.1","port":0}')
before=$SECONDS
boot_machine
say "booted in $((SECONDS - before)) s"
a mirror.start "{\"domain\":\"3\",\"remote\":\"nbd://10.0.2.2:$port/b\"}" >/dev/null

say "cut in the middle of the pass, under a guest"
mkfifo "$tmp/then"
guest_uri() { echo "nbd://127.0.0.1:$machine_port/a"; }
"$guest" write --uri "$(guest_uri)" --log "$tmp/log" --then "$tmp/then" --region $((240 * MiB)):$((16 * MiB)) --iops 2000 --depth 16 \
	--flush-every 50 >"$tmp/guest" &
guest_pid=$!
at_exit stop "$guest_pid"
is_half_way() { [ "$(of dirty_bytes)" -lt $((data / 2)) ]; }
until_true 120 is_half_way
left=$(of dirty_bytes)
say "$((left / MiB)) MiB left, $(of marked_regions) regions are marked, $(of state)"
[ "$left" -gt 0 ] || die "the pass was over before it was cut"
cut_and_boot
echo "lost $(guest_uri)" >"$tmp/then"
goes_on $((data * 9 / 10))

say "cut in sync, under the guest"
let_write 2000
cut_and_boot
echo "lost $(guest_uri)" >"$tmp/then"
let_write 1000
kill -TERM "$guest_pid"
wait "$guest_pid" || die "the guest was told of an error: $(cat "$tmp/guest")"
say "$(cat "$tmp/guest")"
goes_on $((48 * MiB))

say "cut when nobody wrote for a while"
has_no_marks() { is marked_regions 0; }
until_true 60 has_no_marks
sleep 3 # nobody can look at the machine's medium; a second is what persist.h says
cut_and_boot
goes_on $((data / 50))

say "the barrier; cut once more; both sides are the same, and what the guest had flushed is there"
a deactivate '{"domain":"3"}' >/dev/null
cut_machine
start qemu-nbd -r -f raw -k "$tmp/b.sock" "$tmp/b.raw"
e2fsck -p "$machine_dir/disk" >"$tmp/fsck" || [ $? = 1 ] || die "the file system is broken: $(cat "$tmp/fsck")" # its journal is replayed
debugfs -R "dump /a.raw $tmp/a.raw" "$machine_dir/disk" 2>/dev/null
cmp "$tmp/a.raw" "$tmp/b.raw" || die "the sides differ after the barrier"
until_true 5 test -S "$tmp/b.sock"
"$guest" verify --uri "nbd+unix:///?socket=$tmp/b.sock" --log "$tmp/log" || die "what was flushed was lost"
