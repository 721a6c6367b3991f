#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""SRs on a block device: what a device holds is not destroyed unasked, what is in use never; a killed verb is gone on from; one host
at a time; nothing is mounted over what is somebody else's."""
import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import IS_BRIEF, Host, check, say, skip, times, until_true  # noqa: E402

if os.geteuid() != 0 or not shutil.which("losetup"):
    skip("this needs root and losetup")
types = [t for t in ("ext4-ng", "xfs-ng") if shutil.which("mkfs." + t[:-3])]
if not types:
    skip("neither mkfs.ext4 nor mkfs.xfs is here")
CRASH = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/crash")
host = Host()
device = host.make_device()
name = ""  # of the type


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def holds():
    """What blkid says of the device: {} when it holds nothing."""
    done = subprocess.run(["blkid", "-p", "-o", "export", device], capture_output=True, text=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def wipe():
    run("wipefs", "-q", "-a", device)


def create(sr_uuid, **configuration):
    return host.call("SR.create", uuid=sr_uuid, name="a name", description="d", configuration={"device": device, "format": "raw", **configuration})


def refused(word, sr_uuid, **configuration):
    return host.refused(word, "SR.create", uuid=sr_uuid, name="", description="", configuration={"device": device, "format": "raw", **configuration})


def new():
    return str(uuid.uuid4())


def mount_point(sr_uuid):
    return os.path.join(host.run_dir, "mnt", sr_uuid)


def nothing_is_left():
    assert host.mounts() == [], host.mounts()
    assert os.listdir(os.path.join(host.run_dir, "mnt")) == [], os.listdir(os.path.join(host.run_dir, "mnt"))


def fstype():
    return name[:-3]


def test_a_whole_life():
    sr_uuid = new()
    found = host.call("SR.probe", configuration={})
    check("list<probe_result>", found)
    mine = [f for f in found if f["configuration"].get("device") == device]
    assert [f["complete"] for f in mine] == [False] and "sr" not in mine[0], found
    free = host.call("SR.probe", configuration={"device": device})
    assert [f["complete"] for f in free] == [True] and "sr" not in free[0], free
    made = create(sr_uuid)
    assert made == {"device": device, "format": "raw", "sr_uuid": sr_uuid}, made
    nothing_is_left()
    assert (holds()["TYPE"], holds()["UUID"], holds()["LABEL"]) == (fstype(), sr_uuid, "sxm-sr"), holds()
    assert create(sr_uuid) == made
    for configuration in ({}, {"device": device}, {"device": device, "sr_uuid": sr_uuid}):
        found = host.call("SR.probe", configuration=configuration)
        check("list<probe_result>", found)
        mine = [f for f in found if f.get("sr", {}).get("uuid") == sr_uuid]
        assert len(mine) == 1 and mine[0]["configuration"]["sr_uuid"] == sr_uuid and mine[0]["sr"]["total_space"] > 300 << 20, found
    host.refused("SR_does_not_exist", "SR.probe", configuration={"device": device, "sr_uuid": new()})
    nothing_is_left()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        handles = {c.result() for c in [pool.submit(host.call, "SR.attach", configuration=made) for _ in range(6)]}
    assert handles == {"file://" + mount_point(sr_uuid)}, handles
    sr = handles.pop()
    assert len(host.mounts()) == 1 and {"nosuid", "nodev", "noexec"} <= set(host.mounts()[0][2].split(",")), host.mounts()
    assert create(sr_uuid) == made and len(host.mounts()) == 1
    stat = host.call("SR.stat", sr=sr)
    check("sr_stat", stat)
    assert (stat["name"], stat["uuid"], stat["clustered"], stat["health"]) == ("a name", sr_uuid, False, ["Healthy", ""]), stat
    v = host.make_volume(sr, 8 << 20)
    host.call("Datapath.attach", uri=v["uri"][0], domain="1")
    host.call("Datapath.activate", uri=v["uri"][0], domain="1")
    said = host.refused(v["key"], "SR.detach", sr=sr)
    assert said.report["code"] == "SR_BACKEND_FAILURE_16", said.report
    host.call("Datapath.deactivate", uri=v["uri"][0], domain="1")
    host.call("Datapath.detach", uri=v["uri"][0], domain="1")
    until_true("the datapath's end", lambda: not host.processes())
    with open(os.path.join(mount_point(sr_uuid), "busy"), "w"):
        host.refused("in use by process " + str(os.getpid()), "SR.detach", sr=sr)
    assert host.call("Volume.stat", sr=sr, key=v["key"])["key"] == v["key"]
    ending = subprocess.Popen(["sh", "-c", f"exec 3>{mount_point(sr_uuid)}/busy; echo held; sleep 0.3"], stdout=subprocess.PIPE)
    assert ending.stdout.readline() == b"held\n"
    for _ in range(2):  # what ends soon is waited for
        host.call("SR.detach", sr=sr)
    ending.wait()
    nothing_is_left()
    assert host.call("SR.stat", sr=sr)["health"][0] == "Unreachable"
    assert host.call("SR.attach", configuration=made) == sr and [x["key"] for x in host.call("SR.ls", sr=sr)] == [v["key"]]
    host.refused("still has 1 volume", "SR.destroy", sr=sr)
    host.call("Volume.destroy", sr=sr, key=v["key"])
    host.call("SR.destroy", sr=sr)
    nothing_is_left()
    assert holds() == {}, holds()


def test_what_is_there_is_destroyed_only_by_force():
    run("mkfs.ext4", "-q", "-F", device, "64m")
    refused("holds ext4", new())
    for configuration in ({"device": device}, {"device": device, "force": "false"}):
        found = host.call("SR.probe", configuration=configuration)
        assert [f["complete"] for f in found] == [False] and "ext4" in found[0]["extra_info"]["holds"], found
    assert [f["complete"] for f in host.call("SR.probe", configuration={"device": device, "force": "true"})] == [True]
    assert device not in [f["configuration"].get("device") for f in host.call("SR.probe", configuration={})]
    assert holds()["TYPE"] == "ext4"
    wipe()
    run("mkswap", device)
    refused("holds swap", new())
    wipe()
    with open(device, "r+b") as f:  # one partition, in the manner of DOS
        f.write(bytes(446) + bytes([0, 0, 2, 0, 0x83, 0, 3, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little") + bytes(48) + b"\x55\xaa")
    refused("holds a partition table (dos)", new())
    assert holds()["PTTYPE"] == "dos"
    made = create(new(), force="true")
    assert "force" not in made and holds()["TYPE"] == fstype() and "PTTYPE" not in holds(), (made, holds())
    refused("holds " + fstype(), new())
    nothing_is_left()
    wipe()


def test_what_is_in_use_is_not_destroyed_by_force():
    run("mkfs.ext4", "-q", "-F", device, "64m")
    there = os.path.join(host.dir, "elsewhere")
    os.makedirs(there, exist_ok=True)
    run("mount", device, there)
    said = refused("mounted at " + there, new(), force="true")
    assert said.report["code"] == "SR_BACKEND_FAILURE_16", said.report
    assert host.call("SR.probe", configuration={"device": device}) == []
    run("umount", there)
    held = os.open(device, os.O_RDONLY | os.O_EXCL)
    refused("in use", new(), force="true")
    os.close(held)
    run("blockdev", "--setro", device)
    refused("only be read", new(), force="true")
    run("blockdev", "--setrw", device)
    assert holds()["TYPE"] == "ext4"
    wipe()


def test_hostile_configurations():
    link, other = f"/dev/sxm-test-{os.getpid()}", os.path.join(host.dir, "link")
    os.symlink(device, other)
    os.symlink(device, link)
    out = f"/dev/sxm-test-out-{os.getpid()}"
    os.symlink(os.path.join(host.dir, "disk"), out)
    try:
        for word, path in (("begins with /dev/", other), ("begins with /dev/", "disk"), ("begins with /dev/", "nfs://a/b"), ("..", f"/dev/../{device}"),
                           ("control", device + "\n"), ("No such", "/dev/sxm-no-such"), ("not a block device", "/dev/null"), ("missing", ""),
                           ("out of /dev", out), ("No such", device + ",nosuid"), ("not a block device", "/dev/disk" if os.path.isdir("/dev/disk") else "/dev/pts")):
            host.refused(word, "SR.create", uuid=new(), name="", description="", configuration={"device": path})
        host.refused("missing", "SR.create", uuid=new(), name="", description="", configuration={})
        for bad in ("dummySR", "../../x", "", "-o", "x" * 300):
            refused("uuid", bad)
        refused("true or false", new(), force="yes")
        refused("not known", new(), format="vhd")
        assert holds() == {}
        sr_uuid = new()
        made = create(sr_uuid, device=link)
        assert made["device"] == link, made
        for bad in ("../../x", "a/b", "", "."):
            host.refused("directory" if bad else "", "SR.attach", configuration={**made, "sr_uuid": bad})
        host.refused("sr_uuid is missing", "SR.attach", configuration={"device": link})
        said = host.refused("does not hold SR", "SR.attach", configuration={**made, "sr_uuid": new()})
        assert said.params[0] == "SR_does_not_exist", said.params
        sr = host.call("SR.attach", configuration=made)
        secret = os.path.join(host.dir, "secret")
        open(secret, "w").close()
        os.symlink(secret, os.path.join(mount_point(sr_uuid), "0a0b0c0d-aaaa-bbbb-cccc-444455556666.raw"))
        try:
            open(os.path.join(mount_point(sr_uuid), "0a0b0c0d-aaaa-bbbb-cccc-444455556666.raw")).close()
            assert int(os.uname().release.split(".")[0]) < 6, "a link in the SR was followed"
        except OSError:
            pass
        host.call("SR.destroy", sr=sr)
    finally:
        for path in (link, out, other):
            os.unlink(path)
    nothing_is_left()
    wipe()


def test_what_is_mounted_there_by_others_stays():
    made = create(new())
    there = mount_point(made["sr_uuid"])
    os.makedirs(there)
    run("mount", "-t", "tmpfs", "theirs", there)
    host.refused("not by us", "SR.attach", configuration=made)
    host.refused("not by us", "SR.detach", sr="file://" + there)
    assert [(m[0], m[1]) for m in host.mounts()] == [(there, "theirs")], host.mounts()
    run("umount", there)
    open(os.path.join(there, "file"), "w").close()
    host.refused("has files in it", "SR.attach", configuration=made)
    os.unlink(os.path.join(there, "file"))
    sr = host.call("SR.attach", configuration=made)
    run("mount", "-t", "tmpfs", "theirs", there)
    host.refused("over one another", "SR.attach", configuration=made)
    host.refused("over one another", "SR.detach", sr=sr)
    run("umount", there)
    run("umount", there)  # behind its back
    host.refused("attach the SR before", "SR.destroy", sr=sr)
    assert holds()["UUID"] == made["sr_uuid"]
    assert host.call("SR.stat", sr=sr)["health"][0] == "Unreachable"
    assert host.call("SR.attach", configuration=made) == sr
    run("mount", "-o", "remount,ro", there)
    stat = host.call("SR.stat", sr=sr)
    assert stat["health"][0] == "Unavailable" and "read" in stat["health"][1], stat
    run("mount", "-o", "remount,rw", there)
    host.call("SR.destroy", sr=sr)
    nothing_is_left()


def test_a_full_disk_is_said_and_leaves_nothing():
    sr = host.call("SR.attach", configuration=create(new()))
    there = sr[len("file://"):]
    free = os.statvfs(there)
    with open(os.path.join(there, "filling"), "wb") as f:
        for step in (1 << 20, 4096):
            try:
                while True:
                    os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, step if step < 1 << 20 else max(step, free.f_bavail * free.f_frsize // 64))
            except OSError:
                pass
    before = sorted(os.listdir(there))
    for _ in range(3000):  # the file system's own reserves
        try:
            key = host.make_volume(sr)["key"]
        except Exception as e:
            assert e.report["code"] == "SR_BACKEND_FAILURE_44", e.report
            break
        before += [key + ".json", key + ".raw"]
    else:
        raise AssertionError("never full")
    assert sorted(before) == sorted(os.listdir(there)), os.listdir(there)
    assert len(host.call("SR.ls", sr=sr)) == sum(n.endswith(".raw") for n in before)
    host.call("SR.detach", sr=sr)
    wipe()


def begin(verb, *before, **args):
    child = subprocess.Popen([*before, os.path.join(host.root, host.volume, verb), "--json"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, env=host.env)
    child.stdin.write(json.dumps({**args, "dbg": ""}).encode())
    child.stdin.close()
    return child


def kill_at_each_change(verb, again, **args):
    """Just before its 1st, 2nd, 3rd... change of a file system or a device, with all it started: mkfs, mount."""
    for n in range(1, 10000):
        if begin(verb, CRASH, str(n), **args).wait() != 137:
            break
        again(n)
    again(0)
    say(f"  {verb}: killed at {n - 1} places")


def kill_at_each_point(verb, again, steps, **args):
    """again() after it has ended by itself, and after it was killed ever later. The time it takes differs: not each kill hits."""
    if os.environ.get("SXM_CRASH_LONG") == "1":
        return kill_at_each_change(verb, again, **args)
    begun = time.monotonic()
    assert begin(verb, **args).wait() == 0
    longest = time.monotonic() - begun
    again(0)
    killed = 0
    for i in range(1, steps + 1):
        child = begin(verb, **args)
        time.sleep(longest * (i - 0.5) / steps)
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        again(i)
    say(f"  {verb}: killed at {killed} points of {longest * 1000:.0f} ms")


def test_killed_verbs_are_gone_on_from():
    sr_uuid = new()
    configuration = {"device": device, "sr_uuid": sr_uuid, "format": "raw"}
    sr = "file://" + mount_point(sr_uuid)
    steps = times(12) if name == "ext4-ng" else times(5)  # each attach of an XFS takes a second

    def create_again(_):
        assert create(sr_uuid) == configuration
        assert holds()["UUID"] == sr_uuid
        host.call("SR.destroy", sr=host.call("SR.attach", configuration=configuration))
        nothing_is_left()
        assert holds() == {}

    def attach_again(i):
        assert host.call("SR.attach", configuration=configuration) == sr
        assert host.call("SR.stat", sr=sr)["health"][0] == "Healthy"
        if i % 4 != 3:
            host.call("SR.detach", sr=sr)
            nothing_is_left()

    def detach_again(i):
        if i % 2:
            host.call("SR.detach", sr=sr)
            nothing_is_left()
        assert host.call("SR.attach", configuration=configuration) == sr

    def destroy_again(_):
        try:
            host.call("SR.destroy", sr=sr)
        except Exception as e:
            assert e.params[0] in ("SR_does_not_exist", "Sr_not_attached"), e
        host.call("SR.detach", sr=sr)
        nothing_is_left()
        create(sr_uuid, force="true")
        host.call("SR.attach", configuration=configuration)

    kill_at_each_point("SR.create", create_again, steps, uuid=sr_uuid, name="a name", description="d", configuration={"device": device})
    create(sr_uuid)
    # After a kill ext4's multi-mount protection waits for eleven seconds: whether that host lives.
    kill_at_each_point("SR.attach", attach_again, 1 if IS_BRIEF else steps, configuration=configuration)
    host.call("SR.attach", configuration=configuration)
    kill_at_each_point("SR.detach", detach_again, steps, sr=sr)
    kill_at_each_point("SR.destroy", destroy_again, steps, sr=sr)
    host.call("SR.destroy", sr=host.call("SR.attach", configuration=configuration))
    nothing_is_left()


def test_one_host_at_a_time_xfs():
    if name != "xfs-ng":
        return
    first, second = host.run_dir, os.path.join(host.dir, "run2")

    def at(number):
        host.run_dir = (first, second)[number - 1]
        host.env.update(SXM_RUN_DIR=host.run_dir, SXM_HOST_ID=f"host-{number}")

    at(1)
    made = create(new())
    sr = host.call("SR.attach", configuration=made)
    at(2)
    said = host.refused("attached by host host-1", "SR.attach", configuration=made)
    assert said.report["code"] == "SR_BACKEND_FAILURE_16", said.report
    assert os.listdir(os.path.join(host.run_dir, "mnt")) == []
    at(1)
    host.call("SR.detach", sr=sr)
    at(2)
    other = host.call("SR.attach", configuration=made)
    at(1)
    host.refused("attached by host host-2", "SR.attach", configuration=made)
    refused("in use" if host.mounts() else "attached", new(), force="true")
    at(2)
    run("umount", mount_point(made["sr_uuid"]))  # it goes down
    at(1)
    host.refused("attached by host host-2", "SR.attach", configuration=made)
    refused("attached by host host-2", new(), force="true")
    sr = host.call("SR.attach", configuration={**made, "force": "true"})
    at(2)
    host.refused("attached by host host-1", "SR.attach", configuration=made)
    host.call("SR.detach", sr=other)  # of what it has no more: takes nothing from the other
    host.refused("attached by host host-1", "SR.attach", configuration=made)
    at(1)
    host.call("SR.detach", sr=sr)
    # Its own next boot: nothing of the last one's is mounted.
    sr = host.call("SR.attach", configuration=made)
    run("umount", mount_point(made["sr_uuid"]))
    with open(device, "r+b") as f:
        f.seek((399 << 20) - (64 << 20))
        at_byte, text = f.tell(), f.read()
        found = [m for m in re.finditer(rb'"boot":"([0-9a-f-]+)"', text)]
        assert len(found) == 1, found
        f.seek(at_byte + found[0].start(1))
        f.write(found[0][1][::-1])
    assert host.call("SR.attach", configuration=made) == sr
    host.call("SR.detach", sr=sr)
    with open(device, "r+b") as f:  # the mark is damaged: not taken for nobody's
        f.seek(at_byte + found[0].start(1) - 40)
        f.write(bytes(40))
    host.refused("it is not written which host", "SR.attach", configuration=made)
    sr = host.call("SR.attach", configuration={**made, "force": "true"})
    host.call("SR.destroy", sr=sr)
    nothing_is_left()


def test_one_host_at_a_time_ext4():
    if name != "ext4-ng":
        return
    sr_uuid = new()
    made = create(sr_uuid)
    sr = host.call("SR.attach", configuration=made)
    second = host.make_device()  # the same file: to the kernel another device
    other = Host()
    other.volume = host.volume
    begun = time.monotonic()
    other.refused("mount", "SR.attach", configuration={**made, "device": second})
    say(f"  refused after {time.monotonic() - begun:.0f} s")
    assert other.mounts() == [], other.mounts()
    other.refused("is mounted by a host", "SR.create", uuid=new(), name="", description="", configuration={"device": second, "force": "true"})
    host.call("SR.detach", sr=sr)
    theirs = other.call("SR.attach", configuration={**made, "device": second})
    other.call("SR.detach", sr=theirs)
    host.call("SR.destroy", sr=host.call("SR.attach", configuration=made))
    run("losetup", "-d", second)
    host.devices.remove(second)


for name in types:
    host.volume = "volume/org.xen.xapi.storage." + name
    query = host.call("Plugin.Query")
    assert {"device", "force", "format"} <= set(query["configuration"]) and query["plugin"] == name, query
    for key, test in list(globals().items()):
        if key.startswith("test_") and (len(sys.argv) < 2 or sys.argv[1] in key):
            say(f"{name}: {key[5:].replace('_', ' ')}")
            test()
host.runs_nothing_soon()
