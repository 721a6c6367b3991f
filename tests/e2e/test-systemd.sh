#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk's process under systemd: started by a verb that a service runs, in a cgroup of its own, it outlives that service; dead,
# it is back within a second, as often as it must; 32 verbs at once find one process; the last detach leaves no unit. A verb
# that runs early in the boot waits for nothing; when the host goes down, the disk goes after the guests.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/systemd.sh"
MiB=1048576

# --- outside: the units, and a volume for the boot

write_units() {
	local unit

	mkdir "$tmp/units" "$tmp/units/sxm-datapath@.service.d"
	unit=$(find "$SXM_BUILDDIR/stage" -name 'sxm-datapath@.service')
	sed "s|^ExecStart=.*/sxm/|ExecStart=$SXM_LIBEXECDIR/sxm/|" "$unit" >"$tmp/units/sxm-datapath@.service"
	printf '[Service]\nEnvironment=SXM_LOG=stderr\nStandardError=append:%s\n' "$tmp/datapath.log" >"$tmp/units/sxm-datapath@.service.d/log.conf"
	for unit in sysinit basic local-fs shutdown; do
		printf '[Unit]\nDefaultDependencies=no\n' >"$tmp/units/$unit.target"
	done
	printf '[Unit]\nWants=attach-static-vdis.service xapi-domains.service xapi-storage-script.service\n' >"$tmp/units/test.target"
	write_service attach-static-vdis "attach_disk $early_uri early" 'DefaultDependencies=no\nBefore=local-fs.target\nWants=local-fs.target' \
		'Type=oneshot\nRemainAfterExit=yes'
	write_service xapi-storage-script 'serve_verbs'
	write_service xapi-domains 'true' 'After=attach-static-vdis.service' \
		"Type=oneshot\nRemainAfterExit=yes\nExecStop=bash $tmp/run stop_guests"
	{
		declare -p SXM_SRCDIR SXM_BUILDDIR SXM_LIBEXECDIR tmp
		printf 'export TMPDIR=%q SXM_RUN_DIR= SXM_LOG=stderr\n' "$tmp"
		printf 'set -- "$@"\n. %q/tests/functions.sh\n' "$SXM_SRCDIR"
		declare -f attach_disk serve_verbs stop_guests
		printf '"$@"\n'
	} >"$tmp/run"
}

# write_service NAME FUNCTION [UNIT-LINES [SERVICE-LINES]]
write_service() {
	printf '[Unit]\n%b\n[Service]\n%b\nExecStart=bash %s %s\nStandardError=append:%s\n' "${3-}" "${4-}" "$tmp/run" "$2" "$tmp/$1.log" \
		>"$tmp/units/$1.service"
}

# --- what the services run

attach_disk() {
	attach "$1" 1 >"$tmp/$2.new"
	activate "$1" 1
	mv "$tmp/$2.new" "$tmp/$2"
}

# The calls in the mailbox, one after the other, as xapi-storage-script does it: each in our own cgroup.
serve_verbs() {
	while :; do
		read -r call <"$tmp/mailbox"
		$call
	done
}

# xapi-domains has something to ask of the disk when the host goes down.
stop_guests() {
	read -r sock export <"$tmp/early"
	sleep 0.5 # whoever does not wait for us is gone after that
	nbdinfo --size "$(nbd_uri "$sock" "$export")" >"$tmp/at-shutdown" 2>&1 || :
}

# --- inside

call() { echo "$*" >"$tmp/mailbox"; }
show() { systemctl show -P "$1" "$unit"; }
cgroup_of() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }
pid() { control --get pid "$socket_dir/control" hello; }
answers() { nbdinfo --size "$nbd"; }
now_ms() { date +%s%3N; }
units() { systemctl list-units --all --plain --no-legend 'sxm-datapath@*' | grep -v "$early_export"; }
no_units() { [ -z "$(units)" ]; }
datapaths() { find /proc/[0-9]*/exe -lname "$SXM_LIBEXECDIR/sxm/sxm-datapath" 2>/dev/null | cut -d/ -f3; }
holders() { find /proc/[0-9]*/fd -lname "$image" 2>/dev/null | cut -d/ -f3 | sort -u; }
log_grew() { [ "$(stat -c %s "$tmp/log")" -gt $((log_before + 24000)) ]; }
under_load() {
	log_before=$(stat -c %s "$tmp/log" 2>/dev/null || echo 0)
	until_true 20 test -s "$tmp/log"
	until_true 20 log_grew
}

