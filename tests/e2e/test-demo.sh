#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk moves between two hosts under a writing guest and arrives whole: ./demo.sh, smaller. Nothing stays behind.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/tests/e2e/netns.sh"
requires_netns
requires nbdcopy --version
requires mke2fs -V

TMPDIR=$(make_tmp)
export TMPDIR
SXM_DEMO_MB=${SXM_DEMO_MB:-48} bash "$SXM_SRCDIR/demo.sh" --show || exit $?
[ -z "$(ls -A "$TMPDIR")" ] || die "left behind: $(ls -A "$TMPDIR")"
left=$(grep -lsz "^SXM_RUN_DIR=$TMPDIR" /proc/[0-9]*/environ || :)
[ -z "$left" ] || die "still running: $left"
