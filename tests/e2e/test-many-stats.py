#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""xapi asks Data.stat without a pause, for as long as a mirror runs: neither memory nor descriptors of the datapath grow by it, and the
guest does not feel it. With SXM_LONG 10^5 calls of the verb on a complete mirror and 10^3 during one (five minutes), and the guest's p99 is
compared; SXM_STATS says how many calls, where others are wanted."""
import concurrent.futures
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import ActiveDisk, Host, is_sanitized, nbd_of, say, until_true  # noqa: E402

MIB = 1 << 20
IS_LONG = "SXM_LONG" in os.environ
AFTER, DURING, ASKED = (int(os.environ.get("SXM_STATS", 100000)), 1000, 100000) if IS_LONG else (150, 50, 3000)
ROUNDS = 7
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


def latencies_ms(disk, seconds, meanwhile=None):
    """Of a guest's writes, 1000 a second, in a log that is its own."""
    name = os.path.join(here.dir, f"p{time.monotonic_ns()}")
    with open(name + ".said", "w+", encoding="ascii") as said:
        guest = subprocess.Popen([ActiveDisk.GUEST, "write", "--uri", disk.nbd, "--log", name, "--iops", "1000", "--depth", "4", "--slow", "0",
                                  "--count", str(1000 * seconds), "--region", f"0:{16 * MIB}"], stdout=said)
        while guest.poll() is None:
            if meanwhile:
                meanwhile()
            else:
                time.sleep(0.05)
        said.seek(0)
        text = said.read()
    assert guest.returncode == 0, text
    return [float(line.split("ms=")[1].split()[0]) for line in text.splitlines() if line.startswith("slow ")]


def p99(values):
    return sorted(values)[len(values) * 99 // 100]


def begin_mirror():
    """(disk, operation): to another sxm, under a guest."""
    disk, far = ActiveDisk(here, sr, 64 * MIB), there.make_volume(far_sr, 64 * MIB)
    sock, export = nbd_of(there.call("Datapath.attach", uri=far["uri"][0], domain="MIR000001"))
    there.call("Datapath.activate", uri=far["uri"][0], domain="MIR000001")
    subprocess.run([ActiveDisk.GUEST, "write", "--uri", disk.nbd, "--log", os.path.join(here.dir, "fill"), "--count", "2000", "--region", f"{32 * MIB}:{32 * MIB}"],
                   check=True, stdout=subprocess.DEVNULL)
    return disk, here.call("Data.mirror", uri=disk.uri, domain=disk.domain, remote=f"nbd+unix:///{export}?socket={sock}")


def until_complete(operation):
    until_true("it is complete", lambda: here.call("Data.stat", operation=operation)["complete"], 60)


def test_p99():
    """Interleaved: nobody asks; the process itself is asked as often as verbs do; verbs, without a pause; as many processes that do nothing.
    A verb is two programs that are started, and on two processors a guest waits now and then for one of them to have had its slice; so
    verbs are held against programs that do nothing, and what the disk's process does for them against nothing."""
    def paced():
        ask(disk, operation, 1)
        time.sleep(0.0025)
    if not IS_LONG:
        return
    disk, operation = begin_mirror()
    until_complete(operation)
    kinds = {
        "nobody": None, "asked": paced, "verbs": lambda: here.call("Data.stat", operation=operation),
        "nothing": lambda: subprocess.run(["/bin/sh", "-c", "exec /bin/true"], input=b"{}", capture_output=True, check=True),
    }
    took = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, meanwhile in kinds.items():
            took[kind].append(latencies_ms(disk, 2, meanwhile))
    whole = {kind: p99([ms for one in rounds for ms in one]) for kind, rounds in took.items()}
    usual = {kind: sorted(map(p99, rounds))[ROUNDS // 2] for kind, rounds in took.items()}
    for kind in kinds:
        say(f"  {kind:<8} p99 {whole[kind]:.3f} ms ({whole[kind] / whole['nobody']:.2f}), of a round {usual[kind]:.3f} ms ({usual[kind] / usual['nobody']:.2f})")
    assert usual["asked"] <= 1.1 * usual["nobody"] + 0.1, usual
    assert usual["verbs"] <= 1.1 * usual["nothing"] + 0.2, usual
    disk.deactivate()


def records():
    try:
        return os.listdir(os.path.join(here.run_dir, "state", "operations"))
    except FileNotFoundError:
        return []


def test_no_growth():
    had = records()  # with SXM_LONG the mirror before it has left one
    limit = os.path.join(here.run_dir, "bandwidth")
    with open(limit, "w") as f:
        f.write("256KiB")  # so that it runs while it is asked
    disk, operation = begin_mirror()
    until_true("its buffers are there", lambda: here.control(disk.key, "status")["ok"]["operations"][-1]["sent_bytes"] > MIB // 2)
    before = Figures(disk)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # each waits for news, up to a second
        for status in pool.map(lambda _: here.call("Data.stat", operation=operation), range(DURING if IS_LONG else 3)):
            assert not status["failed"] and not status["complete"], status
    with_news = DURING if not IS_LONG else 0
    for _ in range(with_news):
        here.control(disk.key, "mirror.stat", id=operation[1], wait_ms=1)
    before.check(disk, f"{DURING} during it", 16 * MIB)  # what a mirror may have in flight
    os.unlink(limit)
    until_complete(operation)
    ask(disk, operation, 100)
    before = Figures(disk)
    for _ in range(AFTER):
        assert here.call("Data.stat", operation=operation)["complete"]
    ask(disk, operation, ASKED)
    before.check(disk, f"{AFTER} of the verb and {ASKED} of what it asks, complete")
    added = [name for name in records() if name not in had]
    assert len(added) == 1, added
    disk.deactivate()


for name, test in list(globals().items()):
    if name.startswith("test_") and (len(sys.argv) == 1 or name[5:] in sys.argv):
        say(name[5:].replace("_", " "))
        test()
