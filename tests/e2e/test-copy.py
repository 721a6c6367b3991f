#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""sxm copy: a disk, whatever it is and whether or not a guest writes to it, becomes the same bytes somewhere else, with its holes; as it
was at one moment; at the rate that is asked for. Cancelled, or failed, it leaves nothing that looks like a disk."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import ActiveDisk, Host, say, skip, until_true  # noqa: E402

SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
for tool in ("qemu-img", "nbdkit"):
    if not shutil.which(tool):
        skip("this needs: " + tool)
MIB = 1 << 20
SIZE = 32 * MIB
host = Host()
work = host.in_memory("work")
servers = []


def copy(*args, status=0):
    done = subprocess.run([SXM, "copy", *args], capture_output=True, env=host.env, timeout=90, text=True)
    assert done.returncode == status, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout.strip(), done.stderr


def refused(word, *args, left=()):
    out, err = copy(*args, status=1)
    assert word in err and not out, (word, out, err)
    return err


def path(name):
    return os.path.join(work, name)


def make(name, data=3 * MIB):
    with open(path(name), "wb") as f:
        f.truncate(SIZE)
        for at in (0, 20 * MIB, SIZE - 4096):
            f.seek(at)
            f.write(os.urandom(min(data, SIZE - at)))
        f.seek(10 * MIB)
        f.write(bytes(MIB))  # data, and zeros
    return path(name)


def content(name):
    if not name.endswith(".qcow2"):
        with open(name, "rb") as f:
            return f.read()
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", name, path("as raw")], check=True)
    with open(path("as raw"), "rb") as f:
        return f.read()


def allocated(name):
    return os.stat(name).st_blocks * 512


def image_of(sr, key):
    return host.call("Volume.stat", sr=sr, key=key)["uri"][0].removeprefix("sxm://")


def idle():
    """Nobody has anything any more."""
    until_true("every process ends", lambda: not host.processes())
    assert not os.path.exists(os.path.join(host.run_dir, "named"))
    assert not [n for n in os.listdir(work) if n.endswith(".owner")], os.listdir(work)


def serve(*args):
    socket = path(f"socket{len(servers)}")
    servers.append(subprocess.Popen(["nbdkit", "-f", "-U", socket, *args]))
    until_true("nbdkit serves", lambda: os.path.exists(socket))
    return f"nbd+unix:///?socket={socket}"


def files():
    """Of every kind to every kind; holes stay holes."""
    source = make("a")
    assert copy("--verify", source, path("b"))[0] == path("b")
    assert content(path("b")) == content(source) and allocated(path("b")) <= allocated(source)
    os.unlink(path("b"))
    os.chdir(work)
    copy("--quiet", "a", "b.qcow2")
    subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", source, path("b.qcow2")], check=True)
    out, err = copy("--verify", "--json", path("b.qcow2"), path("c"))
    last = json.loads(out.splitlines()[-1])
    assert (last["to"], last["size_bytes"], last["verified"]) == (path("c"), SIZE, True) and err == "", (last, err)
    assert content(path("c")) == content(source) and allocated(path("c")) <= allocated(source)
    memory = serve("memory", str(SIZE))
    copy("--verify", source, memory)
    copy("--verify", memory, path("d"))
    assert content(path("d")) == content(source)
    refused("may have something in it", source, path("d"))
    make("e", 4096)
    copy("--force", "--verify", path("e"), path("d"))
    assert content(path("d")) == content(path("e"))
    idle()


