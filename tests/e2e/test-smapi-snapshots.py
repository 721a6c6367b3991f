#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots, clones, copies and reverts of raw volumes on a real XFS with shared blocks: what they hold is the disk at one moment,
whatever is written, mirrored or killed meanwhile; and where blocks cannot be shared that is said, and nothing is left."""
import concurrent.futures
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import ActiveDisk, Host, nbd_of, say, skip, times, until_true  # noqa: E402

if os.geteuid() != 0:
    skip("only root can mount")
if not shutil.which("mkfs.xfs"):
    skip("this needs: mkfs.xfs")
host = Host()
MOUNT = host.make_xfs("xfs")
sr = host.make_sr("xfs")


def path(key, suffix=".raw", under=MOUNT):
    return os.path.join(under, key + suffix)


def volume(key):
    return host.call("Volume.stat", sr=sr, key=key)


def snapshot(key):
    return host.call("Volume.snapshot", sr=sr, key=key)


def destroy(*keys):
    for key in keys:
        host.call("Volume.destroy", sr=sr, key=key)


def write(key, at, data):
    with open(path(key), "r+b") as f:
        f.seek(at)
        f.write(data)


def read(key):
    with open(path(key), "rb") as f:
        return f.read()


def no_leftovers():
    names = {n.split(".")[0] for n in os.listdir(MOUNT)} - {v["key"] for v in host.call("SR.ls", sr=sr)} - {"sxm-sr"}
    assert not names, f"left behind: {names}"


def control(key, verb, **args):
    return host.control(key, verb, **args)


def Disk(size=256 << 20, domain="1"):
    return ActiveDisk(host, sr, size, domain)


def test_a_snapshot_is_the_disk_and_stays_so():
    v = host.make_volume(sr, 8 << 20)
    key = v["key"]
    host.call("Volume.set", sr=sr, key=key, k="vdi-type", v="system")
    host.call("Volume.set", sr=sr, key=key, k="clone-on-boot", v="x")
    write(key, 12345, b"before")
    was = read(key)
    s = snapshot(key)
    assert s["key"] == s["uuid"] != key and not s["read_write"] and s["name"] == "v" and s["virtual_size"] == 8 << 20, s
    keys = s["keys"]
    assert (keys["is_a_snapshot"], keys["snapshot_of"], keys["vdi-type"]) == ("true", key, "system"), keys
    assert re.fullmatch(r"\d{8}T\d\d:\d\d:\d\dZ", keys["snapshot_time"]) and "clone-on-boot" not in keys, keys
    assert keys["content_id"] == volume(key)["keys"]["content_id"], "they hold the same"
    write(key, 12345, b"after!")
    assert read(s["key"]) == was
    c = host.call("Volume.clone", sr=sr, key=s["key"])
    assert c["read_write"] and "is_a_snapshot" not in c["keys"] and "snapshot_of" not in c["keys"], c
    write(c["key"], 0, b"clone")
    assert read(s["key"]) == was and read(c["key"]) == b"clone" + was[5:] and read(key)[12345:12351] == b"after!"
    for k in ("snapshot_time", "is_a_snapshot", "snapshot_of", "content_id", "vdi-type"):  # as xapi does next
        host.call("Volume.set", sr=sr, key=s["key"], k=k, v={"is_a_snapshot": "true"}.get(k, ""))
    assert volume(s["key"])["keys"]["content_id"] == s["key"], "never empty"
    assert sorted(host.call("Volume.similar_content", sr=sr, key=key)) == sorted([s["key"], c["key"]])
    destroy(key, c["key"])
    assert read(s["key"]) == was
    destroy(s["key"])
    no_leftovers()


def test_a_snapshot_takes_no_space_and_nothing_that_lies_beside_the_disk():
    key = host.make_volume(sr, 64 << 20)["key"]
    write(key, 0, os.urandom(32 << 20))
    for suffix in (".owner", ".marks", ".mirror"):
        with open(path(key) + suffix, "w") as f:
            f.write('{"state":"owned"}')
    os.sync()
    free = os.statvfs(MOUNT).f_bfree
    made = [snapshot(key)["key"] for _ in range(5)]
    os.sync()
    assert free - os.statvfs(MOUNT).f_bfree < 2 << 10, "it shares its blocks"
    assert not [n for n in os.listdir(MOUNT) if n.startswith(tuple(made)) and not n.endswith((".raw", ".json"))]
    for suffix in (".owner", ".marks", ".mirror"):
        os.unlink(path(key) + suffix)
    destroy(*made, key)


def test_they_are_destroyed_in_every_order():
    order = random.Random(os.getpid())
    for _ in range(3):
        root = host.make_volume(sr, 1 << 20)["key"]
        write(root, 0, b"0" * 4096)
        tree, content = [root], {root: read(root)}
        for i in range(7):
            origin = order.choice(tree)
            new = host.call(order.choice(["Volume.snapshot", "Volume.clone"]), sr=sr, key=origin)["key"]
            write(new, 4096 * i, bytes([65 + i]) * 4096)
            tree.append(new)
            content[new] = read(new)
        order.shuffle(tree)
        while tree:
            destroy(tree.pop())
            for key in tree:
                assert read(key) == content[key]
    no_leftovers()


def test_a_disk_under_load_is_cloned_at_one_moment():
    disk = Disk().start("--overlap", "--seed", "7")
    made = []
    for i in range(6):
        time.sleep(0.1)
        before = disk.bytes_logged()
        made.append((host.call(["Volume.snapshot", "Volume.clone"][i % 2], sr=sr, key=disk.key), before, disk.bytes_logged()))
    assert made[0][0]["keys"]["content_id"] != volume(disk.key)["keys"]["content_id"], "it is written: nothing else holds the same"
    out = disk.stop()
    say("  the guest: " + " ".join(out.split("\n")[-2:]).strip())
    for v, before, after in made:
        disk.verify(v["key"], before, after)
    disk.deactivate()
    destroy(*[v["key"] for v, _, _ in made], disk.key)
    no_leftovers()


def test_a_verify_that_could_not_fail_would_prove_nothing():
    disk = Disk(64 << 20).start("--seed", "8")
    before = disk.bytes_logged()
    with open(path(disk.key), "rb") as f, open(os.path.join(host.dir, "smeared"), "wb") as to:
        while piece := f.read(4 << 20):
            to.write(piece)
            time.sleep(0.02)
    after = disk.bytes_logged()
    disk.stop()
    disk.deactivate()
    shutil.copy(os.path.join(host.dir, "smeared"), path(disk.key))
    try:
        disk.verify(disk.key, before, after)
    except AssertionError as e:
        assert "not one moment" in str(e) or "lost" in str(e), e
    else:
        raise AssertionError("a copy that was made over a while passed for one of a moment")
    host.end_processes()
    destroy(disk.key)


def test_a_disk_that_is_mirrored_is_cloned_and_the_mirror_goes_on():
    disk = Disk(128 << 20).start("--seed", "9", "--iops", "2000")
    far = host.make_volume(sr, 128 << 20)
    backend = host.call("Datapath.attach", uri=far["uri"][0], domain="MIRabcdef")
    host.call("Datapath.activate", uri=far["uri"][0], domain="MIRabcdef")
    remote = [a["uri"] for t, a in backend["implementations"] if t == "Nbd"][0]
    operation = host.call("Data.mirror", uri=disk.uri, domain="1", remote=remote)
    host.refused("is the far side of a mirror", "Volume.snapshot", sr=sr, key=far["key"])
    host.refused("mirror", "Volume.resize", sr=sr, key=disk.key, new_size=256 << 20)
    made = []
    for _ in range(4):
        before = disk.bytes_logged()
        made.append((snapshot(disk.key), before, disk.bytes_logged()))
    until_true("the mirror is complete", lambda: host.call("Data.stat", operation=operation)["complete"])
    before = disk.bytes_logged()
    made.append((snapshot(disk.key), before, disk.bytes_logged()))
    disk.stop()
    disk.deactivate()
    host.call("Datapath.deactivate", uri=far["uri"][0], domain="MIRabcdef")
    host.call("Datapath.detach", uri=far["uri"][0], domain="MIRabcdef")
    disk.verify(far["key"], disk.bytes_logged(), disk.bytes_logged())
    for v, before, after in made:
        disk.verify(v["key"], before, after)
    destroy(*[v["key"] for v, _, _ in made])
    host.call("Datapath.attach", uri=far["uri"][0], domain="2")
    host.call("Datapath.activate", uri=far["uri"][0], domain="2")
    host.call("Datapath.deactivate", uri=far["uri"][0], domain="2")
    host.call("Datapath.detach", uri=far["uri"][0], domain="2")
    destroy(disk.key, far["key"])


def test_several_disks_at_one_moment():
    disks = [Disk(64 << 20).start("--seed", str(20 + i), "--iops", "3000") for i in range(3)]
    paths = [os.path.join(MOUNT, f".group{i}.raw.new") for i in range(3)]
    for d, p in zip(disks, paths):
        assert control(d.key, "snapshot.hold", path=p, patience_ms=5000)["ok"] == {}
    lengths = [d.bytes_logged() for d in disks]
    time.sleep(0.2)
    for d, was in zip(disks, lengths):  # what was under way may have been answered; nobody goes on
        assert d.bytes_logged() - was < 33 * 24, "it is held"
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for r in pool.map(lambda dp: control(dp[0].key, "snapshot.go", path=dp[1]), zip(disks, paths)):
            assert r["ok"]["held_us"] >= 200000, r
    for d, p in zip(disks, paths):
        assert os.path.getsize(p) == 64 << 20
        os.unlink(p)
        d.stop()
    d, p = disks[0], paths[0]
    assert control(d.key, "snapshot.go", path=p)["error"]["code"] == "ENOENT"
    assert control(d.key, "snapshot.hold", path=p, patience_ms=50)["ok"] == {}
    until_true("it is held no more", lambda: control(d.key, "snapshot.hold", path=p)["ok"] == {})
    assert control(d.key, "snapshot.cancel", path=p)["error"]["code"] == "ECANCELED"
    assert not os.path.exists(p)
    for d in disks:
        d.deactivate()
        destroy(d.key)
    no_leftovers()


def grow_by_one(disk):
    size = volume(disk.key)["virtual_size"] + (1 << 20) + 512
    for _ in range(2):
        host.call("Volume.resize", sr=sr, key=disk.key, new_size=size)
    assert volume(disk.key)["virtual_size"] == os.path.getsize(path(disk.key)) == size
    return size


def nbd_size(disk):
    return int(subprocess.run(["nbdinfo", "--size", disk.nbd], capture_output=True, text=True, check=True).stdout)


def test_a_disk_grows_in_use():
    disk = Disk(32 << 20).start("--seed", "10")
    content_id = volume(disk.key)["keys"]["content_id"]
    for _ in range(3):
        size = grow_by_one(disk)
        assert nbd_size(disk) == size
    assert volume(disk.key)["keys"]["content_id"] != content_id
    host.refused("only grow", "Volume.resize", sr=sr, key=disk.key, new_size=32 << 20)
    disk.stop()
    disk.verify(snapshot(disk.key)["key"], disk.bytes_logged(), disk.bytes_logged())
    disk.deactivate()
    grow_by_one(disk)
    disk.activate()
    assert nbd_size(disk) == volume(disk.key)["virtual_size"]
    disk.deactivate()
    for v in host.call("SR.ls", sr=sr):
        destroy(v["key"])


def test_revert_is_for_halted_disks_and_all_or_nothing():
    key = host.make_volume(sr, 4 << 20)["key"]
    write(key, 0, b"first")
    s = snapshot(key)["key"]
    host.call("Volume.resize", sr=sr, key=key, new_size=8 << 20)
    host.call("Volume.set_name", sr=sr, key=key, new_name="mine")
    write(key, 0, b"later")
    uri = volume(key)["uri"][0]
    host.call("Datapath.attach", uri=uri, domain="5")
    host.refused("attached for domain 5", "Volume.revert", sr=sr, snapshot=s, key=key)
    host.call("Datapath.activate", uri=uri, domain="5")
    host.refused("active for domain 5", "Volume.revert", sr=sr, snapshot=s, key=key)
    host.call("Datapath.deactivate", uri=uri, domain="5")
    host.call("Datapath.detach", uri=uri, domain="5")
    host.refused("itself", "Volume.revert", sr=sr, snapshot=key, key=key)
    host.refused("Volume_does_not_exist", "Volume.revert", sr=sr, snapshot="../x", key=key)
    host.refused("Volume_does_not_exist", "Volume.revert", sr=sr, snapshot="none", key=key)
    assert read(key)[:5] == b"later"
    for _ in range(2):
        host.call("Volume.revert", sr=sr, snapshot=s, key=key)
        v = volume(key)
        assert read(key) == read(s) and v["virtual_size"] == 4 << 20 and v["name"] == "mine" and v["read_write"], v
        assert v["keys"]["content_id"] == volume(s)["keys"]["content_id"] and "is_a_snapshot" not in v["keys"], v
        write(key, 0, b"again")
    assert read(s)[:5] == b"first"
    destroy(s, key)
    no_leftovers()


def test_a_snapshot_is_served_read_only_whatever_is_asked():
    key = host.make_volume(sr, 1 << 20)["key"]
    s = snapshot(key)
    host.call("Datapath.attach", uri=s["uri"][0], domain="6")
    host.call("Datapath.activate", uri=s["uri"][0], domain="6")
    status = control(s["key"], "status")["ok"]
    assert status["read_only"], status
    copy = host.call("Volume.clone", sr=sr, key=s["key"])["key"]  # also while it is served
    host.call("Datapath.deactivate", uri=s["uri"][0], domain="6")
    host.call("Datapath.detach", uri=s["uri"][0], domain="6")
    destroy(copy, s["key"], key)


def test_each_writer_leaves_another_content_id():
    disk = Disk(1 << 20)
    ids = {disk.volume["keys"]["content_id"]}
    for _ in range(2):
        ids.add(volume(disk.key)["keys"]["content_id"])
        disk.deactivate()
        ids.add(volume(disk.key)["keys"]["content_id"])
        disk.activate()
    assert len(ids) == 3, ids
    disk.deactivate()
    destroy(disk.key)


def test_compare_finds_what_differs_and_no_more():
    key = host.make_volume(sr, 64 << 20)["key"]
    write(key, 0, os.urandom(8 << 20))
    s = snapshot(key)["key"]
    assert host.call("Volume.compare", sr=sr, key=key, key2=s) == {"blocksize": 65536, "ranges": []}
    order = random.Random(3)
    want = set()
    for block in order.sample(range(1024), 20):
        write(key, block * 65536 + order.randrange(65536), b"\x01")
        want.add(block)
    write(key, 1 << 20, b"")
    got = host.call("Volume.compare", sr=sr, key=key, key2=s)
    found = {b for start, length in got["ranges"] for b in range(start, start + length)}
    a, b = read(key), read(s)
    assert found == {i for i in range(1024) if a[i << 16:(i + 1) << 16] != b[i << 16:(i + 1) << 16]} and found, (found, want)
    assert host.call("Volume.compare", sr=sr, key=s, key2=key) == got
    host.call("Volume.resize", sr=sr, key=key, new_size=(64 << 20) + 131072)
    assert host.call("Volume.compare", sr=sr, key=key, key2=s) == got, "it grew by zeros"
    write(key, (64 << 20) + 70000, b"x")
    assert host.call("Volume.compare", sr=sr, key=s, key2=key)["ranges"][-1][0] + \
        host.call("Volume.compare", sr=sr, key=s, key2=key)["ranges"][-1][1] == 1026
    host.refused("Volume_does_not_exist", "Volume.compare", sr=sr, key=key, key2="none")
    uri = volume(key)["uri"][0]
    host.call("Datapath.attach", uri=uri, domain="5")
    host.call("Datapath.activate", uri=uri, domain="5")
    host.refused("active for writing", "Volume.compare", sr=sr, key=key, key2=s)
    host.call("Datapath.deactivate", uri=uri, domain="5")
    host.call("Datapath.detach", uri=uri, domain="5")
    destroy(key, s)


def test_where_blocks_cannot_be_shared_it_is_said_and_copies_are_made():
    other = host.make_sr("plain")  # beside the mount: the file system of the temporary directory
    plain = os.path.join(host.dir, "plain")
    key = host.make_volume(other, 16 << 20)["key"]
    with open(path(key, under=plain), "r+b") as f:
        f.seek(5 << 20)
        f.write(b"data")
        os.fsync(f.fileno())
    probe = subprocess.run(["cp", "--reflink=always", path(key, under=plain), os.path.join(plain, "probe")], stderr=subprocess.DEVNULL)
    if probe.returncode == 0:
        say("  the temporary directory's file system shares blocks, too")
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(plain, "probe"))
        before = sorted(os.listdir(plain))
        e = host.refused("share blocks", "Volume.snapshot", sr=other, key=key)
        assert e.report["code"] == "SR_BACKEND_FAILURE_82", e.report
        e = host.refused("share blocks", "Volume.clone", sr=other, key=key)
        assert e.report["code"] == "SR_BACKEND_FAILURE_81", e.report
        uri = host.call("Volume.stat", sr=other, key=key)["uri"][0]
        host.call("Datapath.attach", uri=uri, domain="5")
        host.call("Datapath.activate", uri=uri, domain="5")
        host.refused("share blocks", "Volume.snapshot", sr=other, key=key)
        host.refused("deactivate it", "Volume.copy", sr=other, key=key, dest_sr=sr)
        host.call("Datapath.deactivate", uri=uri, domain="5")
        host.call("Datapath.detach", uri=uri, domain="5")
        assert [n for n in sorted(os.listdir(plain)) if not n.endswith(".owner")] == before
    here = host.call("Volume.copy", sr=other, key=key, dest_sr=other)
    there = host.call("Volume.copy", sr=other, key=key, dest_sr=sr)
    back = host.call("Volume.copy", sr=sr, key=there["key"], dest_sr=other)
    want = bytes(5 << 20) + b"data" + bytes((11 << 20) - 4)
    assert read(there["key"]) == want and there["read_write"] and there["virtual_size"] == 16 << 20, there
    for v in (here, back):
        with open(path(v["key"], under=plain), "rb") as f:
            assert f.read() == want
        assert v["physical_utilisation"] < 1 << 20, "holes stay holes"
    host.refused("SR_does_not_exist", "Volume.copy", sr=other, key=key, dest_sr=f"file://{host.dir}/none")
    destroy(there["key"])
    for v in host.call("SR.ls", sr=other):
        host.call("Volume.destroy", sr=other, key=v["key"])


def test_a_disk_in_use_is_copied_into_another_sr():
    other = host.make_sr("plain2")
    disk = Disk(32 << 20).start("--seed", "11", "--iops", "2000")
    before = disk.bytes_logged()
    copy = host.call("Volume.copy", sr=sr, key=disk.key, dest_sr=other)
    after = disk.bytes_logged()
    disk.stop()
    disk.deactivate()
    back = host.call("Volume.copy", sr=other, key=copy["key"], dest_sr=sr)
    disk.verify(back["key"], before, after)
    host.call("Volume.destroy", sr=other, key=copy["key"])
    destroy(disk.key, back["key"])
    no_leftovers()


def test_many_at_once():
    disk = Disk(32 << 20).start("--seed", "12", "--iops", "2000")
    other = host.make_volume(sr, 4 << 20)["key"]
    before = disk.bytes_logged()
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        live = [pool.submit(host.call, ["Volume.snapshot", "Volume.clone"][i % 2], sr=sr, key=disk.key) for i in range(12)]
        idle = [pool.submit(host.call, ["Volume.snapshot", "Volume.clone"][i % 2], sr=sr, key=other) for i in range(8)]
        more = [pool.submit(host.call, "Volume.set", sr=sr, key=[disk.key, other][i % 2], k=f"k{i}", v=str(i)) for i in range(8)]
        more += [pool.submit(host.call, "Volume.resize", sr=sr, key=k, new_size=40 << 20) for k in (disk.key, other)]
        more += [pool.submit(host.call, "SR.ls", sr=sr) for _ in range(2)]
        for f in more:
            f.result()
        made = [f.result()["key"] for f in live + idle]
    after = disk.bytes_logged()
    disk.stop()
    keys = {**volume(disk.key)["keys"], **volume(other)["keys"]}
    assert all(keys.get(f"k{i}") == str(i) for i in range(8)), keys
    assert volume(disk.key)["virtual_size"] == volume(other)["virtual_size"] == 40 << 20
    assert len(set(made)) == 20 and set(made) <= {v["key"] for v in host.call("SR.ls", sr=sr)}
    for key in made[:12]:
        disk.verify(key, before, after)
    disk.deactivate()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(destroy, made + [disk.key, other]))
    no_leftovers()


def swept():
    for name in os.listdir(MOUNT):
        if name.endswith(".tmp"):  # half-written records go when they are an hour old
            os.utime(os.path.join(MOUNT, name), (1, 1))
    host.call("SR.attach", configuration={"uri": f"file://{MOUNT}"})
    no_leftovers()


def test_a_verb_killed_at_any_time_leaves_old_or_new():
    disk = Disk(32 << 20).start("--seed", "13", "--iops", "1000")
    halted = host.make_volume(sr, 4 << 20)["key"]
    base = snapshot(halted)["key"]
    write(halted, 0, b"x" * 4096)
    verbs = (("Volume.snapshot", {"key": disk.key}), ("Volume.clone", {"key": halted}), ("Volume.revert", {"key": halted, "snapshot": base}),
             ("Volume.create", {"name": "", "description": "", "size": 1 << 20, "sharable": False}),
             ("Volume.copy", {"key": halted, "dest_sr": sr}), ("Volume.resize", {"key": halted, "new_size": 5 << 20}))
    stopped = 0
    tries = times(48)
    for round_number in range(tries):
        verb, args = verbs[round_number % len(verbs)]
        child = subprocess.Popen([os.path.join(host.root, "volume/org.xen.xapi.storage.filebased", verb), "--json"], stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, env=host.env)
        child.stdin.write(json.dumps({"sr": sr, "dbg": "", **args}).encode())
        child.stdin.close()
        time.sleep(random.random() * 0.015)
        child.kill()
        stopped += child.wait() != 0
        for v in host.call("SR.ls", sr=sr):
            assert os.path.getsize(path(v["key"])) == v["virtual_size"], v
        head = read(halted)[:4096]
        assert head in (b"x" * 4096, bytes(4096)), head[:16]
        if head == bytes(4096):
            write(halted, 0, b"x" * 4096)
    say(f"  {stopped} of {tries} were killed in time")
    assert control(disk.key, "status")["ok"]["domains"], "the disk's process goes on"
    until_true("what was being cloned is", lambda: control(disk.key, "snapshot", path=os.path.join(MOUNT, ".x.raw.new"))["ok"])
    swept()
    disk.stop()
    disk.deactivate()
    for v in host.call("SR.ls", sr=sr):
        destroy(v["key"])
    no_leftovers()


def pid_of(key):
    answer = control(key, "hello")
    return answer["ok"]["pid"]


def test_a_process_killed_in_the_midst_makes_a_whole_snapshot_or_none():
    disk = Disk(64 << 20).start("--seed", "14")
    made = []
    for i in range(times(8)):
        before = disk.bytes_logged()
        killer = threading.Timer(random.random() * 0.03, os.kill, (pid_of(disk.key), signal.SIGKILL))
        killer.start()
        v = snapshot(disk.key)
        made.append((v, before, disk.bytes_logged()))
        killer.join()
        until_true("it is served again", lambda: control(disk.key, "hello"))
    disk.stop()
    for v, before, after in made:
        disk.verify(v["key"], before, after)
    disk.deactivate()
    destroy(*[v["key"] for v, _, _ in made], disk.key)
    no_leftovers()


def test_a_full_file_system_leaves_nothing_and_harms_no_guest():
    disk = Disk(64 << 20).start("--seed", "15", "--iops", "500")
    filling = os.path.join(MOUNT, "filling")
    with contextlib.suppress(OSError), open(filling, "wb", buffering=0) as f:
        os.posix_fallocate(f.fileno(), 0, os.statvfs(MOUNT).f_bavail * os.statvfs(MOUNT).f_bsize - (48 << 20))
    disk.stop()  # its own writes need room: before it is all gone
    with contextlib.suppress(OSError), open(filling, "ab", buffering=0) as f:
        while f.write(bytes(1 << 16)):
            pass
    before = {v["key"] for v in host.call("SR.ls", sr=sr)}
    refused = 0
    for verb in ("Volume.snapshot", "Volume.clone"):
        for _ in range(10):
            try:
                before.add(host.call(verb, sr=sr, key=disk.key)["key"])
            except Exception as e:
                refused += 1
                assert "space" in str(e), e
    say(f"  {refused} of 20 were refused")
    os.unlink(filling)
    assert {v["key"] for v in host.call("SR.ls", sr=sr)} == before
    disk.deactivate()
    destroy(*before)
    no_leftovers()


only = os.environ.get("ONLY", "")
for name, test in list(globals().items()):
    if name.startswith("test_") and only in name:
        say(name[5:].replace("_", " "))
        test()
