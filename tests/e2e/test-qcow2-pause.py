#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A qcow2 image is paused under a writing guest, and a mirror, while its files are changed: what it stood on is below a new leaf,
it has grown, or is the same. The guest waits and sees no error; nothing is lost; how long it waits is said."""
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests/lib"))
from control import Control  # noqa: E402
from smapi import Host, nbd_of, say, skip, until_true  # noqa: E402

for tool in "qemu-img", "nbdinfo":
    if not shutil.which(tool):
        skip(f"this needs: {tool}")
if not os.path.exists("/usr/bin/qemu-storage-daemon") and not os.path.exists("/usr/bin/qemu-nbd"):
    skip("this needs qemu-storage-daemon or qemu-nbd")
GUEST = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/guest")
MIB = 1 << 20
LONGEST_MS = 2000  # asked are 200; the machine that runs this may be busy
host = Host()
folder = os.path.join(host.dir, "sr")
os.mkdir(folder)


def qemu_img(*args):
    subprocess.run(["qemu-img", *args], check=True, stdout=subprocess.DEVNULL)


def create(name, backing=None, size=64 * MIB):
    on = ["-u", "-b", backing, "-F", "qcow2"] if backing else []
    qemu_img("create", "-q", "-f", "qcow2", *on, os.path.join(folder, name), str(size))


class Disk:
    def __init__(self, name, chain=1, path=None, domain="1"):
        self.name, self.domain, self.snapshots = name, domain, 0
        self.path = path or os.path.join(folder, name + ".qcow2")
        self.uri = "sxm://" + self.path
        if not path:
            for i in range(chain - 1):
                create(f"{name}-{i}.base.qcow2", f"{name}-{i - 1}.base.qcow2" if i else None)
            create(name + ".qcow2", f"{name}-{chain - 2}.base.qcow2" if chain > 1 else None)
        self.socket, self.export = nbd_of(host.call("Datapath.attach", uri=self.uri, domain=domain))
        self.nbd = f"nbd+unix:///{self.export}?socket={self.socket}"
        self.control = os.path.join(os.path.dirname(self.socket), "control")
        host.call("Datapath.activate", uri=self.uri, domain=domain)

    def stop(self):
        host.call("Datapath.deactivate", uri=self.uri, domain=self.domain)
        host.call("Datapath.detach", uri=self.uri, domain=self.domain)

    def pid(self):
        return Control(self.control).ask("hello")["pid"]

    def size(self):
        return int(subprocess.check_output(["nbdinfo", "--size", self.nbd]))

    def prepare(self):
        """A new leaf on what is to become a base: the leaf itself. Made before, so that the pause is short."""
        self.snapshots += 1
        base = f"{self.name}-s{self.snapshots}.base.qcow2"
        create(f".{self.name}.qcow2.new", base)
        return base

    def put(self, base):
        os.link(self.path, os.path.join(folder, base))
        os.rename(os.path.join(folder, f".{self.name}.qcow2.new"), self.path)


class Guest:
    def __init__(self, disk, name, *args):
        self.disk, self.log = disk, os.path.join(host.dir, name + ".log")
        self.process = subprocess.Popen([GUEST, "write", "--uri", disk.nbd, "--log", self.log, *args],
                                        stdout=subprocess.PIPE, text=True)
        self.wait_for_writes()

    def wait_for_writes(self):
        before = os.path.getsize(self.log) if os.path.exists(self.log) else 0
        until_true("the guest writes", lambda: os.path.exists(self.log) and os.path.getsize(self.log) > before + 20000, 20)

    def stop(self):
        """Its longest write, in ms."""
        self.process.terminate()
        out = self.process.communicate()[0]
        assert self.process.returncode == 0, "the guest saw an error: " + out
        return float(dict(word.split("=") for word in out.split())["slowest_ms"])

    def verify(self):
        subprocess.run([GUEST, "verify", "--uri", self.disk.nbd, "--log", self.log], check=True)


def refused(words, control, verb, **args):
    try:
        control.ask(verb, **args)
    except SystemExit as e:
        assert words in str(e), f"{verb}: {e}"
        return
    raise AssertionError(f"{verb} should have been refused: {words}")


def lock(path):
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def measured():
    for chain in 1, 8:
        disk = Disk(f"m{chain}", chain)
        guest = Guest(disk, f"m{chain}", "--depth", "4", "--flush-every", "200")
        times = []
        for _ in range(5):
            base = disk.prepare()
            control = Control(disk.control)
            begun = time.monotonic()
            control.ask("pause")
            held = lock(disk.path)  # nobody has it
            disk.put(base)
            os.close(held)
            control.ask("resume")
            times.append((time.monotonic() - begun) * 1000)
            guest.wait_for_writes()
        longest = guest.stop()
        say(f"chain of {chain}, then {chain + 5}: paused for {min(times):.0f} to {max(times):.0f} ms; "
            f"the guest's longest write, depth 4: {longest:.0f} ms (asked: 200)")
        assert longest < LONGEST_MS
        guest.verify()
        disk.stop()
        qemu_img("check", "-q", disk.path)


def is_another(disk, pid):
    """Who is asked while it ends, or before it listens, says nothing."""
    try:
        return disk.pid() != pid
    except (ConnectionError, SystemExit):
        return False


def lost():
    say("what cannot be opened after a pause is waited for, but not for ever; then there is a successor, who answers, and goes on")
    host.env["SXM_NBD_WAIT_MS"] = "1000"
    disk = Disk("lost")
    uri = os.path.join(host.dir, "lost.uri")
    with open(uri, "w") as f:
        f.write(disk.nbd)
    log = os.path.join(host.dir, "lost.log")
    guest = subprocess.Popen([GUEST, "write", "--uri-file", uri, "--log", log, "--iops", "500"], stdout=subprocess.PIPE, text=True)
    until_true("the guest writes", lambda: os.path.exists(log) and os.path.getsize(log) > 20000, 20)
    pid, control = disk.pid(), Control(disk.control)
    control.ask("pause")
    os.rename(disk.path, disk.path + ".away")
    refused("No such file", control, "resume")
    until_true("it has a successor", lambda: is_another(disk, pid), 20)
    assert not Control(disk.control).ask("status")["open"]
    host.refused("No such file", "Datapath.activate", uri=disk.uri, domain="1")
    os.rename(disk.path + ".away", disk.path)
    before = os.path.getsize(log)
    until_true("the guest goes on", lambda: os.path.getsize(log) > before + 20000, 20)
    guest.terminate()
    out = guest.communicate()[0]
    assert guest.returncode == 0, "the guest saw an error: " + out
    subprocess.run([GUEST, "verify", "--uri", disk.nbd, "--log", log], check=True)
    disk.stop()
    del host.env["SXM_NBD_WAIT_MS"]


def mirrored():
    say("with a mirror in place, which goes on; its size may not change meanwhile")
    disk = Disk("r", 2)
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 3 0 48M", disk.nbd], check=True, stdout=subprocess.DEVNULL)
    far = os.path.join(host.dir, "far.raw")
    with open(far, "wb") as f:
        f.truncate(64 * MIB)
    to = Disk("far", path=far, domain="MIR1")
    guest = Guest(disk, "r", "--depth", "4", "--region", "48M:16M", "--overlap")
    operation = host.call("Data.mirror", uri=disk.uri, domain="1", remote=to.nbd)
    for _ in range(4):
        base, control = disk.prepare(), Control(disk.control)
        control.ask("pause")
        disk.put(base)
        control.ask("resume")
        guest.wait_for_writes()
    refused("EBUSY", Control(disk.control), "pause", resize=True)
    refused("EPERM", Control(to.control), "pause")
    until_true("the mirror is complete", lambda: host.call("Data.stat", operation=operation)["complete"], 30)
    control = Control(disk.control)  # and once more, in sync
    control.ask("pause")
    control.ask("resume")
    guest.wait_for_writes()
    longest = guest.stop()
    say(f"the guest's longest write: {longest:.0f} ms")
    disk.stop()
    to.stop()
    qemu_img("compare", "-q", "-U", "-f", "qcow2", "-F", "raw", disk.path, far)
    Disk("far", path=far).stop()  # it is taken: the source's process goes


def grown():
    say("it grows while it is paused, and another one that is no qcow2")
    disk = Disk("g", 2)
    guest = Guest(disk, "g", "--depth", "4", "--region", "0:32M")
    control = Control(disk.control)
    control.ask("pause", resize=True)
    qemu_img("resize", "-q", disk.path, str(128 * MIB))
    control.ask("resume")
    assert disk.size() == 128 * MIB
    guest.wait_for_writes()
    guest.stop()
    guest.verify()
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 3 100M 1M", "-c", "read -P 3 100M 1M", disk.nbd], check=True,
                   stdout=subprocess.DEVNULL)
    disk.stop()
    raw = os.path.join(host.dir, "g.raw")
    with open(raw, "wb") as f:
        f.truncate(8 * MIB)
    disk = Disk("raw", path=raw)
    guest = Guest(disk, "raw", "--depth", "4", "--region", "0:8M", "--overlap")
    control = Control(disk.control)
    control.ask("pause", resize=True)
    os.close(lock(raw))
    os.truncate(raw, 16 * MIB)
    control.ask("resume")
    assert disk.size() == 16 * MIB
    guest.stop()
    guest.verify()
    disk.stop()


def ended():
    say("it ends with whoever asked, after 10 s, or with a path where there is something again")
    disk = Disk("e", 2)
    guest = Guest(disk, "e", "--depth", "4", "--overlap")
    control = Control(disk.control)
    control.ask("pause")
    control.stream.close()
    control.sock.close()
    guest.wait_for_writes()
    refused("ENOENT", Control(disk.control), "resume")

    control, begun = Control(disk.control), time.monotonic()
    control.ask("pause")
    held = lock(disk.path)  # a verb that forgets to say so: the disk waits for it
    time.sleep(11)
    size = os.path.getsize(guest.log)
    time.sleep(0.5)
    assert os.path.getsize(guest.log) == size, "it was opened under a lock"
    os.close(held)
    guest.wait_for_writes()
    assert time.monotonic() - begun > 10
    refused("ENOENT", control, "resume")

    control.ask("pause")
    os.rename(disk.path, disk.path + ".away")
    refused("ENOENT", control, "resume")
    os.rename(disk.path + ".away", disk.path)
    guest.wait_for_writes()
    guest.stop()
    guest.verify()
    disk.stop()


def idle():
    say("what nobody has active is paused at once, and activations wait")
    disk = Disk("i", 2)
    host.call("Datapath.deactivate", uri=disk.uri, domain="1")
    control = Control(disk.control)
    control.ask("pause")
    os.close(lock(disk.path))
    done = []
    thread = threading.Thread(target=lambda: done.append(host.call("Datapath.activate", uri=disk.uri, domain="1")))
    thread.start()
    time.sleep(0.3)
    assert not done
    control.ask("resume")
    thread.join()
    assert done and disk.size() == 64 * MIB
    disk.stop()


def killed():
    say("the datapath is killed while it is paused: its successor serves what is there")
    disk = Disk("k", 2)
    where = os.path.join(host.dir, "where")
    os.mkfifo(where)
    guest = Guest(disk, "k", "--depth", "4", "--then", where, "--overlap")
    base, control = disk.prepare(), Control(disk.control)
    control.ask("pause")
    os.kill(disk.pid(), signal.SIGKILL)
    disk.put(base)
    until_true("it is served again", lambda: subprocess.run(["nbdinfo", "--size", disk.nbd], stdout=subprocess.DEVNULL,
                                                            stderr=subprocess.DEVNULL).returncode == 0)
    with open(where, "w") as f:
        f.write(disk.nbd + "\n")
    guest.wait_for_writes()
    guest.stop()
    guest.verify()
    disk.stop()
    qemu_img("check", "-q", disk.path)


for test in measured, mirrored, grown, ended, idle, killed, lost:
    if len(sys.argv) < 2 or test.__name__ in sys.argv[1:]:
        test()
until_true("no server is left", lambda: not [p for p in host.processes() if os.path.exists(f"/proc/{p}/comm") and
                                             "qemu" in open(f"/proc/{p}/comm").read()])
