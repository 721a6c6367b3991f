#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 volumes that are written to: what is made of one is the disk at one moment, it grows, its chain is merged, whatever is killed
meanwhile; and the guest waits for a moment at most."""
import concurrent.futures
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import IS_BRIEF, ActiveDisk, Host, say, skip, until_true  # noqa: E402

for tool in ("qemu-img", "qemu-storage-daemon", "nbdinfo"):
    if not shutil.which(tool):
        skip("this needs: " + tool)
host = Host()
sr = host.make_sr(uri=f"file://{host.dir}/sr", format="qcow2")
DIR = os.path.join(host.dir, "sr")


def volume(key):
    return host.call("Volume.stat", sr=sr, key=key)


def destroy(*keys):
    for key in keys:
        host.call("Volume.destroy", sr=sr, key=key)


def bases():
    return [n for n in os.listdir(DIR) if n.endswith(".base.qcow2")]


def merged():
    lock = os.path.join(host.run_dir, "coalesce")
    until_true("it is merged", lambda: all(subprocess.run(["flock", "-n", os.path.join(lock, n), "true"]).returncode == 0
                                           for n in (os.listdir(lock) if os.path.isdir(lock) else ()) if not n.endswith((".again", ".doing", ".log"))), 60)


def all_gone():
    destroy(*[v["key"] for v in host.call("SR.ls", sr=sr)])
    merged()
    assert all(n.startswith("sxm-sr.") for n in os.listdir(DIR)), os.listdir(DIR)


def take(disk, verb):
    before = disk.bytes_logged()
    return host.call(verb, sr=sr, key=disk.key), before, disk.bytes_logged()


def test_a_disk_under_load_is_taken_at_one_moment_and_its_chain_merged():
    disk = ActiveDisk(host, sr, 256 << 20).start("--overlap", "--seed", "7", "--iops", "3000")
    made = []
    for i in range(6):
        time.sleep(0.3)
        made.append(take(disk, ("Volume.snapshot", "Volume.clone")[i % 2]))
    assert made[0][0]["keys"]["content_id"] != volume(disk.key)["keys"]["content_id"], "it is written: nothing else holds the same"
    for v, before, after in made:
        disk.verify(v["key"], before, after)
    destroy(made.pop(1)[0]["key"], made.pop(1)[0]["key"], made.pop(1)[0]["key"])
    merged()
    report = host.call("Plugin.diagnostics")
    assert "0 can be merged, 0 can be removed" in report, report
    out = disk.stop()
    say("  the guest: " + " ".join(out.split("\n")[-2:]).strip())
    for v, before, after in made:
        disk.verify(v["key"], before, after)
    last = take(disk, "Volume.snapshot")
    disk.verify(last[0]["key"], disk.bytes_logged(), disk.bytes_logged())
    disk.deactivate()
    all_gone()


def files_and_space(key):
    """Of how many files the disk consists, and what those of the SR take, in MiB."""
    info = subprocess.run(["qemu-img", "info", "-U", "--backing-chain", os.path.join(DIR, key + ".qcow2")], capture_output=True, text=True)
    files = info.stdout.count("image: ")
    return files, sum(os.stat(os.path.join(DIR, n)).st_blocks for n in os.listdir(DIR)) * 512 / (1 << 20)


def test_snapshot_and_destroy_again_and_again():
    disk = ActiveDisk(host, sr, 64 << 20).start("--seed", "15", "--iops", "3000")
    seen = []
    for i in range(6 if IS_BRIEF else 20):
        until_true("the guest has written", lambda was=disk.bytes_logged(): disk.bytes_logged() > was + 2000)
        destroy(host.call("Volume.snapshot", sr=sr, key=disk.key)["key"])
        if i % 3 == 2:
            merged()
            seen.append(files_and_space(disk.key))
    merged()
    seen.append(files_and_space(disk.key))
    say("  files and MiB, each three times: " + ", ".join(f"{files} {space:.1f}" for files, space in seen))
    assert all(files <= 2 and space < 2 * 64 + 8 for files, space in seen), seen
    disk.stop()
    disk.verify(take(disk, "Volume.snapshot")[0]["key"], disk.bytes_logged(), disk.bytes_logged())
    disk.deactivate()
    all_gone()


def test_it_grows_in_use():
    disk = ActiveDisk(host, sr, 32 << 20).start("--seed", "10", "--iops", "2000")
    for i in range(3):
        size = volume(disk.key)["virtual_size"] + (1 << 20) + 512
        for _ in range(2):
            host.call("Volume.resize", sr=sr, key=disk.key, new_size=size)
        assert volume(disk.key)["virtual_size"] == size
        assert int(subprocess.run(["nbdinfo", "--size", disk.nbd], capture_output=True, text=True, check=True).stdout) == size
        if i == 1:
            assert host.call("Volume.snapshot", sr=sr, key=disk.key)["virtual_size"] == size
    host.refused("only grow", "Volume.resize", sr=sr, key=disk.key, new_size=32 << 20)
    disk.stop()
    merged()
    disk.verify(take(disk, "Volume.snapshot")[0]["key"], disk.bytes_logged(), disk.bytes_logged())
    disk.deactivate()
    all_gone()


def test_what_is_in_use_is_neither_reverted_nor_destroyed():
    disk = ActiveDisk(host, sr, 8 << 20)
    s = host.call("Volume.snapshot", sr=sr, key=disk.key)
    host.refused("active for domain", "Volume.revert", sr=sr, key=disk.key, snapshot=s["key"])
    host.refused("active for domain", "Volume.destroy", sr=sr, key=disk.key)
    host.refused("active for writing", "Volume.compare", sr=sr, key=disk.key, key2=s["key"])
    copy = host.call("Volume.copy", sr=sr, key=disk.key, dest_sr=host.make_sr("raw", uuid="x"))
    assert copy["uri"][0].endswith(".raw") and copy["virtual_size"] == 8 << 20
    disk.deactivate()
    all_gone()


def test_everything_is_killed_while_snapshots_come_and_go():
    order, disk = random.Random(), ActiveDisk(host, sr, 64 << 20).start("--seed", "14", "--iops", "1500")
    made = []
    for i in range(7 if IS_BRIEF else 14):
        pid = host.control(disk.key, "hello")["ok"]["pid"]
        killer = threading.Timer(order.random() * 0.2, os.kill, (pid, signal.SIGKILL)) if i % 2 else None
        if killer:
            killer.start()
        with contextlib.suppress(Exception if killer else ZeroDivisionError):
            made.append(take(disk, "Volume.snapshot"))
        if killer:
            killer.join()
        until_true("it is served again", lambda: host.control(disk.key, "hello"))
        if len(made) > 3:
            destroy(made.pop(order.randrange(len(made)))[0]["key"])
    disk.stop()
    merged()
    for v, before, after in made:
        disk.verify(v["key"], before, after)
    last = take(disk, "Volume.clone")
    disk.verify(last[0]["key"], disk.bytes_logged(), disk.bytes_logged())
    disk.deactivate()
    all_gone()


def test_many_at_once():
    disk = ActiveDisk(host, sr, 32 << 20).start("--seed", "12", "--iops", "1000")
    other = host.make_volume(sr, 4 << 20)["key"]
    before = disk.bytes_logged()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        live = [pool.submit(host.call, ("Volume.snapshot", "Volume.clone")[i % 2], sr=sr, key=disk.key) for i in range(6)]
        idle = [pool.submit(host.call, ("Volume.snapshot", "Volume.clone")[i % 2], sr=sr, key=other) for i in range(6)]
        more = [pool.submit(host.call, "Volume.set", sr=sr, key=(disk.key, other)[i % 2], k=f"k{i}", v=str(i)) for i in range(4)]
        more += [pool.submit(host.call, "Volume.resize", sr=sr, key=k, new_size=40 << 20) for k in (disk.key, other)]
        more += [pool.submit(host.call, "SR.ls", sr=sr) for _ in range(2)]
        for f in more:
            f.result()
        made = [f.result()["key"] for f in live + idle]
    after = disk.bytes_logged()
    disk.stop()
    assert volume(disk.key)["virtual_size"] == volume(other)["virtual_size"] == 40 << 20
    for key in made[:6]:
        disk.verify(key, before, after)
    disk.deactivate()
    all_gone()


only = os.environ.get("ONLY", "")
for name, test in list(globals().items()):
    if name.startswith("test_") and only in name:
        say(name[5:].replace("_", " "))
        test()
