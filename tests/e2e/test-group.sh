#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Two disks of one guest are handed over together or not at all: whatever dies, and whenever, both have one outcome, and the
# owner's disk holds what was written.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/netns.sh"
requires_netns
requires nbdcopy --version

tmp=$(make_tmp)
bytes=$((8 << 20))
two_hosts
sr_A=$(on A make_sr "$tmp/A")
sr_B=$(on B make_sr "$tmp/B")
sxm_handover=$SXM_LIBEXECDIR/sxm/sxm-handover

# --- two disks, 0 and 1, each with its own far side

port=10809
control_of() { printf '%s/control' "$(dirname "$1")"; }
owner() {
	local file=$1.owner

	[ -f "$file" ] || { echo owned 1; return; }
	file=$(slots "$file")
	printf '%s %s\n' "$(json state <<<"$file")" "$(json epoch <<<"$file")"
}
owner_is() { [[ $(owner "$1") == $2 ]] || die "$case_name: $1 is $(owner "$1"), not $2"; }
soon_owner_is() { until_true 20 eval "[[ \$(owner '$1') == $2 ]]"; }

begin() {
	local i volume

	case_name=$1
	say "$case_name"
	for i in 0 1; do
		volume=$(on A make_volume "$sr_A" "$bytes"); uri_A[i]=$(printf '%s' "$volume" | json uri.0)
		volume=$(on B make_volume "$sr_B" "$bytes"); uri_B[i]=$(printf '%s' "$volume" | json uri.0)
		image_A[i]=${uri_A[i]#sxm://} image_B[i]=${uri_B[i]#sxm://}
		read -r sock_A[i] export_A[i] <<<"$(on A attach "${uri_A[i]}" 1)"
		on A activate "${uri_A[i]}" 1
		write_A $i
		begin_far $i
		mirror_A $i
	done
}
begin_far() {
	port=$((port + 1))
	read -r sock_B[$1] export_B[$1] <<<"$(on B attach "${uri_B[$1]}" MIR1)"
	on B activate "${uri_B[$1]}" MIR1
	control "$(control_of "${sock_B[$1]}")" listen "{\"domain\":\"MIR1\",\"host\":\"$address_B\",\"port\":$port}" >/dev/null
	remote[$1]=nbd://$address_B:$port/${export_B[$1]}
}
write_A() {
	head -c $((1 << 20)) /dev/urandom >"$tmp/data$1"
	nbdcopy --flush "$tmp/data$1" "$(nbd_uri "${sock_A[$1]}" "${export_A[$1]}")"
}
mirror_A() {
	operation[$1]=$(on A mirror "${uri_A[$1]}" 1 "${remote[$1]}")
	on A wait_complete "${operation[$1]}"
}
ask_A() { control "$(control_of "${sock_A[$1]}")" "${@:2}"; }
get_A() { control --get "$2" "$(control_of "${sock_A[$1]}")" status; }
pid_A() { get_A "$1" pid; }
# Its keeper first.
kill_for_good() {
	kill -9 "$(sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f2)"
	kill -9 "$1"
}
pid_B() { control --get pid "$(control_of "${sock_B[$1]}")" status; }
holds() { cmp -n $((1 << 20)) "$tmp/data$1" "$2" >&2 || die "$case_name: $2 does not hold what was written"; }

handover() { on A hand_over "$@"; }
hand_over() {
	# shellcheck disable=SC2086 # several words
	$host_prefix env SXM_RUN_DIR="$SXM_RUN_DIR" SXM_HANDOVER_STOP="${stop_at-}" "$sxm_handover" --patience "${patience-30}" "$@" \
		1 "${uri_A[0]}" "${uri_A[1]}"
}
# All have gone, and are whole there.
moved() {
	local i

	for i in 0 1; do
		owner_is "${image_A[i]}" "given 2"
		owner_is "${image_B[i]}" "eligible 2"
		holds $i "${image_B[i]}"
		on A detach "${uri_A[i]}" 1
		on B deactivate "${uri_B[i]}" MIR1
		on B detach "${uri_B[i]}" MIR1
		on B attach "${uri_B[i]}" 2 >/dev/null
		on B activate "${uri_B[i]}" 2
		owner_is "${image_B[i]}" "owned 2"
	done
}
# None has gone, their guests go on, and the next try works.
stayed() {
	local i

	for i in 0 1; do
		soon_owner_is "${image_A[i]}" "owned\ *"
		until_true 20 write_A $i
		until_true 10 is_mirroring $i
	done
	handover >"$tmp/out" 2>&1 || { cat "$tmp/out" >&2; die "$case_name: the next try failed"; }
	for i in 0 1; do
		[[ $(owner "${image_A[i]}") == given* ]] || die "$case_name: ${image_A[i]} is $(owner "${image_A[i]}") after the next try"
		[[ $(owner "${image_B[i]}") == eligible* ]] || die "$case_name: ${image_B[i]} is $(owner "${image_B[i]}")"
		holds $i "${image_B[i]}"
	done
}
is_mirroring() { [ "$(get_A "$1" operations.-1.linked)" = true ]; }
finish() {
	local i d

	for i in 0 1; do
		for d in 1 2 MIR1; do
			on A deactivate "${uri_A[i]}" $d; on A detach "${uri_A[i]}" $d
			on B deactivate "${uri_B[i]}" $d; on B detach "${uri_B[i]}" $d
		done
	done >/dev/null 2>&1
	[ -z "$(ls "$hosts_dir/A/state/groups" 2>/dev/null)" ] || [ -n "${1-}" ] || die "$case_name: a decision was left: $(ls "$hosts_dir/A/state/groups")"
	rm -rf "$hosts_dir/A/state/groups"
}
# held_until PLACE: a coordinator that stands still there; $coordinator is its pid.
held_until() {
	stop_at=$1 patience=${2-30} handover >"$tmp/out" 2>&1 &
	coordinator=
	until_true 20 find_stopped
	coordinator=$(stopped)
}
stopped() {
	local p

	for p in $(pgrep -f "^$sxm_handover --patience"); do
		grep -qszxF "SXM_RUN_DIR=$hosts_dir/A" "/proc/$p/environ" && [[ $(cut -d' ' -f3 "/proc/$p/stat" 2>/dev/null) == T ]] && echo "$p"
	done
}
find_stopped() { [ -n "$(stopped)" ]; }

# --- the cases

both_at_once() {
	begin "both at once"
	handover | tee "$tmp/out"
	moved
	finish
}

one_far_side_is_dead() {
	begin "one disk's far side is dead: none goes"
	kill_for_good "$(pid_B 1)"
	until_true 10 eval "! is_mirroring 1"
	handover >"$tmp/out" 2>&1 && die "handed over: $(cat "$tmp/out")"
	cat "$tmp/out"
	owner_is "${image_A[0]}" "owned 3"
	owner_is "${image_A[1]}" "owned 1"
	write_A 0; write_A 1
	on B activate "${uri_B[1]}" MIR1 # its process is there again
	stayed
	finish
}

coordinator_dies_undecided() {
	begin "the coordinator dies before it decides: nobody goes, by themselves"
	held_until prepared 2
	kill -9 "$coordinator"
	soon_owner_is "${image_A[0]}" "owned\ 3" # 2 was offered
	soon_owner_is "${image_A[1]}" "owned\ 3"
	stayed
	finish left
	begin "... and one that is run again at once hands over"
	held_until prepared
	kill -9 "$coordinator"
	handover
	moved
	finish
}

coordinator_dies_decided() {
	begin "the coordinator dies after it decided: both go, by themselves"
	held_until decided 2
	kill -9 "$coordinator"
	soon_owner_is "${image_A[0]}" "given\ 2"
	soon_owner_is "${image_A[1]}" "given\ 2"
	handover
	moved
	finish
}

# A coordinator that was too late hears so.
coordinator_sleeps() {
	begin "the coordinator sleeps for longer than a disk's patience"
	held_until prepared 1
	soon_owner_is "${image_A[0]}" "owned\ 3"
	soon_owner_is "${image_A[1]}" "owned\ 3"
	kill -CONT "$coordinator"
	until_true 20 is_gone "$coordinator"
	grep -q "none of 2 disks" "$tmp/out" || die "$(cat "$tmp/out")"
	stayed
	finish
}

disk_dies_undecided() {
	begin "a disk's process dies between prepare and the decision: nobody goes"
	held_until prepared
	kill -9 "$(pid_A 0)"
	soon_owner_is "${image_A[0]}" "owned\ 3"
	owner_is "${image_A[1]}" "offered 2"
	kill -CONT "$coordinator"
	until_true 20 is_gone "$coordinator"
	grep -q "none of 2 disks" "$tmp/out" || die "$(cat "$tmp/out")"
	owner_is "${image_A[1]}" "owned 3"
	stayed
	finish
}

disk_dies_decided() {
	begin "a disk's process dies between the decision and commit: both go"
	held_until decided
	kill -9 "$(pid_A 0)"
	soon_owner_is "${image_A[0]}" "given\ 2"
	owner_is "${image_A[1]}" "offered 2"
	kill -CONT "$coordinator"
	until_true 20 is_gone "$coordinator"
	grep -q "2 disks handed over" "$tmp/out" || die "$(cat "$tmp/out")"
	moved
	finish
}

# Decided, and one far side is dead: that disk is nobody's until it is back.
far_side_dies_decided() {
	begin "a far side dies between the decision and commit: its disk follows when it is back"
	held_until decided
	kill_for_good "$(pid_B 1)"
	kill -9 "$(pid_A 1)"
	kill -CONT "$coordinator"
	on B activate "${uri_B[1]}" MIR1
	until_true 60 is_gone "$coordinator"
	cat "$tmp/out"
	soon_owner_is "${image_A[1]}" "given\ 2"
	handover
	moved
	finish
}

# The same, and the disk's process lives: it gives up after a while, serves nobody, and tries again.
far_side_is_gone_decided() {
	begin "a far side dies after the decision, for longer: its disk waits for it and serves nobody"
	held_until decided
	kill_for_good "$(pid_B 1)"
	kill -CONT "$coordinator"
	until_true 60 is_gone "$coordinator"
	grep -q "not every disk has followed" "$tmp/out" || die "$(cat "$tmp/out")"
	owner_is "${image_A[0]}" "given 2"
	owner_is "${image_A[1]}" "offered 2"
	[ "$(get_A 1 domains.0.served)" = false ] || die "$case_name: it is served"
	on B activate "${uri_B[1]}" MIR1
	soon_owner_is "${image_A[1]}" "given\ 2"
	handover
	moved
	finish
}

# The verbs, by hand: nothing is done that is not decided.
by_hand() {
	local i

	begin "the verbs by hand"
	must_fail ask_A 0 handover.commit '{"group":"h"}' >"$tmp/out" 2>&1
	must_fail ask_A 0 handover.prepare '{"domain":"7","group":"h"}' >"$tmp/out" 2>&1
	for i in 0 1; do ask_A $i handover.prepare '{"domain":"1","group":"h"}' >/dev/null; done
	ask_A 0 handover.prepare '{"domain":"1","group":"h"}' >/dev/null
	must_fail ask_A 0 handover.commit '{"group":"h"}' 2>"$tmp/out" >&2
	grep -q "nothing is decided" "$tmp/out" || die "$(cat "$tmp/out")"
	must_fail ask_A 0 mirror.cancel "{\"id\":\"$(get_A 0 operations.0.id)\"}" 2>"$tmp/out" >&2
	ask_A 0 handover.cancel '{"group":"h"}' >/dev/null
	owner_is "${image_A[0]}" "owned 3"
	must_fail ask_A 1 handover.commit '{"group":"h"}' 2>"$tmp/out" >&2
	grep -q cancelled "$tmp/out" || die "$(cat "$tmp/out")"
	ask_A 1 handover.cancel '{"group":"h"}' >/dev/null
	owner_is "${image_A[1]}" "owned 3"
	must_fail ask_A 1 handover.prepare '{"domain":"1","group":"h"}' 2>"$tmp/out" >&2
	stayed
	finish left
}

for name in ${SXM_CASES:-$(fewer 3 both_at_once one_far_side_is_dead coordinator_dies_undecided coordinator_dies_decided coordinator_sleeps \
	disk_dies_undecided disk_dies_decided far_side_dies_decided far_side_is_gone_decided by_hand)}; do
	"$name"
done
