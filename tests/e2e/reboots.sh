# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced after functions.sh: two hosts, a and b, that can lose their power.  A host is a directory of its own:
#
#       $tmp/a/run      SXM_RUN_DIR, goes with the power
#       $tmp/a/state    SXM_STATE_DIR, stays; so does what is beside the image
#       $tmp/a/boot_id  what its processes see as /proc/sys/kernel/random/boot_id, another one each time
#
# cut_power HOST: its processes are killed and its SXM_RUN_DIR goes.  What the kernel has in its cache is not lost by that; what a
# disk has in its own is, where the image is a *.nbd of spin_up's.
requires_root
requires unshare -m true

tmp=$(make_tmp)
datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
# shellcheck disable=SC2034 # for the tests
MiB=1048576

# power_on HOST IMAGE: its datapath process.  Its id is the host's name.
power_on() {
	mkdir -p "$tmp/$1/run" "$tmp/$1/state"
	cat /proc/sys/kernel/random/uuid >"$tmp/$1/boot_id"
	# shellcheck disable=SC2016 # for the shell in there
	env SXM_RUN_DIR="$tmp/$1/run" SXM_STATE_DIR="$tmp/$1/state" SXM_LOG=stderr \
		unshare -m sh -c 'mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"' sh \
		"$tmp/$1/boot_id" "$datapath" --id "$1" --path "$2" --keep
}
# spin_up HOST: its disk, $tmp/HOST.bytes behind a cache, that $tmp/HOST.nbd names.
declare -A disk_pid
spin_up() {
	start "$SXM_BUILDDIR/tests/lib/volatile-disk" "$tmp/$1.bytes" "$tmp/$1.sock" >"$tmp/$1.disk"
	disk_pid[$1]=$started
	until_true 5 grep -q ready "$tmp/$1.disk"
	echo "nbd+unix:///?socket=$tmp/$1.sock" >"$tmp/$1.nbd"
}
cut_power() {
	end_run_dir "$tmp/$1/run"
	if [ -n "${disk_pid[$1]-}" ]; then
		kill -USR1 "${disk_pid[$1]}" && wait "${disk_pid[$1]}"
		say "$1: $(cat "$tmp/$1.disk")"
		disk_pid[$1]=
	fi
	[ ! -e "$tmp/$1/run/$1.log" ] || cat "$tmp/$1/run/$1.log" >>"$tmp/$1.log"
	rm -rf "$tmp/$1/run"
}
end_hosts() { cut_power a; cut_power b; }
at_exit end_hosts

ask() { control "$tmp/$1/run/$1/control" "${@:2}"; }
get() { control --get "$2" "$tmp/$1/run/$1/control" "${@:3}"; }
of() { get a "operations.0.$1" status; }
is() { [ "$(of "$1")" = "$2" ]; }
is_in_step() { is state synced && is dirty_bytes 0 && is lag_bytes 0; }

# let_in HOST DOMAIN: attached and active; prints its socket.
let_in() {
	get "$1" socket attach "{\"domain\":\"$2\"}"
	ask "$1" activate "{\"domain\":\"$2\"}" >/dev/null
}
# mirror_to_b [MODE]: sets $op.
mirror_to_b() {
	local socket

	socket=$(get b socket attach '{"domain":"MIR1"}')
	# shellcheck disable=SC2034 # for the tests
	op=$(get a id mirror.start "{\"domain\":\"3\",\"remote\":\"nbd+unix:///b?socket=$socket\",\"mode\":\"${1-lag}\"}")
}
owed_by() { sed -n "s/.*taken up again, \([0-9]*\) bytes owed by $1.*/\1/p" "$tmp"/a/run/a.log | tail -n 1; }
