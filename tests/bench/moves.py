# SPDX-License-Identifier: LGPL-2.1-or-later
"""What migrate.py measures with: two hosts of this machine, an sshd, `sxm migrate`, and nbdcopy through ssh."""
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from rig import MIB, Relay, until

for room in ("tests/lib", "tests/e2e"):
    sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], room))
import sshd  # noqa: E402  pylint: disable=wrong-import-position
from smapi import Host, SR_UUID, nbd_of  # noqa: E402  pylint: disable=wrong-import-position

SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
HERE = os.path.dirname(os.path.abspath(__file__))
CIPHER = "aes128-gcm@openssh.com"


def make_data(path, mib):
    """Nothing of it can be made shorter."""
    with open(path, "wb") as f:
        for _ in range(mib):
            f.write(os.urandom(MIB))


def forget_pages(path):
    """What is read of it next comes from its disk (in a tmpfs nothing does)."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


class Side(Host):
    """A host with an SR, and an identity."""

    def __init__(self, name, in_memory):
        super().__init__()
        self.name = name
        self.env.update(SXM_STATE_DIR=os.path.join(self.dir, "state"), SXM_HOST_ID=f"host-{name}")
        self.sr_dir = self.in_memory("sr") if in_memory else os.path.join(self.dir, "sr")
        os.makedirs(self.sr_dir, exist_ok=True)
        self.sr = self.make_sr(uri=f"file://{self.sr_dir}", uuid=SR_UUID[:-1] + name)

    def words(self):
        return ["env", *(f"{k}={self.env[k]}" for k in ("SXM_RUN_DIR", "SXM_STATE_DIR", "SXM_HOST_ID"))]

    def keys(self):
        return {n[:-5] for n in os.listdir(self.sr_dir) if n.endswith(".json") and n != "sxm-sr.json"}

    def image(self, key):
        return os.path.join(self.sr_dir, key + ".raw")

    def mirrors(self, key):
        return [o for o in self.control(key, "status")["ok"]["operations"] if not o["copy"]]


class Disk:
    """On that side, in use."""

    def __init__(self, side, size, data=None):
        """data: a file that becomes its image."""
        volume = side.make_volume(side.sr, size)
        self.side, self.size, self.key, self.uri = side, size, volume["key"], volume["uri"][0]
        self.image = side.image(self.key)
        if data:
            shutil.copyfile(data, self.image)
        self.attach()

    def attach(self):
        path, export = nbd_of(self.side.call("Datapath.attach", uri=self.uri, domain="1"))
        self.side.call("Datapath.activate", uri=self.uri, domain="1")
        self.nbd = f"nbd+unix:///{export}?socket={path}"


class World:
    """Two hosts, the way between them, and the moves from the one to the other."""

    def __init__(self, directory, in_memory=False):
        tempfile.tempdir, self.sxm = directory, SXM
        self.a, self.b = Side("a", in_memory), Side("b", in_memory)
        self.room = tempfile.mkdtemp(prefix="sxm.")
        self.sshd = None

    def start_sshd(self):
        if self.sshd:
            return self.sshd
        programs = os.path.join(self.room, "bin")
        os.mkdir(programs)
        with open(os.path.join(programs, "sxm"), "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\nexec {shlex.join(self.b.words())} $(cat {self.room}/sxm) \"$@\"\n")
        os.chmod(f.name, 0o755)
        self.use(self.sxm)
        self.sshd = sshd.Sshd(os.path.join(self.room, "sshd"), programs + ":/usr/sbin:/usr/bin:/sbin:/bin").start()
        return self.sshd

    def use(self, program):
        """That sxm on both sides, from now on."""
        self.sxm = program
        with open(os.path.join(self.room, "sxm"), "w", encoding="utf-8") as f:
            f.write(program)

    def close(self):
        if self.sshd:
            self.sshd.stop()
        self.empty()
        shutil.rmtree(self.room, ignore_errors=True)

    def empty(self):
        """Whatever became of what was measured: no disk, no process."""
        for side in (self.a, self.b):
            side.end_processes()
            for name in os.listdir(side.sr_dir):
                if name != "sxm-sr.json":
                    path = os.path.join(side.sr_dir, name)
                    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
            shutil.rmtree(side.run_dir, ignore_errors=True)
            shutil.rmtree(side.env["SXM_STATE_DIR"], ignore_errors=True)
            side.sr = side.call("SR.attach", configuration={"uri": f"file://{side.sr_dir}", "format": "raw"})

    def ssh(self, kind, port=None):
        config = self.start_sshd().write_client_config(f"config-{port or 0}", port=port)
        return ["--carrier", kind, "--config", config]

    def far_away(self, ms, rate=""):
        program = [sys.executable, os.path.join(HERE, "far_away.py"), f"{ms},{rate}" if rate else str(ms)]
        return ["--via", shlex.join([*program, *self.b.words(), self.sxm, "relay"])]

    def command(self, way, disks, *more, back=False):
        there = self.a if back else self.b
        host = "far" if "--carrier" in way else there.name
        return [self.sxm, "migrate", *way, *more, *(d.uri for d in disks), f"{host}:{there.sr_dir}"]

    def start(self, way, disks, *more, back=False):
        near = self.b if back else self.a
        return subprocess.Popen(self.command(way, disks, *more, back=back), env=near.env, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    @staticmethod
    def finish(process, seconds=110):
        try:
            out = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if process.returncode:
            raise RuntimeError(f"sxm migrate: {process.returncode}: {out[-600:]}")
        return out

    def move(self, way, disks, *more, back=False):
        """(seconds of the whole command, what it said)"""
        began = time.monotonic()
        out = self.finish(self.start(way, disks, *more, back=back))
        return time.monotonic() - began, out

    def records(self, side=None):
        place, found = os.path.join((side or self.a).env["SXM_STATE_DIR"], "journeys"), []
        for name in os.listdir(place) if os.path.isdir(place) else []:
            if name.endswith(".json"):
                with open(os.path.join(place, name), encoding="utf-8") as f:
                    found.append(json.load(f))
        return sorted(found, key=lambda r: r["started_ms"])

    def history(self, side=None):
        """Of the newest move: what was seen of it, in its order."""
        side = side or self.a
        path = os.path.join(side.env["SXM_STATE_DIR"], "journeys", self.records(side)[-1]["id"] + ".history")
        with open(path, encoding="utf-8") as f:
            return [json.loads(line) for line in f]


# --- the peer

ACCEPT = "import os,socket,sys;c,_=socket.socket(fileno=3).accept();os.dup2(c.fileno(),0);os.dup2(c.fileno(),1);" \
    "os.execvp(sys.argv[1],sys.argv[1:])"


def nbdcopy_stdio(world, source, target):
    """nbdkit speaks on ssh's standard input and output: one connection, and nothing in between."""
    ssh = ["ssh", "-F", world.start_sshd().write_client_config("peer"), "-c", CIPHER, "far"]
    server = f"nbdkit -s file {shlex.quote(target)}"
    return ["nbdcopy", "--destination-is-zero", "--flush", "--", source, "[", sys.executable, "-c", ACCEPT, *ssh, server, "]"]


