# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced by the tests in shell (bash), which ./run starts with SXM_SRCDIR, SXM_BUILDDIR and SXM_LIBEXECDIR set:
#
#       . "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
#       requires nbdinfo --version
#       tmp=$(make_tmp)
#
# Whatever a test makes it gives to at_exit at once: it runs on every way out, last made first.
set -euo pipefail

# shellcheck disable=SC2034 # for the tests
guest=${SXM_BUILDDIR:-}/tests/lib/guest
plugin_root=${SXM_LIBEXECDIR:-}/xapi-storage-script
test_name=$(basename "$0" .sh)

# What a test says itself goes to its own log, however the output of what it runs is redirected.
exec {_log}>&2

say() { printf '%s: %s\n' "$test_name" "$*"; }
die() { say "FAILED: $*" >&"$_log"; exit 1; }
skip() { say "skipped: $*"; exit 77; }

# requires COMMAND...: the test is skipped where it does not succeed.
requires() { "$@" >/dev/null 2>&1 || skip "this needs: $*"; }
requires_root() { [ "$(id -u)" = 0 ] || skip "only root can do this"; }

# must_fail COMMAND...: it has to end with a status of its own, not by a signal.
must_fail() {
	local status=0

	"$@" || status=$?
	[ "$status" -gt 0 ] && [ "$status" -lt 128 ] || die "should have failed ($status): $*"
}

