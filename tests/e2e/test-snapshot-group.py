#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several volumes as they are at one moment (sxm snapshot). A writer counts on disk a, then on b, c and d, each number when the one
before was answered: so at any moment a >= b >= c >= d >= a - 1. Snapshots of a group obey that, whatever their formats and SRs are;
taken one after the other they do not. All or none, whatever fails or is killed; and guests wait for a moment only."""
import base64
import concurrent.futures
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import Host, chain_stays, nbd_of, say, skip, until_true  # noqa: E402

if os.geteuid() != 0:
    skip("only root can mount")
for tool in ("mkfs.xfs", "qemu-img", "qemu-storage-daemon"):
    if not shutil.which(tool):
        skip("this needs: " + tool)
SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
CRASH = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/crash")
IS_LONG = os.environ.get("SXM_LONG") == "1"
SIZE, STEP, PLACES = 32 << 20, 256 << 10, 128
LONGEST_MS = {"raw": 50, "qcow2": 200}  # asked; the machine that runs this may be busy
BUSY = 20
host = Host()
# No leak is looked for under ptrace, which the checker needs itself.
traced_env = {**host.env, "ASAN_OPTIONS": "detect_leaks=0:" + host.env.get("ASAN_OPTIONS", "")}
CAN_TRACE = subprocess.run([CRASH, "0", "true"], stderr=subprocess.DEVNULL).returncode == 0
MOUNT = host.make_xfs("xfs")
RAW = host.make_sr("xfs", uuid="0a0b0c0d-1111-2222-3333-444455550001")
QCOW2 = host.make_sr(uri=f"file://{host.dir}/qcow2", uuid="0a0b0c0d-1111-2222-3333-444455550000", format="qcow2")
DIRS = {RAW: MOUNT, QCOW2: os.path.join(host.dir, "qcow2")}


# --- disks, and who writes to them

class Client:
    """One NBD connection, one request at a time."""

    def __init__(self, path, export):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(180)
        self.sock.connect(path)
        assert self.read(18)[:16] == b"NBDMAGICIHAVEOPT"
        self.sock.sendall(struct.pack(">IQIII", 3, 0x49484156454F5054, 7, 6 + len(export), len(export)) + export.encode() + b"\0\0")
        kind = 0
        while kind != 1:
            _, _, kind, length = struct.unpack(">QIII", self.read(20))
            assert kind < 1 << 31, kind
            self.read(length)
        self.cookie = 0

    def read(self, count):
        parts = b""
        while len(parts) < count:
            part = self.sock.recv(count - len(parts))
            assert part, "hung up on"
            parts += part
        return parts

    def write(self, offset, data):
        self.cookie += 1
        self.sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, self.cookie, offset, len(data)) + data)
        magic, error, cookie = struct.unpack(">IIQ", self.read(16))
        assert (magic, error, cookie) == (0x67446698, 0, self.cookie), error


class Disk:
    def __init__(self, sr, is_active=True, size=SIZE):
        self.sr, self.key = sr, host.make_volume(sr, size)["key"]
        self.uri = host.call("Volume.stat", sr=sr, key=self.key)["uri"][0]
        self.name = f"{DIRS[sr]}/{self.key}"
        self.is_active = is_active
        if is_active:
            self.socket, self.export = nbd_of(host.call("Datapath.attach", uri=self.uri, domain="1"))
            host.call("Datapath.activate", uri=self.uri, domain="1")

    def stop(self):
        if self.is_active:
            for verb in ("deactivate", "detach"):
                host.call("Datapath." + verb, uri=self.uri, domain="1")
        self.is_active = False


class Writer:
    """Counts, from disk to disk."""

    def __init__(self, disks):
        self.clients = [Client(d.socket, d.export) for d in disks]
        self.count, self.slowest, self.is_over, self.error = 0, 0.0, False, None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.is_over:
                self.count += 1
                data = struct.pack("<Q", self.count) * 512
                for client in self.clients:
                    begun = time.monotonic()
                    client.write(self.count % PLACES * STEP, data)
                    self.slowest = max(self.slowest, time.monotonic() - begun)
        except (OSError, AssertionError) as e:
            self.error = e

    def goes_on(self, seconds=60):
        until, was = time.monotonic() + seconds, self.count
        while self.count < was + 3:
            assert not self.error, self.error
            assert time.monotonic() < until, "the guest waits"
            time.sleep(0.002)

    def stop(self):
        self.is_over = True
        self.thread.join()
        assert not self.error, self.error


def content(sr, key):
    uri = host.call("Volume.stat", sr=sr, key=key)["uri"][0].removeprefix("sxm://")
    if not uri.endswith(".qcow2"):
        with open(uri, "rb") as f:
            return f.read()
    raw = os.path.join(host.dir, "content")
    subprocess.run([*chain_stays(uri), "qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", uri, raw], check=True)
    with open(raw, "rb") as f:
        return f.read()


def counter(sr, key):
    """The last number that this disk has. All before it are there: 0 is what it began with."""
    data = content(sr, key)
    numbers = [struct.unpack_from("<Q", data, place * STEP)[0] for place in range(PLACES)]
    last = max(numbers)
    for number in range(max(1, last - PLACES + 1), last + 1):
        at = number % PLACES * STEP
        assert data[at:at + 4096] == struct.pack("<Q", number) * 512, f"{number} is not in a disk that has {last}"
    return last


def is_one_moment(numbers):
    return all(x >= y for x, y in zip(numbers, numbers[1:])) and numbers[-1] >= numbers[0] - 1


# --- the command

def sxm(*args, prefix=(), **options):
    return subprocess.run([*prefix, SXM, "snapshot", *args], capture_output=True, text=True, env=traced_env if prefix else host.env, timeout=60, **options)


def snapshot(*disks):
    done = sxm("--json", *[d.name for d in disks])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(words, *args):
    before = listing()
    done = sxm(*args)
    assert done.returncode == 1 and words in done.stderr and "no snapshot was taken" in done.stderr, done
    assert listing() == before
    no_leftovers()


def listing():
    return {sr: [v["key"] for v in host.call("SR.ls", sr=sr)] for sr in DIRS}


def no_leftovers():
    def left():
        found = []
        for sr, directory in DIRS.items():
            keys = {v["key"] for v in host.call("SR.ls", sr=sr)} | {"sxm-sr"}
            names = [n for n in os.listdir(directory) if n.split(".")[0] not in keys and ".base." not in n]
            found += names + [n for n in os.listdir(directory) if n.startswith("sxm-sr.group")]
        return found
    until_true(f"nothing is left: {left()}", lambda: not left())


def attach_all():
    """In any order, an hour later. The SR that decided lets go of a group when the others have."""
    for sr in random.sample(list(DIRS), 2) + [QCOW2]:
        for name in os.listdir(DIRS[sr]):
            if name.endswith(".tmp"):
                os.utime(os.path.join(DIRS[sr], name), (1, 1))
        host.call("SR.attach", configuration={"uri": sr})


def destroy_all(*disks):
    for d in disks:
        d.stop()
    for sr in DIRS:
        for v in host.call("SR.ls", sr=sr):
            host.call("Volume.destroy", sr=sr, key=v["key"])
    no_leftovers()


# --- one moment

def measure(kind, disks, rounds):
    writer, held, waits = Writer(disks), [], []
    for _ in range(rounds):
        writer.goes_on()
        writer.slowest, before = 0.0, writer.count
        made = snapshot(*disks)
        writer.goes_on()
        waits.append(writer.slowest * 1000)
        held.append(made["held_ms"])
        assert [(s["sr"], s["volume"]) for s in made["snapshots"]] == [(DIRS[d.sr], d.key) for d in disks], made
        numbers = [counter(d.sr, s["snapshot"]) for d, s in zip(disks, made["snapshots"])]
        assert is_one_moment(numbers), f"{kind}: {numbers} is not one moment"
        assert before - 1 <= numbers[0] <= writer.count, (before, numbers)
        for d, s in zip(disks, made["snapshots"]):
            keys = host.call("Volume.stat", sr=d.sr, key=s["snapshot"])["keys"]
            assert (keys["snapshot_group"], keys["snapshot_of"], keys["is_a_snapshot"], keys["snapshot_time"]) == \
                (made["group"], d.key, "true", made["time"]), keys
            host.call("Volume.destroy", sr=d.sr, key=s["snapshot"])
    writer.stop()
    asked = max(LONGEST_MS["qcow2" if d.sr == QCOW2 else "raw"] for d in disks)
    say(f"  {kind}: guests held for {min(held):.1f} to {max(held):.1f} ms; the longest write {max(waits):.1f} ms (asked: {asked})")
    assert max(held) < BUSY * asked, held
    destroy_all(*disks)


def test_raw_disks_at_one_moment():
    measure("4 raw", [Disk(RAW) for _ in range(4)], 12 if IS_LONG else 4)


def test_qcow2_disks_at_one_moment():
    measure("4 qcow2", [Disk(QCOW2) for _ in range(4)], 12 if IS_LONG else 3)


def test_both_formats_in_two_SRs_at_one_moment():
    measure("raw and qcow2", [Disk(sr) for sr in (RAW, QCOW2, QCOW2, RAW)], 12 if IS_LONG else 3)


def test_one_after_the_other_is_not_one_moment():
    disks = [Disk(RAW) for _ in range(4)]
    writer = Writer(disks)
    for _ in range(20):
        writer.goes_on()
        made = [host.call("Volume.snapshot", sr=d.sr, key=d.key)["key"] for d in disks]
        numbers = [counter(RAW, key) for key in made]
        if not is_one_moment(numbers):
            break
    else:
        raise AssertionError("the writer would not have noticed anything")
    writer.stop()
    destroy_all(*disks)


def stand_still(writers, seconds=0.2):
    counts = [w.count for w in writers]
    time.sleep(seconds)
    return counts == [w.count for w in writers]


def test_all_are_held_before_the_slowest_is():
    """In a group's order of disks the second one's process is stopped. All others are held meanwhile, also those behind it, and are
    taken only when that one is held."""
    for sr in DIRS:
        disks = sorted((Disk(sr) for _ in range(4)), key=lambda d: d.key)
        slow = host.control(disks[1].key, "hello")["ok"]["pid"]
        counting, third = Writer([disks[3], disks[0]]), Writer([disks[2]])
        for w in counting, third:
            w.goes_on()
        os.kill(slow, signal.SIGSTOP)
        command = subprocess.Popen([SXM, "snapshot", "--json", *[d.name for d in disks]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=host.env)
        try:
            until_true("the others are held", lambda: stand_still((counting, third)) or command.poll() is not None, 20)
        finally:
            os.kill(slow, signal.SIGCONT)
        out, err = command.communicate(timeout=60)
        assert command.returncode == 0, err
        made = json.loads(out)["snapshots"]
        for w in counting, third:
            w.goes_on()
            w.stop()
        numbers = [counter(sr, made[i]["snapshot"]) for i in (3, 0)]
        assert is_one_moment(numbers), f"{numbers} is not one moment"
        destroy_all(*disks)


def test_disks_that_nobody_uses_come_along():
    disks = [Disk(sr, is_active) for sr in DIRS for is_active in (True, False)]
    blank = Disk(QCOW2, is_active=False)
    raw, qcow2 = disks[1], disks[3]
    with open(f"{raw.name}.raw", "r+b") as f:
        f.write(b"raw")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", f"{qcow2.name}.qcow2"], check=True, stdout=subprocess.DEVNULL)
    writer = Writer([d for d in disks if d.is_active])
    made = snapshot(*disks, blank)["snapshots"]
    writer.goes_on()
    writer.stop()
    assert content(RAW, made[1]["snapshot"])[:3] == b"raw" and content(QCOW2, made[3]["snapshot"])[:3] == b"\7\7\7"
    assert not any(content(QCOW2, made[4]["snapshot"]))
    assert [s["held_ms"] > 0 for s in made] == [True, False, True, False, False], made
    of_raw = [host.call("Volume.stat", sr=d.sr, key=k)["keys"]["content_id"] for d, k in ((raw, raw.key), (raw, made[1]["snapshot"]))]
    assert of_raw[0] == of_raw[1], "they hold the same"
    clone = host.call("Volume.clone", sr=RAW, key=made[1]["snapshot"])
    assert "snapshot_group" not in clone["keys"], clone
    destroy_all(*disks, blank)


def test_what_changed_is_cut_at_the_moment():
    disks = [Disk(RAW), Disk(QCOW2)]
    for d in disks:
        host.call("Volume.enable_cbt", sr=d.sr, key=d.key)
    writer = Writer(disks)
    first, second = [snapshot(*disks)["snapshots"] for _ in range(2)]
    writer.goes_on()
    writer.stop()
    for d, one, other in zip(disks, first, second):
        a, b = content(d.sr, one["snapshot"]), content(d.sr, other["snapshot"])
        changed = host.call("Volume.list_changed_blocks", sr=d.sr, key=one["snapshot"], key2=other["snapshot"], offset=0, length=SIZE)
        bits = base64.b64decode(changed["bitmap"])
        said = {i for i in range(SIZE >> 16) if bits[i // 8] & 0x80 >> i % 8}
        differ = {i for i in range(SIZE >> 16) if a[i << 16:(i + 1) << 16] != b[i << 16:(i + 1) << 16]}
        assert differ <= said and differ, (differ, said)
    destroy_all(*disks)


# --- all or none

def test_it_says_why_not_and_takes_none():
    raw, qcow2 = Disk(RAW), Disk(QCOW2)
    writer = Writer([raw, qcow2])
    refused("named twice", MOUNT, raw.key, raw.key)
    link = os.path.join(host.dir, "link")
    os.symlink(MOUNT, link)
    refused("named twice", raw.name, f"{link}/{raw.key}")
    refused("there is no volume none", raw.name, f"{DIRS[QCOW2]}/none")
    refused("No such file", raw.name, f"{host.dir}/nowhere/{raw.key}")
    refused("there is no SR in", raw.name, f"{host.dir}/{raw.key}")
    plain = host.make_sr("plain", uuid="0a0b0c0d-1111-2222-3333-444455550002")
    DIRS[plain] = os.path.join(host.dir, "plain")
    try:
        for is_active in False, True:  # found out when files are made; and when guests are to be held
            other = Disk(plain, is_active)
            with open(f"{other.name}.raw", "r+b") as f:  # of what has no blocks none are shared
                f.write(b"data")
            refused("cannot let two files share blocks", raw.name, qcow2.name, other.name)
            writer.goes_on()
            other.stop()
            host.call("Volume.destroy", sr=plain, key=other.key)
    finally:
        del DIRS[plain]
    for args in ((), (raw.key,), (MOUNT, raw.key, qcow2.name), ("--what", raw.name)):
        done = sxm(*args)
        assert done.returncode == 2 and "usage: sxm snapshot" in done.stderr, (args, done)
    by_uuid = sxm("0a0b0c0d-1111-2222-3333-444455550001", raw.key)
    assert by_uuid.returncode == 0 and by_uuid.stdout.startswith(f"{raw.name}: ") and "guests were held for" in by_uuid.stdout, by_uuid
    assert sxm(RAW, raw.key).returncode == 0
    writer.stop()
    destroy_all(raw, qcow2)


def test_a_datapath_that_does_not_answer_holds_the_others_for_a_moment_only():
    disks = [Disk(RAW), Disk(QCOW2), Disk(RAW)]
    writer = Writer(disks[:2])
    stopped = host.control(disks[2].key, "hello")["ok"]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        refused("did not answer in time", *[d.name for d in disks])
        assert time.monotonic() - begun < 60
        writer.goes_on()
    finally:
        os.kill(stopped, signal.SIGCONT)
    writer.stop()
    destroy_all(*disks)


def test_a_full_file_system_leaves_nothing():
    if not CAN_TRACE:
        return say("  left out: this needs ptrace")
    disks = [Disk(RAW), Disk(QCOW2)]
    writer = Writer(disks)
    log, step, before = os.path.join(host.dir, "changes"), 1, listing()
    while True:
        done = sxm(*[d.name for d in disks], prefix=(CRASH, "-f", "-o", log, "-u", MOUNT, "-u", DIRS[QCOW2], str(step)))
        writer.goes_on()
        if done.returncode == 0:
            break
        assert "No space" in done.stderr or "not durable" in done.stderr, done.stderr
        assert listing() == before, done.stderr
        no_leftovers()
        step += 1 if IS_LONG else 5
    assert step > 10, step
    until_true("no chain is longer for those that failed", lambda: sum(".base." in n for n in os.listdir(DIRS[QCOW2])) <= 2, 30)
    attach_all()  # it may have been full only when all was decided
    writer.stop()
    destroy_all(*disks)


def killed(disks, step):
    """Whether it was, and what it had done, the last of which it had not. Step 0: it is not."""
    log = os.path.join(host.dir, "changes")
    done = sxm(*[d.name for d in disks], prefix=(CRASH, "-o", log, str(step)))
    assert done.returncode in (0, 137), done.stderr
    with open(log) as f:
        return done.returncode == 137, f.read().splitlines()


def steps(changes):
    """Before which changes it is killed: some; and those while guests are held, when leaves get new names."""
    apart = 1 if IS_LONG else 8
    held = [i + 1 for i, c in enumerate(changes) if " rename " in c and c.endswith(".qcow2")]
    assert held, changes
    return sorted({*range(1 + random.randrange(apart), len(changes), apart), *held, held[-1] + 1}) + [10000]


def test_killed_anywhere_there_is_a_whole_group_or_none_and_guests_go_on():
    if not CAN_TRACE:
        return say("  left out: this needs ptrace")
    disks = [Disk(RAW), Disk(QCOW2), Disk(QCOW2, is_active=False)]
    writer, before = Writer(disks[:2]), listing()
    places = steps(killed(disks, 0)[1])
    for sr, keys in listing().items():
        for key in set(keys) - set(before[sr]):
            host.call("Volume.destroy", sr=sr, key=key)
    for step in places:
        was_killed, changes = killed(disks, step)
        what = changes[-1]
        begun = time.monotonic()
        writer.goes_on()
        assert time.monotonic() - begun < 9, what  # in ten it would without our doing
        after = {sr: set(keys) - set(before[sr]) for sr, keys in listing().items()}
        counts = [len(after[sr]) for sr in (RAW, QCOW2)]
        assert counts in ([0, 0], [1, 2]), f"killed before {what}: half a group, {after}"
        assert was_killed or counts == [1, 2], what
        attach_all()
        assert {sr: set(keys) - set(before[sr]) for sr, keys in listing().items()} == after, f"killed before {what}: the sweep was seen"
        no_leftovers()
        for sr, keys in after.items():
            for key in keys:
                host.call("Volume.destroy", sr=sr, key=key)
        if not was_killed:
            break
        until_true("what nobody needs any more is merged", lambda: sum(".base." in n for n in os.listdir(DIRS[QCOW2])) < 40, 30)
    say(f"  killed at {len(places) - 1} places")
    writer.stop()
    destroy_all(*disks)


def test_groups_that_overlap_and_other_verbs_do_not_wait_for_each_other_for_ever():
    disks = [Disk(sr, size=8 << 20) for sr in (RAW, QCOW2) for _ in range(2)]
    idle = Disk(QCOW2, is_active=False, size=8 << 20)
    order = random.Random(os.getpid())

    def group(_):
        done = sxm("--json", *[d.name for d in order.sample([*disks, idle], 3)])
        assert done.returncode == 0, done.stderr
        return [(f"file://{s['sr']}", s["snapshot"]) for s in json.loads(done.stdout)["snapshots"]]

    def alone(_):
        d = order.choice(disks)
        return [(d.sr, host.call("Volume.snapshot", sr=d.sr, key=d.key)["key"])]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        begun = time.monotonic()
        made = [pool.submit(group if i % 3 else alone, i) for i in range(12)]
        for f in concurrent.futures.as_completed(made):
            for sr, key in f.result():
                pool.submit(host.call, "Volume.destroy", sr=sr, key=key)
    say(f"  12 at once took {time.monotonic() - begun:.1f} s")
    destroy_all(*disks, idle)


only = os.environ.get("ONLY", "")
for name, test in list(globals().items()):
    if name.startswith("test_") and only in name:
        say(name[5:].replace("_", " "))
        test()
