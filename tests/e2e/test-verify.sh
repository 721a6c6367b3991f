#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A copy is read back and compared: equal while a guest writes, and where somebody has changed the far side behind the mirror's
# back exactly that is told. A far side that is not there, goes, or is asked for nonsense is a sentence. Nobody is held up.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdinfo --version
requires nbdkit --version

tmp=$(make_tmp)
export SXM_RUN_DIR=$tmp/run
datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
at_exit end_datapaths "$SXM_RUN_DIR"
size=$(((96 << 20) + 512))

a() { control "$SXM_RUN_DIR/a/control" "$@"; }
b() { control "$SXM_RUN_DIR/b/control" "$@"; }
get() { control --get "$1" "$SXM_RUN_DIR/$2/control" "${@:3}"; }
begin() {
	"$datapath" --id "$1" --path "$tmp/$1" --keep
	control "$SXM_RUN_DIR/$1/control" activate "{\"domain\":\"$2\"}" >/dev/null
}
is_complete() { [ "$(get complete a mirror.stat "{\"id\":\"$1\",\"wait_ms\":500}")" = true ]; }
mirror_to() {
	op=$(get id a mirror.start "{\"domain\":\"3\",\"remote\":\"$1\"}")
	until_true 20 is_complete "$op"
}
# verify ARGS: begins, waits for the end; its report is in $tmp/report.
is_over() {
	a verify.stat "{\"id\":\"$1\",\"wait_ms\":1000}" >"$tmp/report"
	case $(json state <"$tmp/report") in complete|failed|cancelled) ;; *) return 1 ;; esac
}
verify() {
	id=$(get id a verify.start "$1")
	until_true 60 is_over "$id"
}
report() { json "$1" <"$tmp/report"; }
is() { [ "$(report "$1")" = "$2" ] || die "$1 is $(report "$1"), not $2: $(cat "$tmp/report")"; }
# says REGEX COMMAND...: it fails with such a sentence.
says() {
	must_fail "${@:2}" 2>"$tmp/said" >/dev/null
	grep -q "$1" "$tmp/said" || die "$(cat "$tmp/said") does not say $1"
}
failed_because() {
	is state failed
	is verified false
	[[ "$(report text)" =~ $1 ]] || die "$(report text) does not say $1"
}
# flip FILE OFFSET: one byte is another.
flip() {
	python3 - "$1" "$2" <<'END'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2])); old = f.read(1)[0]
    f.seek(int(sys.argv[2])); f.write(bytes([old ^ 0x10]))
END
}

truncate -s $size "$tmp/a"
dd if=/dev/urandom of="$tmp/a" bs=1M seek=32 count=8 conv=notrunc status=none
dd if=/dev/urandom of="$tmp/a" bs=512 seek=$((size / 512 - 1)) count=1 conv=notrunc status=none
begin a 3
nbd="nbd+unix:///a?socket=$(get socket a attach '{"domain":"3"}')"

say "nonsense is refused with a sentence"
says "remote" a verify.start
says "not an NBD URI" a verify.start '{"remote":"http://x/"}'
says "rate_bytes" a verify.start '{"remote":"nbd://x/","rate_bytes":-1}'
says "rate_bytes" a verify.start '{"remote":"nbd://x/","rate_bytes":"fast"}'
says "empty" a verify.start '{"remote":"nbd://x/","ranges":[]}'
says "4096, 8192. is not" a verify.start '{"remote":"nbd://x/","ranges":[[0,1],[-4096,8192]]}'
says "$size" a verify.start "{\"remote\":\"nbd://x/\",\"ranges\":[[0,4096],[$((size - 1)),2]]}"
says "ENOENT" a verify.stat '{"id":"a.v1"}'
says "ENOENT" a verify.cancel '{"id":"a.v1"}'

say "nobody there"
verify "{\"remote\":\"nbd+unix:///x?socket=$tmp/nobody\"}"
failed_because nobody

