# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced by the tests of the mirror alone: tests/lib/mirror-try with far sides of all kinds.
# The test has made $tmp.
# shellcheck shell=bash disable=SC2154,SC2015
mirror_try=${SXM_BUILDDIR:-}/tests/lib/mirror-try
size=$((32 << 20))

# fill FILE: data, holes, and zeroes that are not holes.
fill() {
	truncate -s "$size" "$1"
	dd if=/dev/urandom of="$1" bs=1M count=6 seek=1 conv=notrunc status=none
	dd if=/dev/zero of="$1" bs=1M count=2 seek=9 conv=notrunc status=none
	dd if=/dev/urandom of="$1" bs=4096 count=3 seek=7000 conv=notrunc status=none
	dd if=/dev/urandom of="$1" bs=512 count=5 seek=60001 conv=notrunc status=none
}
far_uri() { printf 'nbd+unix:///?socket=%s\n' "$1"; }

# try ARG...: runs mirror-try; its words stand in $out, its status in $status.
try() {
	status=0
	timeout 120 "$mirror_try" "$@" >"$tmp/out" || status=$?
	out=$(cat "$tmp/out")
	[ "$status" -lt 2 ] || die "mirror-try ended with $status: $out"
}
number() { sed -n "s/.*\b$1=\([0-9]*\).*/\1/p" "$tmp/out"; }
expect_finished() { [ "$status" = 0 ] && grep -qx finished "$tmp/out" || die "$1: did not finish: $out"; }
expect_failed() { [ "$status" = 1 ] && grep -q "^failed: .*$2" "$tmp/out" || die "$1: should have failed with \"$2\": $out"; }
# was_said WORD: mirror-try said it.
was_said() { grep -qx "$1" "$tmp/out"; }