def run_nbdcopy(world, source, target, size):
    with open(target, "wb") as f:
        f.truncate(size)
    began = time.monotonic()
    subprocess.run(nbdcopy_stdio(world, source, target), check=True, stdin=subprocess.DEVNULL)
    return time.monotonic() - began


def run_nbdcopy_forwarded(world, source, target, size):
    """The same over a socket that ssh forwards, with as many connections as nbdcopy wants."""
    near, far, pid = (os.path.join(world.room, name) for name in ("near.sock", "far.sock", "nbdkit.pid"))
    with open(target, "wb") as f:
        f.truncate(size)
    began = time.monotonic()
    ssh = subprocess.Popen(["ssh", "-F", world.start_sshd().write_client_config("peer"), "-c", CIPHER, "-L", f"{near}:{far}", "far",
                            f"nbdkit -f -P {shlex.quote(pid)} -U {shlex.quote(far)} file {shlex.quote(target)}"],
                           stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("nbdkit", lambda: os.path.exists(near) and os.path.exists(pid))
        subprocess.run(["nbdcopy", "--destination-is-zero", "--flush", source, f"nbd+unix:///?socket={near}"], check=True)
        return time.monotonic() - began
    finally:
        ssh.terminate()
        ssh.wait()
        with open(pid, encoding="ascii") as f:
            os.kill(int(f.read()), signal.SIGTERM)
        for path in (near, far, pid):
            if os.path.exists(path):
                os.unlink(path)


class Link(Relay):
    """The network in front of sshd; what goes over it is not looked into."""

    class Blind:
        def __init__(self, relay):
            self.relay = relay

        def feed(self, data):
            self.relay.up_bytes += len(data)

    reader = Blind

    def __init__(self, port):
        super().__init__(port, 4096)
