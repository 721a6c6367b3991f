# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced after functions.sh: an emulated machine that boots, runs sxm, and is cut off (test-power.sh, as drawn), or is an NFS server
# and the hosts that have their disks there (test-nfs.sh).
#
#       +--- qemu, in software ----------------------------------+
#       | the host's kernel; an initramfs of busybox, sxm as     |        this host
#       | built, the libraries they need                         |
#       | /sr      ext4, on a virtio disk with a write cache ====|===== volatile-disk (tests/lib)
#       | control  relay, port 7000 =============================|===== $machine_control, for control.py
#       | domain 3 listens on port 10809 ========================|===== $machine_port, for guests
#       | 10.0.2.2 ==============================================|===== 127.0.0.1
#       +--------------------------------------------------------+
#
# The kernel is that of $SXM_TEST_KERNEL, a directory as a kernel's package is unpacked to (with boot/ and lib/modules/), or this
# host's own.  What the machine says is in $machine_dir/console.
requires qemu-system-x86_64 --version
requires busybox cpio --help
requires mkfs.ext4 -V
machine_dir=$(make_tmp)
machine_root=${SXM_TEST_KERNEL:-/}
machine_kernel=$(find "$machine_root/boot" -name 'vmlinuz-*' 2>/dev/null | sort -V | tail -n 1)
[ -n "$machine_kernel" ] || skip "no kernel in $machine_root/boot: set SXM_TEST_KERNEL to an unpacked kernel package"

# Where programs and libraries are looked for: beside the kernel in an unpacked package, and here.
machine_file() { local dir; for dir in "$machine_root" /; do [ ! -e "$dir/$1" ] || { echo "${dir%/}/$1"; return; }; done; return 1; }
machine_libraries=$machine_root/usr/lib/$(uname -m)-linux-gnu:$machine_root/lib/$(uname -m)-linux-gnu

# copy_program FILE DEST: with its libraries, at the same paths.
copy_program() {
	local file to

	mkdir -p "$root/$(dirname "$2")"
	cp -L "$1" "$root/$2"
	for file in $(LD_LIBRARY_PATH=$machine_libraries ldd "$1" | grep -o '/[^ ]*'); do
		to=$root/${file#"$machine_root"}
		[ -e "$to" ] || { mkdir -p "$(dirname "$to")"; cp -L "$file" "$to"; }
	done
}

# In the order in which they are loaded; what a kernel has built in is not there.
copy_modules() {
	local version=${machine_kernel##*/vmlinuz-} name file

	: >"$root/modules/order"
	for name in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci "$@"; do
		file=$(find "$machine_root/lib/modules/$version/kernel" -name "$name.ko*" 2>/dev/null | head -n 1)
		[ -n "$file" ] || continue
		case $file in
		*.xz) xz -dc "$file" ;;
		*.zst) zstd -qdc "$file" ;;
		*) cat "$file" ;;
		esac >"$root/modules/$name.ko"
		echo "$name" >>"$root/modules/order"
	done
}

# make_initramfs JOB MODULE...: once. The machine does what the file JOB says; add_to_machine() puts in what that needs.
make_initramfs() {
	local root=$machine_dir/root

	mkdir -p "$root"/{bin,dev,etc,proc,sys,run,sr,tmp,modules,sxm}
	cp -L "$(command -v busybox)" "$root/bin/busybox"
	ln -s busybox "$root/bin/sh"
	copy_modules "${@:2}"
	cp -a "$SXM_LIBEXECDIR/." "$root/sxm/"
	find "$root/sxm/xapi-storage-script" -type f -exec sed -i '1s,.*,#!/sxm/sxm/sxm-smapi,' {} +
	copy_program "$SXM_LIBEXECDIR/sxm/sxm-datapath" sxm/sxm/sxm-datapath
	copy_program "$SXM_LIBEXECDIR/sxm/sxm-smapi" sxm/sxm/sxm-smapi
	add_to_machine
	cp "$SXM_SRCDIR/tests/e2e/machine-init" "$root/init"
	cp "$1" "$root/job"
	chmod 755 "$root/init"
	(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$machine_dir/initramfs"
	rm -rf "$root"
}

# make_machine_disk DIR BYTES: an ext4 that holds what DIR does.
make_machine_disk() {
	truncate -s "$2" "$machine_dir/disk"
	mkfs.ext4 -q -O ^64bit -E lazy_itable_init=0,lazy_journal_init=0 -d "$1" "$machine_dir/disk"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# start_qemu ARGS: $qemu_pid.
start_qemu() {
	: >"$machine_dir/console"
	start qemu-system-x86_64 -machine pc,accel=tcg -cpu qemu64 -m 512 -smp 1 -display none -no-reboot -nodefaults \
		-monitor none -serial file:"$machine_dir/console" -kernel "$machine_kernel" -initrd "$machine_dir/initramfs" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on" "$@" 2>"$machine_dir/qemu.log"
	qemu_pid=$started
}

# boot_machine: returns when its disk is attached and active for domain 3, which it was told at the boot to do.
boot_machine() {
	local relay_port

	start "$SXM_BUILDDIR/tests/lib/volatile-disk" "$machine_dir/disk" "$machine_dir/disk.sock" >"$machine_dir/disk.out"
	disk_pid=$started
	until_true 5 grep -q ready "$machine_dir/disk.out"
	relay_port=$(free_port)
	machine_control=$relay_port@127.0.0.1
	machine_port=$(free_port)
	start_qemu -drive file="nbd+unix:///?socket=$machine_dir/disk.sock",format=raw,if=virtio,cache=none \
		-netdev "user,id=n,hostfwd=tcp:127.0.0.1:$relay_port-:7000,hostfwd=tcp:127.0.0.1:$machine_port-:10809" \
		-device virtio-net-pci,netdev=n,romfile=
	until_true 120 is_booted_or_dead
	grep -q '^machine: ready' "$machine_dir/console" || die "the machine does not boot: $(tail -n 20 "$machine_dir/console" "$machine_dir/qemu.log")"
	control "$machine_control" listen '{"domain":"3","host":"0.0.0.0","port":10809}' >/dev/null
}
is_booted_or_dead() { grep -q '^machine: ready' "$machine_dir/console" || is_gone "$qemu_pid"; }
# No signal reaches the machine; then its disk loses what is in the cache.
cut_machine() {
	kill -9 "$qemu_pid"
	wait "$qemu_pid" 2>/dev/null || :
	kill -USR1 "$disk_pid"
	wait "$disk_pid"
	say "$(tail -n 1 "$machine_dir/disk.out")"
	cat "$machine_dir/console" >>"$machine_dir/console.log"
}
