#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a disk costs its guest, and how long a move takes: sxm beside qemu-storage-daemon on this machine.

    ./run tests/bench/bench.py [--runs 5] [--mb 1024] [--seconds 5] [--only NAME...]

The guest is fio's nbd engine, the far side nbdkit's file plugin. Both engines use O_DIRECT and io_uring. In each run the
engines take turns, so that a machine whose speed drifts drifts for both. Prints medians. Needs about three times --mb of disk
in $TMPDIR (/var/tmp), and a machine that does nothing else.

    write16 write1 read16    no mirror: 4 KiB random I/O a second at that queue depth
    idle                     nobody writes: seconds until the far side is the same, flushed
    busy                     a guest writes 2000 times a second, each write takes 2 ms at the far side
    full                     a guest writes as fast as it can, at queue depth 16, the same far side
"""
import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
GIVE_UP_S = 30.0
GUESTS = {"write16": ("randwrite", 16, None), "write1": ("randwrite", 1, None), "read16": ("randread", 16, None),
          "busy": ("randwrite", 4, 2000), "full": ("randwrite", 16, None)}
MIRRORS = {"idle": 0, "busy": 2, "full": 2}  # delay of a write at the far side, ms
UNITS = {"read16": "/s", "write16": "/s", "write1": "/s"}


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("bench: waited in vain")
        time.sleep(0.005)


def stop(process, number=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(number)
    process.wait()


class Sxm:
    """Through its verbs only, as xapi does."""

    def __init__(self, room, gold):
        self.root = os.path.join(os.environ["SXM_LIBEXECDIR"], "xapi-storage-script")
        self.env = {**os.environ, "SXM_RUN_DIR": os.path.join(room, "run")}
        sr_dir = os.path.join(room, "sr")
        os.mkdir(sr_dir)
        config = {"uri": "file://" + sr_dir, "format": "raw"}
        self.volume("SR.create", uuid="5b0dd4c5-6b3c-4c0a-8f3b-0d1f7b1b6a55", name="bench", description="", configuration=config)
        sr = self.volume("SR.attach", configuration=config)
        made = self.volume("Volume.create", sr=sr, name="d", description="", size=os.path.getsize(gold), sharable=False)
        self.disk = made["uri"][0]
        backend = self.datapath("Datapath.attach", uri=self.disk, domain="1")
        nbd = [value["uri"] for kind, value in backend["implementations"] if kind == "Nbd"][0]
        _, _, path, export = nbd.split(":")
        self.uri = f"nbd+unix:///{export.removeprefix('exportname=')}?socket={path}"
        self.datapath("Datapath.activate", uri=self.disk, domain="1")
        subprocess.run(["nbdcopy", "--destination-is-zero", gold, self.uri], check=True)

    def run(self, path, verb, args):
        done = subprocess.run([os.path.join(self.root, path, verb), "--json"], input=json.dumps({"dbg": "bench", **args}), env=self.env,
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: {verb}: {done.stdout}")
        return json.loads(done.stdout)

    def volume(self, verb, **args):
        return self.run("volume/org.xen.xapi.storage.filebased", verb, args)

    def datapath(self, verb, **args):
        return self.run("datapath/sxm", verb, args)

    def mirror(self, target):
        self.operation = self.datapath("Data.mirror", uri=self.disk, domain="1", remote=target)

    def is_synced(self):
        status = self.datapath("Data.stat", operation=self.operation)
        if status["failed"]:
            raise SystemExit(f"bench: the mirror failed: {status}")
        return status["complete"]

    def finish(self):
        self.datapath("Datapath.deactivate", uri=self.disk, domain="1")

    def close(self):
        try:
            self.datapath("Datapath.deactivate", uri=self.disk, domain="1")
        finally:
            self.datapath("Datapath.detach", uri=self.disk, domain="1")


class Qemu:
    """qemu-storage-daemon and its blockdev-mirror, in the mode it chooses by itself."""

    def __init__(self, room, gold):
        image, path = os.path.join(room, "disk"), os.path.join(room, "nbd")
        qmp = os.path.join(room, "qmp")
        subprocess.run(["cp", "--sparse=always", gold, image], check=True)
        self.process = subprocess.Popen(
            ["qemu-storage-daemon", "--chardev", f"socket,id=q,path={qmp},server=on,wait=off", "--monitor", "chardev=q",
             "--blockdev", f"file,node-name=disk,filename={image},cache.direct=on,aio=io_uring,discard=unmap",
             "--nbd-server", f"addr.type=unix,addr.path={path}", "--export", "nbd,id=e,node-name=disk,name=d,writable=on"])
        self.uri = f"nbd+unix:///d?socket={path}"
        until(lambda: subprocess.run(["nbdinfo", "--size", self.uri], capture_output=True, check=False).returncode == 0)
        wire = socket.socket(socket.AF_UNIX)
        wire.connect(qmp)
        self.wire = wire.makefile("rw")
        self.wire.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.wire.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.wire.flush()
        for line in self.wire:
            answer = json.loads(line)
            if "error" in answer:
                raise SystemExit(f"bench: {command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]
        raise SystemExit("bench: qemu-storage-daemon has gone")

    def mirror(self, target):
        self.ask("blockdev-add", **{"driver": "nbd", "node-name": "far", "discard": "unmap", "detect-zeroes": "unmap",
                                    "server": {"type": "unix", "path": target.split("=", 1)[1]}})
        self.ask("blockdev-mirror", **{"job-id": "j", "device": "disk", "target": "far", "sync": "full"})

    def is_synced(self):
        return self.ask("query-jobs")[0]["status"] == "ready"

    def finish(self):
        self.ask("block-export-del", id="e", mode="hard")
        self.ask("block-job-cancel", device="j")
        until(lambda: not [j for j in self.ask("query-jobs") if j["status"] != "concluded"], GIVE_UP_S)

    def close(self):
        stop(self.process)


def start_guest(uri, name, size, seconds, room):
    rw, depth, iops = GUESTS[name]
    command = ["fio", "--name=g", "--thread", "--ioengine=nbd", "--uri=" + uri, "--rw=" + rw, "--bs=4k", f"--size={size}",
               f"--iodepth={depth}", "--time_based", f"--runtime={seconds}", "--norandommap", "--output-format=json"]
    return subprocess.Popen(command + ([f"--rate_iops={iops}"] if iops else []), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=room)


def measure_plain(engine, name, size, seconds, room):
    out, _ = start_guest(engine.uri, name, size, seconds, room).communicate()
    job = json.loads(out[out.index(b"{"):])["jobs"][0]
    return {UNITS[name]: round(job["read" if GUESTS[name][0] == "randread" else "write"]["iops"])}


def measure_mirror(engine, name, size, room):
    far, path = os.path.join(room, "far"), os.path.join(room, "far.sock")
    with open(far, "wb") as f:
        f.truncate(size)
    delay = MIRRORS[name]
    server = subprocess.Popen(["nbdkit", "-f", "-t", "64", "-U", path] + (["--filter=delay"] if delay else []) + ["file", far] +
                              ([f"wdelay={delay}ms"] if delay else []))
    guest = start_guest(engine.uri, name, size, 120, room) if name in GUESTS else None
    try:
        until(lambda: os.path.exists(path))
        time.sleep(1.0 if guest else 0)  # the guest has reached its speed: what is measured, not waited for
        begin = time.monotonic()
        engine.mirror(f"nbd+unix:///?socket={path}")
        while not engine.is_synced():
            if time.monotonic() - begin > GIVE_UP_S:
                return {"synced s": None}
        synced = time.monotonic() - begin
        if guest:
            guest.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        engine.finish()
        return {"synced s": round(synced, 2), "finish ms": round((time.monotonic() - begin) * 1e3, 1)}
    finally:
        if guest:
            stop(guest, signal.SIGKILL)
        stop(server, signal.SIGKILL)  # it would wait for its clients to leave


def run_once(kind, name, gold, args):
    room = tempfile.mkdtemp(prefix="sxm-bench.", dir=args.dir)
    try:
        engine = kind(room, gold)
        try:
            if name in MIRRORS:
                return measure_mirror(engine, name, os.path.getsize(gold), room)
            return measure_plain(engine, name, os.path.getsize(gold), args.seconds, room)
        finally:
            engine.close()
    finally:
        shutil.rmtree(room, ignore_errors=True)


def median(values):
    return "never" if None in values else statistics.median(values)


def main():
    names = ["write16", "write1", "read16", "idle", "busy", "full"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mb", type=int, default=1024, help="size of the disk; half of it holds data")
    parser.add_argument("--seconds", type=int, default=5, help="of a run without a mirror")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is unmade
    args.dir = os.environ.get("TMPDIR", "/var/tmp")
    with tempfile.NamedTemporaryFile(dir=args.dir, prefix="sxm-bench.") as gold:
        for _ in range(args.mb // 2):
            gold.write(os.urandom(MIB))
        gold.truncate(args.mb * MIB)
        gold.flush()
        for name in args.only:
            rows = {Sxm: [], Qemu: []}
            for _ in range(args.runs):
                for kind, row in rows.items():
                    row.append(run_once(kind, name, gold.name, args))
            for kind, row in rows.items():
                figures = {key: median([r.get(key) for r in row]) for key in row[0]}
                print(f"{name:8} {kind.__name__.lower():5} " + "  ".join(f"{value} {key}" for key, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
