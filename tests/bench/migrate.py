#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `sxm migrate` does on this machine, beside what was asked of it and what a peer does.

    ./run python3 ../tests/bench/migrate.py [--scenario NAME...] [--runs 3] [--mib 1024] [--memory] [--dir DIR] [--verbose]

Both hosts are this machine, each with its own directories; the far one is behind a real sshd on 127.0.0.1, or behind a program
that is as far away as it is told to be (far_away.py). What takes turns takes them in each run.

  ssh        a disk full of random data moves over ssh; its mirror's rate, and the whole command's, over that of nbdcopy, which
             copies the same file to nbdkit through the same ssh, with the same cipher, and flushes. Over one connection on ssh's
             own standard input and output, or over a forwarded socket: the faster counts
  eta        how far the predicted end was from what came true, of the whole, from a tenth of the pass on: under a steady load, and
             under one that steps up in mid-pass (from two seconds after the step on; what it was before it is said, too)
  downtime   four disks of a guest that writes to all, each way 10 ms long: how long guests were held
  back       a disk is moved, 1 % of it is written, in blocks of 64 KiB all over it, and it is moved back: what is sent
  cut        the connections are reset in mid-pass and the network is away for 10 s: what went over it beyond the disk's bytes, of
             the whole, and how long after that it goes on; `dark`: nothing is reset, nothing comes through
  slow       files of /usr over 100 Mbit/s, 2 ms away: with --compress, and without