a_disk() {
	sr=$(make_sr "$tmp/sr")
	uri=$(make_volume "$sr" $((64 * MiB)) | json uri.0)
	call "attach_disk $uri attached"
	until_true 20 test -s "$tmp/attached"
	read -r sock export <"$tmp/attached"
	nbd=$(nbd_uri "$sock" "$export") socket_dir=$(dirname "$sock") unit=sxm-datapath@$export.service
	image=$(control --get path "$socket_dir/control" hello)
}

is_in_its_unit() {
	local child keeper

	child=$(pid) keeper=$(show MainPID)
	say "$unit: keeper $keeper, process $child"
	[ "$(ps -o ppid= -p "$child" | tr -d ' ')" = "$keeper" ] || die "process $child is not the keeper's, $keeper"
	for process in "$keeper" "$child"; do
		[ "$(cgroup_of "$process")" = "/system.slice/$unit" ] || die "process $process is in $(cgroup_of "$process")"
		# Without CAP_SYS_RESOURCE nobody gets a lower value.
		(echo -900 >"/proc/$BASHPID/oom_score_adj") 2>/dev/null || continue
		[ "$(cat "/proc/$process/oom_score_adj")" = -900 ] || die "not spared: $(cat "/proc/$process/oom_score_adj")"
	done
	[ "$(show KillMode) $(show Restart) $(show OOMScoreAdjust)" = "mixed on-failure -900" ] || die "other properties"
}

caller_ends() {
	local before

	before=$(pid) caller_before=$(systemctl show -P MainPID xapi-storage-script)
	systemctl restart xapi-storage-script
	[ "$(systemctl show -P MainPID xapi-storage-script)" != "$caller_before" ] || die "the caller was not restarted"
	answers >/dev/null
	systemctl kill --signal=KILL xapi-storage-script
	until_true 10 systemctl -q is-failed xapi-storage-script
	answers >/dev/null
	systemctl start xapi-storage-script
	[ "$(pid)" = "$before" ] || die "another process: the disk did not outlive its caller"
}

# dies WHO COMMAND-THAT-TELLS-THE-PIDS...: and is back within a second. On a busy machine that may be shown by the second or third death.
dies() {
	local before victims start_ms took_ms _try

	for _try in 1 2 3; do
		under_load
		before=$(pid) victims=$("${@:2}")
		start_ms=$(now_ms)
		# shellcheck disable=SC2086 # a list
		kill -9 $victims
		until_true 10 answers
		took_ms=$(($(now_ms) - start_ms))
		say "$1 killed: served again after $took_ms ms"
		[ "$(pid)" != "$before" ] || die "the same process?"
		echo "$nbd" >"$tmp/next"
		[ "$took_ms" -ge 1000 ] || return 0
	done
	die "too long, each time"
}

verbs_at_once() {
	local verbs=() v

	under_load
	systemctl kill --signal=KILL "$unit"
	for ((v = 0; v < 32; v++)); do
		if ((v % 2)); then attach "$uri" 1 >"$tmp/v$v" & else activate "$uri" 1 >"$tmp/v$v" & fi
		verbs+=($!)
	done
	for v in "${verbs[@]}"; do wait "$v" || die "a verb failed"; done
	for ((v = 1; v < 32; v += 2)); do [ "$(cat "$tmp/v$v")" = "$sock $export" ] || die "verb $v answered: $(cat "$tmp/v$v")"; done
	[ "$(holders | wc -l)" = 1 ] || die "several processes hold the image: $(holders)"
	echo "$nbd" >"$tmp/next"
	under_load
}

# Verbs that come while the last one goes find either the process or its unit, never a third thing.
verbs_come_and_go() {
	local domain round pids=()

	for domain in 7 8 9; do
		for ((round = 0; round < 12; round++)); do
			attach "$uri" $domain >/dev/null && activate "$uri" $domain && deactivate "$uri" $domain && detach "$uri" $domain || exit 1
		done &
		pids+=($!)
	done
	for round in "${pids[@]}"; do wait "$round" || die "a verb failed"; done
	! grep -h 'could not be started' "$_tmp"/verbs.log || die "a process outside its unit"
}

# The unit reads the path from a file of systemd's syntax, and takes it for one word.
odd_path() {
	local dir="$tmp/a \"dir\" with \\ \$HOME 'n' \`%n\` %% für €"

	mkdir "$dir"
	truncate -s $((16 * MiB)) "$dir/disk.raw"
	uri=sxm://$(python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1]))' "$dir/disk.raw")
	read -r sock export <<<"$(attach "$uri" 1)"
	activate "$uri" 1
	nbdinfo --size "$(nbd_uri "$sock" "$export")" >/dev/null
	[ "$(control --get path "$(dirname "$sock")/control" hello)" = "$dir/disk.raw" ] || die "another image"
	systemctl -q is-active "sxm-datapath@$export" || die "not in its unit"
	deactivate "$uri" 1
	detach "$uri" 1
}

