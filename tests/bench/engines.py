# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is measured: sxm, qemu-storage-daemon, nbdcopy. Each makes a disk out of the gold image, serves it to a guest, and mirrors it.

    start(gold) -> the guest's URI      start_far(path) -> the same, on a disk that an NBD server at path has
    mirror(far, is_sync), is_synced(), finish()
    freeze_guests(): what the guest still has in flight is over, nothing new comes
    image: the file that holds the disk; pid: of the process that works
"""
import json
import os
import shutil
import socket
import subprocess
import sys

from rig import note, stop, until

sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests", "lib"))
from control import Control  # noqa: E402  pylint: disable=wrong-import-position

VOLUME, DATAPATH = "volume/org.xen.xapi.storage.filebased/", "datapath/sxm/"


class Host:
    """Whatever is started with one SXM_RUN_DIR."""

    def __init__(self, room):
        self.room, self.run_dir = room, os.path.join(room, "run")
        self.root = os.path.join(os.environ["SXM_LIBEXECDIR"], "xapi-storage-script")
        self.env = {**os.environ, "SXM_RUN_DIR": self.run_dir, "SXM_LOG": os.environ.get("SXM_BENCH_LOG", "syslog")}
        os.makedirs(room, exist_ok=True)
        self.sr = None

    def verb(self, path, **args):
        done = subprocess.run([os.path.join(self.root, path), "--json"], input=json.dumps({"dbg": "bench", **args}), env=self.env,
                              capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise RuntimeError(f"{path}: {done.stdout.strip()[:300]}")
        return json.loads(done.stdout)

    def volume(self, verb, **args):
        return self.verb(VOLUME + verb, **args)

    def datapath(self, verb, **args):
        return self.verb(DATAPATH + verb, **args)

    def make_volume(self, size, form="raw"):
        if not self.sr:
            sr_dir = os.path.join(self.room, "sr")
            os.makedirs(sr_dir, exist_ok=True)
            config = {"uri": "file://" + sr_dir, "format": form}
            self.volume("SR.create", uuid="5b0dd4c5-6b3c-4c0a-8f3b-0d1f7b1b6a55", name="bench", description="", configuration=config)
            self.sr = self.volume("SR.attach", configuration=config)
        return self.volume("Volume.create", sr=self.sr, name="d", description="", size=size, sharable=False)["uri"][0]

    def attach(self, disk, domain):
        """(socket, export), active."""
        backend = self.datapath("Datapath.attach", uri=disk, domain=domain)
        nbd = [value["uri"] for kind, value in backend["implementations"] if kind == "Nbd"][-1]
        _, _, path, export = nbd.split(":")
        self.datapath("Datapath.activate", uri=disk, domain=domain)
        return path, export.removeprefix("exportname=")

    def end(self):
        """What a broken run left behind must not disturb the next one."""
        mark = ("SXM_RUN_DIR=" + self.run_dir).encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if mark in f.read().split(b"\0"):
                        os.kill(int(pid), 9)
            except OSError:
                pass


class Sxm:
    """Through its verbs, as xapi does; what no verb has, at the control socket."""

    def __init__(self, room, is_sync=False):
        self.host, self.is_sync = Host(os.path.join(room, "sxm")), is_sync
        self.disk = self.image = self.pid = self.nbd_socket = self.operation = None

    def attach(self):
        self.nbd_socket, export = self.host.attach(self.disk, "1")
        self.pid = self.ask("hello")["pid"]
        return f"nbd+unix:///{export}?socket={self.nbd_socket}"

    def start(self, gold):
        self.disk = self.host.make_volume(os.path.getsize(gold))
        self.image = self.disk.split("://", 1)[1]
        uri = self.attach()
        if os.stat(gold).st_blocks:
            subprocess.run(["nbdcopy", "--destination-is-zero", gold, uri], check=True)
        return uri

    def start_far(self, path):
        image = os.path.join(self.host.room, "5b0dd4c5-6b3c-4c0a-8f3b-0d1f7b1b6a56.nbd")
        with open(image, "w", encoding="ascii") as f:
            f.write(f"nbd+unix:///?socket={path}\n")
        self.disk = "sxm://" + image
        return self.attach()

    def control(self):
        return os.path.join(os.path.dirname(self.nbd_socket), "control")

    def ask(self, verb, **args):
        return Control(self.control()).ask(verb, **args)

    def mirror(self, far_uri):
        self.operation = self.host.datapath("Data.mirror", uri=self.disk, domain="1", remote=far_uri)
        if self.is_sync:
            self.ask("mirror.mode", id=self.operation[1], mode="sync")

    def status(self):
        return self.ask("status")["operations"][-1]

    def is_synced(self):
        status = self.host.datapath("Data.stat", operation=self.operation)
        if status["failed"]:
            raise RuntimeError(f"the mirror failed: {status}")
        return status["complete"]

    def finish(self):
        self.host.datapath("Datapath.deactivate", uri=self.disk, domain="1")

    def freeze_guests(self):
        """The deactivation does that."""

    def give_up(self):
        self.ask("mirror.cancel", id=self.operation[1])

    def leave_far(self):
        """It has."""

    def close(self):
        try:
            for verb in ("Datapath.deactivate", "Datapath.deactivate", "Datapath.detach"):  # the first may say that the mirror was lost
                try:
                    self.host.datapath(verb, uri=self.disk, domain="1")
                except RuntimeError as e:
                    note(str(e))
        finally:
            self.host.end()
            shutil.rmtree(self.host.room, ignore_errors=True)


class Qemu:
    """qemu-storage-daemon and its blockdev-mirror."""

    def __init__(self, room, mode="background", is_direct=True):
        self.mode = mode
        self.cache = "cache.direct=on,aio=io_uring" if is_direct else "cache.direct=off"
        self.image, self.path, self.qmp = (os.path.join(room, name) for name in ("qemu.disk", "qemu.nbd", "qemu.qmp"))
        self.process = self.wire = self.pid = None

    def serve(self, *words):
        for path in (self.path, self.qmp):
            if os.path.exists(path):
                os.unlink(path)
        self.process = subprocess.Popen(["qemu-storage-daemon", *words, "--nbd-server", f"addr.type=unix,addr.path={self.path}",
                                         "--export", "nbd,id=e,node-name=disk,name=d,writable=on",
                                         "--chardev", f"socket,id=q,path={self.qmp},server=on,wait=off", "--monitor", "chardev=q"], stderr=subprocess.DEVNULL)
        self.pid, uri = self.process.pid, f"nbd+unix:///d?socket={self.path}"
        until("qemu-storage-daemon", lambda: subprocess.run(["nbdinfo", "--size", uri], capture_output=True, check=False).returncode == 0)
        self.wire = socket.socket(socket.AF_UNIX)
        self.wire.connect(self.qmp)
        self.wire = self.wire.makefile("rw")
        self.wire.readline()
        self.ask("qmp_capabilities")
        return uri

    def start(self, gold):
        subprocess.run(["cp", "--sparse=always", gold, self.image], check=True)
        return self.serve("--blockdev", f"file,node-name=disk,filename={self.image},{self.cache},discard=unmap")

    def start_far(self, path):
        return self.serve("--blockdev", f"nbd,node-name=disk,server.type=unix,server.path={path},export=,discard=unmap")

    def ask(self, command, **arguments):
        self.wire.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.wire.flush()
        for line in self.wire:
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]
        raise RuntimeError("qemu-storage-daemon has gone")

    def mirror(self, far_uri):
        self.ask("blockdev-add", **{"driver": "nbd", "node-name": "far", "discard": "unmap", "detect-zeroes": "unmap", "export": "",
                                    "server": {"type": "unix", "path": far_uri.split("=", 1)[1]}})
        self.ask("blockdev-mirror", **{"job-id": "j", "device": "disk", "target": "far", "sync": "full", "copy-mode": self.mode})

    def is_synced(self):
        jobs = [job for job in self.ask("query-jobs") if job["id"] == "j"]
        if not jobs or jobs[0]["status"] == "concluded":
            raise RuntimeError(f"the mirror failed: {jobs}")
        return jobs[0]["status"] == "ready"

    def finish(self):
        self.ask("block-job-cancel", device="j")
        self.wait_ended()

    def wait_ended(self):
        until("the mirror's end", lambda: not [j for j in self.ask("query-jobs") if j["status"] != "concluded"], 60, 0.001)

    def leave_far(self):
        """It would stay connected."""
        self.ask("blockdev-del", **{"node-name": "far"})

    def freeze_guests(self):
        self.ask("block-export-del", id="e", mode="hard")

    def give_up(self):
        self.ask("block-job-cancel", device="j", force=True)
        self.wait_ended()

    def close(self):
        if self.process:
            stop(self.process, 15)
        if os.path.exists(self.image):
            os.unlink(self.image)


class Nbdcopy:
    """Copies a disk nobody writes; that is all it can."""


ENGINES = {"sxm": Sxm, "qemu": Qemu, "nbdcopy": lambda room: Nbdcopy(),
           "qemu-blocking": lambda room: Qemu(room, "write-blocking"), "qemu-cached": lambda room: Qemu(room, is_direct=False)}


class SxmPair:
    """Two hosts with sxm, and between them a link that is ours. The near one is an Sxm."""

    def __init__(self, room, gold):
        self.near, self.far_host = Sxm(room), Host(os.path.join(room, "sxm2"))
        self.uri = self.near.start(gold)
        self.far_disk = self.far_host.make_volume(os.path.getsize(gold))
        self.far_image = self.far_disk.split("://", 1)[1]
        self.far_socket, self.export = self.far_host.attach(self.far_disk, "MIR1")
        answer = Control(os.path.join(os.path.dirname(self.far_socket), "control")).ask("listen", domain="MIR1", host="127.0.0.1", port=0)
        self.far_port = answer["port"]

    def mirror(self, port):
        self.near.mirror(f"nbd://127.0.0.1:{port}/{self.export}")

    def hello_of_next(self, pid, seconds=10.0):
        """The pid of the process that took over from one that was killed."""
        def is_there():
            try:
                self.near.pid = self.near.ask("hello")["pid"]
                return self.near.pid != pid
            except (OSError, SystemExit):
                return False
        until("the next process", is_there, seconds)

    def close(self):
        try:
            self.near.close()
        finally:
            self.far_host.end()
            shutil.rmtree(self.far_host.room, ignore_errors=True)
