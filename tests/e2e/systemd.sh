# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced after functions.sh: a systemd of the test's own, process 1 of namespaces of its own, with no units but the test's.
#
#       mkdir "$dir/units" ...          units, among them test.target, which it boots
#       boot_systemd "$dir"
#       in_systemd COMMAND...           in its namespaces; systemctl asks it
#
#       +--- mount, pid, cgroup, net, ipc and uts namespace ------+
#       | /               read-only, where that can be had        |
#       | DIR             writable, the same as outside           |     outside: DIR/console is what it says
#       | /run            an empty tmpfs                          |
#       | /sys/fs/cgroup  cgroup2, from a group of its own        |
#       +---------------------------------------------------------+
#
# Its end, and that of all below it, is that of the process in $systemd.

requires_systemd() {
	requires_root
	[ -x /lib/systemd/systemd ] || skip "systemd is not installed"
	requires systemctl --version
	requires unshare --mount --pid --cgroup --net --ipc --uts --fork --mount-proc true
	requires unshare --mount sh -c 'mount -t cgroup2 none /mnt && mkdir "/mnt/sxm-$0" && rmdir "/mnt/sxm-$0"' $$
	requires unshare --mount mount -t tmpfs none /run
}

boot_systemd() {
	mkdir -p "$1/cgroup"
	: >"$1/console"
	at_exit remove_cgroup "$1"
	unshare --mount --propagation private bash -ec '
		mount -t cgroup2 none "$1/cgroup"
		mkdir "$1/cgroup/sxm-$2"
		echo 0 >"$1/cgroup/sxm-$2/cgroup.procs"
		umount "$1/cgroup"
		mount --bind "$1" "$1"
		mount -t tmpfs -o mode=755 none /run
		mkdir /run/lock
		[ ! -e /dev/console ] || mount --bind "$1/console" /dev/console
		exec unshare --cgroup --pid --net --ipc --uts --fork --kill-child --mount-proc bash -ec "
			mount -t cgroup2 none /sys/fs/cgroup
			mount -o remount,bind,ro / || :
			exec env -i container=test PATH=\"\$PATH\" SYSTEMD_UNIT_PATH=\"\$1/units\" SYSTEMD_GENERATOR_PATH=/nowhere \
				/lib/systemd/systemd --system --unit=test.target --show-status=0" - "$1"' - "$1" $$ >"$1/boot.log" 2>&1 &
	systemd=$!
	at_exit kill -9 "$systemd"
	disown "$systemd" # nobody wants to read that it was killed
	until_true 20 is_booted
}
is_booted() {
	pid_1=$(cat "/proc/$systemd/task/$systemd/children") && pid_1=${pid_1% } && [ -n "$pid_1" ] &&
		in_systemd systemctl -q is-active test.target
}
in_systemd() { nsenter -t "$pid_1" --mount --root --wd --pid --cgroup --net --ipc --uts -- "$@"; }

# Its processes are killed, perhaps not gone.
remove_cgroup() {
	unshare --mount bash -c 'mount -t cgroup2 none "$1/cgroup"
		for ((i = 0; i < 100; i++)); do
			find "$1/cgroup/sxm-$2" -depth -type d -exec rmdir {} + 2>/dev/null
			[ -e "$1/cgroup/sxm-$2" ] || break
			sleep 0.05
		done' - "$1" $$
}