def volumes():
    """Into a new volume, a blank one; of a snapshot, by its key."""
    raw = host.make_sr("work/raw")
    qcow2 = host.make_sr(uri=f"file://{work}/qcow2", format="qcow2", uuid="0a0b0c0d-1111-2222-3333-444455550001")
    out, _ = copy("--name", "a copy", path("a"), raw)
    key = out.rsplit("/", 1)[1]
    v = host.call("Volume.stat", sr=raw, key=key)
    assert v["name"] == "a copy" and v["virtual_size"] == SIZE and content(image_of(raw, key)) == content(path("a"))
    out, _ = copy("--verify", f"{work}/raw/{key}", f"{work}/qcow2")
    other = out.rsplit("/", 1)[1]
    assert content(image_of(qcow2, other)) == content(path("a"))
    snapshot = host.call("Volume.snapshot", sr=qcow2, key=other)["key"]
    blank = host.make_volume(raw, SIZE)["key"]
    copy("--verify", f"{work}/qcow2/{snapshot}", f"{work}/raw/{blank}")
    assert content(image_of(raw, blank)) == content(path("a"))
    refused("is a snapshot", "--force", path("a"), f"{work}/qcow2/{snapshot}")
    refused("may have something in it", path("a"), f"{work}/raw/{blank}")
    small = host.make_volume(raw, MIB)["key"]
    refused("not whole", path("a"), f"{work}/raw/{small}")
    idle()
    return raw


def live(sr):
    """Of a disk that a guest writes to: as it was at one moment, when the copy was complete; the guest goes on."""
    disk = ActiveDisk(host, sr, 64 * MIB).start()
    before = disk.bytes_logged()
    out, _ = copy("--bandwidth", "64MiB", f"{work}/raw/{disk.key}", sr)
    after = disk.bytes_logged()
    key = out.rsplit("/", 1)[1]
    refused("active for writing", "--verify", f"{work}/raw/{disk.key}", sr)
    disk.stop()
    disk.verify(key, before, after)
    refused("for domain 1", "--force", path("a"), f"{work}/raw/{disk.key}")
    disk.deactivate()
    idle()
    assert len(host.call("SR.ls", sr=sr)) == len({v["key"] for v in host.call("SR.ls", sr=sr)})
    return [v["key"] for v in host.call("SR.ls", sr=sr)]


