#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# 32 verbs at once on a disk whose process is killed under load, over and over: each verb gets its answer, one process only
# ever holds the image, nothing the guest was told is done is lost.  And the race at the end: the last detach against verbs
# that just come, which find either the process or a free place to start one.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdinfo --version

tmp=$(make_tmp)
export SXM_RUN_DIR=$tmp/run
datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
at_exit end_datapaths "$SXM_RUN_DIR"
image=$tmp/image
truncate -s 64M "$image"

# As a plugin does it: ask; nobody there, or hung up on: start, and ask again.
cat >"$tmp/verbs.py" <<'END'
import fcntl, json, os, random, signal, socket, subprocess, sys, threading, time
datapath, image, mode = sys.argv[1:]
run = os.environ["SXM_RUN_DIR"]
control = f"{run}/d/control"

def once(verb, **args):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(control)
    s.sendall(json.dumps({"id": 1, "verb": verb, "args": args}).encode() + b"\n")
    line = s.makefile("rb").readline()
    if not line:
        raise ConnectionResetError
    return json.loads(line)

def spawn():
    subprocess.run([datapath, "--id", "d", "--path", image, "--keep"], stderr=subprocess.DEVNULL)

def ask(verb, **args):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            return once(verb, **args)
        except (ConnectionError, FileNotFoundError):
            spawn()
    raise SystemExit(f"{verb}: no answer")

def holders():
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fds = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for fd in fds:
            try:
                if os.readlink(f"/proc/{pid}/fd/{fd}") == image:
                    found.add(pid)
            except OSError:
                pass
    return found

def at_once(work, count):
    errors = []
    def run_one(i):
        try:
            work(i)
        except BaseException as e:
            errors.append(repr(e))
    threads = [threading.Thread(target=run_one, args=(i,)) for i in range(count)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not errors, errors

def verbs(i):
    if i % 2:
        answer = ask("attach", domain="1")
        assert "ok" in answer, answer
    else:
        answer = ask("activate", domain="1")
        assert answer.get("ok") == {}, answer

if mode == "kill":
    old = ask("hello")["ok"]["pid"]
    os.kill(old, signal.SIGKILL)
    at_once(verbs, 32)
    assert ask("hello")["ok"]["pid"] != old
    assert len(holders()) == 1, holders()
elif mode == "ends":
    for _ in range(40):
        def some(i):
            domain = str(i)
            for verb in ("attach", "activate", "deactivate", "detach"):
                answer = ask(verb, domain=domain)
                assert "ok" in answer, (verb, answer)
        at_once(some, 3)
    assert len(holders()) <= 1, holders()
END
verbs() { python3 "$tmp/verbs.py" "$datapath" "$image" "$1"; }

"$datapath" --id d --path "$image" --keep
control "$SXM_RUN_DIR/d/control" activate '{"domain":"1"}' >/dev/null
sock=$(control --get socket "$SXM_RUN_DIR/d/control" attach '{"domain":"1"}')
nbd=$(nbd_uri "$sock" d)

say "32 verbs at once, each time after a kill under load"
mkfifo "$tmp/next"
"$guest" write --uri "$nbd" --log "$tmp/log" --then "$tmp/next" --depth 16 --flush-every 100 --overlap >"$tmp/guest" &
writer=$!
at_exit stop "$writer"
log_before=0
log_grew() { [ "$(stat -c %s "$tmp/log" 2>/dev/null || echo 0)" -gt $((log_before + 24000)) ]; }
for _round in 1 2 3 4 5; do
	until_true 20 log_grew
	verbs kill
	log_before=$(stat -c %s "$tmp/log")
	echo "$nbd" >"$tmp/next"
done
until_true 20 log_grew
kill "$writer"
wait "$writer" || die "the guest saw an error: $(cat "$tmp/guest")"
"$guest" verify --uri "$nbd" --log "$tmp/log"

say "verbs that come while the last one goes; what a kill in mid-write leaves goes with it"
touch "$SXM_RUN_DIR/d/domains.json.4711.tmp" "$SXM_RUN_DIR/d/map.new" "$SXM_RUN_DIR/d/nbd-00000000"
control "$SXM_RUN_DIR/d/control" detach '{"domain":"1"}' >/dev/null
verbs ends
nothing_left() { [ ! -e "$SXM_RUN_DIR/d" ]; }
until_true 10 nothing_left
