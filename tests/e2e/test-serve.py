#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""sxm serve: an image is served until Ctrl-C or --stop, raw or qcow2, whole and locked; nothing is left beside it; what somebody has,
a datapath, a qemu, the kernel, is refused; a raw image that a guest made look like qcow2 is not taken for one."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import Host, say, skip, until_true  # noqa: E402

SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
for tool in ("qemu-img", "qemu-io", "nbdinfo", "nbdcopy"):
    if not shutil.which(tool):
        skip("this needs: " + tool)
host = Host()
work = host.in_memory("work")
SIZE = 4 << 20


class Serving:
    """One that waits for Ctrl-C."""

    def __init__(self, *args):
        self.process = subprocess.Popen([SXM, "serve", "--json", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=host.env, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.said = json.loads(line)
        self.uri = self.said["uri"]

    def stop(self, how=signal.SIGINT):
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        until_true("its process ends", lambda: not host.processes())


def serve(*args, status=0):
    done = subprocess.run([SXM, "serve", *args], capture_output=True, env=host.env, timeout=60, text=True)
    assert done.returncode == status, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout, done.stderr


def refused(word, *args):
    out, err = serve(*args, status=1)
    assert word in err and out == "", (word, out, err)


def io(uri, *commands):
    args = [a for c in commands for a in ("-c", c)]
    only_reads = ["-r"] if not any(c.startswith("write") for c in commands) else []
    done = subprocess.run(["qemu-io", "-f", "raw", *only_reads, *args, uri], capture_output=True, text=True)
    return done.returncode == 0 and "error" not in done.stdout + done.stderr.lower() and "failed" not in done.stdout


def make(name, kind="raw", *more):
    path = os.path.join(work, name)
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, *more, path, str(SIZE)], check=True)
    return path


def files():
    return sorted(os.listdir(work))


def raw():
    """What is written is in the file; Ctrl-C, and nothing is left but the file; read only is."""
    path = make("plain")
    s = Serving(path)
    assert (s.said["format"], s.said["size_bytes"], s.said["read_only"], s.said["image"]) == ("raw", SIZE, False, path), s.said
    assert io(s.uri, "write -P 65 4096 8192", "read -P 65 4096 8192")
    refused("served already", path)
    refused("served already", "--read-only", path)
    s.stop()
    with open(path, "rb") as f:
        assert f.read(16384) == bytes(4096) + b"A" * 8192 + bytes(4096)
    assert files() == ["plain"], files()
    s = Serving("--read-only", path)
    assert s.said["read_only"] and not io(s.uri, "write -P 66 0 4096") and io(s.uri, "read -P 65 4096 8192")
    s.stop(signal.SIGTERM)
    out, err = serve("--detach", path)
    assert out.startswith("nbd+unix:///") and "nbdinfo" in err, (out, err)
    assert io(out.strip(), "read -P 65 4096 8192")
    serve("--stop", path)
    until_true("its process ends", lambda: not host.processes())
    refused("not served", "--stop", path)
    assert files() == ["plain"], files()


def places():
    """A socket by another name, TCP, an export's name."""
    path, link = make("places"), os.path.join(host.dir, "a socket")
    s = Serving("--socket", link, "--export", "a disk/1", path)
    assert s.uri == f"nbd+unix:///a%20disk/1?socket={link.replace(' ', '%20')}", s.uri
    info = json.loads(subprocess.run(["nbdinfo", "--json", s.uri], check=True, capture_output=True).stdout)
    assert info["exports"][0]["export-size"] == SIZE, info
    s.stop()
    assert not os.path.lexists(link)
    open(link, "w").close()
    refused("File exists", "--socket", link, path)
    assert os.path.exists(link) and not host.processes() or until_true("it ends", lambda: not host.processes()) is None
    os.unlink(link)
    s = Serving("--listen", "127.0.0.1:0", path)
    assert s.uri.startswith("nbd://127.0.0.1:") and io(s.uri, "write 0 4096"), s.uri
    s.stop()
    for wrong in ("127.0.0.1", ":10", "a:b", "a:99999", "::1:10"):
        refused("no HOST:PORT", "--listen", wrong, path)
    serve("--listen", "a:1", "--socket", "b", path, status=2)
    serve("--format", "vmdk", path, status=2)
    serve(status=2)
    refused("is no file", os.path.join(work, "nothing"))
    refused("neither a file", work)
    refused("served already", "nbd://localhost")


