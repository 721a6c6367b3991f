#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What TLS costs a move, and what TCP does beside nbdcopy: a disk that nobody writes, to a far side on this machine, taking turns.

    ./run tests/bench/tls.py [--runs N] [--mb N] [--dir DIR] [--far sxm nbdkit] [--kind sxm-tcp sxm-tls ...] [--perf DIR]

The disk is all random data. ready_s: sxm, from Data.mirror to complete; nbdcopy, from its start to its end, with --flush. done_s: sxm,
until the disk is handed over: all flushed over there, digests compared, and whose it is on record; nbdcopy, the same as ready_s.
near, far: the processor seconds of each end's process for each GiB. nbdcopy's figures divide sxm's by the same far side's.

What is fair: in a --dir in memory (/dev/shm) nobody has a disk to wait for, and O_DIRECT is a copy like another. On a disk sxm reads
with O_DIRECT, which is what it has for guests; nbdcopy can read through the page cache alone, which is empty of the file ("cold") or
has all of it ("warm": nothing is read at all, which no move of a disk in use can have). A far sxm writes with O_DIRECT whoever sends,
a far nbdkit into the page cache. The far file has its blocks already: what a file system, or a virtual machine's memory, takes to find
new ones is not what is looked for, and varies more than all else.
"""
import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from bench import make_gold
from engines import Control, SxmPair
from rig import MIB, cpu_seconds, is_same, note, stop, until

KINDS = ("sxm-unix", "sxm-tcp", "sxm-tls", "nbdcopy-unix", "nbdcopy-tcp", "nbdcopy-tls", "nbdcopy-tcp-warm")
OVER = (("sxm-tls", "sxm-tcp"), ("nbdcopy-tls", "nbdcopy-tcp"), ("sxm-tcp", "nbdcopy-tcp"), ("sxm-tls", "nbdcopy-tls"),
        ("sxm-unix", "nbdcopy-unix"), ("sxm-tcp", "nbdcopy-tcp-warm"))


def write_key(room):
    path = os.path.join(room, "psk")
    with open(path, "w", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as f:
        f.write("sxm:" + os.urandom(32).hex() + "\n")
    return path


class FarSxm:
    """The far one of two hosts with sxm; `carrier` is how it is reached."""

    def __init__(self, pair, key, carrier):
        path, where = pair.far_socket, pair.export
        self.control, self.file = Control(os.path.join(os.path.dirname(path), "control")), pair.far_image
        self.pid = self.control.ask("hello")["pid"]
        self.uri = f"nbd+unix:///{where}?socket={path}"
        if carrier == "tcp":
            self.uri = f"nbd://127.0.0.1:{pair.far_port}/{where}"
        elif carrier == "tls":
            tls = {"psk_username": "sxm", "psk_file": key}
            port = self.control.ask("listen", domain="MIR1", host="127.0.0.1", port=0, tls=tls)["port"]
            self.uri = f"nbds://sxm@127.0.0.1:{port}/{where}?tls-psk-file={key}"

    def close(self):
        """Its host does."""


class FarNbdkit:
    def __init__(self, room, size, key, carrier):
        self.file, path = os.path.join(room, "far"), os.path.join(room, "far.sock")
        with open(self.file, "wb") as f:
            f.truncate(size)
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        words = ["-U", path] if carrier == "unix" else ["-i", "127.0.0.1", "-p", str(port)]
        words += ["--tls=require", "--tls-psk=" + key] if carrier == "tls" else []
        self.process = subprocess.Popen(["nbdkit", "-f", "-t", "16", *words, "file", self.file], stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        self.uri = {"unix": f"nbd+unix:///?socket={path}", "tcp": f"nbd://127.0.0.1:{port}",
                    "tls": f"nbds://sxm@127.0.0.1:{port}?tls-psk-file={key}"}[carrier]
        until("nbdkit", lambda: subprocess.run(["nbdinfo", "--size", self.uri], capture_output=True, check=False).returncode == 0)

    def close(self):
        stop(self.process)


def negotiated(uri):
    """In the words of the library that both clients use."""
    done = subprocess.run(["nbdinfo", "--size", uri], env={**os.environ, "LIBNBD_DEBUG": "1"}, capture_output=True, text=True, check=False)
    found = re.search(r"connection is using TLS: (.*)", done.stderr)
    return found[1] if found else "not told"


def empty_cache(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def fill_cache(path):
    with open(path, "rb", buffering=0) as f:
        while f.read(MIB):
            pass


def fill(path, size):
    """All of it zeroes that have their place."""
    with open(path, "r+b", buffering=0) as f:
        for _ in range(size // MIB):
            f.write(bytes(MIB))
        os.fsync(f.fileno())
    empty_cache(path)


def measure_nbdcopy(far, gold, is_warm):
    (fill_cache if is_warm else empty_cache)(gold)
    begin = time.monotonic()
    pid = os.spawnlp(os.P_NOWAIT, "nbdcopy", "nbdcopy", "--destination-is-zero", "--flush", gold, far.uri)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise RuntimeError("nbdcopy has failed")
    taken = time.monotonic() - begin
    return {"ready_s": taken, "done_s": taken, "near": used.ru_utime + used.ru_stime}


def measure_sxm(pair, far):
    engine, control = pair.near, Control(pair.near.control())
    cpu, begin = cpu_seconds(engine.pid), time.monotonic()
    engine.mirror(far.uri)
    while not (said := control.ask("mirror.stat", id=engine.operation[1], wait_ms=1000))["complete"]:
        if said["failed"]:
            raise RuntimeError(f"the mirror failed: {said}")
    ready = time.monotonic() - begin
    engine.finish()
    done = time.monotonic() - begin
    return {"ready_s": ready, "done_s": done, "near": cpu_seconds(engine.pid) - cpu}


def start_perf(where, name, pids):
    """Both ends, each in a file of its own."""
    return [subprocess.Popen(["perf", "record", "-q", "-g", "-F", "2000", "-p", str(pid), "-o", os.path.join(where, f"{name}.{end}")],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for end, pid in pids.items() if pid]


def measure(kind, far_kind, gold, args):
    engine, carrier = kind.split("-")[:2]
    room, pair, far = tempfile.mkdtemp(prefix="sxm-bench.", dir=args.dir), None, None
    try:
        key = write_key(room)
        if engine == "sxm" or far_kind == "sxm":
            pair = SxmPair(room, gold)
        far = FarSxm(pair, key, carrier) if far_kind == "sxm" else FarNbdkit(room, os.path.getsize(gold), key, carrier)
        row = {"tls": negotiated(far.uri)} if carrier == "tls" else {}
        fill(far.file, os.path.getsize(gold))
        pids = {"near": pair.near.pid if engine == "sxm" else None, "far": far.pid}
        watchers = start_perf(args.perf, f"{kind}.{far_kind}", pids) if args.perf else []
        if watchers:
            time.sleep(0.5)
        cpu = cpu_seconds(far.pid)
        row.update(measure_sxm(pair, far) if engine == "sxm" else measure_nbdcopy(far, gold, kind.endswith("warm")))
        row["far"] = cpu_seconds(far.pid) - cpu
        for watcher in watchers:
            stop(watcher, signal.SIGINT)
        far.close()
        if not is_same(gold, far.file):
            raise RuntimeError("the sides differ")
        gib = os.path.getsize(gold) / (MIB << 10)
        return {"kind": kind, "far_side": far_kind, **{key: round(value / gib, 3) if key in ("near", "far") else value
                                                       for key, value in row.items()}}
    finally:
        if far:
            far.close()
        if pair:
            pair.close()
        shutil.rmtree(room, ignore_errors=True)


def median(rows, far, kind, key):
    values = [row[key] for row in rows if row["kind"] == kind and row["far_side"] == far]
    return statistics.median(values) if values else None


def print_table(rows, args):
    for far in args.far:
        print(f"\nto {far}, {args.mb} MiB in {args.dir}, medians of {args.runs}")
        print(f"  {'':18}{'ready':>7}{'done':>8}   MiB/s   near     far s/GiB")
        for kind in args.kind:
            ready, done, near, there = (median(rows, far, kind, key) for key in ("ready_s", "done_s", "near", "far"))
            each = " ".join(f"{row['ready_s']:.2f}" for row in rows if row["kind"] == kind and row["far_side"] == far)
            print(f"  {kind:18}{ready:7.3f}{done:8.3f}{args.mb / ready:8.0f}{near:8.2f}{there:8.2f}     {each}")
        for over, under in OVER:
            if over in args.kind and under in args.kind:
                ready, done = (median(rows, far, under, key) / median(rows, far, over, key) for key in ("ready_s", "done_s"))
                print(f"  {over} / {under}: {ready:.2f} of its speed, {done:.2f} until done")
    for said in sorted({f"{row['far_side']}: {row['tls']}" for row in rows if "tls" in row}):
        print("  TLS to " + said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--dir", default="/dev/shm")
    parser.add_argument("--far", nargs="+", choices=("sxm", "nbdkit"), default=["sxm", "nbdkit"])
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=" ".join(KINDS))
    parser.add_argument("--perf", metavar="DIR", help="perf record of both ends there; the figures are then not worth much")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    gold, rows = os.path.join(args.dir, f"sxm-bench.{os.getpid()}.tls"), []
    try:
        make_gold(gold, args.mb, args.mb)
        os.sync()
        for _ in range(args.runs):
            for far in args.far:
                for kind in args.kind:
                    rows.append(measure(kind, far, gold, args))
                    note(json.dumps(rows[-1]))
    finally:
        os.unlink(gold)
    print_table(rows, args)


if __name__ == "__main__":
    main()