# A unit that cannot begin and serves nobody is not tried for ever, and none is left behind.
cannot_begin() {
	systemctl start sxm-datapath@disk-00000000.service # nobody wrote its file
	until_true 5 no_units
	mkdir -p /run/sxm/disk-00000000/control/in-the-way
	echo SXM_PATH=/disk >/run/sxm/disk-00000000/env
	must_fail systemctl start sxm-datapath@disk-00000000.service 2>"$tmp/said"
	until_true 5 no_units
	rm -r /run/sxm/disk-00000000
}

# Not installed: better a disk that ends with its caller than none.
without_unit() {
	rm "$tmp/units/sxm-datapath@.service"
	systemctl daemon-reload
	uri=$(make_volume "$sr" $((16 * MiB)) | json uri.0)
	attach "$uri" 1 >/dev/null
	grep -q 'could not be started (it is not installed)' "$_tmp/verbs.log" || die "not said"
	detach "$uri" 1
}

# What asks for shutdown.target stops what conflicts with it, in order.
shutdown_of_host() {
	systemctl start shutdown.target
	until_true 10 test -e "$tmp/at-shutdown"
	[ "$(cat "$tmp/at-shutdown")" = $((16 * MiB)) ] || die "the disk went before its guest: $(cat "$tmp/at-shutdown")"
	[ -s "/run/sxm/$early_export/domains.json" ] || die "forgotten who was active"
}

inside() {
	read -r early_sock early_export <"$tmp/early"
	say "attached in the boot, before local-fs.target"
	nbdinfo --size "$(nbd_uri "$early_sock" "$early_export")" >/dev/null
	[ "$(stat -c %a /run/sxm)" = 700 ] || die "others may look into /run/sxm"

	say "a verb that a service runs starts it in a unit of its own"
	a_disk
	is_in_its_unit
	mkfifo "$tmp/next"
	"$guest" write --uri "$nbd" --log "$tmp/log" --then "$tmp/next" --depth 16 --flush-every 100 --overlap >"$tmp/guest" &
	writer=$!
	at_exit stop "$writer"
	under_load

	say "the service is restarted, and killed: the disk stays"
	caller_ends

	say "it dies under load"
	dies "the process" pid
	dies "the keeper" show MainPID
	for _round in 1 2 3 4 5 6; do dies "all of it" cat "/sys/fs/cgroup/system.slice/$unit/cgroup.procs"; done
	is_in_its_unit

	say "32 verbs at once on a disk whose processes were just killed under load"
	verbs_at_once
	is_in_its_unit
	kill "$writer"
	wait "$writer" || die "the guest saw an error: $(cat "$tmp/guest")"
	"$guest" verify --uri "$nbd" --log "$tmp/log"

	say "stopped by hand, the next verb takes it up"
	systemctl stop "$unit"
	until_true 5 no_units
	attach "$uri" 1 >/dev/null
	until_true 5 answers
	is_in_its_unit

	say "the last detach leaves nothing, again and again"
	deactivate "$uri" 1
	detach "$uri" 1
	until_true 5 no_units
	[ ! -e "$socket_dir" ] || die "left behind: $(ls -A "$socket_dir")"
	verbs_come_and_go
	until_true 5 no_units
	[ ! -e "$socket_dir" ] || die "left behind: $(ls -A "$socket_dir")"
	[ "$(datapaths | wc -l)" = 2 ] || die "processes outside their units: $(datapaths)" # the early one's

	say "an image with an odd path"
	odd_path
	until_true 5 no_units

	say "one that cannot begin leaves nothing"
	cannot_begin

	say "the host goes down: guests first, then their disks"
	shutdown_of_host

	say "the unit is not installed"
	without_unit
}

if [ "${1-}" = inside ]; then
	tmp=$2 SXM_RUN_DIR=
	inside
	exit
fi
requires_systemd
requires nbdinfo --version
tmp=$(make_tmp)
mkfifo "$tmp/mailbox"
SXM_RUN_DIR=$tmp/run-dir
early_uri=$(make_volume "$(make_sr "$tmp/early-sr")" $((16 * MiB)) | json uri.0)
write_units
boot_systemd "$tmp"
until_true 20 test -s "$tmp/early"
in_systemd env TMPDIR="$tmp" bash "$SXM_SRCDIR/tests/e2e/test-systemd.sh" inside "$tmp"