def qcow2():
    """qcow2 by its name, or because it is said; one that names any other file is refused, as is what only looks like qcow2."""
    if not (shutil.which("qemu-storage-daemon") or shutil.which("qemu-nbd")):
        return
    for args in ((), ("--format", "qcow2")):
        path = make("a.qcow2", "qcow2")
        s = Serving(*args, path)
        assert (s.said["format"], s.said["size_bytes"]) == ("qcow2", SIZE)
        assert io(s.uri, "write -P 67 0 65536")
        s.stop()
        assert "failed" not in subprocess.run(["qemu-io", "-f", "qcow2", "-c", "read -P 67 0 65536", path], capture_output=True, text=True).stdout
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True)
    os.rename(path, os.path.join(work, "odd"))
    refused("begins like a qcow2", os.path.join(work, "odd"))
    refused("call it *.qcow2", "--format", "qcow2", os.path.join(work, "odd"))
    os.rename(os.path.join(work, "odd"), path)
    for path in (path, make("b.qcow2")):
        s = Serving("--format", "raw", path)
        assert s.said["format"] == "raw" and s.said["size_bytes"] == os.path.getsize(path)
        assert io(s.uri, "write -P 68 0 512")
        s.stop()
        with open(path, "rb") as f:
            assert f.read(512) == b"D" * 512
    assert not os.path.exists(os.path.join(host.run_dir, "named")), os.listdir(host.run_dir)
    make("over.qcow2", "qcow2", "-F", "raw", "-b", "/etc/passwd")
    refused("backing file", os.path.join(work, "over.qcow2"))


def in_use():
    """A datapath's, a qemu's, a locked one, a loop device's; a volume that a guest has, and files of an SR that are none."""
    path = make("used")
    link = os.path.join(host.dir, "held")
    held = subprocess.Popen(["qemu-io", "-f", "raw", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    held.stdin.write(b"write 0 512\n")
    held.stdin.flush()
    held.stdout.readline()
    refused("another program", path)
    refused("another program", "--read-only", path)
    held.communicate()
    serve("--detach", path)
    serve("--stop", path)
    if os.geteuid() == 0:
        device = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True).stdout.strip()
        if device:
            host.devices.append(device)
            refused("is what the device /dev/loop", path)
            subprocess.run(["losetup", "-d", device])
            host.devices.remove(device)
    sr = host.make_sr("work/sr")
    v = host.make_volume(sr, SIZE)
    image = v["uri"][0].removeprefix("sxm://")
    host.call("Datapath.attach", uri=v["uri"][0], domain="5")
    refused("for domain 5", image)
    refused("for domain 5", f"{work}/sr/{v['key']}")
    host.call("Datapath.detach", uri=v["uri"][0], domain="5")
    old = host.call("Volume.stat", sr=sr, key=v["key"])["keys"]["content_id"]
    s = Serving(f"{work}/sr/{v['key']}")
    assert s.said["image"] == image and io(s.uri, "write 0 512")
    s.stop()
    assert host.call("Volume.stat", sr=sr, key=v["key"])["keys"]["content_id"] != old
    refused("leave it alone", f"{work}/sr/sxm-sr.json")
    refused("no volume", f"{work}/sr/{'0' * 8}")
    del link


def killed():
    """Its datapath killed, it goes on; killed itself, in whatever moment, nobody serves it any more, and nothing is left."""
    path, link = make("killed"), os.path.join(host.dir, "killed.socket")
    s = Serving("--socket", link, path)
    datapath = max(host.processes())
    os.kill(datapath, signal.SIGKILL)
    until_true("it is served again", lambda: io(s.uri, "read 0 512"), 20)
    assert s.process.poll() is None
    refused("served already", path)
    s.process.kill()
    s.process.communicate()
    until_true("its process ends", lambda: not host.processes())
    assert not os.path.lexists(link)
    for wait in (0.0, 0.002, 0.01):
        p = subprocess.Popen([SXM, "serve", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=host.env)
        time.sleep(wait)  # some moment of its beginning
        p.kill()
        p.communicate()
        until_true("its process ends", lambda: not host.processes())
    Serving(path).stop()
    assert [n for n in os.listdir(host.run_dir) if n.endswith(".serve")] == []


raw()
places()
qcow2()
in_use()
killed()
say("images were served, whole and to nobody else")