# fewer N WORD...: the words; in a brief run each Nth, the first of them at random.
fewer() {
	local n=1 i first

	case ${SXM_BRIEF-} in 1 | 2) n=$1 ;; esac
	shift
	first=$((RANDOM % n))
	for ((i = first; i < $#; i += n)); do printf '%s\n' "${@:i + 1:1}"; done
}

# --- what is undone at the end

_undo=()
at_exit() { _undo+=("$(printf '%q ' "$@")"); }
_leave() {
	local status=$? i

	trap - EXIT
	trap '' INT TERM HUP
	set +e
	[ "$status" = 0 ] || [ "$status" = 77 ] || find "$_tmp" -name '*.log' -size +0 -exec tail -n 40 {} + >&2
	for ((i = ${#_undo[@]} - 1; i >= 0; i--)); do eval "${_undo[i]}"; done
	exit "$status"
}
trap _leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Prints a new directory of this test's own. A socket's path must fit into 107 bytes: it is short. (at_exit cannot be called
# from a command substitution's shell; hence the directory's own parent.)
_tmp=$(mktemp -d "${TMPDIR:-/tmp}/sxm.XXXXXX")
at_exit rm -rf "$_tmp"
make_tmp() { mktemp -d "$_tmp/XXX"; }

# until_true SECONDS COMMAND...: asks again until it succeeds; dies when the time is over. The seconds are those of a machine that has
# nothing else to do; this one may run other tests beside this, in programs that a sanitizer made slower.
_patience=6
until_true() {
	local end=$((SECONDS + _patience * $1)) what

	shift
	what=$*
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || die "waited in vain for: $what"
		sleep 0.02
	done
}

# A zombie is not alive.
is_alive() {
	local line

	{ read -r line <"/proc/$1/stat"; } 2>/dev/null && [[ ${line##*) } != Z* ]]
}
is_gone() { ! is_alive "$1"; }

# stop PID: SIGTERM, and SIGKILL to what has not ended 5 s later. Fine when it is gone.
stop() {
	local end=$((SECONDS + 5))

	kill "$1" 2>/dev/null || return 0
	while is_alive "$1" && [ "$SECONDS" -lt "$end" ]; do sleep 0.02; done
	kill -9 "$1" 2>/dev/null || :
	wait "$1" 2>/dev/null || :
}

# start COMMAND...: in the background, stopped at the end; $started is its pid.
start() {
	"$@" &
	started=$!
	at_exit stop "$started"
}

# start_nbdkit SOCKET ARGS...: ready when this returns; $started is its pid.
start_nbdkit() {
	local sock=$1

	shift
	start nbdkit -f -U "$sock" "$@"
	until_true 10 nbdinfo --size "nbd+unix:///?socket=$sock"
}

# --- the plugin, as xapi runs it: fork, exec, one JSON object on stdin

# verb DIRECTORY/VERB JSON-MEMBERS: verb datapath/sxm/Datapath.attach "\"uri\":\"$uri\",\"domain\":\"1\""
# What the processes log is shown when a test fails. SXM_RUN_DIR is not exported, so that what carries it in its environment was started by a verb. $host_prefix: see netns.sh.
verb() {
	# shellcheck disable=SC2086 # several words
	printf '{"dbg":"%s",%s}' "${test_name:-}" "$2" | ${host_prefix-} env SXM_RUN_DIR="$SXM_RUN_DIR" "$plugin_root/$1" --json 2>>"$_tmp/verbs.log"
}
volume_verb() { verb "volume/org.xen.xapi.storage.filebased/$1" "$2"; }
datapath_verb() { verb "datapath/sxm/$1" "$2"; }

# What a file in slots (src/base/slots.h) says.
slots() {
	awk 'NR == 1 && !/^slot / { print; exit }
	     /^slot / { number = $2 ""; getline; if (number > newest) { newest = number; text = $0 } }
	     END { if (newest) print text }' "$1"
}
# json KEY[.KEY...]: one member of the JSON value on stdin.
json() {
	python3 -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1].split("."):
    value = value[int(key)] if isinstance(value, list) else value[key]
print(value if isinstance(value, str) else json.dumps(value))' "$1"
}

# make_sr DIR: creates and attaches it; prints the SR's string.
make_sr() {
	mkdir -p "$1"
	volume_verb SR.create "\"uuid\":\"$(cat /proc/sys/kernel/random/uuid)\",\"name\":\"sr\",\"description\":\"\",\"configuration\":{\"uri\":\"file://$1\",\"format\":\"raw\"}" >/dev/null
	volume_verb SR.attach "\"configuration\":{\"uri\":\"file://$1\",\"format\":\"raw\"}" | json_string
}
# make_volume SR BYTES: prints what Volume.create answered.
make_volume() { volume_verb Volume.create "\"sr\":\"$1\",\"name\":\"disk\",\"description\":\"\",\"size\":$2,\"sharable\":false"; }
json_string() { python3 -c 'import json, sys; print(json.load(sys.stdin))'; }

# attach URI DOMAIN: prints "SOCKET EXPORT" of the Nbd implementation, taken apart as xapi does it.
attach() {
	datapath_verb Datapath.attach "\"uri\":\"$1\",\"domain\":\"$2\"" |
		sed -n 's/.*"nbd:unix:\([^:"]*\):exportname=\([^:"]*\)".*/\1 \2/p' | sed 's|\\/|/|g'
}
activate() { datapath_verb Datapath.activate "\"uri\":\"$1\",\"domain\":\"$2\"" >/dev/null; }
activate_readonly() { datapath_verb Datapath.activate_readonly "\"uri\":\"$1\",\"domain\":\"$2\"" >/dev/null; }
deactivate() { datapath_verb Datapath.deactivate "\"uri\":\"$1\",\"domain\":\"$2\"" >/dev/null; }
detach() { datapath_verb Datapath.detach "\"uri\":\"$1\",\"domain\":\"$2\"" >/dev/null; }
# mirror URI DOMAIN REMOTE: prints the operation as Data.stat wants it.
mirror() { datapath_verb Data.mirror "\"uri\":\"$1\",\"domain\":\"$2\",\"remote\":\"$3\""; }
stat_operation() { datapath_verb Data.stat "\"operation\":$1"; }
# nbd_uri SOCKET EXPORT: what NBD clients take.
nbd_uri() { printf 'nbd+unix:///%s?socket=%s\n' "$2" "$1"; }
control() { python3 "$SXM_SRCDIR/tests/lib/control.py" "$@"; }

# wait_complete OPERATION: polls as xapi does until complete; dies when it failed.
wait_complete() {
	local status

	while :; do
		status=$(stat_operation "$1")
		case $(printf '%s' "$status" | tr -d ' ') in
		*'"failed":true'*) die "the mirror failed: $status" ;;
		*'"complete":true'*) return 0 ;;
		esac
	done
}

# --- a host for a test: its own SXM_RUN_DIR, in the machine's own network

# Ends what this test's verbs started: every process that carries its SXM_RUN_DIR. Keepers first, or they would start it anew.
end_run_dir() {
	local pid _tries

	for _tries in {1..500}; do
		pids=$(processes_of "$1")
		[ -n "$pids" ] || return 0
		for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
		sleep 0.05
	done
}
# The same where SXM_RUN_DIR is exported, and what the test itself runs carries it, too: the datapaths alone. Whoever is killed may have
# started another one since we looked: so until there is none.
end_datapaths() {
	local pids _tries

	for _tries in {1..1000}; do
		pids=$(datapaths_of "$1")
		[ -n "$pids" ] || return 0
		# shellcheck disable=SC2086 # several
		kill -9 $pids 2>/dev/null
		sleep 0.02
	done
}
datapaths_of() {
	local pid

	for pid in $(grep -lsxzF "$SXM_LIBEXECDIR/sxm/sxm-datapath" /proc/[0-9]*/cmdline | sed 's|/proc/\([0-9]*\)/.*|\1|'); do
		! grep -qsxzF "SXM_RUN_DIR=$1" "/proc/$pid/environ" || echo "$pid"
	done
}
processes_of() {
	grep -lszxF "SXM_RUN_DIR=$1" /proc/[0-9]*/environ | sed 's|/proc/\([0-9]*\)/.*|\1|' | grep -vx "$$" || :
}

one_host() {
	SXM_RUN_DIR=$(make_tmp)
	at_exit end_run_dir "$SXM_RUN_DIR"
}

# start_disk BYTES [DOMAIN]: a new raw volume, attached and activated. Sets sr, volume, uri, sock, export, nbd, socket_dir, image.
start_disk() {
	[ -n "${sr-}" ] || sr=$(make_sr "$(make_tmp)")
	volume=$(make_volume "$sr" "$1")
	uri=$(printf '%s' "$volume" | json uri.0)
	read -r sock export <<<"$(attach "$uri" "${2-1}")"
	activate "$uri" "${2-1}"
	nbd=$(nbd_uri "$sock" "$export")
	socket_dir=$(dirname "$sock")
	image=$(control --get path "$socket_dir/control" hello)
}
# start_nbd_disk SOCKET [DOMAIN] [PROMISE]: what an NBD server at SOCKET exports as a disk, attached and activated; sets what start_disk
# sets.
start_nbd_disk() {
	image=$(make_tmp)/$(cat /proc/sys/kernel/random/uuid).nbd
	printf '%s\n' "nbd+unix:///?socket=$1" "${@:3}" >"$image"
	uri=sxm://$image
	read -r sock export <<<"$(attach "$uri" "${2-1}")"
	activate "$uri" "${2-1}"
	nbd=$(nbd_uri "$sock" "$export")
	socket_dir=$(dirname "$sock")
}
stop_disk() {
	deactivate "$uri" "${1-1}"
	detach "$uri" "${1-1}"
}
