#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The verifier of the other tests can fail: a lost, a torn, a misplaced and a strange sector are each found; and a guest that
# moves to another server loses nothing. Nothing of sxm runs here, only nbdkit.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdkit --version
requires nbdinfo --version

tmp=$(make_tmp)
truncate -s 8M "$tmp/a"
start_nbdkit "$tmp/a.sock" file "$tmp/a"
a=$started
mkfifo "$tmp/next"
"$guest" write --uri "nbd+unix:///?socket=$tmp/a.sock" --log "$tmp/log" --then "$tmp/next" --seed 7 --zero-percent 10 \
	--flush-every 50 --overlap >"$tmp/result" &
writer=$!
at_exit stop "$writer"

# Killed in mid-flight; a second server goes on with the same file.
log_holds() { [ -e "$tmp/log" ] && [ "$(stat -c %s "$tmp/log")" -ge "$1" ]; }
until_true 20 log_holds 50000
kill -9 "$a"
wait "$a" 2>/dev/null || :
cp "$tmp/a" "$tmp/early"
start_nbdkit "$tmp/b.sock" file "$tmp/a"
echo "nbd+unix:///?socket=$tmp/b.sock" >"$tmp/next"
until_true 20 log_holds 150000
kill "$writer"
wait "$writer" || die "the writer failed"
grep -q 'errors=0 connections=2 gap_ms=[0-9]' "$tmp/result" || die "no second connection: $(cat "$tmp/result")"
verify() { "$guest" verify --uri "nbd+unix:///?socket=$tmp/b.sock" --log "$tmp/log"; }
verify || die "a good disk was called bad"

# finds WORD COMMAND...: after the command spoils the file, the verifier names it; then the file is made good again.
cp "$tmp/a" "$tmp/good"
finds() {
	local word=$1 status=0

	shift
	"$@"
	verify >"$tmp/out" 2>&1 || status=$?
	[ "$status" = 1 ] && grep -q "$word" "$tmp/out" || die "$word was not found: $(head -3 "$tmp/out")"
	dd if="$tmp/good" of="$tmp/a" bs=1M conv=notrunc status=none
}
# A sector that holds a stamp.
at=$(LC_ALL=C grep -abo -m1 'xsfongis' "$tmp/good" | head -1 | cut -d: -f1)
sector=$((at / 512))
put() { dd of="$tmp/a" bs=512 seek="$1" count=1 conv=notrunc status=none; }
finds 'lost: reads as zero' eval 'dd if=/dev/zero bs=512 count=1 status=none | put "$sector"'
finds 'lost: an older' dd if="$tmp/early" of="$tmp/a" bs=1M conv=notrunc status=none
finds 'torn' eval 'printf xx | dd of="$tmp/a" bs=1 seek=$((sector * 512 + 500)) conv=notrunc status=none'
finds 'elsewhere' eval 'dd if="$tmp/good" bs=512 skip="$sector" count=1 status=none | put $((sector + 1))'
finds 'strange' eval 'dd if=/dev/urandom bs=512 count=1 status=none | put "$sector"'
verify

# A disk that loses what was not flushed: with the guest told of it, that is no fault; without, it is one.
volatile=$SXM_BUILDDIR/tests/lib/volatile-disk
truncate -s 8M "$tmp/c"
power_on() {
	start "$volatile" "$tmp/c" "$tmp/c.sock" 1 >"$tmp/c.out"
	until_true 5 grep -q ready "$tmp/c.out"
}
power_on
rm "$tmp/log"
"$guest" write --uri "nbd+unix:///?socket=$tmp/c.sock" --log "$tmp/log" --then "$tmp/next" --seed 8 --zero-percent 10 \
	--flush-every 50 --overlap >"$tmp/result" &
writer=$!
at_exit stop "$writer"
log_size() { stat -c %s "$tmp/log" 2>/dev/null || echo 0; }
rounds=0 lost=0
while [ "$lost" -lt 3 ]; do # now and then all has just been flushed
	rounds=$((rounds + 1))
	[ "$rounds" -le 9 ] || die "nothing was lost: $(cat "$tmp/c.outs")"
	enough=$(($(log_size) + 100000))
	until_true 20 log_holds $enough
	kill -USR1 "$started"
	wait "$started"
	cat "$tmp/c.out" >>"$tmp/c.outs"
	! grep -q 'power lost: [1-9]' "$tmp/c.out" || lost=$((lost + 1))
	# What later writes would hide again: the disk just after the loss, and the log of one who was not told of it.
	cp "$tmp/c" "$tmp/untold"
	cp "$tmp/log" "$tmp/untold.log"
	power_on
	echo "lost nbd+unix:///?socket=$tmp/c.sock" >"$tmp/next"
done
enough=$(($(log_size) + 100000))
until_true 20 log_holds $enough
kill "$writer"
wait "$writer" || die "the writer failed"
"$guest" verify --uri "nbd+unix:///?socket=$tmp/c.sock" --log "$tmp/log" || die "what was flushed was lost"
# The log of the last loss, with those before it untold as well (records of 24 bytes after a head of 32, 6 is a loss).
python3 - "$tmp/untold.log" $rounds <<'END'
import struct, sys
log = open(sys.argv[1], "rb").read()
records = [log[at:at + 24] for at in range(32, len(log) - 23, 24)]
kept = [r for r in records if struct.unpack_from("<I", r)[0] != 6]
assert len(records) - len(kept) == int(sys.argv[2]) - 1
open(sys.argv[1], "wb").write(log[:32] + b"".join(kept))
END
start_nbdkit "$tmp/d.sock" file "$tmp/untold"
must_fail "$guest" verify --uri "nbd+unix:///?socket=$tmp/d.sock" --log "$tmp/untold.log" >"$tmp/out" 2>"$tmp/err"
grep -q 'lost: ' "$tmp/out" "$tmp/err" || die "what was lost was not found: $(head -3 "$tmp/out" "$tmp/err")"
