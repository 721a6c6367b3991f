#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""sxm status: what mirrors there are is shown, once or each second on a terminal of its own, also while their processes die under it;
how long the guest's writes take; the exit status says how it stands."""
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests/lib"))
from smapi import ActiveDisk, Host, nbd_of, say, until_true  # noqa: E402
from terminal import Terminal  # noqa: E402

SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
host = Host()
SIZE = 64 << 20


def status(*args, expect):
    done = subprocess.run([SXM, "status", *args], capture_output=True, env=host.env, timeout=60, text=True)
    assert done.returncode == expect, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout


def mirrors(*args, expect):
    return json.loads(status("--json", *args, expect=expect))["mirrors"]


def processes_of(key):
    """Those of the disk that serve: the keeper starts another."""
    return [host.control(key, "status")["ok"]["pid"]]


os.mkdir(host.dir + "/sr")
sr = host.make_sr()
assert status(expect=0) == "no mirror runs here, and none is on record\n"
assert mirrors(expect=0) == []
assert subprocess.run([SXM, "status", "nothing"], env=host.env, capture_output=True).returncode == 3
assert subprocess.run([SXM, "status", "--loud"], env=host.env, capture_output=True).returncode == 2
say("nothing")

disk = ActiveDisk(host, sr, SIZE)
disk.start()
far = host.make_volume(sr, SIZE)
sock, export = nbd_of(host.call("Datapath.attach", uri=far["uri"][0], domain="MIR1"))
host.call("Datapath.activate", uri=far["uri"][0], domain="MIR1")
operation = host.call("Data.mirror", uri=disk.uri, domain=disk.domain, remote=f"nbd+unix:///{export}?socket={sock}")[1]


def the_mirror(expect=0):
    return [m for m in mirrors(expect=expect) if m["mirror"].get("operation") == operation][0]["mirror"]


until_true("it is in sync", lambda: subprocess.run([SXM, "status", operation], env=host.env, capture_output=True).returncode == 0)
(shown,) = mirrors(operation, expect=0)
assert shown["mirror"]["state"] == "synced" and shown["mirror"]["complete"] and shown["path"].endswith(disk.key + ".raw"), shown
assert len(mirrors(expect=0)) == 2 and len(mirrors(shown["disk"], expect=0)) == 1 and len(mirrors(shown["path"], expect=0)) == 1
text = status(expect=0)
assert "100%" in text and "in sync" in text and "receiving" in text and operation in text and "nbd+unix:" in text, text
status_of = host.control(disk.key, "status")["ok"]
(guest,) = [d for d in status_of["domains"] if d["domain"] == disk.domain]
until_true("writes were timed", lambda: host.control(disk.key, "status")["ok"]["domains"][0]["write_times"])
(guest,) = [d for d in host.control(disk.key, "status")["ok"]["domains"] if d["domain"] == disk.domain]
counted = sum(n for _, n in guest["write_times"])
assert 0 < counted <= guest["writes"] and 0 < guest["write_us"] < counted * guest["write_times"][-1][0], guest
assert guest["write_times"] == sorted(guest["write_times"]), guest
say("a mirror")

watch = Terminal([SXM, "status", "--watch"], 24, 120, env={**host.env, "TERM": "xterm", "LANG": "C"})
watch.until("it is shown", lambda t: any("in sync" in line for line in t))
watch.until("how long writes take is shown", lambda t: any(" us" in line or " ms" in line for line in t if "write" in line))
watch.resize(24, 60)
watch.until("it is drawn anew", lambda t: all(len(line) <= 60 for line in t) and any("in sync" in line for line in t))
for pid in processes_of(disk.key):
    os.kill(pid, signal.SIGKILL)
watch.until("it goes on", lambda t: any("in sync" in line or "copying" in line for line in t) and host.control(disk.key, "status"), 30)
watch.type("\x03")
assert watch.end() in (0, 1, 4)
text = [t for t in watch.screen.text() if t]
assert not any("Traceback" in t for t in text) and len(text) <= 12, text
say("a terminal")

lines = subprocess.Popen([SXM, "status", "--watch", "--json", operation], env=host.env, stdout=subprocess.PIPE, text=True)
first, second = (json.loads(lines.stdout.readline()) for _ in range(2))
assert 500 <= second["time"] - first["time"] <= 15000, (first["time"], second["time"])
lines.send_signal(signal.SIGINT)
assert lines.wait(10) in (0, 1, 4)
lines.stdout.close()
say("lines for programs")

host.call("Data.cancel", operation=["MirrorV1", operation])
until_true("it has failed", lambda: subprocess.run([SXM, "status", operation], env=host.env, capture_output=True).returncode == 1)
assert "failed" in status(operation, expect=1)
disk.stop()
disk.deactivate()
until_true("its process has ended", lambda: not any(n.startswith(disk.key[:36]) and os.path.exists(os.path.join(host.run_dir, n, "control"))
                                                   for n in os.listdir(host.run_dir)))
(shown,) = mirrors(operation, expect=1)
assert shown["recorded"] and shown["mirror"]["failed"] and shown["ended"] > 0, shown
assert "ended" in status(operation, expect=1)
say("a record")
