# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of a VM that moves with its disks share: two hosts, which are network namespaces with a real sshd each, a VM (qemu in
software, a Debian kernel) with an ext4 on each of its two disks, one of them qcow2, that writes to both and checks what it reads
(machine-vm), and a move of it.

       +-- namespace A, 10.83.0.1 -----------+  veth  +-- namespace B, 10.83.0.2 ----+
       | sxm migrate ---------- ssh ---------|========|--> sshd -> sxm relay         |
       | qemu --nbd+unix--> sxm-datapath     |        |    qemu -incoming defer      |
       +-------------------------------------+        +------------------------------+
"""
import glob
import json
import lzma
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests/lib"))
import sshd  # noqa: E402
from smapi import Host, SR_UUID, chain_stays, nbd_of, read_slots, say, skip, until_true

MiB = 1 << 20
SIZES = (48 * MiB, 24 * MiB)
LONG_S = 240  # what comes, comes long before; a busy machine is no failure
# No multiple of 256 KiB: with 160 MiB QEMU 7.2.22 (Debian 12), emulating, sent pages that were older than what the guest had written last,
# and the guest panicked there, or hung; test-vm-memory.py shows it, without sxm (migrate/THEORY-vm, 6).
MEMORY_KIB = 160 * 1024 + 8
PAGE = 4096
SRCDIR = os.environ["SXM_SRCDIR"]
SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
KERNEL_ROOT = os.environ.get("SXM_TEST_KERNEL", "/")
MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk", "crc16", "mbcache",
           "jbd2", "ext4")


def check_what_is_needed():
    for program in ("qemu-system-x86_64", "qemu-img", "busybox", "mkfs.ext4", "e2fsck", "ip", "nsenter"):
        if not shutil.which(program):
            skip(f"this needs {program}")
    if sshd.why_not():
        skip(sshd.why_not())
    if subprocess.run(["unshare", "--net", "ip", "link", "add", "sxm0", "type", "veth", "peer", "name", "sxm1"],
                      capture_output=True).returncode:
        skip("no network namespaces here")
    if not glob.glob(os.path.join(KERNEL_ROOT, "boot/vmlinuz-*")):
        skip(f"no kernel in {KERNEL_ROOT}/boot: set SXM_TEST_KERNEL to an unpacked kernel package")


# --- two hosts

class Side(Host):
    """A host: a network namespace, an SR, an sshd, sxm in the PATH of who logs in."""

    def __init__(self, name, address, image_format):
        super().__init__()
        self.name, self.address, self.space, self.sshd = name, address, f"sxm-{os.getpid()}-{name}", None
        self.prefix = ("nsenter", f"--net=/run/netns/{self.space}", "--")
        self.env.update(SXM_STATE_DIR=os.path.join(self.dir, "state"), SXM_HOST_ID=f"host-{name}")
        subprocess.run(["ip", "netns", "add", self.space], check=True)
        subprocess.run(["ip", "-n", self.space, "link", "set", "lo", "up"], check=True)
        self.sr_dir = self.in_memory("sr")
        self.sr = self.make_sr(uri=f"file://{self.sr_dir}", uuid=SR_UUID[:-1] + name.lower(), format=image_format)
        self.qemus = 0

    def join(self, other):
        subprocess.run(["ip", "-n", self.space, "link", "add", "veth", "type", "veth", "peer", "name", "veth", "netns", other.space],
                       check=True)
        for side in (self, other):
            subprocess.run(["ip", "-n", side.space, "addr", "add", f"{side.address}/30", "dev", "veth"], check=True)
            subprocess.run(["ip", "-n", side.space, "link", "set", "veth", "up"], check=True)

    def start_sshd(self):
        place = os.path.join(self.dir, "bin")
        os.mkdir(place)
        words = " ".join(f"{k}={self.env[k]}" for k in ("SXM_RUN_DIR", "SXM_STATE_DIR", "SXM_HOST_ID", "SXM_LIBEXECDIR") if k in self.env)
        with open(os.path.join(place, "sxm"), "w") as f:
            f.write(f'#!/bin/sh\nexec env {words} {SXM} "$@"\n')
        os.chmod(f.name, 0o755)
        self.sshd = sshd.Sshd(os.path.join(self.dir, "sshd"), place + ":/usr/sbin:/usr/bin:/sbin:/bin", address=self.address,
                              prefix=self.prefix).start()

    def end(self):
        if self.sshd:
            self.sshd.stop()
        super().end()
        subprocess.run(["ip", "netns", "del", self.space], capture_output=True)

    def start_disk(self, uri, domain="7"):
        """The socket and the export, for a guest."""
        place = nbd_of(self.call("Datapath.attach", uri=uri, domain=domain))
        self.call("Datapath.activate", uri=uri, domain=domain)
        return place

    def end_disk(self, uri, domain="7"):
        self.call("Datapath.deactivate", uri=uri, domain=domain)
        self.call("Datapath.detach", uri=uri, domain=domain)

    def owner(self, uri):
        try:
            return read_slots(uri.removeprefix("sxm://") + ".owner")["state"]
        except FileNotFoundError:
            return "owned"


# --- the VM

class Qemu:
    """One QEMU; what its VM says on the console goes to a file."""
    initramfs = None

    def __init__(self, host, disks, *more):
        """disks: what -blockdev says of each, but for its name."""
        host.qemus += 1
        base = os.path.join(host.dir, f"vm{host.qemus}")
        self.host, self.qmp, self.console, self.line = host, base + ".qmp", base + ".console", base + ".line"
        kernel = sorted(glob.glob(os.path.join(KERNEL_ROOT, "boot/vmlinuz-*")))[-1]
        self.process = subprocess.Popen(
            [*host.prefix, "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "qemu64", "-m", f"{MEMORY_KIB}k", "-nodefaults",
             "-display", "none", "-kernel", kernel, "-initrd", self.initramfs, "-append", "console=ttyS0 quiet panic=-1 mitigations=off "
             "random.trust_cpu=on no_timer_check", "-chardev", f"socket,id=c,path={self.line},server=on,wait=off,logfile={self.console}",
             "-serial", "chardev:c", "-qmp", f"unix:{self.qmp},server=on,wait=off",
             *(word for i, disk in enumerate(disks) for word in ("-blockdev", f"node-name=disk{i},{disk}", "-device",
                                                                 f"virtio-blk-pci,drive=disk{i},id=vd{i}")), *more], env=host.env, stdout=open(base + ".out", "w"), stderr=subprocess.STDOUT)
        until_true("QEMU is there", lambda: os.path.exists(self.qmp) or self.process.poll() is not None, LONG_S)
        assert self.process.poll() is None, open(base + ".out").read()

    @classmethod
    def on(cls, host, uris):
        return cls(host, [f"driver=nbd,server.type=unix,server.path={sock},export={export},reconnect-delay=60"
                          for sock, export in (host.start_disk(uri) for uri in uris)])

    @classmethod
    def waiting(cls, host, sizes=SIZES):
        return cls(host, [f"driver=null-co,size={size},read-zeroes=on" for size in sizes], "-incoming", "defer")

    def ask(self, command, **args):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(LONG_S)
            s.connect(self.qmp)
            answers = s.makefile("r")
            answers.readline()
            for c, a in (("qmp_capabilities", {}), (command, args)):
                s.sendall(json.dumps({"execute": c, "arguments": a}).encode())
                answer = json.loads(answers.readline())
                while "event" in answer:
                    answer = json.loads(answers.readline())
            return answer["return"]

    def status(self):
        return self.ask("query-status")["status"]

    def pages(self):
        """Of its memory."""
        path = self.qmp + ".memory"
        self.ask("pmemsave", val=0, size=MEMORY_KIB * 1024, filename=path)
        with open(path, "rb") as f:
            memory = f.read()
        os.unlink(path)
        return [memory[at:at + PAGE] for at in range(0, len(memory), PAGE)]

    def said(self):
        if not os.path.exists(self.console):
            return ""
        with open(self.console, errors="replace") as f:
            return f.read()

    def rounds(self):
        return [(boot, int(n)) for boot, n in re.findall(r"^vm: (\w{8}) (\d+)\r?$", self.said(), re.M)]

    def goes_on(self, seconds=LONG_S):
        def more():
            assert "broken" not in self.said() and self.process.poll() is None, self.said()[-600:]
            return len(self.rounds()) >= before + 3
        before = len(self.rounds())
        until_true("the VM goes on", more, seconds)

    def is_over(self):
        return self.process.poll() is not None

    def tell(self, *words):
        """The guest, on its console, until that has come of it."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.line)
            s.sendall(b"\n".join(w.encode() for w in words) + b"\n")
            until_true(f"the guest heard {words[-1]}", lambda: self.is_over() or f"vm: hears {words[-1]}" in self.said(), LONG_S)

    def finish(self):
        self.tell("finish")
        until_true("the VM has ended", self.is_over, LONG_S)
        assert "vm: finished" in self.said(), self.said()[-600:]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def make_initramfs(directory):
    """Of busybox, the modules and our script."""
    root, version = os.path.join(directory, "root"), sorted(glob.glob(os.path.join(KERNEL_ROOT, "boot/vmlinuz-*")))[-1].split("vmlinuz-")[1]
    for name in ("bin", "dev", "etc", "proc", "sys", "run", "tmp", "modules", "mnt"):
        os.makedirs(os.path.join(root, name))
    shutil.copy(shutil.which("busybox"), os.path.join(root, "bin/busybox"))
    os.symlink("busybox", os.path.join(root, "bin/sh"))
    with open(os.path.join(root, "modules/order"), "w") as order:
        for name in MODULES:
            found = glob.glob(os.path.join(KERNEL_ROOT, f"lib/modules/{version}/kernel/**/{name}.ko*"), recursive=True)
            if not found:
                continue  # it is built in
            with open(found[0], "rb") as f:
                content = f.read()
            with open(os.path.join(root, f"modules/{name}.ko"), "wb") as f:
                f.write(lzma.decompress(content) if found[0].endswith(".xz") else content)
            order.write(name + "\n")
    for name, to in (("machine-init", "init"), ("machine-vm", "job")):
        shutil.copy(os.path.join(SRCDIR, "tests/e2e", name), os.path.join(root, to))
    os.chmod(os.path.join(root, "init"), 0o755)
    Qemu.initramfs = os.path.join(directory, "initramfs")
    with open(Qemu.initramfs, "wb") as f:
        subprocess.run("find . | busybox cpio -o -H newc", shell=True, cwd=root, check=True, stdout=f, stderr=subprocess.DEVNULL)
    shutil.rmtree(root)


