#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# sxm vbd: a Xen guest that runs is given a disk, works on it, and lets go of it; or it does not let go, or is no more. The programs
# are those that are installed, over a Xen in a directory (tests/lib/fake-xen).
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"

one_host
export SXM_RUN_DIR
SXM_FAKE_XEN=$(make_tmp)
export SXM_FAKE_XEN
bin=$(make_tmp)
cp "$SXM_BUILDDIR/tests/lib/xen-sxm" "$bin/sxm"
cp "$SXM_BUILDDIR/tests/lib/xen-datapath" "$bin/sxm-datapath"
image=$(make_tmp)/disk
truncate -s 16M "$image"
guest() { "$SXM_BUILDDIR/tests/lib/xen-guest" 5 51728 "$@"; }
vbd() { "$bin/sxm" vbd "$@"; }
is_empty() { must_fail guest get B/state && must_fail guest get F/state && must_fail guest get /libxl/5/device/vbd/51728/backend; }
listed() { vbd list | grep -c "$image" || :; }
is_idle() { ! pgrep -f "^$bin/sxm-datapath" >/dev/null; }
start_guest() { start "$SXM_BUILDDIR/tests/lib/xen-guest" 5 51728 run 100000000 16 >"$SXM_FAKE_XEN/out"; }

say "what cannot be is refused, and leaves nothing"
must_fail vbd attach "$image" 5 xvdb
guest put /local/domain/5 x
guest put /libxl/5 x
must_fail vbd attach "$image.none" 5 xvdb
must_fail vbd detach 5 xvdb
[ "$(listed)" = 0 ] && is_idle

say "a guest is given a disk, works, and lets go of it"
start_guest
vbd attach "$image" 5 xvdb
until_true 20 grep -q 'to go' "$SXM_FAKE_XEN/out"
vbd list | grep -q "^5 *xvdb *connected *w $image$" || die "it is not listed: $(vbd list)"
[ "$(guest get /libxl/5/device/vbd/51728/type) $(guest get B/mode)" = "qdisk w" ]
must_fail vbd attach "$image" 5 xvdb
must_fail vbd attach "$image" 5 xvdc # it is the first one's
vbd list --json | grep -q '"device":"xvdb"'
worker=$started
vbd detach 5 xvdb &
detaching=$!
guest wait B/state 5
kill -USR2 "$worker" # as a guest does whose driver sees that
wait "$worker" || die "the guest failed"
wait "$detaching" || die "it could not be detached"
is_empty
until_true 10 is_idle
[ "$(listed)" = 0 ]

say "a guest that does not let go is made to"
start_guest
vbd attach "$image" 5 xvdb
until_true 20 grep -q 'to go' "$SXM_FAKE_XEN/out"
vbd detach --force 5 xvdb
is_empty
stop "$started" # it may have ended: it has no disk any more
until_true 10 is_idle

say "a guest that is no more: its disk is found, and let go of"
start "$bin/sxm" vbd attach --read-only "$image" 5 xvdb # waits for a guest that does not come
guest wait B/state 2
[ "$(guest get B/mode)" = r ]
kill -9 "$started"
guest put /local/domain/5
guest put F/
[ "$(listed)" = 1 ]
vbd detach 5 xvdb
is_empty
until_true 10 is_idle

say "a device that others took away: its disk is let go of by the same name, and not another's device"
guest put /local/domain/5 x
start "$bin/sxm" vbd attach "$image" 5 xvdb
guest wait B/state 2
kill -9 "$started"
socket=$(echo "$SXM_RUN_DIR"/*/control)
control "$socket" vbd.drop '{"domain":"5","backend":"/local/domain/0/backend/qdisk/5/51728"}' >/dev/null
is_gone() { vbd list | grep -q "^5 *xvdb *gone *w $image$"; }
is_gone || die "it is not listed: $(vbd list)"
must_fail vbd detach 5 xvdb
guest put F/
guest put B/
dead=$(control --get pid "$socket" hello)
kill -9 "$dead"
is_another() { pid=$(control --get pid "$socket" hello) && [ "$pid" != "$dead" ]; }
until_true 20 is_another
is_gone || die "whoever takes the place of a killed process does not know it: $(vbd list)"
vbd detach 5 xvdb
is_empty
until_true 10 is_idle
