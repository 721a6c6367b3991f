#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest of xl's whose disk is a volume of sxm: the broker activates it, has it served, and lets go of it when the device is gone,
# whoever was killed meanwhile; sxm-xl-dm is the device model that libxl waits for. The programs are those that are installed, over
# a Xen in a directory (tests/lib/fake-xen), and what libxl does is done by hand.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"

one_host
export SXM_RUN_DIR
SXM_FAKE_XEN=$(make_tmp)
export SXM_FAKE_XEN
root=$(make_tmp)
bin=$root/sxm
verbs=$root/xapi-storage-script/datapath/sxm
mkdir -p "$bin" "$verbs"
for program in datapath xenbus xl-dm; do cp "$SXM_BUILDDIR/tests/lib/xen-$program" "$bin/sxm-$program"; done
cp "$SXM_LIBEXECDIR/sxm/sxm-smapi" "$bin"
for verb in attach activate activate_readonly deactivate detach; do cp "$SXM_SRCDIR/plugins/verb-stub" "$verbs/Datapath.$verb"; done
chmod +x "$verbs"/*
images=$(make_tmp)
truncate -s 16M "$images/disk.raw" "$images/other.raw"
guest="$SXM_BUILDDIR/tests/lib/xen-guest"
begin_broker() { start "$bin/sxm-xenbus" 2>>"$SXM_FAKE_XEN/broker"; broker=$started; }
at_exit cat "$SXM_FAKE_XEN/broker"
broker_is_up() { [ -e "$SXM_RUN_DIR/xenbus/qdisk.lock" ] && ! flock -n -s "$SXM_RUN_DIR/xenbus/qdisk.lock" true; }
# libxl_create DOMID URI: the keys that libxl writes.
libxl_create() { "$guest" "$1" 51712 put "/libxl/$1/device/vbd/51712" "" && "$guest" "$1" 51712 plug w "aio:$2"; }
libxl_destroy() {
	"$guest" "$1" 51712 unplug
	"$guest" "$1" 51712 put "/libxl/$1/device/vbd/51712"
}
# dm COMMAND... DOMID: as libxl starts it.
dm() {
	local domid=${*: -1}

	"${@:1:$# - 1}" "$bin/sxm-xl-dm" -xen-domid "$domid" -no-shutdown -mon chardev=libxl-cmd,mode=control -machine xenpv \
		-chardev "socket,id=libxl-cmd,path=$SXM_FAKE_XEN/qmp-$domid,server=on,wait=off"
}
qmp() { python3 -c 'import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); f = s.makefile("rw", newline="\n")
assert "QMP" in json.loads(f.readline())
for n, (command, wanted) in enumerate([("qmp_capabilities", {}), ("query-chardev", [])]):
    f.write(json.dumps({"execute": command, "id": n}) + "\r\n"); f.flush()
    assert json.loads(f.readline()) == {"return": wanted, "id": n}
f.write("rubbish\n\n"); f.flush()
assert "error" in json.loads(f.readline())
try:
    f.write("x" * 70000); f.flush()
    assert f.readline() == ""
except OSError:
    pass' "$1"; }
records() { find "$SXM_RUN_DIR/xenbus" -name 'qdisk.*.*' | wc -l; }
is_released() { [ "$(records)" = 0 ] && ! pgrep -f "^$bin/sxm-datapath" >/dev/null; }

say "without the broker a domain is not created, and hears why"
libxl_create 5 "sxm://$images/disk.raw"
dm must_fail 5 2>"$SXM_FAKE_XEN/why"
grep -q "sxm-xenbus does not run" "$SXM_FAKE_XEN/why"

say "its disk is activated, and the device model says so"
begin_broker
until_true 10 broker_is_up
dm start 5
dm=$started
"$guest" 5 51712 wait /local/domain/0/device-model/5/state running
[ "$("$guest" 5 51712 get B/state)" = 2 ] || die "the domain runs before it has a disk"
qmp "$SXM_FAKE_XEN/qmp-5"
"$guest" 5 51712 run 2000 16

say "another domain waits for that disk"
libxl_create 8 "sxm://$images/disk.raw"
until_true 20 grep -q "8/51712: .*domain 5 has it" "$SXM_FAKE_XEN/broker"
[ "$("$guest" 8 51712 get B/state)" = 1 ] || die "two domains have one disk"

say "... and one for its own when it is not there"
libxl_create 6 "sxm://$images/none.raw"
until_true 20 grep -q "6/51712: .*Datapath.attach" "$SXM_FAKE_XEN/broker"
cp "$images/other.raw" "$images/none.raw"
"$guest" 6 51712 wait B/state 2

say "the broker is killed; one device goes meanwhile, the other stays"
kill -9 "$broker"
wait "$broker" 2>/dev/null || :
"$SXM_LIBEXECDIR/../sbin/sxm" doctor >"$SXM_FAKE_XEN/doctor" || :
grep -q "sxm-xenbus ran (for backends of kind qdisk), and does not any more" "$SXM_FAKE_XEN/doctor" || die "doctor does not miss it"
libxl_destroy 6
"$guest" 5 51712 put F/state 1
begin_broker
"$guest" 5 51712 run 1000 16
until_true 20 test ! -e "$SXM_RUN_DIR/xenbus/qdisk.6.51712"

say "a domain that arrives from another host is not waited for"
"$guest" 7 51712 put /local/domain/7/name moved--incoming
libxl_create 7 "sxm://$images/nowhere.raw"
dm start 7
"$guest" 7 51712 wait /local/domain/0/device-model/7/state running
libxl_destroy 7

say "the domain is destroyed: who waited has the disk"
kill -HUP "$dm"
wait "$dm" || die "the device model failed"
libxl_destroy 5
"$guest" 8 51712 wait B/state 2
"$guest" 8 51712 run 1000 16

say "... and it is let go of when that is gone, too"
libxl_destroy 8
until_true 20 is_released
stop "$broker"
