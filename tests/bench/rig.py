# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is not measured, but without which nothing is: the far side, the guest, a link that can be cut."""
import collections
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

MIB = 1 << 20
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": MIB << 10}


def until(what, condition, seconds=10.0, pause=0.005):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("waited in vain for " + what)
        time.sleep(pause)


def stop(process, number=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def start_nbdkit(path, *words, threads=128):
    if os.path.exists(path):
        os.unlink(path)
    process = subprocess.Popen(["nbdkit", "-f", "-t", str(threads), "-U", path, *words], stderr=subprocess.DEVNULL)
    until(f"nbdkit at {path}", lambda: os.path.exists(path))
    return process


def allocated_mb(path):
    return round(os.stat(path).st_blocks * 512 / MIB, 1)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_rss_mb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return next((int(line.split()[1]) // 1024 for line in f if line.startswith("VmHWM:")), None)


class FarSide:
    """nbdkit's file plugin, which counts what it is given, and takes its time over a write where it is told to."""

    def __init__(self, room, size, delay_ms=0, threads=128, disk_dir=""):
        self.file, self.path, self.counts = (os.path.join(room, name) for name in ("far", "far.sock", "far.stats"))
        self.apart = tempfile.mkdtemp(prefix="sxm-bench.", dir=disk_dir) if disk_dir else None
        if self.apart:
            self.file = os.path.join(self.apart, "far")
        with open(self.file, "wb") as f:
            f.truncate(size)
        words = ["--filter=stats", *(["--filter=delay"] if delay_ms else []), "file", self.file, "statsfile=" + self.counts]
        self.process = start_nbdkit(self.path, *words, *([f"wdelay={delay_ms}ms"] if delay_ms else []), threads=threads)
        self.uri = f"nbd+unix:///?socket={self.path}"

    def close(self):
        """What it was given, once."""
        figures = {}
        if self.process.poll() is None:
            stop(self.process)
            figures["target_mb"] = allocated_mb(self.file)
            names = {"write": "wire_mb", "zero": "zero_mb", "trim": "trim_mb"}
            with open(self.counts, encoding="ascii") as f:
                for line in f:
                    found = re.match(r"(write|zero|trim): \d+ ops, [\d.]+ s, ([\d.]+) (\w+)", line)
                    if found:
                        figures[names[found[1]]] = round(float(found[2]) * UNITS[found[3]] / MIB, 1)
        return figures

    def remove(self):
        """What else goes with the scenario's own room."""
        self.close()
        if self.apart:
            shutil.rmtree(self.apart, ignore_errors=True)


class Guest:
    """fio. It logs each request with the time of day at which it ended, so that any part of its run can be judged afterwards."""

    def __init__(self, uri, words, size, seconds, room):
        self.log = os.path.join(room, "guest_lat.1.log")
        if os.path.exists(self.log):
            os.unlink(self.log)
        words = [word if word.startswith("--") else "--" + word for word in words.split()]
        self.process = subprocess.Popen(
            ["fio", "--name=g", "--thread", "--ioengine=nbd", "--uri=" + uri, "--bs=4k", f"--size={size}", "--time_based",
             f"--runtime={seconds}", "--norandommap", "--randrepeat=0", "--disable_slat=1", "--disable_clat=1", "--log_unix_epoch=1",
             "--write_lat_log=" + os.path.join(room, "guest"), *words], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd=room)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def wait(self):
        self.process.wait()

    def end(self):
        stop(self.process, signal.SIGINT)

    def figures(self, begin=None, end=None):
        """Between two moments of time.time(); None: from its first request, to its last."""
        seen = []
        if os.path.exists(self.log):
            with open(self.log, encoding="ascii") as f:
                for line in f:
                    fields = line.split(",")
                    at_ms, ns, size = int(fields[0]), int(fields[1]), int(fields[3])
                    if (begin is None or at_ms >= begin * 1e3) and (end is None or at_ms <= end * 1e3):
                        seen.append((at_ms, ns, size))
        if len(seen) < 2:
            return {"iops": 0, "guest_mb": 0}
        first = begin * 1e3 if begin else seen[0][0]
        last = end * 1e3 if end else seen[-1][0]
        tenths = collections.Counter(int((at_ms - first) // 100) for at_ms, _, _ in seen)
        latencies = sorted(ns for _, ns, _ in seen)
        return {"iops": round(len(seen) / max(last - first, 1) * 1e3), "p50_us": round(latencies[len(seen) // 2] / 1e3),
                "p99_us": round(latencies[len(seen) * 99 // 100] / 1e3), "max_ms": round(latencies[-1] / 1e6, 1),
                "worst_iops": 10 * min(tenths[i] for i in range(max(1, int((last - first) // 100)))),
                "guest_mb": round(sum(size for _, _, size in seen) / MIB, 1)}


class Requests:
    """What a client says on one NBD connection: which chunks of 4 KiB it writes. (Options first; no TLS.)"""

    def __init__(self, relay):
        self.relay, self.buffer, self.skip, self.has_begun = relay, b"", 0, False

    def feed(self, data):
        if self.skip >= len(data) and not self.buffer:
            self.skip -= len(data)
            return
        self.buffer += data[self.skip:] if not self.buffer else data
        self.skip, at = 0, 0
        while (size := self.message(at)) is not None:
            at += size
        self.skip, self.buffer = max(at - len(self.buffer), 0), self.buffer[at:]

    def message(self, at):
        """Its length, payload and all; None: not all of its header is here."""
        if not self.has_begun:
            self.has_begun = len(self.buffer) >= 4
            return 4 if self.has_begun else None
        if self.buffer[at:at + 8] == b"IHAVEOPT" and len(self.buffer) >= at + 16:
            return 16 + int.from_bytes(self.buffer[at + 12:at + 16], "big")
        if self.buffer[at:at + 4] != b"\x25\x60\x95\x13" or len(self.buffer) < at + 28:
            return None
        command, start, length = struct.unpack_from(">H8xQI", self.buffer, at + 6)
        if command == 1:
            self.relay.count(start, length)
        return 28 + (length if command == 1 else 0)


class Relay(threading.Thread):
    """The link between two hosts: TCP to here, TCP to there. It can be cut, and knows what was written through it twice."""

    reader = Requests

    def __init__(self, port, size):
        super().__init__(daemon=True)
        self.target, self.listener = ("127.0.0.1", port), socket.create_server(("127.0.0.1", 0))
        self.port, self.up_bytes, self.again_bytes, self.restored, self.resumed = self.listener.getsockname()[1], 0, 0, None, None
        self.life, self.seen = 1, bytearray(size // 4096 + 1)  # in which life of the link a chunk was last sent
        self.ends, self.is_cut, self.is_dark, self.is_closed = {}, False, False, False
        self.start()

    def cut(self):
        self.life, self.is_cut = 2, True
        until("the relay to cut", lambda: not self.ends, pause=0.001)

    def darken(self):
        """Nothing comes through, and nobody is told."""
        self.life, self.is_dark = 2, True

    def restore(self):
        self.restored, self.is_cut, self.is_dark = time.monotonic(), False, False

    def close(self):
        self.is_closed = True
        self.join()
        self.drop()
        self.listener.close()

    def count(self, start, length):
        """A chunk of the earlier life that is sent in this one, once each; a guest's own write there is new."""
        first, end = start // 4096, (start + length + 4095) // 4096
        self.up_bytes += length
        if self.restored and not self.resumed:
            self.resumed = time.monotonic()
        if self.life > 1 and length > 4096:
            self.again_bytes += 4096 * self.seen[first:end].count(1)
        self.seen[first:end] = bytes([self.life]) * (end - first)

    def drop(self):
        for end in self.ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        self.ends = {}

    def accept(self):
        near = self.listener.accept()[0]
        try:
            if self.is_cut:
                raise OSError("cut")
            far = socket.create_connection(self.target, timeout=5)
        except OSError:
            near.close()
            return
        self.ends[near], self.ends[far] = (far, self.reader(self)), (near, None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(5)

    def forward(self, end):
        other, requests = self.ends[end]
        data = end.recv(MIB)
        if not data:
            for each in (end, other):
                del self.ends[each]
                each.close()
            return
        other.sendall(data)
        if requests:
            requests.feed(data)

    def run(self):
        while not self.is_closed:
            if self.is_cut:
                self.drop()
            if self.is_dark:
                time.sleep(0.002)
                continue
            for end in select.select([self.listener, *self.ends], [], [], 0.002)[0]:
                try:
                    if end is self.listener:
                        self.accept()
                    elif end in self.ends:
                        self.forward(end)
                except OSError:
                    self.drop()


def is_same(one, other):
    return subprocess.run(["cmp", one, other], stdout=subprocess.DEVNULL, check=False).returncode == 0


def note(text):
    print("# " + text, file=sys.stderr, flush=True)