def begin(*args):
    """One that takes seconds, and is under way."""
    process = subprocess.Popen([SXM, "copy", "--bandwidth", "1MiB", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=host.env, text=True)
    line = process.stderr.readline()
    assert "copy:" in line, line
    return process


def bandwidth():
    """No more a second than was asked for, and it may be changed by hand."""
    began = time.monotonic()
    process = begin(path("a"), path("slow"))
    name = [n for n in os.listdir(host.run_dir) if n.startswith("a-") and os.path.isdir(os.path.join(host.run_dir, n))][0]
    limit = os.path.join(host.run_dir, name, "bandwidth")
    with open(limit) as f:
        assert f.read() == f"{MIB}\n"
    assert os.path.exists(path("slow.partial")) and not os.path.exists(path("slow"))  # a disk is only what is whole
    time.sleep(1)
    assert process.poll() is None
    with open(limit, "w") as f:
        f.write("1GiB")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and 1 < time.monotonic() - began < SIZE // MIB, err  # as long as it would have taken
    assert content(path("slow")) == content(path("a")) and not os.path.exists(path("slow.partial"))
    os.unlink(path("slow"))
    idle()


def hurry(rate="1GiB"):
    """What copies from a may send so much a second."""
    name = [n for n in os.listdir(host.run_dir) if n.startswith("a-") and os.path.isdir(os.path.join(host.run_dir, n))][0]
    with open(os.path.join(host.run_dir, name, "bandwidth"), "w") as f:
        f.write(rate)


def limits(sr):
    """What a disk may send is as before when its copy is over, and a copy that is refused says nothing of what its mirror may send."""
    disk = ActiveDisk(host, sr, 8 * MIB)
    (directory,) = [n for n in os.listdir(host.run_dir) if n.startswith(disk.key) and os.path.isdir(os.path.join(host.run_dir, n))]
    limit = os.path.join(host.run_dir, directory, "bandwidth")
    copy("--bandwidth", "64MiB", f"{work}/raw/{disk.key}", path("limited"))
    assert not os.path.exists(limit)
    os.unlink(path("limited"))
    with open(limit, "w") as f:
        f.write("5MiB")
    copy("--bandwidth", "64MiB", f"{work}/raw/{disk.key}", path("limited"))
    with open(limit) as f:
        assert f.read() == "5MiB"
    os.unlink(path("limited"))
    memory = serve("memory", str(8 * MIB))
    host.call("Data.mirror", uri=disk.uri, domain="1", remote=memory)
    refused("", "--bandwidth", "1MiB", f"{work}/raw/{disk.key}", path("limited"))
    with open(limit) as f:
        assert f.read() == "5MiB"
    disk.deactivate()
    host.call("Volume.destroy", sr=sr, key=disk.key)


def unheard():
    """2>&1 | head -1: nobody reads its lines any more, and it does what it was to do."""
    process = begin(path("a"), path("quiet"))
    process.stderr.close()
    hurry("3MiB")  # of six: there is something to say
    out = process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 0 and out == path("quiet") + "\n", out
    assert content(path("quiet")) == content(path("a"))
    os.unlink(path("quiet"))
    idle()


def cancelled(sr, keys):
    """Ctrl-C: what was made goes, what was there is said not to be whole; nobody holds anything."""
    for number, to in ((signal.SIGINT, path("gone")), (signal.SIGTERM, sr)):
        process = begin(path("a"), to)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1 and "cancelled" in err and "nothing is left" in err and not out, err
        assert not [n for n in os.listdir(work) if n.startswith("gone")] and [v["key"] for v in host.call("SR.ls", sr=sr)] == keys
    process = begin("--force", path("a"), path("d"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "not whole" in err, err
    idle()


def doctor(kind):
    done = subprocess.run([SXM, "doctor", "--fix", "--json", "--alive", "1", "--older", "0"], capture_output=True, env=host.env, timeout=60)
    return [f for f in json.loads(done.stdout)["findings"] if f["kind"] == kind]


def killed(sr, keys):
    """The command is killed: the copy goes on, and when it is over the doctor lets go of both ends. What was made does not have its name,
    as nobody waited for its end, and the doctor says so."""
    for to in (path("left"), sr):
        process = begin(path("a"), to)
        process.kill()
        process.communicate()
        assert doctor("command-gone") == [] == doctor("copy-left")
        hurry()
        found = []
        until_true("both are let go of", lambda: len(found.extend(doctor("command-gone")) or found) >= 2, 20)
        assert all(f["fixed"] for f in found) and len(found) == 2, found
        until_true("every process ends", lambda: not host.processes())
        (left,) = doctor("copy-left")
        assert "killed" in left["what"] and "remove" in left["advice"], left
        if to == sr:
            (made,) = [v for v in host.call("SR.ls", sr=sr) if v["key"] not in keys]
            assert made["name"] == "copy (incomplete)" and left["subject"] == image_of(sr, made["key"]), (made, left)
            host.call("Volume.destroy", sr=sr, key=made["key"])
        else:
            assert left["subject"] == path("left.partial") and not os.path.exists(to), left
            refused("another copy makes it", path("a"), to)
            os.unlink(path("left.partial"))
        for owner in (path("left.partial.owner"), path("a.owner")):
            if os.path.exists(owner):
                os.unlink(owner)
        assert doctor("copy-left") == []


def failed():
    """The far side goes, or has other bytes than it was sent; source and target are one."""
    memory = serve("memory", str(SIZE))
    process = begin(path("a"), memory)
    servers[-1].kill()
    servers[-1].wait()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "not whole" in err, err
    err = refused("differ", "--verify", path("a"), serve("null", str(SIZE)))
    assert "not whole" in err, err
    refused("cannot be read from", "nbd://localhost:1/x", path("gone"))
    refused("both are", path("a"), path("a"))
    refused("No such file", path("a"), path("nothing/x"))
    assert not os.path.exists(path("gone"))
    copy("one", status=2)
    copy("--bandwidth", "much", "a", "b", status=2)
    idle()


try:
    files()
    SR = volumes()
    KEYS = live(SR)
    bandwidth()
    limits(SR)
    unheard()
    cancelled(SR, KEYS)
    killed(SR, KEYS)
    failed()
finally:
    for server in servers:
        server.kill()
say("every copy was the same, and what was no copy is gone")
