#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk whose image's lock is free although a guest has it, or is about to: it is paused, its process was killed, or it is attached and
not active yet. Whatever is taken of it then is the disk at one moment, no guest waits for it, and it is not called what the disk will be."""
import fcntl
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests/lib"))
from control import Control  # noqa: E402
from smapi import ActiveDisk, Host, nbd_of, say, until_true  # noqa: E402

MIB = 1 << 20
SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
host = Host()
plain = host.in_memory("plain")
sparse = host.make_place("xfs")  # blocks are shared there


def make_sr(place, number, kind):
    os.mkdir(f"{place}/{kind}")
    return host.make_sr(uri=f"file://{place}/{kind}", format=kind, uuid=f"0a0b0c0d-1111-2222-3333-44445555{number}")


qcow2, other = make_sr(plain, "0001", "qcow2"), make_sr(plain, "0002", "raw")
raw = make_sr(sparse, "0003", "raw") if sparse else None


def content_id(sr, key):
    return host.call("Volume.stat", sr=sr, key=key)["keys"]["content_id"]


def is_free(disk):
    """Nobody has the image's lock."""
    path = disk.uri.removeprefix("sxm://")
    with open(path, "rb") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            return False


def io(disk, *commands):
    subprocess.run(["qemu-io", "-f", "raw", *(a for c in commands for a in ("-c", c)), disk.nbd], check=True, stdout=subprocess.DEVNULL)


def begin(verb, **args):
    """The same as host.call(), by another process."""
    code = f"import sys; sys.argv = ['{os.path.basename(sys.argv[0])}']; import smapi, json, os; h = object.__new__(smapi.Host); " \
           f"h.root = {host.root!r}; h.env = dict(os.environ); print(json.dumps(h.call({verb!r}, **{args!r})))"
    return subprocess.Popen([sys.executable, "-c", code], env={**host.env, "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))},
                            stdout=subprocess.PIPE, text=True)


def end(process):
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0, out
    return json.loads(out)


def connections(path):
    """Of a unix socket's server: which there are."""
    with open("/proc/net/unix") as f:
        return {line.split()[6] for line in f if line.rstrip().endswith(" " + path) and line.split()[5] == "03"}


def differs(disk, *taken):
    """What was taken keeps another content_id than the disk, which goes on."""
    io(disk, "write -P 9 0 64k")
    disk.deactivate()
    for sr, key in taken:
        assert content_id(sr, key) != content_id(disk.sr, disk.key), "two contents have one name"


def paused(sr, verbs):
    """Each verb waits until the pause is over, and no longer: a guest would wait for it."""
    disk = ActiveDisk(host, sr, 4 * MIB)
    io(disk, "write -P 1 0 1M", "flush")
    taken = []
    for verb, args, to in verbs:
        path = os.path.join(os.path.dirname(disk.socket), "control")
        control = Control(path)
        control.ask("pause")
        assert is_free(disk)
        seen = [connections(path)]
        process = begin(verb, sr=sr, key=disk.key, **args)

        def has_come():
            seen.append(connections(path) - seen[0])
            return process.poll() is not None or seen[-1] & seen[-2]

        until_true("it is over, or waits for the process", has_come)
        control.ask("resume")
        taken.append((to, end(process)["key"]))
        io(disk, "write -P 2 0 64k")
    differs(disk, *taken)


def attached(sr):
    """The guest is about to be started: the disk has a new content_id for that, and is not open yet."""
    volume = host.make_volume(sr, MIB)
    key, uri = volume["key"], volume["uri"][0]
    path = os.path.join(os.path.dirname(nbd_of(host.call("Datapath.attach", uri=uri, domain="1"))[0]), "control")
    control, before = Control(path), content_id(sr, key)
    control.ask("pause")  # so activation comes after it
    activation = begin("Datapath.activate", uri=uri, domain="1")
    until_true("it has a new one", lambda: content_id(sr, key) != before)
    snapshot = host.call("Volume.snapshot", sr=sr, key=key)["key"]
    name = f"{sr.removeprefix('file://')}/{key}"
    together = subprocess.run([SXM, "snapshot", sr.removeprefix("file://"), key], env=host.env, check=True, capture_output=True, text=True)
    exported = subprocess.run([SXM, "export", name], env=host.env, check=True, capture_output=True).stdout
    control.ask("resume")
    end(activation)
    now = content_id(sr, key)
    assert now != content_id(sr, snapshot) and now.encode() not in exported, "two contents have one name"
    for v in host.call("SR.ls", sr=sr):
        assert v["key"] == key or v["keys"]["content_id"] != now, together.stdout
    for verb in "deactivate", "detach":
        host.call("Datapath." + verb, uri=uri, domain="1")
    # and nobody doubts what is only at rest
    assert content_id(sr, host.call("Volume.snapshot", sr=sr, key=key)["key"]) == content_id(sr, key)


def killed(sr):
    """The process and its keeper: a successor comes up when somebody asks, and goes on for the guest."""
    disk = ActiveDisk(host, sr, MIB)
    io(disk, "write -P 1 0 64k", "flush")
    for pid in host.processes():
        os.kill(pid, 9)
    until_true("all are gone", lambda: not host.processes())
    until_true("its lock is free", lambda: is_free(disk))
    snapshot = host.call("Volume.snapshot", sr=sr, key=disk.key)["key"]
    host.call("Datapath.attach", uri=disk.uri, domain=disk.domain)  # if nothing has brought up a successor yet
    differs(disk, (sr, snapshot))


for sr in filter(None, (qcow2, raw)):
    taken = ("Volume.snapshot", {}, sr), ("Volume.clone", {}, sr), ("Volume.copy", {"dest_sr": other}, other)
    paused(sr, taken)
    attached(sr)
if raw:
    killed(raw)  # of a qcow2 image a qemu has the lock, and is left alone
say("ok" if raw else "ok (not raw: no file system that shares blocks)")
