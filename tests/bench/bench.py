#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a disk costs its guest, how long a move takes and what it sends: sxm and its peers on this machine, taking turns.

    ./run tests/bench/bench.py [--runs 5] [--scenario NAME...] [--engine NAME...] [--json FILE]

All far sides are nbdkit's file plugin (page cache), behind its delay filter where there is a distance ("d2": 2 ms for each write
there); the guest is fio's nbd engine. sxm and qemu-storage-daemon open the source with O_DIRECT and io_uring (qemu-cached does not,
and is there for what needs no mirror). The disk is half random data, half hole. In each run every engine has every scenario once, so
that a machine whose speed drifts drifts for all; what is divided by another figure is divided by that of the same run.

  plain plain-qd1 plain-500 read     no mirror: 4 KiB at random, depth 16, or 1, or 500 a second
  idle idle-d50                      nobody writes while the mirror is made
  busy500-d2 busy2000-d2             a guest that writes so often a second
  read2000-d2                        one that reads so often
  sat sat-d2                         a guest that writes as fast as it can, depth 16
  trim                               a guest that trims 200 times a second
  synced-qd1-d2 synced-qd16          a guest that writes when all is there
  synced-thin-pipe                   the same, depth 16, and the far side takes about 8000 writes a second
  marks-plain marks marks-apart      2000 writes a second all over 64 GiB of hole, without a mirror, with one, and with one whose far side is
                                     in memory: elsewhere, its ten flushes a second would be in the journal that the guest's writes wait for
  sync-2x2                           depth 1, in sync mode; 2 ms a write under the source, 2 ms at the far side
  stopped-lag stopped-sync           the far side is stopped for --stop-s seconds under 500 writes a second; longer_ms: than the longest
                                     of another such guest in the same time, whose disk beside it has no mirror (beside_ms)
  cut cut-dark                       two sxm, the link is reset (or goes dark) at half of it and comes back after 5 s
  kill-source                        two sxm, the near one is killed at half of it under 2000 writes a second
  snapshot-1e2 ... snapshot-1e5      a snapshot under 2000 writes a second, of an image with so many extents (XFS)
  snapshot-qcow2                     three of a qcow2 disk under a guest that writes as fast as it can, depth 16 (8 GiB of hole)
  power                              a machine loses its power: tests/e2e/test-power.sh, in the mirror's words

