#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk is handed over, taken back, given back and refused, between two hosts with the verbs in xapi's order.  After each case the
# two records beside the images say who owns it, and the owner's disk holds what was written.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/netns.sh"
requires_netns
requires nbdcopy --version
requires nbdkit --version

tmp=$(make_tmp)
bytes=$((8 << 20))
two_hosts
sr_A=$(on A make_sr "$tmp/A")
sr_B=$(on B make_sr "$tmp/B")

# --- one pair of volumes

port=10809
control_of() { printf '%s/control' "$(dirname "$1")"; }

# What a record says; "owned" where there is none.
owner() {
	local file=$1.owner

	[ -f "$file" ] || { echo owned 1 -; return; }
	file=$(slots "$file")
	printf '%s %s %s\n' "$(json state <<<"$file")" "$(json epoch <<<"$file")" "$(json taken <<<"$file" 2>/dev/null || echo -)"
}
owner_is() { [[ $(owner "$1") == $2 ]] || die "$case_name: $1 is $(owner "$1"), not $2"; }
soon_owner_is() { until_true 10 eval "[[ \$(owner '$1') == $2 ]]"; }

# begin NAME [DOMAIN]: a volume on each host; A's is active for DOMAIN and holds something.
begin() {
	case_name=$1 domain=${2-1} port=$((port + 1))
	say "$case_name"
	volume_A=$(on A make_volume "$sr_A" "$bytes") volume_B=$(on B make_volume "$sr_B" "$bytes")
	uri_A=$(printf '%s' "$volume_A" | json uri.0) uri_B=$(printf '%s' "$volume_B" | json uri.0)
	image_A=${uri_A#sxm://} image_B=${uri_B#sxm://}
	read -r sock_A export_A <<<"$(on A attach "$uri_A" "$domain")"
	[ "$domain" = -1 ] || on A activate "$uri_A" "$domain"
	head -c $((1 << 20)) /dev/urandom >"$tmp/data"
	[ "$domain" = -1 ] && dd if="$tmp/data" of="$image_A" conv=notrunc status=none || write_A
	read -r sock_B export_B <<<"$(on B attach "$uri_B" MIR1)"
	on B activate "$uri_B" MIR1
	control "$(control_of "$sock_B")" listen "{\"domain\":\"MIR1\",\"host\":\"$address_B\",\"port\":$port}" >/dev/null
}
write_A() { nbdcopy --flush "$tmp/data" "$(nbd_uri "$sock_A" "$export_A")"; }
mirror_A() {
	operation=$(on A mirror "$uri_A" "$domain" "${1-nbd://$address_B:$port/$export_B}")
	on A wait_complete "$operation"
}
end_far() {
	on B deactivate "$uri_B" MIR1
	on B detach "$uri_B" MIR1
}
finish() {
	local d

	for d in 1 2 3 -1; do
		on A deactivate "$uri_A" $d
		on A detach "$uri_A" $d
		on B deactivate "$uri_B" $d
		on B detach "$uri_B" $d
	done >/dev/null 2>&1
	end_far >/dev/null 2>&1 || :
}
holds() { cmp -n $((1 << 20)) "$tmp/data" "$1" >&2 || die "$case_name: $1 does not hold what was written"; }
process_is_gone() { ! control "$(control_of "$1")" hello >/dev/null 2>&1; }
refused() { must_fail "$@" >"$tmp/refused" 2>&1; }
destroy() { on "$1" volume_verb Volume.destroy "\"sr\":\"$2\",\"key\":\"$(printf '%s' "$3" | json key)\""; }

# --- the cases

switchover() {
	begin "switchover"
	mirror_A
	on A deactivate "$uri_A" 1
	owner_is "$image_A" "given 2 *"
	owner_is "$image_B" "eligible 2 *"
	[ "$(control --get operations.0.link_verified "$(control_of "$sock_A")" status)" = true ] || die "the link was not verified"
	on A detach "$uri_A" 1
	end_far
	on B attach "$uri_B" 2 >/dev/null
	on B activate "$uri_B" 2
	owner_is "$image_B" "owned 2 *"
	soon_owner_is "$image_A" "given\ 2\ true"
	until_true 10 process_is_gone "$sock_A"
	holds "$image_B"
	on A attach "$uri_A" 3 >/dev/null
	refused on A activate "$uri_A" 3
	on A detach "$uri_A" 3
	on A wait_complete "$operation"
	destroy A "$sr_A" "$volume_A" >/dev/null
	finish
}

reboot_after_complete() {
	begin "the guest reboots after complete"
	mirror_A
	on A deactivate "$uri_A" 1
	on A detach "$uri_A" 1
	read -r sock_A export_A <<<"$(on A attach "$uri_A" 3)"
	on A activate "$uri_A" 3
	owner_is "$image_A" "owned 3 *"
	owner_is "$image_B" "receiving 3 *"
	on B attach "$uri_B" 2 >/dev/null
	refused on B activate "$uri_B" 2
	head -c $((1 << 20)) /dev/urandom >"$tmp/data"
	write_A
	on A deactivate "$uri_A" 3
	owner_is "$image_A" "given 4 *"
	on A detach "$uri_A" 3
	end_far
	on B activate "$uri_B" 2
	holds "$image_B"
	soon_owner_is "$image_A" "given\ 4\ true"
	finish
}

shutdown_after_complete() {
	begin "the guest shuts down after complete, and starts over there"
	mirror_A
	on A deactivate "$uri_A" 1
	on A detach "$uri_A" 1
	end_far
	owner_is "$image_B" "eligible 2 *"
	on B attach "$uri_B" 2 >/dev/null
	on B activate "$uri_B" 2
	holds "$image_B"
	soon_owner_is "$image_A" "given\ 2\ true"
	until_true 10 process_is_gone "$sock_A"
	finish
}

halted() {
	begin "a halted guest's disk" -1
	mirror_A
	owner_is "$image_A" "given 2 *"
	owner_is "$image_B" "eligible 2 *"
	on A detach "$uri_A" -1
	end_far
	on B attach "$uri_B" 2 >/dev/null
	on B activate "$uri_B" 2
	holds "$image_B"
	finish
}

cancel_before_commit() {
	begin "cancelled before COMMIT"
	mirror_A
	on A datapath_verb Data.destroy "\"operation\":$operation" >/dev/null
	owner_is "$image_B" "incomplete 1 *" # it was told
	end_far
	owner_is "$image_B" "incomplete 1 *"
	on B attach "$uri_B" 2 >/dev/null
	refused on B activate "$uri_B" 2
	write_A
	on A deactivate "$uri_A" 1
	on A activate "$uri_A" 1
	owner_is "$image_A" "owned *"
	destroy B "$sr_B" "$volume_B" >/dev/null 2>&1 && die "destroyed while it is attached"
	on B detach "$uri_B" 2
	destroy B "$sr_B" "$volume_B" >/dev/null
	holds "$image_A"
	finish
}

cancel_after_commit() {
	begin "cancelled after COMMIT: another disk's barrier had raised"
	mirror_A
	on A deactivate "$uri_A" 1
	end_far
	until_true 10 destroy B "$sr_B" "$volume_B"
	soon_owner_is "$image_A" "owned\ 3\ *"
	on A activate "$uri_A" 1
	read -r sock_A export_A <<<"$(on A attach "$uri_A" 1)"
	head -c $((1 << 20)) /dev/urandom >"$tmp/data"
	write_A
	holds "$image_A"
	on A deactivate "$uri_A" 1
	finish
}

# cancel_when_offered MS: $far stands still; it goes on so many ms after the cancel was asked for, or before it, with "late".
cancel_when_offered() {
	python3 - "$image_A.owner" "$(control_of "$sock_A")" "$operation" "$far" "$1" <<-'END'
		import json, os, signal, socket, sys, time

		owner, control, operation, far, ms = sys.argv[1:]
		far = int(far)
		s = socket.socket(socket.AF_UNIX)
		s.connect(control)
		until = time.monotonic() + 3
		while time.monotonic() < until:
		    with open(owner) as f:
		        if '"offered"' in f.read():
		            break
		if ms == "late":
		    os.kill(far, signal.SIGCONT)
		s.sendall(json.dumps({"id": 1, "verb": "mirror.cancel", "args": {"id": json.loads(operation)[1]}}).encode() + b"\n")
		if ms != "late":
		    time.sleep(float(ms) / 1000)
		    os.kill(far, signal.SIGCONT)
		sys.exit("ok" not in json.loads(s.makefile().readline()))
	END
}

# It was too late, or the verb raised and the far side knows that it is off: the link was there all the time.
cancel_at_the_barrier() {
	local status ms cancelled=0

	for ms in 20 100 late late late late; do
		begin "cancelled when it was offered, $ms"
		mirror_A
		far=$(control --get pid "$(control_of "$sock_B")" status)
		kill -STOP "$far"
		cancel_when_offered "$ms" &
		status=0
		on A deactivate "$uri_A" 1 >/dev/null 2>&1 || status=$?
		wait $! || die "$case_name: the cancel failed"
		if [ "$status" = 0 ]; then
			owner_is "$image_A" "given 2 *"
			owner_is "$image_B" "eligible 2 *"
		else
			[[ $(owner "$image_A") == "owned 1 "* ]] || owner_is "$image_A" "owned 3 *"
			owner_is "$image_B" "incomplete *"
			end_far
			on B attach "$uri_B" 2 >/dev/null
			refused on B activate "$uri_B" 2
			write_A
			on A deactivate "$uri_A" 1
			holds "$image_A"
			cancelled=$((cancelled + 1))
		fi
		say "... $(owner "$image_A" | cut -d' ' -f1-2)"
		finish
	done
	[ "$cancelled" -ge 2 ] || die "nothing was cancelled in time"
}

# Whatever the moment: it was handed over and both records say so, or the verb raised and the disk is here.
far_dies_at_the_barrier() {
	local pid status=0 round

	for round in $(fewer 3 1 2 3 4); do
		begin "the far side dies at the barrier, $round"
		mirror_A
		pid=$(control --get pid "$(control_of "$sock_B")" status)
		kill -STOP "$pid"
		status=0
		{ sleep "0.0$((round * 2))"; kill -9 "$pid"; } &
		on A deactivate "$uri_A" 1 >"$tmp/raised" 2>&1 || status=$?
		wait $!
		if [ "$status" = 0 ]; then
			owner_is "$image_A" "given 2 *"
			end_far
			on B attach "$uri_B" 2 >/dev/null
			on B activate "$uri_B" 2
			holds "$image_B"
		else
			[ -z "${SXM_SHOW-}" ] || tail -n 40 "$tmp/raised" "$(dirname "$(dirname "$sock_A")")"/*.log
			owner_is "$image_A" "owned *"
			on A deactivate "$uri_A" 1
			on A activate "$uri_A" 1
			holds "$image_A"
		fi
		say "... $(owner "$image_A" | cut -d' ' -f1)"
		finish
	done
}

# The process that gave the disk is no more: the next one asks it back, or is told that it was taken.
source_dies_after_commit() {
	begin "the source dies after COMMIT, and its guest starts there again"
	mirror_A
	on A deactivate "$uri_A" 1
	kill -9 "$(control --get pid "$(control_of "$sock_A")" status)"
	on A detach "$uri_A" 1
	owner_is "$image_A" "given 2 *"
	read -r sock_A export_A <<<"$(on A attach "$uri_A" 3)"
	on A activate "$uri_A" 3
	owner_is "$image_A" "owned 3 *"
	soon_owner_is "$image_B" "receiving\ 3\ *"
	head -c $((1 << 20)) /dev/urandom >"$tmp/data"
	write_A
	on A deactivate "$uri_A" 3
	owner_is "$image_A" "given 4 *"
	kill -9 "$(control --get pid "$(control_of "$sock_A")" status)"
	on A detach "$uri_A" 3
	end_far
	on B attach "$uri_B" 2 >/dev/null
	on B activate "$uri_B" 2
	holds "$image_B"
	on A attach "$uri_A" 3 >/dev/null
	refused on A activate "$uri_A" 3
	finish
}

# Whatever the moment: one owner, and he has everything.
source_dies_at_the_barrier() {
	local pid status round

	for round in $(fewer 3 1 2 3 4 5 6); do
		begin "the source dies at the barrier, $round"
		mirror_A
		pid=$(control --get pid "$(control_of "$sock_A")" status)
		status=0
		{ sleep "0.00$((round * 3))"; kill -9 "$pid"; } &
		on A deactivate "$uri_A" 1 >"$tmp/raised" 2>&1 || status=$?
		wait $!
		if [ "$status" = 0 ]; then
			owner_is "$image_A" "given *"
			on A detach "$uri_A" 1
			end_far
			on B attach "$uri_B" 2 >/dev/null
			on B activate "$uri_B" 2
			holds "$image_B"
		else
			owner_is "$image_A" "owned *"
			on A deactivate "$uri_A" 1
			on A activate "$uri_A" 1
			holds "$image_A"
		fi
		say "... $(owner "$image_A" | cut -d' ' -f1)"
		finish
	done
}

foreign_target() {
	local sock

	begin "a foreign target"
	end_far
	sock=$tmp/nbdkit
	start_nbdkit "$sock" memory "$bytes"
	mirror_A "nbd+unix:///?socket=$sock"
	on A deactivate "$uri_A" 1
	owner_is "$image_A" "owned 1 *"
	nbdcopy "nbd+unix:///?socket=$sock" "$tmp/copy"
	holds "$tmp/copy"
	on A activate "$uri_A" 1
	finish
}

far_gives_up() {
	begin "the far side is let go before the guest is"
	mirror_A
	end_far
	owner_is "$image_B" "incomplete 1 *"
	has_failed() { on A stat_operation "$operation" | grep -q '"failed": *true'; }
	until_true 10 has_failed
	write_A
	on A deactivate "$uri_A" 1
	on A activate "$uri_A" 1
	holds "$image_A"
	finish
}

# xapi destroys the source after moves whose errors it ignored.
source_is_kept() {
	begin "the far side dies after complete, and nobody cares"
	end_far
	start_nbdkit "$tmp/nbdkit2" memory "$bytes"
	mirror_A "nbd+unix:///?socket=$tmp/nbdkit2"
	stop "$started"
	refused on A deactivate "$uri_A" 1
	on A deactivate "$uri_A" 1
	on A detach "$uri_A" 1
	refused destroy A "$sr_A" "$volume_A"
	grep -q "only good copy" "$tmp/refused" || die "does not say why: $(cat "$tmp/refused")"
	holds "$image_A"
	on A datapath_verb Data.destroy "\"operation\":$operation" >/dev/null
	destroy A "$sr_A" "$volume_A" >/dev/null
	finish
}

foreign_source() {
	begin "a foreign source"
	nbdcopy --flush "$tmp/data" "nbd+unix:///$export_B?socket=$sock_B"
	end_far
	on B attach "$uri_B" 2 >/dev/null
	on B activate "$uri_B" 2
	holds "$image_B"
	finish
}

for name in ${SXM_CASES:-switchover reboot_after_complete shutdown_after_complete halted cancel_before_commit cancel_after_commit \
	cancel_at_the_barrier far_gives_up source_is_kept far_dies_at_the_barrier source_dies_after_commit source_dies_at_the_barrier \
	foreign_target foreign_source}; do
	"$name"
done