--memory: both SRs in a tmpfs, which leaves the way between the hosts. Without: in --dir, the source not in the page cache.
"""
import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

from moves import SXM, Disk, Link, World, forget_pages, make_data, run_nbdcopy, run_nbdcopy_forwarded
from rig import MIB, Guest, note, until

CUT_S = 10
FAR_MS = 10
SLOW_BYTES_S, SLOW_MIB = 12500000, 128


class Figures:
    """Name -> what was asked, of whom it is, and one figure a run."""

    def __init__(self, is_verbose):
        self.rows, self.is_verbose = {}, is_verbose

    def add(self, name, value, asked="", unit=""):
        self.rows.setdefault(name, (asked, unit, []))[2].append(value)
        if self.is_verbose:
            note(f"{name}: {value:.4g} {unit}")

    def median(self, name):
        return statistics.median(self.rows[name][2])

    def show(self):
        print(f"\n{'':44} {'asked':>10} {'seen':>10}")
        for name, (asked, unit, values) in self.rows.items():
            runs = " ".join(f"{v:.3g}" for v in values) if len(values) > 1 else ""
            print(f"{name:44} {asked:>10} {statistics.median(values):>10.4g} {unit:8} {runs}")


# --- ssh

def new_disk(args, world, size=None):
    disk = Disk(world.a, size or os.path.getsize(args.data), args.data)
    if not args.memory:
        forget_pages(disk.image)
    os.sync()
    return disk


def move_over_ssh(args, world, kind):
    """(seconds of the mirror, of the command)"""
    disk = new_disk(args, world)
    whole, _ = world.move(world.ssh(kind), [disk], "--no-verify", "--quiet")
    mirror = world.a.mirrors(disk.key)[-1]
    return mirror["ready_ms"] / 1e3, whole


def copy_by_peer(args, world, run):
    source, target = os.path.join(world.a.sr_dir, "source"), os.path.join(world.b.sr_dir, "target")
    try:
        shutil.copyfile(args.data, source)
        if not args.memory:
            forget_pages(source)
        os.sync()
        return run(world, source, target, os.path.getsize(source))
    finally:
        for path in (source, target):
            if os.path.exists(path):
                os.unlink(path)


def ssh(args, figures):
    world = World(args.dir, args.memory)
    try:
        for _ in range(args.runs):
            seconds = {}
            ways = {f"{kind}{', ' + program if program != SXM else ''}": (kind, program)
                    for kind in args.carriers for program in [SXM, *args.also]}
            for name, (kind, program) in ways.items():
                world.use(program)
                seconds[name] = move_over_ssh(args, world, kind)
                figures.add(f"{name}: the mirror", args.mib / seconds[name][0], "", "MiB/s")
                figures.add(f"{name}: the whole command", args.mib / seconds[name][1], "", "MiB/s")
                world.empty()
            peers = {"nbdcopy, ssh's stdio": run_nbdcopy, "nbdcopy, a forwarded socket": run_nbdcopy_forwarded}
            for name, run in peers.items():
                seconds[name] = copy_by_peer(args, world, run)
                figures.add(f"peer: {name}", args.mib / seconds[name], "", "MiB/s")
            best = min(seconds[name] for name in peers)
            for name in ways:
                figures.add(f"{name}: the mirror / the faster peer", best / seconds[name][0], ">= 0.9")
                figures.add(f"{name}: the whole / the faster peer", best / seconds[name][1], ">= 0.9")
    finally:
        world.close()


# --- eta

def eta_errors(history, since):
    """Of each look from a tenth of the pass on, in the order of time: (time, error as a part of the whole)."""
    mirror = [look for look in history if look["disks"][0].get("total_bytes")]
    began = next(look["time"] for look in mirror if look["disks"][0].get("running_ms", 0) > 0)
    end = next(look["time"] for look in mirror if look["disks"][0].get("complete"))
    found = []
    for look in mirror:
        disk = look["disks"][0]
        if look["time"] >= end or disk.get("done_bytes", 0) * 10 < disk["total_bytes"] or look["time"] < since:
            continue
        error = 1.0 if look["eta_ms"] < 0 else abs(look["time"] + look["eta_ms"] - end) / (end - began)
        found.append((look["time"], error))
    return found, end - began


def eta_once(args, figures, name, loads):
    """loads: writes a second; the second from the middle on."""
    world = World(args.dir, args.memory)
    guests, step = [], 0
    try:
        disk = new_disk(args, world)
        guests.append(Guest(disk.nbd, f"rw=randwrite iodepth=4 rate_iops={loads[0]}", disk.size, 300, world.room))
        time.sleep(1.5)  # it has reached its speed
        process = world.start(world.ssh(args.carriers[0]), [disk], "--no-verify", "--quiet", "--switchover", "manual",
                              *(["--bandwidth", args.bandwidth] if args.bandwidth else []))

        def state():
            found = world.a.mirrors(disk.key)
            return found[-1] if found else {"complete": False, "total_bytes": 0, "dirty_bytes": 0}

        def is_half():
            s = state()
            return s["total_bytes"] and s["dirty_bytes"] * 2 < s["total_bytes"]
        if len(loads) > 1:
            until("the pass to be in its middle", is_half, 100, 0.05)
            step = time.time() * 1e3
            guests.append(Guest(disk.nbd, f"rw=randwrite iodepth=4 rate_iops={loads[1] - loads[0]}", disk.size, 300, world.room))
        until("the mirror to be complete", lambda: state()["complete"], 100, 0.05)
        for guest in guests:
            guest.end()
        time.sleep(0.6)  # it is in the history
        process.send_signal(signal.SIGINT)
        process.communicate()
        found, whole = eta_errors(world.history(), 0)
        after = [error for at, error in found if at >= step + 2000] if step else [error for _, error in found]
        figures.add(f"eta, {name}: the pass", whole / 1e3, "", "s")
        if after:
            figures.add(f"eta, {name}: worst", 100 * max(after), "<= 15", "%")
            figures.add(f"eta, {name}: median", 100 * statistics.median(after), "", "%")
        if step:
            figures.add(f"eta, {name}: worst, before the step too", 100 * max(error for _, error in found), "", "%")
        if args.verbose:
            note(" ".join(f"{100 * error:.0f}" for _, error in found))
    finally:
        for guest in guests:
            guest.end()
        world.close()


def eta(args, figures):
    for _ in range(args.runs):
        eta_once(args, figures, "500 writes/s", [500])
        eta_once(args, figures, "300, then 2000 writes/s", [300, 2000])


# --- downtime

def downtime_once(args, figures, ms):
    world = World(args.dir, args.memory)
    guests, size = [], 32 * MIB
    try:
        disks = [Disk(world.a, size) for _ in range(4)]
        guests = [Guest(disk.nbd, "rw=randwrite iodepth=2 rate_iops=100", size, 120, world.room) for disk in disks]
        _, out = world.move(world.far_away(ms), disks, "--no-verify")
        look = world.history()[-1]
        held = look["released"] - look["held"]
        said = [line for line in out.splitlines() if "round" in line or "held" in line]
        figures.add(f"downtime, 4 disks, round trip {2 * ms} ms", held, f"<= {4 * ms + 20}", "ms")
        if args.verbose:
            note(f"{held} ms: {said}")
    finally:
        for guest in guests:
            guest.end()
        world.close()


def downtime(args, figures):
    for _ in range(max(args.runs, 3)):
        for ms in (FAR_MS, 0):
            downtime_once(args, figures, ms)


# --- back

def back_once(args, figures):
    world = World(args.dir, args.memory)
    try:
        disk = new_disk(args, world)
        world.move(world.ssh(args.carriers[0]), [disk], "--no-verify", "--quiet")
        far = world.records()[-1]["disks"][0]
        there = Disk.__new__(Disk)
        there.side, there.uri, there.key = world.b, far["far_uri"], far["far_key"]
        there.attach()
        count, places = max(1, disk.size // 100 // 65536), range(0, disk.size // 65536)
        writes = [w for at in random.Random(6).sample(places, count) for w in ("-c", f"write -q -P 7 {at * 65536} 64k")]
        for i in range(0, len(writes), 400):
            subprocess.run(["qemu-io", "-f", "raw", *writes[i:i + 400], there.nbd], check=True, stdout=subprocess.DEVNULL)
        whole, _ = world.move(["--via", " ".join([*world.a.words(), os.path.join(os.environ["SXM_BUILDDIR"], "sxm"), "relay"])], [there],
                              "--no-verify", "--quiet", back=True)
        sent = world.b.mirrors(there.key)[-1]["sent_bytes"]
        figures.add("the way back with 1 % changed: sent", 100 * sent / disk.size, "<= 2", "% of all")
        figures.add("the way back: the whole command", whole, "", "s")
    finally:
        world.close()


def back(args, figures):
    for _ in range(args.runs):
        back_once(args, figures)


# --- cut

def cut_once(args, figures, kind, is_dark):
    world, link = World(args.dir, args.memory), None
    try:
        link = Link(world.start_sshd().port)
        disk = new_disk(args, world)
        process = world.start(world.ssh(kind, link.port), [disk], "--no-verify", "--quiet", "--patience", "60s")

        def mirror():
            assert process.poll() is None, process.communicate()[0]
            found = world.a.mirrors(disk.key)
            return found[-1] if found else {"total_bytes": 0, "dirty_bytes": 0}

        def is_half():
            m = mirror()
            return m["total_bytes"] and m["dirty_bytes"] * 2 < m["total_bytes"]
        until("half of it is there", is_half, 60)
        link.darken() if is_dark else link.cut()
        time.sleep(CUT_S)
        before = mirror()["dirty_bytes"]
        link.restore()
        began = time.monotonic()
        until("it goes on", lambda: mirror()["dirty_bytes"] < before, 60)
        gone_on = time.monotonic() - began
        world.finish(process)
        name = f"cut for {CUT_S} s{', dark' if is_dark else ''}, {kind}"
        figures.add(f"{name}: sent again, and what ssh adds", 100 * (link.up_bytes - disk.size) / disk.size, "<= 1", "% of all")
        figures.add(f"{name}: until it goes on", gone_on, "", "s")
    finally:
        if link:
            link.close()
        world.close()


def cut(args, figures):
    for _ in range(args.runs):
        for kind in args.carriers:
            for is_dark in (False, True):
                cut_once(args, figures, kind, is_dark)


# --- slow

def make_files(path, mib):
    """As they lie on a file system: each from a new page on."""
    places = (os.path.join(at, name) for top in ("/usr/bin", "/usr/lib", "/usr/share") for at, _, names in os.walk(top) for name in names)
    with open(path, "wb") as f:
        while f.tell() < mib * MIB:
            name = next(places)
            if os.path.isfile(name) and not os.path.islink(name):
                with open(name, "rb") as source:
                    f.write(source.read()[:4 * MIB])
                f.seek(-f.tell() % 4096, os.SEEK_CUR)
        f.truncate(mib * MIB)


def slow_once(args, figures, world, data, more):
    disk = Disk(world.a, os.path.getsize(data), data)
    world.move(world.far_away(2, SLOW_BYTES_S), [disk], "--no-verify", "--quiet", *more)
    figures.add(f"100 Mbit/s, files of /usr{', ' + more[0] if more else ''}", disk.size / MIB / world.a.mirrors(disk.key)[-1]["ready_ms"] * 1e3,
                "", "MiB/s")
    world.empty()


def slow(args, figures):
    world, data = World(args.dir, args.memory), args.data + ".files"
    try:
        make_files(data, SLOW_MIB)
        for _ in range(args.runs):
            for more in ([], ["--compress"]):
                slow_once(args, figures, world, data, more)
    finally:
        world.close()
        if os.path.exists(data):
            os.unlink(data)


SCENARIOS = {f.__name__: f for f in (ssh, eta, downtime, back, cut, slow)}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scenario", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--carriers", nargs="+", default=["ssh", "ssh2"], metavar="KIND")
    parser.add_argument("--also", nargs="+", default=[], metavar="SXM", help="of `ssh`: the same with these programs")
    parser.add_argument("--mib", type=int, default=1024, help="of data on the disk")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--bandwidth", default="", help="of the moves of `eta`")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/var/tmp"))
    parser.add_argument("--verbose", action="store_true", help="each run's figures at once")
    return parser.parse_args()


def main():
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is unmade
    args.data, figures = os.path.join(args.dir, f"sxm-migrate.{os.getpid()}"), Figures(args.verbose)
    try:
        make_data(args.data, args.mib)
        for name in args.scenario:
            SCENARIOS[name](args, figures)
    finally:
        if os.path.exists(args.data):
            os.unlink(args.data)
        figures.show()


if __name__ == "__main__":
    main()
