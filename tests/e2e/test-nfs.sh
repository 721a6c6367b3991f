#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SRs on a real NFS server: an emulated machine is the server and the hosts, and runs machine-nfs. Minutes: part of ./check.sh --long.
# SXM_NFS_PARTS: some of it only.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/machine.sh"
requires mkfs.xfs -V
requires qemu-img --version
requires qemu-storage-daemon --version
programs=(sbin/mount.nfs sbin/rpcbind sbin/rpc.statd sbin/showmount usr/sbin/rpc.mountd usr/sbin/rpc.nfsd usr/sbin/exportfs)
for program in "${programs[@]}"; do
	machine_file "$program" >/dev/null || skip "no $program beside the kernel in $machine_root: unpack nfs-kernel-server there"
done
parts=${SXM_NFS_PARTS:-life_4 life_xfs life_3 hosts_4 hosts_3 silent stopped qcow2_life guests_short guests_long taken_over}

add_to_machine() {
	local program

	for program in "${programs[@]}"; do copy_program "$(machine_file "$program")" "sbin/${program##*/}"; done
	copy_program "$(command -v mount)" sbin/mount
	copy_program "$(command -v umount)" sbin/umount
	copy_program "$SXM_BUILDDIR/tests/lib/guest" bin/guest
	for program in qemu-img qemu-storage-daemon; do copy_program "$(command -v "$program")" "usr/bin/$program"; done
	cp "$SXM_SRCDIR/tests/e2e/machine-nfs-guests" "$root/guests"
	echo "$parts" >"$root/parts"
	printf '%s\n' 'root:x:0:0::/:/bin/sh' '_rpc:x:1:1::/run/rpcbind:/bin/false' 'statd:x:2:1::/var/lib/nfs:/bin/false' >"$root/etc/passwd"
	printf '%s\n' 'root:x:0:' 'nogroup:x:1:' >"$root/etc/group"
	echo '127.0.0.1 localhost' >"$root/etc/hosts"
	printf '%s\n' 'udp tpi_clts v inet udp - -' 'tcp tpi_cots_ord v inet tcp - -' 'local tpi_cots_ord - loopback - - -' >"$root/etc/netconfig"
	printf '%s\n' 'tcp 6 TCP' 'udp 17 UDP' >"$root/etc/protocols"
	printf '%s\n' 'sunrpc 111/tcp portmapper' 'sunrpc 111/udp portmapper' 'nfs 2049/tcp' >"$root/etc/services"
}
make_initramfs "$SXM_SRCDIR/tests/e2e/machine-nfs" virtio_blk crc16 mbcache jbd2 ext4 crc32c_generic libcrc32c xfs \
	dns_resolver sunrpc grace lockd nfs_acl auth_rpcgss netfs fscache nfs nfsv3 nfsv4 nfsd dummy veth
mkdir "$machine_dir/empty"
make_machine_disk "$machine_dir/empty" $((256 << 20))
truncate -s 512M "$machine_dir/xfs"
mkfs.xfs -q -m reflink=1 "$machine_dir/xfs"
say "$(($(stat -c %s "$machine_dir/initramfs") >> 20)) MiB of initramfs"
before=$SECONDS
start_qemu -drive file="$machine_dir/disk",format=raw,if=virtio,cache=unsafe -drive file="$machine_dir/xfs",format=raw,if=virtio,cache=unsafe
is_over() { is_gone "$qemu_pid" || [ $((SECONDS - before)) -gt 5400 ]; }
until_true 5500 is_over
grep '^machine:' "$machine_dir/console" || :
grep -q '^machine: passed' "$machine_dir/console" || die "in the machine: $(tail -n 100 "$machine_dir/console" "$machine_dir/qemu.log")"
say "passed in $((SECONDS - before)) s"