Figures: ready_s (asked for to in sync); of the guest, while that lasts (synced: while it writes): iops, worst_iops (worst 100 ms),
p50_us, p99_us, max_ms, guest_mb; from the start to the end: wire_mb, zero_mb, trim_mb (given to the far side), target_mb (space
there), source_mb (space here), allocated_mb (here, at the start); finish_ms (the guest is stopped in mid-flight; until the far side
is complete and flushed); cpu_s, rss_mb of the engine; debt_ms, pace_us (sxm's own word for the worst), overflow_mb.
"""
import argparse
import dataclasses
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

import faults
import moment
import report
from engines import ENGINES, Control, Nbdcopy, Qemu, Sxm
from rig import MIB, FarSide, Guest, allocated_mb, cpu_seconds, is_same, note, peak_rss_mb

PLAIN, IDLE, DURING, AFTER = "plain", "idle", "during", "after"


@dataclasses.dataclass
class Scenario:
    when: str               # the guest's time
    guest: str = ""         # fio's words
    delay_ms: int = 0       # of a write at the far side
    base: str = ""          # the scenario whose figures divide this one's
    threads: int = 128      # requests at a time at the far side
    disk_mb: int = 0        # all hole; 0: the usual disk
    far_dir: str = ""       # where the far side's disk is, if not beside the source
    run: callable = None    # not by the usual course


SCENARIOS = {
    "plain": Scenario(PLAIN, "rw=randwrite iodepth=16"),
    "plain-qd1": Scenario(PLAIN, "rw=randwrite iodepth=1"),
    "plain-500": Scenario(PLAIN, "rw=randwrite iodepth=4 rate_iops=500"),
    "read": Scenario(PLAIN, "rw=randread iodepth=16"),
    "idle": Scenario(IDLE),
    "idle-d50": Scenario(IDLE, delay_ms=50),
    "busy500-d2": Scenario(DURING, "rw=randwrite iodepth=4 rate_iops=500", 2),
    "busy2000-d2": Scenario(DURING, "rw=randwrite iodepth=4 rate_iops=2000", 2),
    "read2000-d2": Scenario(DURING, "rw=randread iodepth=4 rate_iops=2000", 2),
    "sat": Scenario(DURING, "rw=randwrite iodepth=16", 0, "plain"),
    "sat-d2": Scenario(DURING, "rw=randwrite iodepth=16", 2, "plain"),
    "trim": Scenario(DURING, "rw=randtrim bs=256k iodepth=2 rate_iops=200"),
    "synced-qd1-d2": Scenario(AFTER, "rw=randwrite iodepth=1", 2, "plain-qd1"),
    "synced-qd16": Scenario(AFTER, "rw=randwrite iodepth=16", 0, "plain"),
    "synced-thin-pipe": Scenario(AFTER, "rw=randwrite iodepth=16", 2, "plain", threads=16),
    "marks-plain": Scenario(PLAIN, "rw=randwrite iodepth=4 rate_iops=2000", disk_mb=65536),
    "marks": Scenario(AFTER, "rw=randwrite iodepth=4 rate_iops=2000", base="marks-plain", disk_mb=65536),
    "marks-apart": Scenario(AFTER, "rw=randwrite iodepth=4 rate_iops=2000", base="marks-plain", disk_mb=65536, far_dir="/dev/shm"),
    "sync-2x2": Scenario(AFTER, "rw=randwrite iodepth=1", 2, run=faults.sync_two_by_two),
    "stopped-lag": Scenario(AFTER, "rw=randwrite iodepth=4 rate_iops=500", base="plain-500", run=faults.stopped),
    "stopped-sync": Scenario(AFTER, "rw=randwrite iodepth=4 rate_iops=500", base="plain-500", run=faults.stopped),
    "cut": Scenario(IDLE, run=faults.cut),
    "cut-dark": Scenario(IDLE, run=faults.cut),
    "kill-source": Scenario(DURING, "rw=randwrite iodepth=4 rate_iops=2000", run=faults.kill_source),
    **{f"snapshot-1e{n}": Scenario(DURING, "rw=randwrite iodepth=4 rate_iops=2000", run=moment.snapshot) for n in (2, 3, 4, 5)},
    "snapshot-qcow2": Scenario(DURING, "rw=randwrite iodepth=16", run=moment.snapshot_qcow2),
    "power": Scenario(DURING, run=faults.power),
}


class Watch(threading.Thread):
    """What sxm itself says, each 50 ms: the worst of it."""

    def __init__(self, engine):
        super().__init__(daemon=True)
        self.control, self.is_over, self.worst = Control(engine.control()), threading.Event(), {}
        self.start()

    def run(self):
        try:
            while not self.is_over.wait(0.05):
                s = self.control.ask("status")["operations"][-1]
                now = {"pace_us": s["pace_us"], "overflow_mb": round(s["overflow_bytes"] / MIB, 1), "lag_ops": s["lag_ops"]}
                if s["complete"] and s["rate_bytes"]:
                    now["debt_ms"] = (s["dirty_bytes"] + s["lag_bytes"]) * 1000 // s["rate_bytes"]
                self.worst = {key: max(value, self.worst.get(key, 0)) for key, value in {**self.worst, **now}.items()}
        except (OSError, SystemExit, IndexError, KeyError):
            pass

    def end(self):
        self.is_over.set()
        self.join()
        return self.worst


def measure_nbdcopy(gold, room, scenario, args):
    far = FarSide(room, os.path.getsize(gold), scenario.delay_ms, disk_dir=args.far_dir)
    begin = time.monotonic()
    os.spawnlp(os.P_WAIT, "nbdcopy", "nbdcopy", "--destination-is-zero", "--flush", gold, far.uri)
    row = {"ready_s": round(time.monotonic() - begin, 2), **far.close()}
    far.remove()
    return row


def measure_plain(engine, gold, room, scenario, args):
    guest = Guest(engine.start(gold), scenario.guest, os.path.getsize(gold), args.seconds, room)
    guest.wait()
    return guest.figures()


def wait_synced(engine, limit_s):
    begin = time.monotonic()
    while not engine.is_synced():
        if time.monotonic() - begin > limit_s:
            return None
        time.sleep(0.01)
    return round(time.monotonic() - begin, 2)


def far_side_alone(room, scenario, size):
    """How many writes a second it takes when nothing is between it and the guest."""
    alone = os.path.join(room, "alone")
    os.mkdir(alone)
    far = FarSide(alone, size, scenario.delay_ms, scenario.threads)
    try:
        guest = Guest(far.uri, "rw=randwrite iodepth=32", size, 3, alone)
        guest.wait()
        return guest.figures()["iops"]
    finally:
        far.close()


def measure_mirror(engine, gold, room, scenario, args):
    size, guest, watch = os.path.getsize(gold), None, None
    uri = engine.start(gold)
    far = FarSide(room, size, scenario.delay_ms, scenario.threads, scenario.far_dir or args.far_dir)
    os.sync()
    try:
        if scenario.when == DURING:
            guest = Guest(uri, scenario.guest, size, args.limit + 10, room)
            time.sleep(1.5)  # it has reached its speed: what is measured, not waited for
        row = {"allocated_mb": allocated_mb(engine.image)}
        cpu, started, begin = cpu_seconds(engine.pid), time.monotonic(), time.time()
        engine.mirror(far.uri)
        watch = Watch(engine) if isinstance(engine, Sxm) and scenario.guest else None
        is_synced = wait_synced(engine, args.limit) is not None
        row["ready_s"], whole, end = round(time.monotonic() - started, 2) if is_synced else None, begin, time.time()
        if scenario.when == AFTER and is_synced:
            guest = Guest(uri, scenario.guest, size, args.seconds + 30, room)
            time.sleep(1.0)
            begin = time.time()
            time.sleep(args.seconds)
            end = time.time()
        if guest:
            guest.freeze()
            engine.freeze_guests()
        row["cpu_s"], row["rss_mb"] = round(cpu_seconds(engine.pid) - cpu, 2), peak_rss_mb(engine.pid)
        row.update(watch.end() if watch else {})
        if is_synced:
            started = time.monotonic()
            engine.finish()
            row["finish_ms"] = round((time.monotonic() - started) * 1e3, 1)
        if guest:
            guest.end()
            row.update(guest.figures(begin, end), whole_mb=guest.figures(whole)["guest_mb"])
        row["source_mb"] = allocated_mb(engine.image)
        if not is_synced:
            engine.give_up()
        engine.leave_far()
        row.update(far.close())
        if is_synced and size <= 4096 * MIB:
            row["same"] = is_same(engine.image, far.file)
        if scenario.threads < 128:
            row["far_iops"] = far_side_alone(room, scenario, size)
        return row
    finally:
        if guest:
            guest.end()
        if watch:
            watch.end()
        far.remove()


def is_for(name, engine):
    """Does this engine have something to say here?"""
    scenario = SCENARIOS[name]
    if name in ("cut", "cut-dark", "kill-source", "power") or name.startswith("snapshot-"):
        return engine == "sxm"
    if engine == "nbdcopy":
        return scenario.when == IDLE
    if engine == "qemu-cached":
        return scenario.when == PLAIN
    if name in ("stopped-sync", "sync-2x2"):
        return engine in ("sxm", "qemu-blocking")
    return engine != "qemu-blocking" or scenario.when != PLAIN or name == "plain-500"


def measure(name, kind, golds, args):
    scenario, room = SCENARIOS[name], tempfile.mkdtemp(prefix="sxm-bench.", dir=args.dir)
    engine, gold = None, golds[scenario.disk_mb]
    try:
        if scenario.run:
            return scenario.run(faults.Course(name, scenario, kind, ENGINES[kind], gold, room, args))
        engine = ENGINES[kind](room)
        if isinstance(engine, Nbdcopy):
            return measure_nbdcopy(gold, room, scenario, args)
        return (measure_plain if scenario.when == PLAIN else measure_mirror)(engine, gold, room, scenario, args)
    except (Exception, SystemExit) as e:  # pylint: disable=broad-except  one broken run must not lose the others
        return {"error": f"{type(e).__name__}: {e}"[:400]}
    finally:
        if isinstance(engine, (Sxm, Qemu)):
            engine.close()
        shutil.rmtree(room, ignore_errors=True)


def make_gold(path, mb, data_mb):
    with open(path, "wb") as f:
        for _ in range(data_mb):
            f.write(os.urandom(MIB))
        f.truncate(mb * MIB)


def with_bases(names):
    wanted = set(names) | {SCENARIOS[name].base for name in names}
    return [name for name in SCENARIOS if name in wanted]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scenario", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--engine", nargs="+", choices=list(ENGINES), default=list(ENGINES), metavar="NAME",
                        help=" ".join(ENGINES))
    parser.add_argument("--mb", type=int, default=1024, help="size of the disk; half of it holds data")
    parser.add_argument("--seconds", type=int, default=5, help="of a guest's run without a mirror, or when all is there")
    parser.add_argument("--limit", type=int, default=30, help="give a mirror up after so many seconds")
    parser.add_argument("--stop-s", type=int, default=60, help="how long the far side is stopped")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/var/tmp"))
    parser.add_argument("--far-dir", default="", metavar="DIR",
                        help="of the far side's disk (/dev/shm: not the medium that the guest's writes wait for)")
    parser.add_argument("--json", metavar="FILE", help="every run's figures")
    return parser.parse_args()


def main():
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is unmade
    names, rows = with_bases(args.scenario), []
    golds = {mb: os.path.join(args.dir, f"sxm-bench.{os.getpid()}.{mb}") for mb in {SCENARIOS[name].disk_mb for name in names}}
    try:
        for mb, path in golds.items():
            make_gold(path, mb or args.mb, 0 if mb else args.mb // 2)
        for number in range(args.runs):
            for name in names:
                for kind in filter(lambda kind, name=name: is_for(name, kind), args.engine):
                    row = measure(name, kind, golds, args)
                    if row is not None:
                        rows.append({"scenario": name, "engine": kind, "run": number, **row})
                        note(json.dumps(rows[-1]))
            report.divide(rows, {name: SCENARIOS[name].base for name in names})
            if args.json:
                with open(args.json, "w", encoding="ascii") as f:
                    json.dump(rows, f, indent=1)
    finally:
        for path in golds.values():
            if os.path.exists(path):
                os.unlink(path)
    report.print_medians(rows, names, statistics.median)
    report.print_targets(rows, statistics.median)


if __name__ == "__main__":
    main()
