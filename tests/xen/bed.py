# SPDX-License-Identifier: LGPL-2.1-or-later
"""Xen hosts, emulated: each is a qemu with a hypervisor, a dom0 with this build in it, and guests. See README.

      host = Host(1); host.boot()           host.sh("xl list")        a script in dom0: what it said
      guest = Guest(host, "g"); guest.create(); guest.plug(disk); guest.start(); guest.sh("ls /dev/xvda")
"""
import atexit
import base64
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import image

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "two-host"))
import metrics  # noqa: E402

NAME = os.path.basename(sys.argv[0]).removesuffix(".py")
DEVICES = {"xvda": 51712, "xvdb": 51728, "xvdc": 51744}
# XSAVE under emulation corrupts what dom0's processes compute while a guest shares their processor; PVH, and the log of written pages
# that a live migration needs, want nested paging.
CPU = "qemu64,+npt"
XEN = "console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning dom0_mem=500M,max:500M dom0_max_vcpus=1 smt=0 spec-ctrl=no xpti=no"
DOM0 = "console=hvc0 quiet nomodeset mitigations=off"
LIBEXEC = "/usr/local/libexec"
PATIENCE = 6  # times the seconds that are asked for: others may use this machine, too, and to wait costs nothing where nothing fails


def verb_line(name, /, **args):
    """For dom0's shell: a verb, as xapi calls it."""
    kind = "datapath/sxm" if name.startswith("Data") else "volume/org.xen.xapi.storage.filebased"
    text = shlex.quote(json.dumps({"dbg": NAME, **args}))
    return f"printf %s {text} | {LIBEXEC}/xapi-storage-script/{kind}/{name} --json 2>>/var/log/verbs"


def control_line(disk, verb, /, **args):
    text = shlex.quote(json.dumps({"id": 1, "verb": verb, "args": args}))
    return f"/bed/wire ask /run/sxm/{disk.export}/control {text}"