# --- moves

class Move:
    def __init__(self, here, there, uris, vm):
        self.here, self.there, self.uris, self.vm = here, there, uris, vm
        self.config = there.sshd.write_client_config()
        self.waiting = None

    def command(self, *args, patience="60s"):
        return [*self.here.prefix, SXM, "migrate", "--config", self.config, "--patience", patience, *args]

    def new(self, *args):
        self.waiting = Qemu.waiting(self.there)
        return self.between(self.vm.qmp, self.waiting.qmp, *args)

    def between(self, here, there, *args):
        return self.command("--qemu-qmp", here, "--qemu-dest", there, *args, *self.uris, f"far:{self.there.sr_dir}")

    def run(self, command, expect=0):
        began = time.monotonic()
        done = subprocess.run(command, env=self.here.env, capture_output=True, text=True, timeout=LONG_S, start_new_session=True)
        if os.environ.get("SXM_TALK"):
            print(f"{time.monotonic() - began:.2f} s", done.stdout, done.stderr, flush=True)
        assert done.returncode == expect, f"{command}: {done.returncode}, not {expect}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start(self, command, **env):
        return subprocess.Popen(command, env={**self.here.env, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                start_new_session=True)

    def end(self, p, expect):
        """What it said; it goes on where it stood still."""
        p.send_signal(signal.SIGCONT)
        out = p.communicate(timeout=LONG_S)[0]
        if os.environ.get("SXM_TALK"):
            print(out, flush=True)
        assert p.returncode == expect, f"{p.args}: {p.returncode}, not {expect}\n{out}"
        return out

    def start_until(self, place, command):
        """It stands still there."""
        p = self.start(command, SXM_MIGRATE_STOP=place)

        def stopped():
            assert p.poll() is None, f"{place}: it ended: {p.stdout.read()}"
            with open(f"/proc/{p.pid}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "T"
        until_true(f"it stands still where it is {place}", stopped, LONG_S)
        return p

    def run_until(self, place, command):
        """... and is killed, with all it started that is not a service."""
        p = self.start_until(place, command)
        p.send_signal(signal.SIGKILL)
        p.wait()

    def start_memory(self, bandwidth="8MiB"):
        """It comes there, slowly."""
        p = self.start(self.new("--bandwidth", bandwidth))
        until_true("memory comes", lambda: p.poll() is not None or self.waiting.ask("query-migrate").get("status") == "active", LONG_S)
        assert p.poll() is None, p.stdout.read()
        return p

    def record(self):
        found = []
        for path in glob.glob(os.path.join(self.here.dir, "state/journeys/*.json")):
            with open(path) as f:
                found.append(json.load(f))
        return max(found, key=lambda r: r["started_ms"])

    def stays(self):
        """It runs here, and nothing of it is there."""
        self.vm.goes_on()
        until_true("the QEMU there is ended", self.waiting.is_over, LONG_S)
        assert not self.waiting.rounds(), self.waiting.said()

    def moved(self, has_rebooted=False):
        """It runs there, and nowhere else; the VM and its disk's URI."""
        until_true("the QEMU here is ended", self.vm.is_over, LONG_S)
        self.waiting.goes_on()
        before, after = self.vm.rounds(), self.waiting.rounds()
        assert before and (has_rebooted or after[0][0] == before[-1][0] and after[0][1] > before[-1][1]), \
            f"{before[-1]}, {after[0]}\n{self.vm.said()[-600:]}\n---\n{self.waiting.said()[-3000:]}"
        for uri in self.uris:
            self.here.call("Datapath.detach", uri=uri, domain="7")
        self.owned("given")
        return self.there, self.waiting, self.far_uris()

    def far_uris(self):
        return [d["far_uri"] for d in self.record()["disks"]]

    def owned(self, *states):
        """Each of the disks here is in that state."""
        found = [self.here.owner(uri) for uri in self.uris]
        assert found == (list(states) if states[1:] else [states[0]] * len(self.uris)), found


# --- disks

def make_disk(host, sr, size):
    """With a file system; its URI."""
    image = os.path.join(host.dir, "new.img")
    with open(image, "wb") as f:
        f.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^64bit", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
    uri = host.make_volume(sr, size)["uri"][0]
    sock, export = host.start_disk(uri, "u0_fill")
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, f"nbd+unix:///{export}?socket={sock}"], check=True)
    host.end_disk(uri, "u0_fill")
    return uri


