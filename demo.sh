#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk moves between two hosts while it is being written to; as root: ./demo.sh
#
# Installs what is missing, builds into build/, then makes two hosts (network namespaces joined by a veth pair) and runs the
# same verbs in the same order as xapi does. SXM_DEMO_MB=N: so many MiB of files instead of 512.
# With --show only the second half, in a tree that is built (./run demo.sh --show; tests/e2e/test-demo.sh does).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

build_all() {
	cd "$(dirname "$0")"
	./install-deps.sh
	[ -x configure ] || ./bootstrap
	mkdir -p build
	cd build
	[ -f Makefile ] || ../configure -q
	make -s -j"$(nproc)"
	make -s tests/lib/guest stage # one after the other: the second makes a tree with a make of its own
	exec ./run ../demo.sh --show
}
case ${1-} in
'') build_all ;;
--show) ;;
*) echo "usage: [SXM_DEMO_MB=N] $0     (as root; see its first lines)" >&2; exit 2 ;;
esac

export TMPDIR=${TMPDIR:-/var/tmp}
. "$SXM_SRCDIR/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/netns.sh"
requires_netns
tmp=$(make_tmp)
MiB=1048576
files_mb=${SXM_DEMO_MB:-512}
fs_bytes=$(((files_mb * 5 / 4 + 64) * MiB))
stamps_bytes=$(((files_mb / 8 + 32) * MiB))
disk_bytes=$((fs_bytes + stamps_bytes))

head_line() { printf '\n%s\n' "$*"; }
seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# list DIR BYTES: files of a real tree, by name, so many bytes of them.
list() {
	find "$1" -xdev -type f -size -16M -printf '%s %p\n' 2>/dev/null | LC_ALL=C sort -k 2 |
		awk -v max="$2" '{ sum += $1; if (sum <= max) { sub(/^[0-9]+ \//, ""); print } }'
}

make_filesystem() {
	head_line "A real file system: $files_mb MiB of /usr/share/doc and /usr/lib in ext4, on a disk of $((disk_bytes / MiB)) MiB"
	mkdir "$tmp/tree"
	{ list /usr/share/doc $((files_mb * MiB / 3)); list /usr/lib $((files_mb * MiB * 2 / 3)); } >"$tmp/list"
	tar -C / -cf - --no-recursion -T "$tmp/list" | tar -C "$tmp/tree" -xf -
	(cd "$tmp/tree" && find . -type f -print0 | xargs -0 sha256sum) >"$tmp/sums"
	mke2fs -q -F -t ext4 -b 4096 -i 8192 -d "$tmp/tree" "$tmp/image" $((fs_bytes / 1024))k >/dev/null
	rm -rf "$tmp/tree"
	echo "$(wc -l <"$tmp/sums") files"
}

start_host_A() {
	head_line "Host A: a volume, attached and activated for domain 1; a guest writes to it and goes on writing"
	sr_A=$(on A make_sr "$tmp/sr-A")
	volume_A=$(on A make_volume "$sr_A" "$disk_bytes")
	uri_A=$(printf '%s' "$volume_A" | json uri.0)
	at_exit give_up A uri_A
	read -r sock_A export_A <<<"$(on A attach "$uri_A" 1)"
	on A activate "$uri_A" 1
	nbdcopy --destination-is-zero "$tmp/image" "$(nbd_uri "$sock_A" "$export_A")"
	rm "$tmp/image"
	mkfifo "$tmp/next"
	"$guest" write --uri "$(nbd_uri "$sock_A" "$export_A")" --region "$fs_bytes:$stamps_bytes" --log "$tmp/log" --then "$tmp/next" \
		--iops 2000 --depth 8 --zero-percent 2 --flush-every 500 >"$tmp/guest" &
	writer=$!
	at_exit stop "$writer"
	until_true 20 test -s "$tmp/log"
	echo "volume $uri_A"
}

start_host_B() {
	head_line "Host B: an empty volume of that size, receiving on $address_B:10809"
	sr_B=$(on B make_sr "$tmp/sr-B")
	volume_B=$(on B make_volume "$sr_B" "$disk_bytes")
	uri_B=$(printf '%s' "$volume_B" | json uri.0)
	at_exit give_up B uri_B
	read -r sock_B export_B <<<"$(on B attach "$uri_B" MIR0001)"
	on B activate "$uri_B" MIR0001
	control "$(dirname "$sock_B")/control" listen "{\"domain\":\"MIR0001\",\"host\":\"$address_B\",\"port\":10809}" >/dev/null
	echo "volume $uri_B"
}