def end_at_once(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the hosts have to be ended, too
    sys.exit(143)


signal.signal(signal.SIGTERM, end_at_once)
started = time.monotonic()


def say(text):
    print(f"{NAME}: {time.monotonic() - started:6.1f} s  {text}", flush=True)


def skip(why):
    print(f"{NAME}: SKIPPED: {why}", flush=True)
    sys.exit(77)


class Failed(Exception):
    pass


class Host:
    def __init__(self, number=1, sr_bytes=256 << 20, address=None, link=None, share=None):
        """link: (path, is_first) of the socket that two hosts are joined by; share: a directory of this machine that dom0 may mount (9p)."""
        self.name, self.address, self.link = f"host{number}", address or f"10.0.0.{number}", link
        self.number, self.share = number, share
        self.dir = tempfile.mkdtemp(prefix="sxm-xen.")
        self.process = None
        atexit.register(self.end)
        image.make_disk(self.path("sr.img"), sr_bytes)
        self.sr_drive = f"file={self.path('sr.img')},format=raw,if=virtio,cache=unsafe"

    def path(self, name):
        return os.path.join(self.dir, name)

    def start(self):
        cache = image.CACHE
        command = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", CPU, "-smp", "2", "-m", "900",
                   "-display", "none", "-vga", "none", "-nodefaults", "-no-reboot", "-kernel", f"{cache}/xen", "-append", XEN,
                   "-initrd", f"{cache}/vmlinux {DOM0} bed.address={self.address} ,{cache}/dom0.initramfs",
                   "-drive", f"file={cache}/root.img,format=raw,if=virtio,snapshot=on",
                   "-drive", self.sr_drive,
                   "-serial", f"file:{self.path('serial')}", "-device", "virtio-serial-pci",
                   "-chardev", f"socket,id=bed,path={self.path('bed')},server=on,wait=off", "-device", "virtserialport,chardev=bed"]
        if self.link:
            path, is_first = self.link
            command += ["-netdev", f"stream,id=n,server={'on' if is_first else 'off'},addr.type=unix,addr.path={path}",
                        "-device", f"virtio-net-pci,netdev=n,mac=52:54:00:00:00:0{self.number},romfile="]
        if self.share:
            command += ["-fsdev", f"local,id=share,path={self.share},security_model=none,writeout=immediate",
                        "-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]
        with open(self.path("qemu.log"), "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.dir)
        self.wait_for_file("bed", 10)
        self.port = socket.socket(socket.AF_UNIX)
        self.port.connect(self.path("bed"))
        self.stream = self.port.makefile("rwb")
        return self

    def wait_for_file(self, name, seconds):
        end = time.monotonic() + seconds
        while not os.path.exists(self.path(name)):
            self.check_alive(time.monotonic() < end, f"no {name}")
            time.sleep(0.02)

    def wait_for(self, path):
        """A socket of this qemu's."""
        self.wait_for_file(path, 10)

    def wait_until_up(self, seconds=90):
        end = time.monotonic() + seconds * PATIENCE
        while "bed: ready" not in self.serial():
            self.check_alive(time.monotonic() < end, f"does not come up in {seconds} s")
            time.sleep(0.1)
        say(f"{self.name} is up")
        return self

    def boot(self):
        return self.start().wait_until_up()

    def serial(self):
        try:
            with open(self.path("serial"), errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def check_alive(self, is_good, why):
        if not is_good or self.process.poll() is not None:
            with open(self.path("qemu.log")) as f:
                raise Failed(f"{self.name}: {why}: {f.read()[-500:]}\n{self.serial()[-3000:]}")

    def try_sh(self, script, seconds=60):
        """(status, what it said), of a script in dom0."""
        self.port.settimeout(seconds * PATIENCE)
        text = script.encode()
        try:
            self.stream.write(b"%d\n%s" % (len(text), text))
            self.stream.flush()
            status, length = self.stream.readline().split()
            said = self.stream.read(int(length))
        except (OSError, ValueError) as e:
            raise Failed(f"{self.name}: {script[:200]}: {e!r} after {seconds} s\n{self.serial()[-3000:]}") from e
        return int(status), said.decode(errors="replace").strip()

    def sh(self, script, seconds=60):
        status, said = self.try_sh(script, seconds)
        if status:
            raise Failed(f"{self.name}: {script[:300]}: status {status}: {said[-2000:]}")
        return said

    def until(self, script, seconds=20):
        """Asked again in dom0 until it succeeds."""
        self.sh(f"while [ $SECONDS -lt {seconds * PATIENCE} ]; do {{ {script}; }} >/dev/null 2>&1 && exit; usleep 250000; done; "
                f"echo 'not in {seconds * PATIENCE} s'; exit 1", seconds + 30)

    # --- what sxm is asked

    def verb(self, name, /, **args):
        said = self.sh(verb_line(name, **args))
        return json.loads(said) if said else None

    def make_sr(self):
        self.sr = self.verb("SR.create", uuid=f"8a6b29d5-93ae-4ae8-9a3a-b5a1a7a6d7c{self.number}", name="sr", description="",
                            configuration={"uri": "file:///sr", "format": "raw"})
        return self.attach_sr()

    def attach_sr(self):
        self.sr = self.verb("SR.attach", configuration={"uri": "file:///sr", "format": "raw"})
        return self.sr

    def control(self, disk, verb, /, **args):
        """Of the process of a disk (src/PROTOCOL.control)."""
        answer = json.loads(self.sh(control_line(disk, verb, **args)))
        if "error" in answer:
            raise Failed(f"{self.name}: {verb} {args}: {answer['error']}")
        return answer["ok"]

    def start_broker(self):
        self.sh(f"{LIBEXEC}/sxm/sxm-xenbus </dev/null >>/var/log/broker 2>&1 & echo $! >/run/broker.pid")
        self.until("! flock -n -s /run/sxm/xenbus/qdisk.lock true")

    def kill_broker(self, number=9):
        self.sh(f"kill -{number} $(cat /run/broker.pid)")
        self.until("flock -n -s /run/sxm/xenbus/qdisk.lock true")

    # --- the end

    def check_health(self):
        """Nothing crashed: neither a process, nor a kernel, nor Xen."""
        bad = self.try_sh("dmesg | grep -E 'segfault|general protection|BUG:|Oops|WARNING:'")[1]
        bad += "\n".join(line for line in self.serial().splitlines() if "(XEN)" in line and ("Panic" in line or "crash" in line))
        if bad.strip():
            raise Failed(f"{self.name}: {bad}")

    def logs(self):
        return self.try_sh("tail -n 20 /var/log/verbs /var/log/broker; tail -n 40 /run/sxm/*.log; "
                           "for f in /var/log/xen/*; do echo \"== $f\"; tail -n 15 $f; done; xl list; "
                           "xenstore-ls /local/domain/0/backend 2>/dev/null; dmesg | tail -n 15", 30)[1]

    def cut(self):
        """Its power. It may be booted again."""
        self.process.kill()
        self.process.wait()
        self.port.close()
        for name in ("bed", "serial"):
            os.unlink(self.path(name))

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Disk:
    """A volume of a host's SR, as its process serves it to a domain."""

    def __init__(self, host, mib=32):
        self.host, self.mib = host, mib
        self.volume = host.verb("Volume.create", sr=host.sr, name="disk", description="", size=mib << 20, sharable=False)
        self.key, self.uri = self.volume["key"], self.volume["uri"][0]
        self.file = self.uri.removeprefix("sxm://")

    def attach(self, domain):
        backend = self.host.verb("Datapath.attach", uri=self.uri, domain=str(domain))
        nbd = [a["uri"] for kind, a in backend["implementations"] if kind == "Nbd"][-1]
        self.params = [a["params"] for kind, a in backend["implementations"] if kind == "XenDisk"][0]
        self.export = nbd.split("exportname=")[1]
        self.socket = nbd.split(":")[2]

    def activate(self, domain):
        self.host.verb("Datapath.activate", uri=self.uri, domain=str(domain))

    def deactivate(self, domain):
        self.host.verb("Datapath.deactivate", uri=self.uri, domain=str(domain))

    def detach(self, domain):
        self.host.verb("Datapath.detach", uri=self.uri, domain=str(domain))

    def give_to(self, guest, device="xvda"):
        """As xapi does it, and then the toolstack: attached, activated, plugged."""
        self.attach(guest.domid)
        self.activate(guest.domid)
        self.serve_ring(guest.domid, device)
        guest.plug(device)

    def take_from(self, domid):
        self.deactivate(domid)
        self.detach(domid)

    def pid(self):
        return self.host.control(self, "hello")["pid"]

    def serve_ring(self, domain, device="xvda", kind="qdisk"):
        self.host.control(self, "vbd", **self.ring(domain, device, kind))

    def ring(self, domain, device="xvda", kind="qdisk"):
        return {"domain": str(domain), "backend": f"/local/domain/0/backend/{kind}/{domain}/{DEVICES[device]}", "eager": True}

    def status(self, domain):
        return next(d for d in self.host.control(self, "status")["domains"] if d["domain"] == str(domain))

    def figures(self):
        """What xcp-rrdd would read of it, {data source: value} and whose; None: there is nothing."""
        text = self.host.sh(f"cat /dev/shm/metrics/sxm-{self.export}-* 2>/dev/null | base64")
        return metrics.parse(base64.b64decode(text))[:2] if text.strip() else None

    def sum(self):
        return self.host.sh(f"sha256sum <{self.file}", 120).split()[0]


class Guest:
    def __init__(self, host, name, kind="pv", memory_mib=80, extra="", more='on_crash="preserve"'):
        self.host, self.name, self.backend = host, name, {}
        self.config = f"""
name="{name}"
type="{kind}"
kernel="/bed/guest.vmlinuz"
ramdisk="/bed/guest.initramfs"
extra="console=hvc0 quiet mitigations=off rdinit=/init {extra}"
memory={memory_mib}
vcpus=1
{more}
"""

    def create(self):
        """Paused: its devices are plugged before it looks."""
        self.host.sh(f"echo {shlex.quote(self.config)} >/run/{self.name}.cfg; xl create -p /run/{self.name}.cfg", 90)
        self.find()
        return self

    def find(self):
        self.domid = int(self.host.sh(f"xl domid {self.name}"))

    def plug(self, device="xvda", kind="qdisk", mode="w", **more):
        """What a toolstack writes in xenstore. `state` comes last: a guest that looks before all of it is there, and its own, gives up."""
        number, d = DEVICES[device], self.domid
        front, back = f"/local/domain/{d}/device/vbd/{number}", f"/local/domain/0/backend/{kind}/{d}/{number}"
        of_back = {"frontend": front, "frontend-id": d, "online": 1, "removable": 0, "bootable": 1, "dev": device, "type": kind, "mode": mode,
                   "device-type": "disk", **more}
        of_front = {"backend": back, "backend-id": 0, "virtual-device": number, "device-type": "disk"}
        for path, keys, permissions in ((back, of_back, f"n0 r{d}"), (front, of_front, f"n{d} r0")):
            self.host.sh(f"xenstore-write {path} '' " + " ".join(f"{path}/{k} {v}" for k, v in keys.items()) +
                         f" && xenstore-chmod -r {path} {permissions} && xenstore-write {path}/state 1")
        self.backend[device] = back
        return back

    def start(self, seconds=60):
        """Returns when its shell answers."""
        self.host.sh(f"xl unpause {self.name}")
        self.host.sh(f"/bed/in-guest {self.name} {seconds * PATIENCE} ''", seconds + 30)
        say(f"guest {self.name} is up, {self.sh('cut -d. -f1 /proc/uptime')} s of its own")

    def sh(self, command, seconds=60):
        return self.host.sh(f"/bed/in-guest {self.name} {seconds * PATIENCE} {shlex.quote(command)}", seconds * 2 + 30)

    def try_sh(self, command, seconds=60):
        return self.host.try_sh(f"/bed/in-guest {self.name} {seconds * PATIENCE} {shlex.quote(command)}", seconds * 2 + 30)

    # --- its worker, which knows what must be on its disk

    def work(self, file="/dev/xvda", mib=8, more=""):
        self.sh(f"rm -f /run/worker.*; worker {file} {mib} 4 {more} >/run/worker.out 2>&1 & worker=$!; usleep 500000; goes_on")

    def goes_on(self):
        self.sh("goes_on", 60)

    def longest_ms(self):
        """That an operation took so far, as the guest's clock says it."""
        return max(int(line.split()[1]) for line in self.sh("cat /run/worker.[0-9]").splitlines())

    def end_work(self):
        """All that it wrote is there."""
        return self.sh("kill $worker; wait $worker; status=$?; cat /run/worker.out; (exit $status)", 90)

    def sum(self, device="xvda"):
        return self.sh(f"sync; sha256sum /dev/{device}", 90).split()[0]

    def state(self, device="xvda"):
        """xenbus' states of both ends."""
        number = DEVICES[device]
        said = self.host.try_sh(f"xenstore-read /local/domain/{self.domid}/device/vbd/{number}/state; "
                                f"xenstore-read {self.backend[device]}/state")[1]
        return said.split()

    def connected(self, device="xvda"):
        front, back = f"/local/domain/{self.domid}/device/vbd/{DEVICES[device]}", self.backend[device]
        self.host.until(f"[ $(xenstore-read {front}/state)$(xenstore-read {back}/state) = 44 ]", 40)

    def ask_to_unplug(self, device="xvda"):
        self.host.sh(f"xenstore-write {self.backend[device]}/online 0 {self.backend[device]}/state 5")

    def unplugged(self, device="xvda"):
        self.host.until(f"[ $(xenstore-read {self.backend[device]}/state) = 6 ]", 40)
        self.forget(device)

    def forget(self, device="xvda"):
        self.host.sh(f"xenstore-rm /local/domain/{self.domid}/device/vbd/{DEVICES[device]}; xenstore-rm {self.backend[device]}")

    def destroy(self):
        """Returns when nothing is left of it: nobody holds its memory."""
        self.host.sh(f"xl destroy {self.name}")
        self.host.until(f"! xl list {self.domid}", 30)


hosts = []


def make_link():
    """What joins two hosts: a socket's path."""
    directory = tempfile.mkdtemp(prefix="sxm-xen.")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return os.path.join(directory, "link")


def play(scenario):
    """A scenario is a function; where no bed can be made it is skipped."""
    try:
        image.make()
        say("the images are there")
        scenario()
        for host in hosts:
            host.check_health()
        say(f"passed in {time.monotonic() - started:.0f} s")
    except image.Missing as e:
        skip(f"no Xen can be run here: {e}")
    except (Failed, AssertionError) as e:
        say(f"FAILED: {e}")
        for host in hosts:
            if host.process and host.process.poll() is None:
                print(host.logs() if not isinstance(e.__cause__, OSError) else host.serial()[-2000:])
        raise SystemExit(1) from e


def host(*args, **options):
    hosts.append(Host(*args, **options))
    return hosts[-1]
