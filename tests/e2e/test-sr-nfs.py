#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""SRs on an NFS server, with a stand-in for mount(8) that mounts a directory of this host under the server's name: what is asked of it,
what is refused, and that a server which does not answer hangs no verb."""
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import Host, check, say, skip  # noqa: E402

if os.geteuid() != 0:
    skip("only root can mount")
host = Host()
host.volume = "volume/org.xen.xapi.storage.nfs-ng"
bin_dir, export, asked = (os.path.join(host.dir, n) for n in ("bin", "export", "asked"))
for directory in (bin_dir, export, os.path.join(host.dir, "work")):
    os.mkdir(directory)
datapath = os.path.join(os.environ["SXM_BUILDDIR"], "sxm-datapath")
real_mount = shutil.which("mount")
MOUNT = f"""#!{sys.executable}
import json, os, subprocess, sys, time
with open({asked!r}, "a") as f:
    f.write(json.dumps(sys.argv[1:]) + "\\n")
mode = open({host.dir!r} + "/mode").read()
if mode == "hang":
    time.sleep(1000)
if mode == "refuse":
    sys.exit("mount.nfs: access denied by server while mounting " + sys.argv[5])
if mode == "lie":
    sys.exit(0)
read_only = ["-r"] if "ro" in sys.argv[4].split(",") else []
sys.exit(subprocess.run([{real_mount!r}, *read_only, "-t", "overlay", sys.argv[5], "-o",
    "lowerdir={bin_dir},upperdir={export},workdir={host.dir}/work",
    sys.argv[6]]).returncode)