def check_disk(host, uri):
    """Nobody has it any more."""
    image = os.path.join(host.dir, "last.img")
    path = uri.removeprefix("sxm://")
    subprocess.run([*chain_stays(path), "qemu-img", "convert", "-f", path.rsplit(".", 1)[1], "-O", "raw", path, image], check=True)
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- one after another

def play(steps):
    """steps(VM's hosts): [(name, what is done with a Move, its arguments)]; what returns something has a VM with other disks elsewhere.
    Words in the command line: only what has one of them in its name."""
    check_what_is_needed()
    a, b = Side("A", "10.83.0.1", "raw"), Side("B", "10.83.0.2", "qcow2")
    a.join(b)
    for side in (a, b):
        side.start_sshd()
    make_initramfs(a.dir)
    other = a.make_sr(uri=f"file://{a.in_memory('other')}", uuid=SR_UUID[:-1] + "c", format="qcow2")
    uris = [make_disk(a, sr, size) for sr, size in zip((a.sr, other), SIZES)]
    assert [uri.rsplit(".", 1)[1] for uri in uris] == ["raw", "qcow2"], uris
    began = time.monotonic()
    vm, here, there = Qemu.on(a, uris), a, b
    vm.goes_on()
    say(f"booted in {time.monotonic() - began:.1f} s")
    for name, step, *args in [s for s in steps if not sys.argv[1:] or any(word in s[0] for word in sys.argv[1:])]:
        began = time.monotonic()
        host, vm, uris = step(Move(here, there, uris, vm), *args) or (here, vm, uris)
        here, there = (here, there) if host is here else (there, here)
        say(f"{name}: {time.monotonic() - began:.1f} s")
    vm.finish()
    for uri in uris:
        here.end_disk(uri)
        check_disk(here, uri)
