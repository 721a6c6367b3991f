#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""xapi asks Data.stat without a pause, for as long as a mirror runs: neither memory nor descriptors of the datapath grow by it, and the
guest does not feel it. With SXM_LONG 10^5 calls of the verb on a complete mirror and 10^3 during one, and the guest's p99 is compared."""
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import ActiveDisk, Host, is_sanitized, nbd_of, say, until_true  # noqa: E402

MIB = 1 << 20
IS_LONG = "SXM_LONG" in os.environ
AFTER, DURING, ASKED = (100000, 1000, 100000) if IS_LONG else (150, 50, 3000)
here, there = Host(), Host()
for host in (here, there):
    host.in_memory("sr")
    os.mkdir(os.path.join(host.dir, "sr", "d"))
sr, far_sr = (host.make_sr("d", uri=f"file://{host.dir}/sr/d") for host in (here, there))


class Figures:
    """Of the datapath that serves the disk."""

    def __init__(self, disk):
        status = here.control(disk.key, "status")["ok"]
        self.rss, self.fds = status["rss_bytes"], len(os.listdir(f"/proc/{status['pid']}/fd"))

    def check(self, disk, what, room=MIB // 2):
        until_true("connections are closed", lambda: Figures(disk).fds <= self.fds)
        now = Figures(disk)
        say(f"  {what}: {self.rss >> 10} KiB, {self.fds} descriptors; then {now.rss >> 10} KiB, {now.fds}")
        assert is_sanitized() or now.rss <= self.rss + room, f"memory grows: {self.rss} to {now.rss} bytes"


def ask(disk, operation, count):
    """What the verb asks its process, each time on a connection of its own."""
    name = [n for n in os.listdir(here.run_dir) if n.startswith(disk.key) and os.path.isdir(os.path.join(here.run_dir, n))][0]
    for number in range(count):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(os.path.join(here.run_dir, name, "control"))
            s.sendall(b'{"id":%d,"verb":"mirror.stat","args":{"id":"%s","wait_ms":1000}}\n' % (number, operation[1].encode()))
            assert b'"complete":true' in s.recv(4096)


def p99_ms(disk, seconds, while_running=None):
    """Of a guest's writes, 1000 a second, one at a time; in a log that is its own."""
    out = subprocess.Popen([ActiveDisk.GUEST, "write", "--uri", disk.nbd, "--log", os.path.join(here.dir, f"p{time.monotonic_ns()}"), "--iops", "1000",
                            "--depth", "4", "--count", str(1000 * seconds), "--slow", "0", "--region", f"{disk.region * 4 * MIB}:{4 * MIB}"],
                           stdout=subprocess.PIPE, text=True)
    disk.region += 1
    while while_running and out.poll() is None:
        while_running()
    text = out.communicate()[0]
    assert out.returncode == 0, text
    took = sorted(float(line.split("ms=")[1]) for line in text.splitlines() if line.startswith("slow "))
    return took[len(took) * 99 // 100] if took else 0.0


def test_no_growth():
    disk = ActiveDisk(here, sr, 64 * MIB)
    disk.region = 0
    far = there.make_volume(far_sr, 64 * MIB)
    sock, export = nbd_of(there.call("Datapath.attach", uri=far["uri"][0], domain="MIR000001"))
    there.call("Datapath.activate", uri=far["uri"][0], domain="MIR000001")
    subprocess.run([ActiveDisk.GUEST, "write", "--uri", disk.nbd, "--log", os.path.join(here.dir, "fill"), "--count", "2000", "--region", f"{32 * MIB}:{32 * MIB}"],
                   check=True, stdout=subprocess.DEVNULL)
    limit = os.path.join(here.run_dir, "bandwidth")
    with open(limit, "w") as f:
        f.write("1MiB")  # so that it runs while it is asked
    operation = here.call("Data.mirror", uri=disk.uri, domain=disk.domain, remote=f"nbd+unix:///{export}?socket={sock}")
    until_true("its buffers are there", lambda: here.control(disk.key, "status")["ok"]["operations"][-1]["sent_bytes"] > MIB)
    before = Figures(disk)
    for _ in range(DURING if IS_LONG else 3):  # each waits for news
        assert not here.call("Data.stat", operation=operation)["failed"]
    with_news = DURING if not IS_LONG else 0
    for _ in range(with_news):
        here.control(disk.key, "mirror.stat", id=operation[1], wait_ms=1)
    before.check(disk, f"{DURING} during it", 16 * MIB)  # what a mirror may have in flight
    os.unlink(limit)
    until_true("it is complete", lambda: here.call("Data.stat", operation=operation)["complete"], 60)
    ask(disk, operation, 100)
    before = Figures(disk)
    quiet = p99_ms(disk, 4) if IS_LONG else 0
    for _ in range(AFTER):
        assert here.call("Data.stat", operation=operation)["complete"]
    ask(disk, operation, ASKED)
    if IS_LONG:
        busy = p99_ms(disk, 4, lambda: here.call("Data.stat", operation=operation))
        say(f"  p99 {quiet:.2f} ms, {busy:.2f} ms while it is asked")
        assert busy <= 1.1 * quiet + 0.2, (quiet, busy)
    before.check(disk, f"{AFTER} of the verb and {ASKED} of what it asks, complete")
    records = os.listdir(os.path.join(here.run_dir, "state", "operations"))
    assert len(records) == 1, records
    disk.deactivate()


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
