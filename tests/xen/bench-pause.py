#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a guest stands still when it moves to another host: with its disk on sxm and mirrored to the other host's local SR, and with
a disk on the kernel's blkback and no mirror: bench-pause.py [RUNS]. Both guests are on the same two hosts and move in turns, so that
what else this machine does hits both. pulse.c says the pause, from inside: in which nothing ran, and in which no I/O ended.

blkback's disk is a loop device over a file of each host's; its guest only writes, so that nothing has to move but the guest. xl alone
does that: domain, hotplug script, unpausing. With sxm the verbs come in xapi's order; scripts in dom0 wait for events, not for us.
SXM_BENCH_LOCK: a file that is locked while a guest moves, for a machine on which others measure, too."""
import contextlib
import fcntl
import os
import statistics
import sys
import threading
import time

import bed
from moving import KEY, MEMORY_PORT, mirror, mirror_name, start_two

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
MIB = 16


class Told(threading.Thread):
    """A script in dom0, and we go on meanwhile."""

    def __init__(self, host, script):
        super().__init__(daemon=True)
        self.host, self.script, self.said, self.failed = host, script, None, None
        self.start()

    def run(self):
        try:
            self.said = self.host.sh(self.script, 240)
        except bed.Failed as e:
            self.failed = e

    def answer(self):
        self.join()
        if self.failed:
            raise self.failed
        return self.said


def listen(target, how=""):
    """That xl has ended there is told through a fifo: a guest that it keeps paused can run then."""
    target.sh(f"rm -f /run/received; mkfifo /run/received; (/bed/wire tcp-listen:{MEMORY_PORT} exec xl migrate-receive {how} "
              ">/run/receive.log 2>&1 </dev/null; echo $? >/run/received) >/dev/null 2>&1 &")
    target.until(f"grep -q ':{MEMORY_PORT:04X} 00000000:0000 0A' /proc/net/tcp")


def sending(target, guest):
    return (f"(xl migrate -s '' {guest.name} 'exec /bed/wire - tcp:{target.address}:{MEMORY_PORT}' >/run/migrate.log 2>&1; "
            "echo $? >/run/migrated) >/dev/null 2>&1 &")


def sent(source):
    source.until("[ -e /run/migrated ]", 200)
    assert source.sh("cat /run/migrated; rm /run/migrated") == "0", source.sh("cat /run/migrate.log")


def datapath_line(verb, disk, domain):
    return bed.verb_line("Datapath." + verb, uri=disk.uri, domain=str(domain))


class OnSxm:
    name = "sxm, mirrored"

    def __init__(self, host):
        self.disk = bed.Disk(host, mib=MIB)
        self.guest = bed.Guest(host, "sxm", kind="pvh").create()
        self.disk.give_to(self.guest)
        self.guest.start(400)
        self.guest.connected()

    def prepare(self, source, target):
        self.far, self.mirrored = mirror(source, target, self.disk, self.guest)
        self.disk.take_from(mirror_name(self.guest))

    def move(self, source, target):
        """The far disk is attached early, as xapi does it; the rest waits for the guest to be suspended. The store says that: a domain
        has shut down (or ended: nobody else's does)."""
        before, guest, far = self.guest.domid, self.guest, self.far
        listen(target, "-p")
        told = Told(source, f"timeout 200 xenstore-watch -n 2 @releaseDomain >/dev/null & {sending(target, guest)} wait %1; "
                    f"echo $EPOCHREALTIME; {datapath_line('deactivate', self.disk, before)} && echo $EPOCHREALTIME")
        guest.host, guest.domid = target, int(target.sh(
            f"while [ $SECONDS -lt 120 ]; do for d in $(xenstore-list /local/domain); do [ \"$(xenstore-read /local/domain/$d/name)\" "
            f"!= {guest.name}--incoming ] || {{ echo $d; exit; }}; done; usleep 200000; done; exit 1", 150))
        far.attach(guest.domid)
        guest.plug()
        times = told.answer().split()
        times += target.sh(" && ".join([
            "echo $EPOCHREALTIME", datapath_line("deactivate", far, self.mirrored), datapath_line("detach", far, self.mirrored),
            bed.verb_line("Volume.unset", sr=target.sr, key=far.key, k=KEY), "echo $EPOCHREALTIME",
            datapath_line("activate", far, guest.domid), "echo $EPOCHREALTIME",
            bed.control_line(far, "vbd", **far.ring(guest.domid)) + " >/dev/null", "echo $EPOCHREALTIME",
            f"read received </run/received && echo $EPOCHREALTIME && xl unpause {guest.domid} && echo $EPOCHREALTIME"]), 200).split()
        self.times = [float(t) for t in times if t[0] == "1"]
        sent(source)

    def finish(self, source, before):
        self.disk.take_from(before)
        source.sh(f"xenstore-rm /local/domain/0/backend/qdisk/{before}")
        source.verb("Volume.destroy", sr=source.sr, key=self.disk.key)
        self.disk = self.far
        names = "deactivate", "", "mirror's end", "activate", "ring", "memory", "unpause"
        return ", ".join(f"{n} {(b - a) * 1000:.0f}" for n, a, b in zip(names, self.times, self.times[1:]) if n)


class OnBlkback:
    name = "blkback"

    def __init__(self, host):
        for each in bed.hosts:
            each.sh(f"truncate -s {MIB}M /sr/blkback && losetup /dev/loop0 /sr/blkback")
        self.guest = bed.Guest(host, "blk", kind="pvh", more='disk=["phy:/dev/loop0,xvda,w"]').create()
        self.guest.backend["xvda"] = f"/local/domain/0/backend/vbd/{self.guest.domid}/51712"
        self.guest.start(400)
        self.guest.connected()

    def prepare(self, source, target):
        pass

    def move(self, source, target):
        listen(target)
        source.sh(sending(target, self.guest))
        target.sh("read received </run/received", 200)
        sent(source)
        self.guest.host = target

    def finish(self, source, before):
        return ""


@contextlib.contextmanager
def quiet():
    with open(os.environ.get("SXM_BENCH_LOCK", os.devnull), "a") as lock:
        if lock.name != os.devnull:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clock_ms(host):
    """What a host's clock is ahead of ours; the guest has its host's, and moves from one to the other."""
    looks = []
    for _ in range(5):
        before = time.time()
        theirs = float(host.sh("echo $EPOCHREALTIME"))
        after = time.time()
        looks.append((after - before, theirs - (before + after) / 2))
    return min(looks)[1] * 1000


def run(kind, source, target):
    """(ms in which nothing ran, ms in which no I/O ended)"""
    guest, before = kind.guest, kind.guest.domid
    kind.prepare(source, target)
    with quiet():
        skew = clock_ms(target) - clock_ms(source)
        guest.sh("pulse /dev/xvda >/run/pulse 2>&1 & pulse=$!; sleep 2", 120)
        kind.move(source, target)
        guest.find()
        guest.sh("sleep 2; kill $pulse; wait $pulse", 120)
    said = dict(line.split(" ", 1) for line in guest.sh("cat /run/pulse", 120).splitlines())
    stood = [float(said[what].split()[0]) - skew for what in ("time", "disk")]
    bed.say(f"{kind.name}: no time for {stood[0]:.0f} ms, no I/O for {stood[1]:.0f} ms (clocks differ by {skew:.0f} ms) "
            f"{kind.finish(source, before)}")
    return stood


def tell(pauses):
    """Of whole pairs alone: what disturbed one kind disturbed the other."""
    pairs = min(len(stood) for stood in pauses.values())
    for i, what in enumerate(("nothing ran", "no I/O ended")) if pairs else ():
        medians = []
        for kind, stood in pauses.items():
            all_of = sorted(one[i] for one in stood[:pairs])
            medians.append(statistics.median(all_of))
            bed.say(f"{what}, {kind.name}: median {medians[-1]:.0f} ms, {all_of[0]:.0f} to {all_of[-1]:.0f}, of {pairs}")
        bed.say(f"{what}: {medians[0] / medians[1]:.2f} of blkback's pause")


def bench():
    one, two = start_two()
    pauses = {OnSxm(one): [], OnBlkback(one): []}
    try:
        for turn in range(RUNS):
            for kind, stood in pauses.items():
                stood.append(run(kind, *((one, two) if turn % 2 == 0 else (two, one))))
    finally:
        tell(pauses)


bed.play(bench)