"""
SHOWMOUNT = f"""#!/bin/sh
echo "$*" >>{asked}.showmount
printf '/srv/a *\\n/srv/b 10.0.0.0/8\\nnonsense\\n/bad/../x *\\n'
"""
for program, text in (("mount", MOUNT), ("showmount", SHOWMOUNT)):
    with open(os.path.join(bin_dir, program), "w") as f:
        f.write(text)
    os.chmod(os.path.join(bin_dir, program), 0o755)
host.env["PATH"] = bin_dir + ":" + os.environ["PATH"]


def mode(word):
    with open(os.path.join(host.dir, "mode"), "w") as f:
        f.write(word)
    if os.path.exists(asked):
        os.unlink(asked)


def calls():
    with open(asked) as f:
        return [json.loads(line) for line in f]


def create(**configuration):
    return host.call("SR.create", uuid=sr_uuid, name="n", description="d", configuration={"server": "filer.example", "serverpath": "/srv/a", "format": "raw", **configuration})


def nothing_is_left():
    assert host.mounts() == [], host.mounts()
    assert os.listdir(os.path.join(host.run_dir, "mnt")) == [], os.listdir(os.path.join(host.run_dir, "mnt"))


sr_uuid = str(uuid.uuid4())
there = os.path.join(host.run_dir, "mnt", sr_uuid)


def test_a_whole_life():
    mode("good")
    made = create(version="4.2", options="nconnect=4,timeo=100")
    assert made == {"server": "filer.example", "serverpath": "/srv/a", "version": "4.2", "options": "nconnect=4,timeo=100", "format": "raw",
                    "sr_uuid": sr_uuid}, made
    assert calls() == [["-t", "nfs", "-o", "nosuid,nodev,noexec,noatime,hard,retry=0,acdirmin=0,acdirmax=0,vers=4.2,nconnect=4,timeo=100",
                        "filer.example:/srv/a", there]], calls()
    nothing_is_left()
    assert os.listdir(os.path.join(export, sr_uuid)) and create(version="4.2", options="nconnect=4,timeo=100") == made
    sr = host.call("SR.attach", configuration=made)
    assert sr == f"file://{there}/{sr_uuid}" and host.call("SR.attach", configuration=made) == sr
    assert [(m[0], m[1]) for m in host.mounts()] == [(there, "filer.example:/srv/a")], host.mounts()
    assert {"nosuid", "nodev", "noexec"} <= set(host.mounts()[0][2].split(",")), host.mounts()
    stat = host.call("SR.stat", sr=sr)
    check("sr_stat", stat)
    assert (stat["clustered"], stat["health"], stat["uuid"]) == (True, ["Healthy", ""], sr_uuid), stat
    v = host.make_volume(sr)
    assert [x["key"] for x in host.call("SR.ls", sr=sr)] == [v["key"]]
    found = host.call("SR.probe", configuration={"server": "filer.example", "serverpath": "/srv/a"})
    check("list<probe_result>", found)
    assert [(f["complete"], f["configuration"].get("sr_uuid")) for f in found] == [(True, sr_uuid), (True, None)], found
    assert "ro" in calls()[-1][3].split(","), calls()
    assert len(host.mounts()) == 1
    host.call("Datapath.attach", uri=v["uri"][0], domain="1")
    host.call("Datapath.activate", uri=v["uri"][0], domain="1")
    host.refused(v["key"], "SR.detach", sr=sr)
    host.call("Datapath.deactivate", uri=v["uri"][0], domain="1")
    host.call("Datapath.detach", uri=v["uri"][0], domain="1")
    subprocess.run([datapath, "--id", "nobody-00000000", "--path", v["uri"][0].removeprefix("sxm://")], check=True, env=host.env)
    for _ in range(2):  # a process that nobody is attached to is no user
        host.call("SR.detach", sr=sr)
    nothing_is_left()
    host.end_processes()
    host.call("SR.attach", configuration=made)
    host.call("Volume.destroy", sr=sr, key=v["key"])
    host.call("SR.destroy", sr=sr)
    nothing_is_left()
    assert os.listdir(export) == [], os.listdir(export)


def test_other_words_for_the_same():
    mode("good")
    made = host.call("SR.create", uuid=sr_uuid, name="", description="", configuration={"uri": "nfs://10.0.0.1/srv/my%20disks", "nfsversion": "3"})
    assert made == {"server": "10.0.0.1", "serverpath": "/srv/my disks", "version": "3", "format": "auto", "sr_uuid": sr_uuid}, made
    assert calls()[0][4] == "10.0.0.1:/srv/my disks" and ",vers=3" in calls()[0][3], calls()
    host.call("SR.destroy", sr=host.call("SR.attach", configuration=made))
    made = create(server="fd00::1")
    assert calls()[-1][4] == "[fd00::1]:/srv/a", calls()
    host.call("SR.destroy", sr=host.call("SR.attach", configuration=made))
    nothing_is_left()


def test_what_is_not_in_the_list_is_refused_and_nobody_asked():
    mode("good")
    for key, values in {"options": ("suid", "dev", "exec", "rw", "bg", "nolock", "local_lock=all", "context=x", "timeo", "timeo=", "timeo=1x", "timeo=-1",
                                    "hard=1", "proto=udp", "sec=none", "hard suid", "hard\nsuid", "hard,,soft", ",", "timeo=1 ,suid", "addr=1.2.3.4",
                                    "sec=sys|krb5", "uid=0", "x-systemd.automount", "helper=/tmp/x", "HARD", "timeo=9999999999"),
                        "version": ("5", "", "4.2,suid", "4\n", "-1"),
                        "server": ("", "-o", "a b", "a,b", "a/b", "a\nb", "$(id)", "..", "x" * 300),
                        "serverpath": ("", "a", "/a/../b", "/..", "/a\nb", "/\x01", "/" + "x" * 2000)}.items():
        for value in values:
            try:
                create(**{key: value})
            except Exception as e:
                assert "configuration" in e.params[1], e
                continue
            raise AssertionError(f"{key}={value!r} was accepted")
    for uri in ("file:///a", "nfs:///a", "nfs://host", "nfs://h/a?x", "nfs://-o/a", "nfs://h/%00", "nfs://h/../a"):
        host.refused("configuration", "SR.create", uuid=sr_uuid, name="", description="", configuration={"uri": uri})
    for bad in ("../x", "a/b", "-o", ".", "x" * 300):
        host.refused("directory", "SR.create", uuid=bad, name="", description="", configuration={"server": "a", "serverpath": "/a"})
    assert not os.path.exists(asked), calls()


def test_probe_goes_step_by_step():
    mode("good")
    assert host.call("SR.probe", configuration={}) == [{"configuration": {}, "complete": False, "extra_info": {}}]
    found = host.call("SR.probe", configuration={"server": "filer.example"})
    assert [(f["configuration"], f["complete"]) for f in found] == [({"server": "filer.example", "serverpath": p}, False) for p in ("/srv/a", "/srv/b")], found
    with open(asked + ".showmount") as f:
        assert f.read() == "--no-headers -e filer.example\n"
    found = host.call("SR.probe", configuration={"server": "filer.example", "serverpath": "/srv/a"})
    assert [(f["complete"], "sr" in f) for f in found] == [(True, False)], found
    nothing_is_left()


def test_errors_are_said_and_leave_nothing():
    mode("refuse")
    host.refused("access denied by server", "SR.create", uuid=sr_uuid, name="", description="", configuration={"server": "a", "serverpath": "/a"})
    nothing_is_left()
    mode("lie")
    host.refused("it is not there", "SR.create", uuid=sr_uuid, name="", description="", configuration={"server": "a", "serverpath": "/a"})
    nothing_is_left()
    host.env["PATH"] = "/nonexistent"
    stub = os.path.join(host.root, "..", "sxm", "sxm-smapi")
    assert os.path.exists(stub)
    host.refused("No such file", "SR.create", uuid=sr_uuid, name="", description="", configuration={"server": "a", "serverpath": "/a"})
    host.env["PATH"] = bin_dir + ":" + os.environ["PATH"]
    nothing_is_left()
    mode("good")
    os.symlink("/etc", os.path.join(export, sr_uuid))
    before = sorted(os.listdir("/etc"))
    host.refused("or a link", "SR.create", uuid=sr_uuid, name="", description="", configuration={"server": "a", "serverpath": "/a"})
    host.refused("or a link", "SR.attach", configuration={"server": "a", "serverpath": "/a", "sr_uuid": sr_uuid})
    assert sorted(os.listdir("/etc")) == before
    os.unlink(os.path.join(export, sr_uuid))
    said = host.refused("no directory", "SR.attach", configuration={"server": "a", "serverpath": "/a", "sr_uuid": sr_uuid})
    assert said.params[0] == "SR_does_not_exist", said.params
    nothing_is_left()


def dead_server(source, directory):
    """A file system that never answers, at directory; the descriptor that ends it when it is closed."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    r = libc.mount(source.encode(), directory.encode(), b"fuse", 6, f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode())
    assert r == 0, os.strerror(ctypes.get_errno())
    return fd