say "a far side that is too small"
truncate -s 1M "$tmp/small"
start_nbdkit "$tmp/small.sock" -r file "$tmp/small"
verify "{\"remote\":\"nbd+unix:///?socket=$tmp/small.sock\"}"
failed_because "too small"

say "a copy under a writing guest is equal"
truncate -s $size "$tmp/far"
start_nbdkit "$tmp/far.sock" file "$tmp/far"
server=$started
far="nbd+unix:///?socket=$tmp/far.sock"
start "$guest" write --uri "$nbd" --log "$tmp/log" --region 0:16777216 --depth 8 --iops 2000 --zero-percent 10 --flush-every 200
writer=$started
mirror_to "$far"
verify '{"rate_bytes":0}'
is state complete
is verified true
is different_bytes 0
is unsettled_bytes 0
is done_bytes $size
[ "$(report skipped_bytes)" -gt $((48 << 20)) ] || die "holes were read: $(cat "$tmp/report")"
is_alive "$writer" || die "the guest has ended"
[ "$(get verifications.2.verified a status)" = true ] || die "not in status: $(a status)"

say "what was changed there behind its back is told, to the chunk, while the guest writes"
flip "$tmp/far" $((33 << 20))
flip "$tmp/far" $(((34 << 20) - 1))
flip "$tmp/far" $((34 << 20))
flip "$tmp/far" $(((64 << 20) + 5000))
flip "$tmp/far" $((size - 1))
verify '{}'
is state complete
is verified false
is different "[[$((33 << 20)), 4096], [$(((34 << 20) - 4096)), 8192], [$(((64 << 20) + 4096)), 4096], [$((size - 512)), 512]]"
is different_bytes $((4 * 4096 + 512))
is unsettled_bytes 0

say "only what is asked for"
verify "{\"ranges\":[[$((34 << 20)),1],[$((32 << 20)),1048576]]}"
is total_bytes $(((1 << 20) + 4096))
is different "[[$((34 << 20)), 4096]]"

say "slowly, in the background, and cancelled"
id=$(get id a verify.start '{"rate_bytes":100000}')
says "one at a time" a verify.start
a verify.cancel "{\"id\":\"$id\"}" >/dev/null
until_true 5 is_over "$id"
is state cancelled

say "a far side that goes"
id=$(get id a verify.start "{\"remote\":\"$far\",\"rate_bytes\":100000}")
is_reading() { [ "$(get read_bytes a verify.stat "{\"id\":\"$id\"}")" -gt 0 ]; }
until_true 5 is_reading
kill "$writer"; wait "$writer" || die "the guest saw an error"
a mirror.cancel "{\"id\":\"$op\"}" >/dev/null # it would have its own say about the far side
kill -9 "$server"
until_true 20 is_over "$id"
failed_because "link"

say "a deactivation ends it and does not wait for it"
truncate -s $size "$tmp/far2"
start_nbdkit "$tmp/far2.sock" file "$tmp/far2"
mirror_to "nbd+unix:///?socket=$tmp/far2.sock"
id=$(get id a verify.start '{"rate_bytes":100000}')
until_true 5 is_reading
before=$(date +%s%N)
a deactivate '{"domain":"3"}' >/dev/null
took_ms=$((($(date +%s%N) - before) / 1000000))
[ "$took_ms" -lt 30000 ] || die "the deactivation took $took_ms ms"
until_true 5 is_over "$id"
failed_because "closed"
[ "$(get open a status)" = false ] || die "the image is still open"

say "a disk nobody has active"
verify "{\"remote\":\"nbd+unix:///?socket=$tmp/far2.sock\"}"
is verified true
[ "$(get open a status)" = false ] || die "the image is still open"

say "another sxm, before it has the disk and when it has"
truncate -s $size "$tmp/b"
begin b MIR1
a activate '{"domain":"3"}' >/dev/null
mirror_to "nbd+unix:///b?socket=$(get socket b attach '{"domain":"MIR1"}')"
verify '{}'
is verified true
a deactivate '{"domain":"3"}' >/dev/null
verify '{}'
is verified true
