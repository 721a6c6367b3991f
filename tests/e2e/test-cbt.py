#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What changed between two volumes: everything that differs is in the answer, whoever was killed, moved or destroyed meanwhile; and
where nothing was lost, nothing else than what was written. A chain that is broken is said to be, and never answered."""
import base64
import errno
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import Host, nbd_of, say, skip, times, until_true  # noqa: E402

if os.geteuid() != 0:
    skip("only root can mount")
if not shutil.which("mkfs.xfs"):
    skip("this needs: mkfs.xfs")
GUEST = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/guest")
SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
BLOCK = 65536
MIB = 1 << 20
host = Host()
MOUNT = host.make_xfs("xfs")
sr = host.make_sr("xfs")


def path(key, suffix=".raw"):
    return os.path.join(MOUNT, key + suffix)


def call(verb, key, **args):
    return host.call("Volume." + verb, sr=sr, key=key, **args)


def make(size=256 * MIB):
    key = host.make_volume(sr, size)["key"]
    assert call("stat", key)["cbt_enabled"] is False
    assert call("enable_cbt", key) is None and call("enable_cbt", key) is None
    assert call("stat", key)["cbt_enabled"] is True
    return key


def snapshot(key):
    v = call("snapshot", key)
    assert v["cbt_enabled"] is True, v
    return v["key"]


def destroy(*keys):
    for key in keys:
        call("destroy", key)


def write(key, at, data):
    with open(path(key), "r+b") as f:
        f.seek(at)
        f.write(data)


def changed(a, b, offset=0, length=-1):
    """The set of blocks."""
    said = call("list_changed_blocks", a, key2=b, offset=offset, length=length)
    assert set(said) == {"granularity", "bitmap"} and said["granularity"] == BLOCK, said
    bits = base64.b64decode(said["bitmap"], validate=True)
    size = call("stat", b)["virtual_size"]
    end = size if length < 0 else min(size, offset + length)
    blocks = (end + BLOCK - 1) // BLOCK - offset // BLOCK if end > offset else 0
    assert len(bits) == (blocks + 7) // 8, (len(bits), offset, length)
    return {offset // BLOCK + i * 8 + j for i, byte in enumerate(bits) for j in range(8) if byte >> (7 - j) & 1}


def broken(a, b):
    host.refused("no unbroken chain", "Volume.list_changed_blocks", sr=sr, key=a, key2=b, offset=0, length=-1)


def blocks_with_data(f):
    """Those of which a byte is stored; the rest is a hole, and zeros."""
    found, at, size = set(), 0, os.fstat(f.fileno()).st_size
    while at < size:
        try:
            start = os.lseek(f.fileno(), at, os.SEEK_DATA)
        except OSError as e:
            assert e.errno == errno.ENXIO, e
            break
        at = os.lseek(f.fileno(), start, os.SEEK_HOLE)
        found.update(range(start // BLOCK, (at - 1) // BLOCK + 1))
    return found


def differing(a, b):
    """The blocks of b's length that are not the same."""
    with open(path(a), "rb") as x, open(path(b), "rb") as y:
        size, short = (os.fstat(f.fileno()).st_size for f in (y, x))
        found = set(range((short + BLOCK - 1) // BLOCK, (size + BLOCK - 1) // BLOCK))
        for n in blocks_with_data(x) | blocks_with_data(y):
            p, q = (os.pread(f.fileno(), BLOCK, n * BLOCK) for f in (x, y))
            if p != q and n * BLOCK < size:
                found.add(n)
    return found


def hello(key):
    try:
        return host.control(key, "hello")
    except OSError:
        return None


class Disk:
    """A volume that is active for a guest, which writes to it."""

    def __init__(self, key, domain="1"):
        self.key, self.domain = key, domain
        self.uri = call("stat", key)["uri"][0]
        self.process = None
        self.activate()

    def activate(self):
        sock, export = nbd_of(host.call("Datapath.attach", uri=self.uri, domain=self.domain))
        host.call("Datapath.activate", uri=self.uri, domain=self.domain)
        self.nbd = f"nbd+unix:///{export}?socket={sock}"

    def start(self, *more, seed=None):
        self.log = os.path.join(host.dir, f"{self.key}.{time.monotonic_ns()}.log")
        uri_file = self.log + ".uri"
        with open(uri_file, "w") as f:
            f.write(self.nbd + "\n")
        seed = seed or random.randrange(1 << 30)
        say(f"  seed {seed}")
        self.process = subprocess.Popen([GUEST, "write", "--uri-file", uri_file, "--log", self.log, "--depth", "16", "--iops", "1500",
                                         "--zero-percent", "10", "--seed", str(seed), *more], stdout=subprocess.PIPE, text=True)
        self.more(50)
        return self

    def more(self, operations):
        """So many more are acknowledged."""
        have = self.bytes_logged()
        until_true("the guest writes", lambda: self.bytes_logged() >= have + operations * 48)
        return self

    def stop(self):
        self.process.terminate()
        out = self.process.communicate()[0]
        assert self.process.returncode == 0, out
        self.process = None

    def deactivate(self):
        host.call("Datapath.deactivate", uri=self.uri, domain=self.domain)
        host.call("Datapath.detach", uri=self.uri, domain=self.domain)

    def bytes_logged(self):
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def written(self, first=0, last=None):
        """The blocks of operations that were begun, or ended, between these lengths of the log."""
        found, flying = set(), {}
        with open(self.log, "rb") as f:
            data = f.read(last)
        for at in range(32, len(data) - 23, 24):
            kind, length, sequence, offset = struct.unpack_from("<IIQQ", data, at)
            if kind in (1, 2):
                flying[sequence] = range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)
            if kind == 3 or (at >= first and kind in (1, 2)):
                blocks = flying.get(sequence, ())
                if at >= first:
                    found.update(blocks)
            if kind == 3:
                flying.pop(sequence, None)
        for blocks in flying.values():
            found.update(blocks)
        return found

    def pid(self):
        return hello(self.key)["ok"]["pid"]

    def kill(self):
        os.kill(self.pid(), signal.SIGKILL)

    def back(self):
        until_true("it is served again", lambda: hello(self.key))
        return self


def check(a, b, allowed=None):
    """All that differs is in the answer; and no more than what may be."""
    said, differs = changed(a, b), differing(a, b)
    assert differs <= said, f"NOT REPORTED: {sorted(differs - said)[:10]} of {len(differs)}"
    if allowed is not None:
        assert said <= allowed, f"too much: {sorted(said - allowed)[:10]} of {len(said)}; {len(allowed)} were written"
    return said


def test_a_bit_is_a_block_the_first_one_the_most_significant():
    key = make(2 * MIB + 4096)
    a = snapshot(key)
    assert changed(a, key) == set()
    disk = Disk(key)
    nbd = disk.nbd
    for block, command in ((0, "write -P 1 0 512"), (7, "write -P 2 458752 512"), (8, "write -z 524288 4k"), (32, "write -P 3 2m 4k")):
        subprocess.run(["qemu-io", "-f", "raw", "-c", command, nbd], check=True, stdout=subprocess.DEVNULL)
    assert changed(a, key) == {0, 7, 8, 32}  # also while it is active
    disk.deactivate()
    said = call("list_changed_blocks", a, key2=key, offset=0, length=-1)["bitmap"]
    assert base64.b64decode(said) == bytes([0x81, 0x80, 0, 0, 0x80]), said
    assert changed(a, key, offset=7 * BLOCK, length=2 * BLOCK) == {7, 8}
    assert base64.b64decode(call("list_changed_blocks", a, key2=key, offset=7 * BLOCK, length=BLOCK)["bitmap"]) == b"\x80"
    assert changed(a, key, offset=2 * MIB + 4096, length=-1) == set()
    assert changed(a, key, offset=9 * BLOCK + 5, length=0) == set()
    for offset in (-1, 3 * MIB):
        host.refused("is not in volume", "Volume.list_changed_blocks", sr=sr, key=a, key2=key, offset=offset, length=-1)
    assert changed(a, a) == set()
    assert [v["cbt_enabled"] for v in host.call("SR.ls", sr=sr)] == [True, True]
    features = host.call("Plugin.Query")["features"]
    assert "VDI_CONFIG_CBT" in features, features
    destroy(a, key)
    assert not [n for n in os.listdir(MOUNT) if ".cbt" in n]


def test_several_snapshots_of_a_disk_in_use():
    key = make()
    disk = Disk(key).start()
    points = []
    for _ in range(5):
        before = disk.bytes_logged()
        points.append((snapshot(key), before, disk.bytes_logged()))
        disk.more(300)
    disk.stop()
    for i, (a, first, _) in enumerate(points):
        for b, _, last in points[i + 1:]:
            check(a, b, disk.written(first, last))
        check(a, key, disk.written(first))
        if i:
            broken(a, points[0][0])
    union = set()
    for (a, _, _), (b, _, _) in zip(points, points[1:]):
        union |= changed(a, b)
    assert union == changed(points[0][0], points[4][0])
    disk.deactivate()
    destroy(key, *[p[0] for p in points])
    assert not [n for n in os.listdir(MOUNT) if ".cbt" in n]


def test_a_killed_process_forgets_nothing_and_adds_nothing():
    key = make()
    a = snapshot(key)
    disk = Disk(key).start()
    for _ in range(4):
        disk.kill()
        disk.back().more(200)
    b = snapshot(key)
    last = disk.bytes_logged()
    check(a, b, disk.written(0, last))
    disk.kill()
    disk.back().more(100)
    disk.stop()
    c = snapshot(key)
    check(b, c, disk.written())
    check(a, c, disk.written())
    disk.deactivate()
    destroy(key, a, b, c)


def test_without_the_map_whole_regions_have_changed():
    """As after a crash of the host: what is in SXM_RUN_DIR is gone."""
    size = 2 << 30
    key = make(size)
    a = snapshot(key)
    disk = Disk(key).start("--region", f"{512 * MIB}:{64 * MIB}")
    disk.more(300)
    keeper = [p for p in host.processes() if p != disk.pid()]
    for pid in keeper:
        os.kill(pid, signal.SIGSTOP)
    for pid in keeper + [disk.pid()]:
        os.kill(pid, signal.SIGKILL)
    until_true("they are gone", lambda: not host.processes())
    disk.process.kill()
    disk.process.communicate()
    shutil.rmtree(host.run_dir)
    host.call("SR.attach", configuration={"uri": f"file://{MOUNT}"})
    said = check(a, key)
    assert {b for b in said} <= set(range(0, size // BLOCK)), said
    near = {b // 256 for b in said}
    want = {b // 256 for b in disk.written()}
    assert want <= near and len(said) % 256 == 0, (want, near)
    say(f"  {len(want)} regions were written to, {len(near)} are reported")
    b = snapshot(key)
    disk.activate()
    disk.deactivate()
    assert changed(b, key) == set() and changed(a, b) == said
    destroy(key, a, b)


def test_destroyed_in_each_order():
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        key = make(64 * MIB)
        disk = Disk(key).start()
        points = []
        for _ in range(3):
            points.append(snapshot(key))
            disk.more(60)
        disk.stop()
        end = call("clone", key)["key"]  # what it is compared with
        left = list(points)
        for i in order:
            before = {(a, b): changed(a, b) for n, a in enumerate(left) for b in left[n + 1:] + [key]}
            destroy(points[i])
            left.remove(points[i])
            for n, a in enumerate(left):
                for b in left[n + 1:] + [key]:
                    assert changed(a, b) == before[a, b]
                    assert differing(a, end if b == key else b) <= changed(a, b)
        disk.deactivate()
        destroy(key, end)
        assert not [n for n in os.listdir(MOUNT) if ".cbt" in n], os.listdir(MOUNT)


def test_of_a_destroyed_snapshot_the_log_is_merged_when_it_can_be():
    key = make(64 * MIB)
    disk = Disk(key).start()
    a = snapshot(key)
    disk.more(60)
    b = snapshot(key)
    disk.more(60)
    want = changed(a, b)
    destroy(b)  # the next log is being written
    assert os.path.exists(path(b, ".cbt")) and want <= changed(a, key)
    c = snapshot(key)
    disk.stop()
    host.call("SR.attach", configuration={"uri": f"file://{MOUNT}"})
    assert not os.path.exists(path(b, ".cbt"))
    assert want <= check(a, c, disk.written())
    disk.deactivate()
    destroy(a, c, key)


def test_data_destroyed():
    key = make(64 * MIB)
    write(key, 0, b"x")
    a = snapshot(key)
    disk = Disk(key).start()
    b = snapshot(key)
    disk.more(100)
    disk.stop()
    host.refused("no snapshot", "Volume.data_destroy", sr=sr, key=key)
    uri = call("stat", a)["uri"][0]
    host.call("Datapath.attach", uri=uri, domain="u0_backup")
    host.call("Datapath.activate_readonly", uri=uri, domain="u0_backup")
    host.refused("active for domain u0_backup", "Volume.data_destroy", sr=sr, key=a)
    host.call("Datapath.deactivate", uri=uri, domain="u0_backup")
    host.call("Datapath.detach", uri=uri, domain="u0_backup")
    before = changed(a, key), changed(a, b)
    for _ in range(2):
        assert call("data_destroy", a) is None
    assert call("set", a, k="vdi-type", v="cbt_metadata") is None
    v = call("stat", a)
    assert v["cbt_enabled"] and v["virtual_size"] == 64 * MIB and v["physical_utilisation"] == 0 and v["uri"] and \
        v["keys"]["vdi-type"] == "cbt_metadata", v
    assert a in {v["key"] for v in host.call("SR.ls", sr=sr)} and not os.path.exists(path(a))
    assert (changed(a, key), changed(a, b)) == before
    for verb, args in (("snapshot", {}), ("clone", {}), ("copy", {"dest_sr": sr}), ("resize", {"new_size": 128 * MIB}),
                       ("compare", {"key2": key}), ("similar_content", {})):
        if verb != "similar_content":
            host.refused("data of volume", "Volume." + verb, sr=sr, key=a, **args)
    host.refused("data of volume", "Volume.compare", sr=sr, key=key, key2=a)
    host.refused("is a snapshot", "Volume.disable_cbt", sr=sr, key=a)
    host.refused("was destroyed", "Datapath.attach", uri=uri, domain="2")
    host.refused("was destroyed", "Datapath.activate_readonly", uri=uri, domain="2")
    disk.deactivate()
    done = subprocess.run([SXM, "fsck", MOUNT], capture_output=True, text=True, env=host.env)
    assert done.returncode == 0, done.stdout + done.stderr
    host.refused("data of volume", "Volume.revert", sr=sr, snapshot=a, key=key)
    plain = host.make_volume(sr, MIB)["key"]
    s = call("snapshot", plain)["key"]
    host.refused("not known what changed", "Volume.data_destroy", sr=sr, key=s)
    destroy(b)
    assert before[0] <= changed(a, key)
    destroy(a, key, plain, s)
    assert not [n for n in os.listdir(MOUNT) if ".cbt" in n or ".raw" in n], os.listdir(MOUNT)


def test_off_and_on_breaks_the_chain():
    key = make(64 * MIB)
    a = snapshot(key)
    for is_active in (False, True):
        disk = Disk(key) if is_active else None
        assert call("disable_cbt", key) is None and call("disable_cbt", key) is None
        assert call("stat", key)["cbt_enabled"] is False and call("stat", a)["cbt_enabled"]
        host.refused("not tracked", "Volume.list_changed_blocks", sr=sr, key=a, key2=key, offset=0, length=-1)
        if disk:
            disk.start().more(50).stop()
        s = call("snapshot", key)
        assert s["cbt_enabled"] is False
        call("enable_cbt", key)
        broken(a, key)
        broken(s["key"], key)
        b = snapshot(key)
        broken(a, b)
        assert changed(b, key) == set()
        if disk:
            disk.start("--region", f"{32 * MIB}:{32 * MIB}").more(50)
            c = snapshot(key)
            last = disk.bytes_logged()
            disk.stop()
            check(b, c, disk.written(0, last))
            disk.deactivate()
            destroy(c)
        destroy(b, s["key"])
    other = make(MIB)
    o = snapshot(other)
    broken(o, key)
    broken(a, o)
    host.refused("Volume_does_not_exist", "Volume.list_changed_blocks", sr=sr, key=a, key2="../x", offset=0, length=-1)
    host.refused("Volume_does_not_exist", "Volume.list_changed_blocks", sr=sr, key="none", key2=key, offset=0, length=-1)
    host.refused("is a snapshot", "Volume.enable_cbt", sr=sr, key=call("snapshot", host.make_volume(sr)["key"])["key"])
    clone = call("clone", key)
    assert clone["cbt_enabled"] is False
    for v in host.call("SR.ls", sr=sr):
        destroy(v["key"])


def test_what_a_disk_grew_by_has_changed():
    key = make(20 * MIB + 4096)
    a = snapshot(key)
    call("resize", key, new_size=48 * MIB)
    grown = set(range(320, 768))
    assert changed(a, key) == grown
    b = snapshot(key)
    disk = Disk(key)
    call("resize", key, new_size=4 << 30)
    more = set(range(768, 65536))
    assert changed(b, key) == more and changed(a, key) == grown | more
    disk.start("--region", f"{3 << 30}:{512 * MIB}").more(100)
    c = snapshot(key)
    disk.kill()
    disk.back().more(100)
    d = snapshot(key)
    disk.stop()
    check(c, d, disk.written())
    assert changed(a, d) == grown | more
    disk.deactivate()
    assert changed(d, key) <= disk.written()
    destroy(a, b, c, d, key)


def test_reverted():
    key = make(16 * MIB)
    a = snapshot(key)
    disk = Disk(key).start().more(50)
    disk.stop()
    disk.deactivate()
    b = snapshot(key)
    host.call("Volume.revert", sr=sr, snapshot=a, key=key)
    assert changed(a, key) == set() and differing(a, key) == set()
    broken(b, key)
    disk.activate()
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 1 1m 512", disk.nbd], check=True, stdout=subprocess.DEVNULL)
    assert changed(a, key) == {16}
    disk.deactivate()
    check(a, key)
    destroy(a)
    broken(b, key)
    destroy(b, key)


def test_a_damaged_log_is_no_answer():
    key = make(16 * MIB)
    a = snapshot(key)
    disk = Disk(key).start().more(50)
    b = snapshot(key)
    disk.stop()
    disk.deactivate()
    with open(path(b, ".cbt"), "r+b") as f:
        f.seek(40)
        f.write(b"\xff")
    host.refused("damaged", "Volume.list_changed_blocks", sr=sr, key=a, key2=b, offset=0, length=-1)
    host.refused("damaged", "Volume.list_changed_blocks", sr=sr, key=a, key2=key, offset=0, length=-1)
    os.truncate(path(key, ".cbt"), 4096)
    host.refused("damaged", "Volume.list_changed_blocks", sr=sr, key=b, key2=key, offset=0, length=-1)
    disk.activate()  # begun anew
    broken(a, key)
    c = snapshot(key)
    assert changed(c, key) == set()
    broken(a, c)
    disk.deactivate()
    destroy(a, b, c, key)
    assert not [n for n in os.listdir(MOUNT) if ".cbt" in n], os.listdir(MOUNT)


def test_a_process_killed_in_the_midst_of_a_snapshot():
    key = make(64 * MIB)
    disk = Disk(key).start()
    made = [snapshot(key)]
    for i in range(times(8)):
        killer = subprocess.Popen(["sh", "-c", f"sleep {random.random() * 0.04}; kill -9 {disk.pid()}"])
        try:
            v = call("snapshot", key)
            if v["cbt_enabled"]:
                made.append(v["key"])
            else:
                destroy(v["key"])
        except Exception as e:  # refused: then there is none
            say(f"  {e}")
        killer.wait()
        disk.back()
    made.append(snapshot(key))
    disk.stop()
    for a, b in zip(made, made[1:]):
        check(a, b)
    check(made[0], made[-1])  # a snapshot made while there was no process has no map: more is allowed
    disk.deactivate()
    destroy(*made, key)
    host.call("SR.attach", configuration={"uri": f"file://{MOUNT}"})
    assert not [n for n in os.listdir(MOUNT) if ".cbt" in n and not n.endswith(".tmp")], os.listdir(MOUNT)


def test_under_a_mirror_and_at_its_far_side():
    key, far = make(64 * MIB), make(64 * MIB)
    far_a = snapshot(far)
    disk = Disk(key).start().more(100)
    a = snapshot(key)
    far_disk = Disk(far, "MIR000001")
    assert host.control(far, "status")["ok"]
    operation = host.call("Data.mirror", uri=disk.uri, domain="1", remote=far_disk.nbd)
    until_true("it is in sync", lambda: host.call("Data.stat", operation=operation)["complete"], 60)
    disk.more(200)
    b = snapshot(key)
    middle = disk.bytes_logged()
    call("disable_cbt", key)
    disk.more(50)
    call("enable_cbt", key)
    c = snapshot(key)
    disk.more(100)
    d = snapshot(key)
    disk.stop()
    check(a, b, disk.written(0, middle))
    broken(b, c)
    check(c, d, disk.written())
    disk.deactivate()
    host.call("Datapath.deactivate", uri=far_disk.uri, domain="MIR000001")
    host.call("Datapath.detach", uri=far_disk.uri, domain="MIR000001")
    assert differing(far_a, far) == differing(far_a, key)
    check(far_a, far)
    broken(a, far)


only = os.environ.get("ONLY", "")
for name, test in list(globals().items()):
    if name.startswith("test_") and only in name:
        say(name[5:].replace("_", " "))
        test()
