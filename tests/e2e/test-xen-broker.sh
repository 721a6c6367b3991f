#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# sxm-xenbus itself between a toolstack and the disks' processes, over a Xen in a directory (tests/lib/fake-xen): each device is
# served by the process that its params name, as soon as that has it active, and by no other; while the broker is killed, a
# guest's keys change thousands of times a second, a process is stopped, domains die.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"

one_host
export SXM_RUN_DIR
SXM_FAKE_XEN=$(make_tmp)
export SXM_FAKE_XEN
guest="$SXM_BUILDDIR/tests/lib/xen-guest"
images=$(make_tmp)

begin_broker() {
	start "$SXM_BUILDDIR/tests/lib/xen-xenbus" --order eager 2>>"$SXM_FAKE_XEN/broker"
	broker=$started
}
at_exit cat "$SXM_FAKE_XEN/broker"
# A disk and its process.
make_disk() {
	truncate -s 16M "$images/$1"
	"$SXM_BUILDDIR/tests/lib/xen-datapath" --id "$1" --path "$images/$1" --keep
}
ask() { control "$SXM_RUN_DIR/$1/control" "${@:2}"; }
activate() { ask "$1" activate "{\"domain\":\"$2\"}" >/dev/null; }
params() { printf 'nbd:unix:%s:exportname=%s' "$(control --get socket "$SXM_RUN_DIR/$1/control" attach "{\"domain\":\"$2\"}")" "$1"; }
# What the disk's process has on record.
serves() { grep -q "\"backend\":\"/local/domain/0/backend/qdisk/$2/51712\"" "$SXM_RUN_DIR/$1/domains.json"; }
serves_not() { ! serves "$@" 2>/dev/null; }
no_hotplug() { ! "$guest" "$1" 51712 get B/hotplug-status; }
plug() { "$guest" "$2" 51712 plug w "$(params "$1" "$2")"; }

say "a device that was there before the broker, and one that comes later"
make_disk a
make_disk b
activate a 5
plug a 5
begin_broker
until_true 10 serves a 5
activate b 6
plug b 6
until_true 10 serves b 6
must_fail "$SXM_BUILDDIR/tests/lib/xen-xenbus"
"$guest" 5 51712 run 2000 16
"$guest" 6 51712 run 2000 16

say "a device comes before its disk is active: it is served when that is, and again after the disk was deactivated and activated"
make_disk c
"$guest" 7 51712 plug w "$(params c 7)"
activate c 7
until_true 10 serves c 7
ask c deactivate '{"domain":"7"}' >/dev/null
serves_not c 7 || die "served although it is not active"
activate c 7
until_true 10 serves c 7

say "it gets another disk: the old one's process lets go"
make_disk d
activate d 7
"$guest" 7 51712 put B/params "$(params d 7)"
until_true 10 serves d 7
serves_not c 7 || die "served by two"
"$guest" 7 51712 unplug
until_true 10 serves_not d 7

say "what is named by another guest's device is not served to it"
"$guest" 8 51712 plug w "$(params a 5)"
"$guest" 9 51712 plug w "nbd:unix:$SXM_RUN_DIR/../a/nbd-00000000:exportname=a"
plug d 7
until_true 10 serves d 7
{ serves_not a 8 && serves_not a 9; } || die "served to whom it does not belong"
grep -q "8/51712: a is to serve it, later" "$SXM_FAKE_XEN/broker" || die "the broker thinks that it is served"

say "the broker is killed, and what changed meanwhile is seen by the next one"
for _ in 1 2; do
	kill -9 "$broker"
	wait "$broker" 2>/dev/null || :
	"$guest" 7 51712 unplug
	"$guest" 6 51712 put F/state 1
	begin_broker
	"$guest" 6 51712 run 500 16
	until_true 10 serves_not d 7
	kill -9 "$broker"
	wait "$broker" 2>/dev/null || :
	plug d 7
	begin_broker
	until_true 10 serves d 7
done

say "a storm about one guest's device, and a process that is stopped, keep nobody else waiting"
start "$guest" 8 51712 storm 600 >"$SXM_FAKE_XEN/storm"
storm=$started
stopped=$(control --get pid "$SXM_RUN_DIR/b/control" hello)
params_d=$(params d 7)
kill -STOP "$stopped"
"$guest" 6 51712 unplug
begun=$(date +%s%N)
for n in 1 2 3 4 5 6 7 8 9 10; do
	"$guest" 7 51712 unplug
	until_true 10 serves_not d 7
	"$guest" 7 51712 plug w "$params_d"
	until_true 10 serves d 7
done
took_ms=$((($(date +%s%N) - begun) / 1000000))
kill -USR2 "$storm"
kill -CONT "$stopped"
wait "$storm" || die "the storm"
say "$(cat "$SXM_FAKE_XEN/storm") meanwhile; $n devices came and went in $took_ms ms"
until_true 10 serves_not b 6
"$guest" 8 51712 unplug
"$guest" 5 51712 put F/state 1
"$guest" 5 51712 run 500 16

say "a domain dies and its keys stay: its process lets go, and the device is closed"
"$guest" 5 51712 put B/hotplug-status connected
"$guest" 5 51712 die
until_true 10 serves_not a 5
"$guest" 5 51712 wait B/state 6
until_true 10 no_hotplug 5

say "a device whose process is no more is closed in its stead"
ask d deactivate '{"domain":"7"}' >/dev/null
ask d detach '{"domain":"7"}' >/dev/null
until_true 20 test ! -e "$SXM_RUN_DIR/d/control"
"$guest" 7 51712 put B/hotplug-status connected
"$guest" 7 51712 put B/online 0
"$guest" 7 51712 put F/
"$guest" 7 51712 wait B/state 6
until_true 10 no_hotplug 7

say "it ends when it is told to; the disks do not mind"
stop "$broker"
for disk in "a 5" "b 6" "c 7"; do
	# shellcheck disable=SC2086 # two words
	set -- $disk
	ask "$1" deactivate "{\"domain\":\"$2\"}" >/dev/null
	ask "$1" detach "{\"domain\":\"$2\"}" >/dev/null
done
until_true 20 test ! -e "$SXM_RUN_DIR/a/control"
