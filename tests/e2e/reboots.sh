# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced after functions.sh: two hosts, a and b, that can lose their power.  A host is a directory of its own:
#
#       $tmp/a/run      SXM_RUN_DIR, goes with the power
#       $tmp/a/state    SXM_STATE_DIR, stays; so does what is beside the image
#       $tmp/a/boot_id  what its processes see as /proc/sys/kernel/random/boot_id
#
# cut_power HOST: its processes are killed and its SXM_RUN_DIR is emptied.  What this cannot lose is what the kernel had in its cache; see start_disk_model.
requires_root
requires unshare -m true

tmp=$(make_tmp)
datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
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
cut_power() {
	end_run_dir "$tmp/$1/run"
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
	op=$(get a id mirror.start "{\"domain\":\"3\",\"remote\":\"nbd+unix:///b?socket=$(get b socket attach '{"domain":"MIR1"}')\",\"mode\":\"${1-lag}\"}")
}
owed_by() { sed -n "s/.*taken up again, \([0-9]*\) bytes owed by $1.*/\1/p" "$tmp"/a/run/a.log | tail -n 1; }