# Leaving early: no process may stay behind (the namespaces' ends see to the rest).
give_up() {
	local domain

	for domain in 1 2 MIR0001; do
		on "$1" deactivate "${!2}" "$domain"
		on "$1" detach "${!2}" "$domain"
	done >/dev/null 2>&1
}

wire_bytes() { ip -n "sxm-$$-A" -s -j link show veth | json 0.stats64.tx.bytes; }

mirror_to_B() {
	head_line "The mirror: Data.mirror on A to nbd://$address_B:10809/$export_B"
	started_at=$EPOCHREALTIME wire_before=$(wire_bytes)
	operation=$(on A mirror "$uri_A" 1 "nbd://$address_B:10809/$export_B")
	control --watch "$(dirname "$sock_A")/control" "$(printf '%s' "$operation" | json 1)" || :
	on A wait_complete "$operation"
	synced_s=$(seconds_since "$started_at")
	allocated=$(on A volume_verb Volume.stat "\"sr\":\"$sr_A\",\"key\":\"$(printf '%s' "$volume_A" | json key)\"" | json physical_utilisation)
}

switch_over() {
	head_line "The switchover: deactivate on A, activate for domain 2 on B; the guest goes on there"
	read -r sock_B export_B <<<"$(on B attach "$uri_B" 2)" # as xapi's early attach
	on A deactivate "$uri_A" 1
	on B deactivate "$uri_B" MIR0001
	on B detach "$uri_B" MIR0001
	on B activate "$uri_B" 2
	nbd_uri "$sock_B" "$export_B" >"$tmp/next"
	wire_after=$(wire_bytes)
	log_at_switch=$(stat -c %s "$tmp/log")
	until_true 30 wrote_on
	on A detach "$uri_A" 1
	kill "$writer"
	wait "$writer" || die "the guest saw an error: $(cat "$tmp/guest")"
	sed 's/issued=.* gap_ms=\(.*\) slowest_ms=\(.*\)/the guest waited \1 ms for its disk, and never more than \2 ms for a write on one host/' "$tmp/guest"
	grep -q 'errors=0 connections=2 ' "$tmp/guest" || die "the guest did not go on at B"
}
wrote_on() { [ $(($(stat -c %s "$tmp/log") - log_at_switch)) -gt 100000 ]; }

prove() {
	local uri

	uri=$(nbd_uri "$sock_B" "$export_B")
	head_line "The proof, from B's disk"
	"$guest" verify --uri "$uri" --log "$tmp/log" || die "the guest's writes are not all there"
	echo "guest: no acknowledged write missing, none torn, none elsewhere"
	nbdcopy "$uri" "$tmp/copy"
	truncate -s "$fs_bytes" "$tmp/copy"
	e2fsck -fn "$tmp/copy" >"$tmp/fsck" 2>&1 || die "fsck: $(cat "$tmp/fsck")"
	echo "fsck: $(tail -1 "$tmp/fsck" | sed 's/^[^:]*: //')"
	mkdir "$tmp/back"
	debugfs -R "rdump / $tmp/back" "$tmp/copy" >"$tmp/debugfs" 2>&1 || die "debugfs: $(cat "$tmp/debugfs")"
	(cd "$tmp/back" && sha256sum -c --quiet "$tmp/sums") || die "files differ"
	echo "files: all $(wc -l <"$tmp/sums") checksums are right"
	on B deactivate "$uri_B" 2
	on B detach "$uri_B" 2
}

table() {
	local gap

	gap=$(sed -n 's/.*gap_ms=\([0-9.]*\).*/\1/p' "$tmp/guest")
	head_line "Moved in $(seconds_since "$started_at") s from Data.mirror to the last check"
	printf '  %-34s %10s\n' 'size' "$((disk_bytes / MiB)) MiB" 'allocated' "$((allocated / MiB)) MiB" \
		'sent (on the wire)' "$(((wire_after - wire_before) / MiB)) MiB" 'time until in sync' "$synced_s s" \
		'downtime the guest saw' "$gap ms"
}

two_hosts
make_filesystem
start_host_A
start_host_B
mirror_to_B
switch_over
prove
table