def test_a_server_that_does_not_answer_hangs_no_verb():
    if not os.path.exists("/dev/fuse"):
        return say("  no /dev/fuse: left out")
    mode("good")
    made = create()
    sr = host.call("SR.attach", configuration=made)
    subprocess.run(["umount", there], check=True)
    fd = dead_server("filer.example:/srv/a", there)
    begun = time.monotonic()
    stat = host.call("SR.stat", sr=sr)
    check("sr_stat", stat)
    assert stat["health"][0] == "Unreachable" and "does not answer" in stat["health"][1], stat
    assert 5 < time.monotonic() - begun < 60, time.monotonic() - begun
    os.close(fd)
    subprocess.run(["umount", there], check=True)
    host.call("SR.destroy", sr=host.call("SR.attach", configuration=made))
    mode("hang")
    begun = time.monotonic()
    host.refused("has not ended within", "SR.attach", configuration=made)
    assert time.monotonic() - begun < 100
    nothing_is_left()
    host.runs_nothing_soon()


query = host.call("Plugin.Query")
assert {"server", "serverpath", "uri", "version", "options"} <= set(query["configuration"]), query
for key, test in list(globals().items()):
    if key.startswith("test_") and (len(sys.argv) < 2 or sys.argv[1] in key):
        say(key[5:].replace("_", " "))
        test()
host.runs_nothing_soon()
