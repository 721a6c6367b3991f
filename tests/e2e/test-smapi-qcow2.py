#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of qcow2 volumes: whatever is made of whatever, in whatever order it is changed, reverted and destroyed, while chains are
merged in the background and killed in the midst of it, every volume holds what it should, and nothing is left."""
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import IS_BRIEF, Host, Refused, say, skip, times, until_true  # noqa: E402

for tool in ("qemu-img", "qemu-io", "flock"):
    if not shutil.which(tool):
        skip("this needs: " + tool)
SEED = int(os.environ.get("SEED", random.randrange(1 << 32)))
MIB = 1 << 20
BLOCK = 65536
host = Host()


class Store:
    """An SR and what its volumes should hold: {key: {block: byte}}, sizes in bytes."""

    def __init__(self, name, format):
        self.dir = os.path.join(host.dir, name)
        self.sr = host.make_sr(name, uri=f"file://{self.dir}", format=format)
        self.want, self.size = {}, {}

    def path(self, key):
        found = [os.path.join(self.dir, key + s) for s in (".qcow2", ".raw") if os.path.exists(os.path.join(self.dir, key + s))]
        assert len(found) == 1, found
        return found[0]

    def format(self, key):
        return self.path(key).rsplit(".", 1)[1]

    def call(self, verb, **args):
        return host.call(verb, sr=self.sr, **args)

    def create(self, size=4 * MIB):
        v = self.call("Volume.create", name="v", description="", size=size, sharable=False)
        self.want[v["key"]], self.size[v["key"]] = {}, size
        return v["key"]

    def take(self, verb, key, **args):
        v = self.call(verb, key=key, **args)
        self.want[v["key"]], self.size[v["key"]] = dict(self.want[key]), self.size[key]
        assert v["virtual_size"] == self.size[key], v
        return v["key"]

    def snapshot(self, key):
        return self.take("Volume.snapshot", key)

    def clone(self, key):
        return self.take("Volume.clone", key)

    def write_all(self, key, content):
        """{block: byte}"""
        commands = [w for block, byte in content.items() for w in ("-c", f"write -P {byte} {block * BLOCK} {BLOCK}")]
        done = subprocess.run(["flock", self.path(key), "qemu-io", "-f", self.format(key), *commands, self.path(key)], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.count("wrote") == len(content), done
        self.want[key].update(content)

    def write(self, key, block, byte):
        done = subprocess.run(["flock", self.path(key), "qemu-io", "-f", self.format(key), "-c", f"write -P {byte} {block * BLOCK} {BLOCK}" if byte else
                               f"write -z {block * BLOCK} {BLOCK}", self.path(key)], capture_output=True, text=True)
        assert done.returncode == 0 and "wrote" in done.stdout, done
        self.want[key][block] = byte

    def resize(self, key, size):
        self.call("Volume.resize", key=key, new_size=size)
        self.size[key] = size

    def revert(self, key, snapshot):
        self.call("Volume.revert", key=key, snapshot=snapshot)
        self.want[key], self.size[key] = dict(self.want[snapshot]), self.size[snapshot]

    def destroy(self, *keys):
        for key in keys:
            self.call("Volume.destroy", key=key)
            self.want.pop(key, None)

    def read(self, key):
        out = os.path.join(host.dir, "out.raw")
        done = subprocess.run(["flock", "-s", self.path(key), "qemu-img", "convert", "-f", self.format(key), "-O", "raw", self.path(key), out], capture_output=True, text=True)
        assert done.returncode == 0, done
        with open(out, "rb") as f:
            return f.read()

    def check(self, *keys):
        """The volumes hold what they should."""
        for key in keys or list(self.want):
            want = bytearray(self.size[key])
            for block, byte in self.want[key].items():
                want[block * BLOCK:(block + 1) * BLOCK] = bytes([byte]) * BLOCK
            got = self.read(key)
            if got != bytes(want):
                bad = [b for b in range(max(len(got), len(want)) // BLOCK) if got[b * BLOCK:(b + 1) * BLOCK] != want[b * BLOCK:(b + 1) * BLOCK]]
                raise AssertionError(f"{key} ({len(got)} of {len(want)} bytes) differs in blocks {bad}: {subprocess.getoutput('ls -la ' + self.dir)}")

    def bases(self):
        return [n for n in os.listdir(self.dir) if n.endswith(".base.qcow2")]

    def chain(self, key, unlocked=False):
        info = subprocess.run([*(() if unlocked else ("flock", "-s", self.path(key))), "qemu-img", "info", "-U", "--backing-chain", "--output=json", self.path(key)], capture_output=True, text=True, check=True)
        return [i["filename"].rsplit("/", 1)[1] for i in json.loads(info.stdout)]

    def coalescer(self):
        """The process, or None."""
        for name in os.listdir(os.path.join(host.run_dir, "coalesce")) if os.path.isdir(os.path.join(host.run_dir, "coalesce")) else ():
            if name.endswith((".again", ".doing", ".log")):
                continue
            with open(os.path.join(host.run_dir, "coalesce", name)) as f, contextlib.suppress(OSError, ValueError):
                pid = int(f.read())
                with open(f"/proc/{pid}/cmdline") as f:
                    if self.dir in f.read():
                        return pid
        return None

    def has_ended(self):
        """Nobody merges, nor is about to."""
        lock = os.path.join(host.run_dir, "coalesce")
        names = [n for n in os.listdir(lock) if not n.endswith((".again", ".doing", ".log"))] if os.path.isdir(lock) else []
        return all(subprocess.run(["flock", "-n", os.path.join(lock, n), "true"]).returncode == 0 for n in names)

    def merged(self):
        until_true("all is merged", self.has_ended, 60)
        left = re.findall(r"(\d+) can be merged, (\d+) can be removed", host.call("Plugin.diagnostics"))
        assert all(pair == ("0", "0") for pair in left), left

    def no_leftovers(self):
        names = {n for n in os.listdir(self.dir) if not n.startswith("sxm-sr.") and n.split(".")[0] not in self.want}
        assert not names - set(self.bases()), f"left behind: {names}"
        assert {v["key"] for v in self.call("SR.ls")} == set(self.want)

    def empty(self):
        self.destroy(*self.want)
        until_true("it has ended", self.has_ended, 60)
        assert self.bases() == [], self.bases()
        self.no_leftovers()


qcow2 = Store("q", format="qcow2")


def test_a_volume_says_what_it_is():
    v = qcow2.call("Volume.create", name="v", description="", size=1 * MIB + 1, sharable=False)
    key = v["key"]
    qcow2.want[key], qcow2.size[key] = {}, MIB + 512
    assert v["virtual_size"] == MIB + 512 and v["uri"] == [f"sxm://{qcow2.dir}/{key}.qcow2"], v
    assert 0 < v["physical_utilisation"] < MIB, v
    assert os.stat(qcow2.path(key)).st_mode & 0o777 == 0o600
    qcow2.check()
    shared = qcow2.call("Volume.create", name="v", description="", size=MIB, sharable=True)
    assert shared["uri"][0].endswith(".raw"), "two hosts cannot both write to a qcow2 image"
    qcow2.call("Volume.destroy", key=shared["key"])
    with open(os.path.join(qcow2.dir, key + ".json"), "w") as f:
        f.write("{")
    seen = qcow2.call("Volume.stat", key=key)
    assert seen["uri"] == v["uri"] and seen["virtual_size"] == v["virtual_size"], seen
    with open(os.path.join(qcow2.dir, "x.base.qcow2"), "wb") as f:
        f.write(b"not touched by way of a key")
    qcow2.call("Volume.destroy", key="x.base")
    host.refused("Volume_does_not_exist", "Volume.stat", sr=qcow2.sr, key="x.base")
    os.unlink(os.path.join(qcow2.dir, "x.base.qcow2"))
    qcow2.empty()


def test_snapshots_and_clones_stay_what_they_were():
    v = qcow2.create()
    qcow2.write(v, 0, 1)
    s = qcow2.snapshot(v)
    assert len(qcow2.chain(v)) == 2 and qcow2.chain(s)[1:] == qcow2.chain(v)[1:]
    seen = qcow2.call("Volume.stat", key=s)
    assert not seen["read_write"] and seen["keys"]["snapshot_of"] == v, seen
    qcow2.write(v, 0, 2)
    qcow2.write(v, 3, 3)
    c = qcow2.clone(s)
    assert qcow2.chain(c)[1:] == qcow2.chain(s)[1:], "a snapshot is never written to: no other base is made for its clone"
    qcow2.write(c, 1, 4)
    again = qcow2.snapshot(s)
    d = qcow2.clone(v)
    qcow2.write(d, 5, 6)
    qcow2.resize(v, 8 * MIB)
    qcow2.write(v, 100, 7)
    host.refused("only grow", "Volume.resize", sr=qcow2.sr, key=v, new_size=MIB)
    qcow2.resize(v, 8 * MIB)
    late = qcow2.snapshot(v)
    qcow2.check()
    qcow2.revert(v, s)
    qcow2.check()
    qcow2.revert(v, late)
    qcow2.write(v, 101, 9)
    qcow2.check()
    qcow2.revert(c, v)  # of one that is written to, too
    qcow2.check()
    copy = qcow2.take("Volume.copy", d, dest_sr=qcow2.sr)
    qcow2.write(copy, 9, 9)
    qcow2.check()
    qcow2.destroy(s, again)
    qcow2.merged()
    qcow2.check()
    qcow2.empty()


def test_a_small_write_takes_little_room_and_makes_no_file_longer():
    store = Store("room", "qcow2")
    key = store.create(64 * MIB)
    store.write_all(key, {i: 1 for i in range(1024)})
    store.snapshot(key)
    for _ in range(2):
        length = os.stat(store.path(key)).st_size
        assert length > store.size[key] and os.stat(store.path(key)).st_blocks * 512 < 4 * MIB, os.stat(store.path(key))
        commands = [w for i in range(0, 64, 2) for w in ("-c", f"write -P 2 {i * MIB + 4096} 4096")]
        subprocess.run(["flock", store.path(key), "qemu-io", "-f", "qcow2", *commands, store.path(key)], stdout=subprocess.DEVNULL, check=True)
        now = os.stat(store.path(key))
        assert now.st_size == length and now.st_blocks * 512 < 2 * MIB, now
        store.resize(key, 96 * MIB)
    store.destroy(*list(store.want))
    store.merged()


def test_from_one_format_to_the_other():
    raw = Store("r", format="raw")
    v, r = qcow2.create(), raw.create()
    qcow2.write(v, 1, 1)
    qcow2.snapshot(v)
    qcow2.write(v, 2, 2)
    raw.write(r, 3, 3)
    for a, key, b, kind in ((qcow2, v, raw, "raw"), (raw, r, qcow2, "qcow2"), (qcow2, v, qcow2, "qcow2")):
        copy = a.call("Volume.copy", key=key, dest_sr=b.sr)
        b.want[copy["key"]], b.size[copy["key"]] = dict(a.want[key]), a.size[key]
        assert copy["uri"][0].endswith("." + kind) and copy["physical_utilisation"] < 2 * MIB, copy
        b.check()
    raw.destroy(*raw.want)
    raw.no_leftovers()
    qcow2.empty()


def test_auto_is_raw_where_blocks_can_be_shared():
    auto = Store("auto", format="auto")
    with open(os.path.join(auto.dir, "a"), "w"):
        pass
    shares = subprocess.run(["cp", "--reflink=always", os.path.join(auto.dir, "a"), os.path.join(auto.dir, "b")], stderr=subprocess.DEVNULL)
    key = auto.create()
    assert auto.format(key) == ("raw" if shares.returncode == 0 else "qcow2")
    auto.destroy(key)


def any_step(order, store, keys, limit):
    """One thing that can be done with a volume."""
    key = order.choice(keys)
    writable = [k for k in keys if k not in store.snapshots]
    what = order.random()
    if len(keys) < 2 or (what < 0.1 and len(keys) < limit):
        store.create(order.choice((1, 3, 4)) * MIB)
    elif what < 0.45:
        key = order.choice(writable or keys)
        if key in writable:
            for _ in range(order.randrange(1, 4)):
                store.write(key, order.randrange(store.size[key] // BLOCK), order.randrange(256))
    elif what < 0.62 and len(keys) < limit:
        store.snapshots.add(store.snapshot(key))
    elif what < 0.72 and len(keys) < limit:
        store.clone(key)
    elif what < 0.77 and writable:
        key = order.choice(writable)
        store.resize(key, store.size[key] + order.choice((BLOCK, MIB)))
    elif what < 0.85 and writable:
        other, key = order.choice(keys), order.choice(writable)
        if key != other:
            store.revert(key, other)
    else:
        store.destroy(key)


def random_life(seed, steps, between=lambda: None):
    store, order = qcow2, random.Random(seed)
    store.snapshots = set()
    store.create()
    for i in range(steps):
        any_step(order, store, sorted(store.want, key=lambda k: hashlib.md5(f"{seed}{k}".encode()).digest()), 10)
        between()
        if i % 8 == 7:
            store.check()
    until_true("what a killed one had started has ended", store.has_ended, 60)
    host.call("SR.attach", configuration={"uri": f"file://{store.dir}"})  # starts it again where it was killed
    store.merged()
    store.check()
    store.no_leftovers()
    keys = list(store.want)
    order.shuffle(keys)
    for key in keys:
        store.destroy(key)
        store.check()
    store.empty()


def test_any_life_in_any_order():
    for i in range(times(2)):
        say(f"  seed {SEED + i}")
        random_life(SEED + i, 48)


def test_the_merging_is_killed_at_any_time():
    order, killed = random.Random(SEED), [0]

    def kill():
        end, pid = time.monotonic() + 0.02, None
        while time.monotonic() < end and not pid:
            pid = qcow2.coalescer()
        if pid:
            time.sleep(order.random() * 0.03)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed[0] += 1
    random_life(SEED + 100, 40, kill)
    say(f"  killed {killed[0]} times")


def test_compare_finds_what_differs_and_no_more():
    a = qcow2.create()
    for b in range(0, 40, 3):
        qcow2.write(a, b, 1 + b)
    s = qcow2.snapshot(a)
    assert qcow2.call("Volume.compare", key=a, key2=s) == {"blocksize": 65536, "ranges": []}
    qcow2.write(a, 3, 99)
    qcow2.write(a, 4, 0)   # as it was
    qcow2.write(a, 6, 0)
    qcow2.write(a, 9, 10)  # as it was
    qcow2.write(a, 50, 1)
    want = {"blocksize": 65536, "ranges": [[3, 1], [6, 1], [50, 1]]}
    assert qcow2.call("Volume.compare", key=a, key2=s) == qcow2.call("Volume.compare", key=s, key2=a) == want
    qcow2.resize(a, 5 * MIB)
    assert qcow2.call("Volume.compare", key=a, key2=s) == want, "it grew by zeros"
    assert set(qcow2.call("Volume.similar_content", key=a)) == {s}
    holder = subprocess.Popen(["flock", qcow2.path(a), "-c", "echo held; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    host.refused("active for writing", "Volume.compare", sr=qcow2.sr, key=a, key2=s)
    holder.communicate("\n")
    qcow2.empty()


def test_a_volume_is_composed_with_another():
    for blank in (False, True):
        leaf = qcow2.create()
        if not blank:
            qcow2.write(leaf, 7, 7)
        dummy = qcow2.snapshot(leaf)  # as xapi does: what is written from here on is the leaf's own
        parent = qcow2.create()
        for b in range(6):
            qcow2.write(parent, b, 10 + b)
        if blank:
            qcow2.snapshot(parent)
        qcow2.write(leaf, 2, 99)
        qcow2.write(leaf, 3, 0)
        content_id = qcow2.call("Volume.stat", key=leaf)["keys"]["content_id"]
        qcow2.call("Volume.compose", key=leaf, key2=parent)
        qcow2.want[leaf] = {**qcow2.want[parent], **{2: 99, 3: 0}}
        del qcow2.want[parent]
        host.refused("Volume_does_not_exist", "Volume.compose", sr=qcow2.sr, key=leaf, key2=parent)
        assert qcow2.call("Volume.stat", key=leaf)["keys"]["content_id"] != content_id
        qcow2.check()
        qcow2.destroy(dummy)
        qcow2.write(leaf, 0, 5)
        qcow2.check()
    never, parent = qcow2.create(), qcow2.create()  # of a volume that stands on nothing
    qcow2.write(never, 1, 1)
    qcow2.write(parent, 2, 2)
    qcow2.call("Volume.compose", key=never, key2=parent)
    qcow2.want[never].update(qcow2.want.pop(parent))
    longer = qcow2.create(8 * MIB)
    host.refused("less than", "Volume.compose", sr=qcow2.sr, key=never, key2=longer)
    host.refused("itself", "Volume.compose", sr=qcow2.sr, key=never, key2=never)
    qcow2.merged()
    qcow2.check()
    raw = Store("raw", format="raw")
    a, b, c = raw.create(), raw.create(), raw.create()
    raw.write(b, 1, 1)
    raw.call("Volume.compose", key=a, key2=b)  # nothing was written to it
    raw.want[a] = raw.want.pop(b)
    raw.check()
    host.refused("import_activate", "Volume.compose", sr=raw.sr, key=a, key2=c)
    raw.destroy(a, c)
    qcow2.empty()


def test_a_leaf_written_to_directly_is_composed_to_4_KiB():
    """Nobody knows which sectors of a part of 4 KiB were written: the others are what the leaf stood on, which is zeros here."""
    leaf, parent = qcow2.create(MIB), qcow2.create(MIB)
    qcow2.write_all(parent, {b: 50 + b for b in range(3)})
    for at, length in ((BLOCK + 4096, 4096), (BLOCK + 5 * 4096 + 512, 512)):
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P 9 {at} {length}", qcow2.path(leaf)], check=True, stdout=subprocess.DEVNULL)
    if "extended l2: true" not in subprocess.getoutput("qemu-img info " + qcow2.path(leaf)):
        say("  to 64 KiB only: this qemu-img knows no extended tables")
        qcow2.destroy(leaf, parent)
        return
    want = bytearray(qcow2.read(parent))
    qcow2.call("Volume.compose", key=leaf, key2=parent)
    want[BLOCK + 4096:BLOCK + 8192] = b"\x09" * 4096
    want[BLOCK + 5 * 4096:BLOCK + 6 * 4096] = bytes(512) + b"\x09" * 512 + bytes(3072)
    assert qcow2.read(leaf) == bytes(want)
    del qcow2.want[parent]
    qcow2.empty()


def make_pair(blocks=64):
    """A volume on two bases that can be merged. (volume, and the destroyed snapshot's merging has not been waited for)"""
    v = qcow2.create(16 * MIB)
    qcow2.write_all(v, {b: 1 + b % 7 for b in range(blocks)})
    first = qcow2.snapshot(v)
    qcow2.write_all(v, {b: 100 + b % 7 for b in range(0, blocks, 2)})
    second = qcow2.snapshot(v)
    qcow2.write(v, 1, 200)
    return v, first, second


def test_chains_are_merged_and_that_is_told():
    v, first, second = make_pair(8)
    assert len(qcow2.chain(v)) == 3
    assert "2 images that others stand on; 0 can be merged" in host.call("Plugin.diagnostics")
    qcow2.destroy(first)
    until_true("it is merged", lambda: len(qcow2.chain(v)) == 2)
    qcow2.merged()
    report = host.call("Plugin.diagnostics")
    assert "1 images that others stand on; 0 can be merged, 0 can be removed" in report and "nothing is left to merge" in report, report
    qcow2.check()
    assert subprocess.run(["qemu-img", "check", qcow2.path(second)], capture_output=True).returncode == 0
    qcow2.empty()


def elsewhere(key):
    """Somebody has the leaf open who is none of ours. Ended by communicate()."""
    holder = subprocess.Popen(["flock", qcow2.path(key), "-c", "echo held; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def coalesce_files(suffix):
    directory = os.path.join(host.run_dir, "coalesce")
    return [os.path.join(directory, n) for n in os.listdir(directory) if n.endswith(suffix)]


def killed_in_the_midst():
    """(volume, who has it open): its bases could be merged but for him, and who waited for that was killed."""
    v, first, _ = make_pair(4)
    holder = elsewhere(v)
    qcow2.destroy(first)
    until_true("it says why it waits", lambda: "is not merged yet" in host.call("Plugin.diagnostics"))
    os.kill(qcow2.coalescer(), signal.SIGKILL)
    until_true("it has ended", qcow2.has_ended)
    return v, holder


def test_what_a_killed_one_left_is_done_when_a_verb_comes():
    v, holder = killed_in_the_midst()
    holder.communicate("\n")
    time.sleep(0.2)
    assert qcow2.has_ended() and len(qcow2.chain(v)) == 3, "nobody does it"
    qcow2.call("SR.ls")
    qcow2.merged()
    assert len(qcow2.chain(v)) == 2
    qcow2.check()
    assert not coalesce_files(".doing") and not coalesce_files(".again")
    qcow2.empty()


def test_what_one_gave_up_is_done_after_a_while():
    v, holder = killed_in_the_midst()
    doing, = coalesce_files(".doing")
    holder.communicate("\n")
    os.utime(doing)  # as one that gave up does
    qcow2.call("Volume.stat", key=v)
    time.sleep(0.2)
    assert qcow2.has_ended() and len(qcow2.chain(v)) == 3, "a moment after that it would be in vain"
    os.utime(doing, (time.time() - 601,) * 2)
    qcow2.call("Volume.stat", key=v)
    qcow2.merged()
    assert len(qcow2.chain(v)) == 2
    qcow2.check()
    qcow2.empty()


def test_what_is_asked_for_while_a_killed_one_s_qemu_img_dies():
    v, first, second = make_pair(4)
    lock, = [n for n in coalesce_files("") if os.path.basename(n).startswith("q-") and not n.endswith((".again", ".doing", ".log"))]
    dying = subprocess.Popen(["flock", lock, "-c", "echo held; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert dying.stdout.readline() == "held\n"
    qcow2.destroy(first)
    qcow2.call("SR.ls")
    assert len(qcow2.chain(v)) == 3
    dying.communicate("\n")
    qcow2.call("SR.stat")
    qcow2.merged()
    assert len(qcow2.chain(v)) == 2
    qcow2.check()
    qcow2.empty()


def test_what_fails_is_tried_again_by_itself():
    v, first, second = make_pair(4)
    bin_dir, tries = os.path.join(host.dir, "bin"), os.path.join(host.dir, "tries")
    os.mkdir(bin_dir)
    with open(os.path.join(bin_dir, "qemu-img"), "w") as f:
        f.write(f"""#!/bin/sh
[ "$1" != commit ] || {{ echo x >>{tries}; [ "$(wc -l <{tries})" -gt 2 ] || {{ echo 'No space left on device' >&2; exit 1; }}; }}
PATH=${{PATH#*:}} exec qemu-img "$@"
""")
        os.fchmod(f.fileno(), 0o755)
    path = host.env["PATH"]
    host.env["PATH"] = f"{bin_dir}:{path}"
    qcow2.destroy(first)
    host.env["PATH"] = path
    until_true("it says why not", lambda: len(qcow2.chain(v)) == 2 or "No space" in host.call("Plugin.diagnostics"))
    until_true("it is tried again", lambda: len(qcow2.chain(v)) == 2, 30)
    with open(tries) as f:
        assert f.read() == "x\n" * 3
    qcow2.merged()
    qcow2.check()
    qcow2.empty()


def test_a_leaf_never_written_to_becomes_what_it_stands_on():
    v = qcow2.create()
    for i in range(4):  # whatever often it is snapshotted
        qcow2.write(v, i, 1 + i)
        for _ in range(3):
            qcow2.destroy(qcow2.snapshot(v))
        qcow2.merged()
        assert qcow2.chain(v) == [f"{v}.qcow2"] and not qcow2.bases(), qcow2.chain(v)
        qcow2.check()
    s = qcow2.snapshot(v)
    holder = elsewhere(v)
    qcow2.destroy(s)
    until_true("it has ended", qcow2.has_ended)
    assert len(qcow2.chain(v, True)) == 2, "it is in use"
    holder.communicate("\n")
    qcow2.resize(v, 5 * MIB)
    qcow2.destroy(qcow2.create())
    qcow2.merged()
    assert len(qcow2.chain(v)) == 2, "it is longer than what it stands on"
    qcow2.write(v, 9, 9)
    qcow2.destroy(qcow2.snapshot(v))
    qcow2.merged()
    assert len(qcow2.chain(v)) == 1
    s = qcow2.snapshot(v)
    qcow2.write(v, 9, 10)
    qcow2.destroy(s)
    qcow2.merged()
    assert len(qcow2.chain(v)) == 2, "it was written to"
    qcow2.check()
    qcow2.write(v, 70, 7)
    s = qcow2.snapshot(v)
    qcow2.destroy(v)
    qcow2.merged()
    assert len(qcow2.chain(s)) == 2 - (len(qcow2.bases()) == 0), "a snapshot whose volume is gone"
    assert not qcow2.call("Volume.stat", key=s)["read_write"]
    qcow2.check()
    assert subprocess.run(["qemu-img", "check", qcow2.path(s)], capture_output=True).returncode == 0
    qcow2.empty()


def attach():
    for name in os.listdir(qcow2.dir):
        if name.endswith(".tmp"):  # half-written records go when they are an hour old
            os.utime(os.path.join(qcow2.dir, name), (1, 1))
    host.call("SR.attach", configuration={"uri": f"file://{qcow2.dir}"})


def test_the_merging_of_much_is_killed():
    killed = 0
    for i in range(times(12)):
        v, first, second = make_pair(200)
        qcow2.resize(v, (16 + i % 2) * MIB)
        third = qcow2.snapshot(v)
        qcow2.destroy(first, *(second,) * (i % 2))
        until_true("it merges", lambda: qcow2.coalescer() or qcow2.has_ended())
        time.sleep(random.random() * 0.2)
        pid = qcow2.coalescer()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        qcow2.check(v, third)
        until_true("what a killed one had started has ended", qcow2.has_ended, 60)
        attach()
        qcow2.merged()
        assert len(qcow2.bases()) == 2 - i % 2, qcow2.bases()
        qcow2.check()
        qcow2.empty()
    say(f"  killed {killed} times")


def test_killed_at_any_change_of_the_directory():
    crash, program = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/crash"), os.path.join(os.environ["SXM_LIBEXECDIR"], "sxm/sxm-smapi")
    if subprocess.run([crash, "0", "true"], stderr=subprocess.DEVNULL).returncode:
        return say("  nothing can be traced here")
    stride = 1 if os.environ.get("SXM_CRASH_LONG") == "1" else 20 if IS_BRIEF else 5
    v, first, second = make_pair(4)
    parent = qcow2.create()
    qcow2.write(parent, 2, 77)
    kept, want, size = os.path.join(host.dir, "kept"), {k: dict(w) for k, w in qcow2.want.items()}, dict(qcow2.size)
    shutil.copytree(qcow2.dir, kept)
    stem = os.path.join(host.root, host.volume)
    composed = {**want[parent], 1: 200}
    verbs = {"Volume.snapshot": {"key": v}, "Volume.clone": {"key": second}, "Volume.copy": {"key": v, "dest_sr": qcow2.sr}, "Volume.destroy": {"key": first},
             "Volume.revert": {"key": v, "snapshot": second}, "Volume.compose": {"key": v, "key2": parent}, "coalesce": {},
             "Volume.resize": {"key": v, "new_size": 17 * MIB}, "Volume.create": {"name": "", "description": "", "size": MIB, "sharable": False}}
    for verb, args in verbs.items():
        n, was_killed = random.randrange(1, stride + 1), True
        while was_killed:
            shutil.rmtree(qcow2.dir)
            shutil.copytree(kept, qcow2.dir)
            qcow2.want, qcow2.size = {k: dict(w) for k, w in want.items()}, dict(size)
            argv = [program, os.path.join(stem, verb), "--json"]
            if verb == "coalesce":
                os.unlink(os.path.join(qcow2.dir, first + ".json"))
                os.unlink(os.path.join(qcow2.dir, first + ".qcow2"))
                del qcow2.want[first]
                argv = [program, "--coalesce", qcow2.dir]
            done = subprocess.run([crash, str(n), *argv], input=json.dumps({"sr": qcow2.sr, "dbg": "", **args}), capture_output=True, text=True,
                                  env={**host.env, "ASAN_OPTIONS": "detect_leaks=0"})
            was_killed = done.returncode == 137
            assert was_killed or done.returncode == 0, done
            n += stride
            for again in range(2):
                there = {seen["key"]: seen for seen in qcow2.call("SR.ls")}
                for key in set(there) - set(qcow2.want):
                    qcow2.want[key] = {} if verb == "Volume.create" else dict(want[args["key"]])
                    qcow2.size[key] = there[key]["virtual_size"]
                for key in set(qcow2.want) - set(there):
                    assert (verb, key) in (("Volume.destroy", first), ("Volume.compose", parent)), (verb, key)
                    del qcow2.want[key]
                qcow2.size[v] = there[v]["virtual_size"]
                qcow2.check(*[key for key in qcow2.want if key != v])
                allowed = {"Volume.revert": (want[v], want[second]), "Volume.compose": (want[v], composed)}.get(verb, (want[v],))
                held = []
                for content in allowed if parent in qcow2.want else allowed[1:]:
                    qcow2.want[v] = dict(content)
                    with contextlib.suppress(AssertionError):
                        qcow2.check(v)
                        held.append(content)
                assert held, (verb, n)
                if not again:
                    attach()
                    qcow2.merged()
                    qcow2.no_leftovers()
        say(f"  {verb}: {n} points")
    shutil.rmtree(kept)
    qcow2.empty()


def test_no_more_files_than_a_disk_may_have():
    v = qcow2.create(MIB)
    for i in range(39):
        qcow2.write(v, i % 16, i + 1)
        qcow2.snapshot(v)
    qcow2.write(v, 0, 99)
    before = sorted(os.listdir(qcow2.dir))
    host.refused("40 files already", "Volume.snapshot", sr=qcow2.sr, key=v)
    until_true("it left nothing, nor does who looks for what can be merged", lambda: sorted(os.listdir(qcow2.dir)) == before)
    qcow2.check(v)
    keep = qcow2.snapshot(next(k for k in qcow2.want if k != v))
    qcow2.destroy(*[k for k in qcow2.want if k not in (v, keep)])
    qcow2.merged()
    assert len(qcow2.chain(v)) <= 3, qcow2.chain(v)
    qcow2.check()
    qcow2.snapshot(v)
    qcow2.empty()


def test_a_leaf_that_is_in_use_elsewhere_keeps_its_chain():
    v, first, second = make_pair(4)
    holder = subprocess.Popen(["flock", qcow2.path(v), "-c", "echo held; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    chain = qcow2.chain(v, True)
    qcow2.destroy(first)
    until_true("it says why it waits", lambda: "is not merged yet" in host.call("Plugin.diagnostics"))
    assert qcow2.chain(v, True) == chain
    for verb in ("Volume.snapshot", "Volume.clone"):
        host.refused("in use", verb, sr=qcow2.sr, key=v)
    host.refused("in use", "Volume.resize", sr=qcow2.sr, key=v, new_size=32 * MIB)
    host.refused("in use", "Volume.destroy", sr=qcow2.sr, key=v)
    host.refused("in use", "Volume.revert", sr=qcow2.sr, key=v, snapshot=second)
    host.call("SR.detach", sr=qcow2.sr)
    assert qcow2.coalescer() is None, "detached: nothing of the SR is in use any more"
    holder.communicate("\n")
    host.call("SR.attach", configuration={"uri": f"file://{qcow2.dir}"})
    qcow2.merged()
    assert len(qcow2.chain(v)) == 2
    qcow2.check()
    qcow2.empty()


def test_a_verb_killed_at_any_time_leaves_old_or_new():
    v, first, second = make_pair(4)
    qcow2.destroy(first)
    verbs = (("Volume.snapshot", {"key": v}), ("Volume.clone", {"key": second}), ("Volume.revert", {"key": v, "snapshot": second}),
             ("Volume.create", {"name": "", "description": "", "size": MIB, "sharable": False}),
             ("Volume.copy", {"key": v, "dest_sr": qcow2.sr}), ("Volume.resize", {"key": v, "new_size": 16 * MIB + BLOCK}))
    contents = [dict(qcow2.want[v]), dict(qcow2.want[second])]
    stopped = 0
    tries = times(60)
    for i in range(tries):
        verb, args = verbs[i % len(verbs)]
        child = subprocess.Popen([os.path.join(host.root, host.volume, verb), "--json"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=host.env)
        child.stdin.write(json.dumps({"sr": qcow2.sr, "dbg": "", **args}).encode())
        child.stdin.close()
        time.sleep(random.random() * 0.06)
        child.kill()
        stopped += child.wait() != 0
        for seen in qcow2.call("SR.ls"):
            assert seen["virtual_size"] in (MIB, 16 * MIB, 16 * MIB + BLOCK), seen
        if i % 6 == 5:
            qcow2.size[v] = qcow2.call("Volume.stat", key=v)["virtual_size"]
            for content in contents:
                qcow2.want[v] = dict(content)
                with contextlib.suppress(AssertionError):
                    qcow2.check(v)
                    break
            else:
                raise AssertionError("the volume is neither what it was nor what its snapshot is")
            qcow2.check(second)
            qcow2.write(v, 1, contents[0][1])
            contents[0] = dict(qcow2.want[v])
    say(f"  {stopped} of {tries} were killed in time")
    qcow2.want.update({seen["key"]: {} for seen in qcow2.call("SR.ls") if seen["key"] not in qcow2.want})
    attach()
    qcow2.merged()
    qcow2.no_leftovers()
    assert len(qcow2.bases()) <= len(qcow2.want), qcow2.bases()
    qcow2.empty()


def test_a_damaged_image_harms_no_other():
    v, first, second = make_pair(4)
    other = qcow2.create()
    head = open(qcow2.path(other), "r+b")
    head.write(b"QFI\xfb\0\0\0\x09")
    head.flush()
    seen = {s["key"]: s for s in qcow2.call("SR.ls")}
    assert seen[other]["virtual_size"] == 4 * MIB, seen
    del qcow2.want[other]
    host.refused("version 9", "Volume.snapshot", sr=qcow2.sr, key=other)
    bases = sorted(qcow2.bases())
    qcow2.destroy(first)
    qcow2.destroy(second)  # what it stood on may be what the damaged one stands on
    until_true("it has ended", qcow2.has_ended)
    assert sorted(qcow2.bases()) == bases and f"{other}.qcow2" in host.call("Plugin.diagnostics")
    qcow2.check()
    head.close()
    qcow2.destroy(other)
    qcow2.merged()
    assert len(qcow2.bases()) < len(bases)
    qcow2.check()
    # One that wants a file opened that is none of its own.
    subprocess.run(["qemu-img", "rebase", "-u", "-b", "/etc/passwd", "-F", "raw", qcow2.path(v)], check=True)
    for verb, args in (("Volume.snapshot", {}), ("Volume.clone", {}), ("Volume.copy", {"dest_sr": qcow2.sr})):
        host.refused("/etc/passwd", verb, sr=qcow2.sr, key=v, **args)
    qcow2.call("Volume.destroy", key=v)
    del qcow2.want[v]
    qcow2.empty()


def test_a_full_file_system_leaves_nothing():
    if os.geteuid() != 0:
        return say("  not as root: no small file system to fill")
    small = Store("small", format="qcow2")
    device = host.make_device("small.img", 64 * MIB)
    done = subprocess.run(f"mkfs.ext4 -q -m 0 {device} && mount {device} {small.dir}", shell=True, stderr=subprocess.DEVNULL)
    if done.returncode:
        return say("  no file system can be mounted here")
    os.rmdir(os.path.join(small.dir, "lost+found"))
    small = Store("small", format="qcow2")
    v = small.create(16 * MIB)
    for b in range(32):
        small.write(v, b, 1 + b)
    s = small.snapshot(v)
    small.write(v, 0, 99)
    filling = os.path.join(small.dir, "sxm-sr.filling")
    refused = 0
    for spare in list(range(0, 1200, 160 if IS_BRIEF else 40)):
        free = os.statvfs(small.dir)
        with open(filling, "ab") as f, contextlib.suppress(OSError):
            os.posix_fallocate(f.fileno(), 0, max(f.tell() + free.f_bavail * free.f_frsize - spare * 1024, 1))
        made = []
        for verb, args in (("Volume.snapshot", {"key": v}), ("Volume.clone", {"key": s}), ("Volume.revert", {"key": v, "snapshot": s}),
                           ("Volume.create", {"name": "", "description": "", "size": MIB, "sharable": False})):
            try:
                answer = small.call(verb, **args)
                if verb == "Volume.revert":
                    small.want[v] = dict(small.want[s])
                else:
                    made.append(answer["key"])
            except Refused as e:
                refused += 1
                assert "space" in str(e), e
        os.unlink(filling)
        small.check(v, s)
        for key in made:
            small.call("Volume.destroy", key=key)
        until_true("it has ended", small.has_ended)
        small.no_leftovers()
        small.write(v, 0, 98)
    say(f"  {refused} were refused")
    assert refused > (2 if IS_BRIEF else 8)
    small.check(v, s)
    small.empty()
    host.call("SR.detach", sr=small.sr)
    subprocess.run(["umount", small.dir], check=True)


say(f"seed {SEED}")
only = os.environ.get("ONLY", "")
for name, test in list(globals().items()):
    if name.startswith("test_") and only in name:
        say(name[5:].replace("_", " "))
        test()
