#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The life of a datapath process: a verb leaves nothing of itself in it, its caller's end does not touch it, a dead one is
# replaced without a verb and no acknowledged write is lost, 32 verbs at once find one process, two never share an image.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdinfo --version

tmp=$(make_tmp)
one_host
start_disk $((64 << 20))
pid() { control --get pid "$socket_dir/control" hello; }
answers() { nbdinfo --size "$nbd" >/dev/null 2>&1; }
holders() { find /proc/[0-9]*/fd -lname "$image" 2>/dev/null | cut -d/ -f3 | sort -u; }

say "nothing of the verb is kept"
first=$(pid)
for fd in 0 1 2; do
	case $(readlink "/proc/$first/fd/$fd") in
	/dev/null|"$SXM_RUN_DIR"/*.log) ;; # the log: ./run sets SXM_LOG=stderr
	*) die "its fd $fd is $(readlink "/proc/$first/fd/$fd")" ;;
	esac
done
[ "$(readlink "/proc/$first/cwd")" = / ] || die "its directory is $(readlink "/proc/$first/cwd")"
[ "$(awk '/^SigBlk/ { print $2 }' "/proc/$first/status")" = 0000000000000000 ] || die "it has signals blocked"
[ "$(ps -o sid= -p "$first" | tr -d ' ')" != "$(ps -o sid= -p $$ | tr -d ' ')" ] || die "it is in our session"

say "the caller's process group is killed; the disk is served"
key=$(make_volume "$sr" $((16 << 20)) | json uri.0)
export -f verb datapath_verb attach activate
export plugin_root test_name
SXM_RUN_DIR="$SXM_RUN_DIR" setsid bash -c 'attach "$1" 1 >"$2"; activate "$1" 1; echo >"$3"; exec sleep 1000' - "$key" "$tmp/attached" "$tmp/done" &
caller=$!
at_exit stop "$caller"
until_true 20 test -s "$tmp/done"
kill -9 "-$caller"
wait "$caller" 2>/dev/null || :
read -r sock2 export2 <"$tmp/attached"
nbdinfo --size "$(nbd_uri "$sock2" "$export2")" >/dev/null || die "the disk went with its caller"
deactivate "$key" 1
detach "$key" 1

say "killed under load, it comes back without a verb, and everything acknowledged is there"
mkfifo "$tmp/next"
"$guest" write --uri "$nbd" --log "$tmp/log" --then "$tmp/next" --depth 16 --zero-percent 10 --flush-every 100 --overlap >"$tmp/guest" &
writer=$!
at_exit stop "$writer"
until_true 20 test -s "$tmp/log"
for round in 1 2 3; do
	log_before=$(stat -c %s "$tmp/log")
	log_grew() { [ "$(stat -c %s "$tmp/log")" -gt $((log_before + 24000)) ]; }
	until_true 20 log_grew
	old=$(pid)
	kill -9 "$old"
	until_true 10 answers
	[ "$(pid)" != "$old" ] || die "the same process?"
	echo "$nbd" >"$tmp/next"
done

say "32 verbs at once on a disk whose process was just killed under load"
log_before=$(stat -c %s "$tmp/log")
until_true 20 log_grew
kill -9 "$(pid)"
verbs=()
for ((i = 0; i < 32; i++)); do
	if ((i % 2)); then attach "$uri" 1 >"$tmp/v$i" & else activate "$uri" 1 >"$tmp/v$i" & fi
	verbs+=($!)
done
for v in "${verbs[@]}"; do wait "$v" || die "a verb failed"; done
for ((i = 1; i < 32; i += 2)); do [ "$(cat "$tmp/v$i")" = "$sock $export" ] || die "verb $i answered: $(cat "$tmp/v$i")"; done
[ "$(holders | wc -l)" = 1 ] || die "several processes hold the image: $(holders)"
echo "$nbd" >"$tmp/next"
log_before=$(stat -c %s "$tmp/log")
until_true 20 log_grew
kill "$writer"
wait "$writer" || die "the guest saw an error: $(cat "$tmp/guest")"
"$guest" verify --uri "$nbd" --log "$tmp/log"

say "another host's process does not get the image while it is held"
here=$SXM_RUN_DIR
SXM_RUN_DIR=$(make_tmp)
at_exit end_run_dir "$SXM_RUN_DIR"
must_fail eval 'attach "$uri" 9 >/dev/null && activate "$uri" 9 2>/dev/null'
detach "$uri" 9
SXM_RUN_DIR=$here


say "the last detach ends it, and leaves nothing"
stop_disk
gone() { [ -z "$(processes_of "$SXM_RUN_DIR")" ]; }
until_true 5 gone
[ ! -e "$socket_dir" ] || die "left behind: $(ls -A "$socket_dir")"
