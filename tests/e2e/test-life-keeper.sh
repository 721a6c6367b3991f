#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A datapath process and its keeper, without plugins: the starter gets its descriptors back, nothing of his end touches the
# disk, a killed process is back within a second at the same socket, a killed keeper or a SIGTERM loses nothing, and the last
# detach ends both and leaves nothing.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdinfo --version

datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
tmp=$(make_tmp)
export SXM_RUN_DIR=$tmp/run
at_exit end_datapaths "$SXM_RUN_DIR"
image=$tmp/image
truncate -s 2T "$image"
dir=$SXM_RUN_DIR/d

begin() { "$datapath" --id d --path "$image" --keep; }
ask() { control "$dir/control" "$@"; }
pid() { control --get pid "$dir/control" hello; }
parent() { ps -o ppid= -p "$1" | tr -d ' '; }
answers() { [ "$(nbdinfo --size "$nbd" 2>/dev/null)" = $((2 << 40)) ]; }
now_ms() { date +%s%3N; }
is_ended() { is_gone "$keeper" && is_gone "$child"; }
serve() {
	ask attach '{"domain":"1"}' >/dev/null
	ask activate '{"domain":"1"}' >/dev/null
	sock=$(control --get socket "$dir/control" attach '{"domain":"1"}')
	nbd=$(nbd_uri "$sock" d)
	child=$(pid)
	keeper=$(parent "$child")
}

say "the starter gets end of file on all it gave"
timeout 10 bash -c '"$0" --id d --path "$1" --keep 2>&1 | cat' "$datapath" "$image" || die "somebody holds the starter's output"
serve
answers || die "not served"
for fd in 0 1; do
	[ "$(readlink "/proc/$child/fd/$fd")" = /dev/null ] || die "fd $fd is $(readlink "/proc/$child/fd/$fd")"
done
[ "$(stat -c %a "$dir/control") $(stat -c %a "$dir")" = "600 700" ] || die "others may speak to it"

say "one that was only asked how it is does not stay"
SXM_RUN_DIR=$tmp/asked
at_exit end_datapaths "$SXM_RUN_DIR"
begin
asked=$(control --get pid "$SXM_RUN_DIR/d/control" hello)
until_true 10 is_gone "$asked"
SXM_RUN_DIR=$tmp/run

say "a second process for the same disk is refused"
must_fail "$datapath" --id d --path "$image" --foreground 2>"$tmp/refused"
grep -q 'served already' "$tmp/refused" || die "said: $(cat "$tmp/refused")"

say "killed, it is back each time, within a second on a machine that lets it, at the same socket"
quickest_ms=1000
for round in 1 2 3 4; do
	old=$(pid)
	start_ms=$(now_ms)
	kill -9 "$old"
	until_true 5 answers
	took_ms=$(($(now_ms) - start_ms))
	[ "$took_ms" -ge "$quickest_ms" ] || quickest_ms=$took_ms
	child=$(pid)
	[ "$child" != "$old" ] || die "the same process?"
	[ "$round" = 1 ] || [ "$quickest_ms" = 1000 ] || break
done
[ "$quickest_ms" -lt 1000 ] || die "a second or more, each time"

say "its keeper is killed: the disk is served, and the last detach leaves nothing"
kill -9 "$keeper"
until_true 5 is_gone "$keeper"
answers || die "not served without its keeper"
ask detach '{"domain":"1"}' >/dev/null
until_true 5 is_gone "$child"
[ ! -e "$dir" ] || die "left behind: $(ls -A "$dir")"

say "the caller's process group is killed: the disk is served"
export -f begin
export datapath image
setsid bash -c 'begin; echo >"$0"; exec sleep 1000' "$tmp/begun" &
caller=$!
at_exit stop "$caller"
until_true 10 test -s "$tmp/begun"
serve
kill -9 "-$caller"
wait "$caller" 2>/dev/null || :
kill -HUP "$keeper" "$child"
answers || die "the disk went with its caller"

say "SIGTERM to the keeper stops both; the next process serves again who was active"
kill "$keeper"
until_true 10 is_ended
[ -s "$dir/domains.json" ] || die "forgotten who was active"
begin
until_true 5 answers
child=$(pid)
keeper=$(parent "$child")

say "idle, it needs less than 24 MiB"
rss=$(control --get rss_bytes "$dir/control" status)
say "$((rss >> 10)) KiB resident"
case $(ldd "$datapath") in
*libasan*) ;;
*) [ "$rss" -lt $((24 << 20)) ] || die "too much" ;;
esac

say "bad requests are answered, and harm nobody"
must_fail ask no-such-verb 2>"$tmp/said"
grep -q '^ENOSYS: ' "$tmp/said" || die "said: $(cat "$tmp/said")"
must_fail ask attach 2>/dev/null
must_fail ask mirror.start '{"domain":"1","remote":"file:///x"}' 2>/dev/null
must_fail ask mirror.start '{"domain":"1","remote":"nbd://127.0.0.1:1/x","copy":true,"blocksize":65536,"ranges":[[-1,3]]}' 2>/dev/null
must_fail ask listen '{"domain":"1","host":"127.0.0.1","port":65536}' 2>/dev/null
python3 - "$dir/control" <<'END'
import socket, sys
def say(data, count):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(sys.argv[1])
    s.sendall(data)
    f = s.makefile("rb")
    return [f.readline() for _ in range(count)]
assert b'"error"' in say(b'{"verb"\n', 1)[0]
assert b'"error"' in say(b'[' * 100000 + b'\n', 1)[0]
answers = say(b''.join(b'{"id":%d,"verb":"hello"}\n' % i for i in range(200)), 200)
assert sorted(int(a.split(b':')[1].split(b',')[0]) for a in answers) == list(range(200)), answers[:3]
huge = socket.socket(socket.AF_UNIX)
huge.settimeout(20)
huge.connect(sys.argv[1])
try:
    huge.sendall(b'x' * (4 << 20))
except OSError:
    pass # hung up on
END
[ "$(pid)" = "$child" ] || die "it was killed by a request"

say "the last detach ends both, and leaves nothing"
ask deactivate '{"domain":"1"}' >/dev/null
ask detach '{"domain":"1"}' >/dev/null
until_true 5 is_ended
[ ! -e "$dir" ] || die "left behind: $(ls -A "$dir")"
