#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk moves from host A to host B while everything goes wrong, again and again.

    ./run tests/e2e/stress.py [--seed S] [--first N] [--rounds N] [--seconds S] [--only KIND,KIND] [--go-on] [--verbose]

A round is a new disk: a guest writes stamps at A, Data.mirror to B, faults at random for --seconds, then all is healed and the
mirror must be complete (or have failed for a reason that a fault explains; then there is another); the barrier, perhaps with a
fault in it, perhaps taken back once (the guest reboots); then both images are the same, byte by byte, B's guest goes on, and
not one of its acknowledged writes is lost. The guest may never see an error, and may wait longer than BOUND_MS only for a
fault of its own side.

Every choice of round N comes from "S.N": --seed S --first N --rounds 1 plays it again, as far as time allows. When a round
fails it says what was done when, and everything is kept.

Needs root: it runs in network, mount and process namespaces of its own, which end with it.

    A: this process' own network            B: a network of its own
    10.83.0.1 =============================== 10.83.0.2      SR and SXM_RUN_DIR of each on a tmpfs; B's can be filled
        '-- relay.py, 127.0.0.1 --'
"""
import argparse
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

INNER = "SXM_STRESS_INNER"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ.get("SXM_SRCDIR", ""), "tests", "lib"))
import control as control_client  # noqa: E402
from smapi import Host, Refused, nbd_of, say, skip  # noqa: E402

MIB = 1 << 20
BOUND_MS = 1000     # a guest's longest wait that is nobody's fault, besides what this machine itself stood still
COMPLETE_S = 60     # from the end of the faults
VERB_S = 100
GUEST = os.path.join(os.environ.get("SXM_BUILDDIR", ""), "tests/lib/guest")


class Failed(Exception):
    pass


def require(condition, text):
    if not condition:
        raise Failed(text)


def now():
    return time.monotonic()


def command(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True)


# --- what happened when

def short(line):
    """Names shortened to what tells them apart."""
    line = re.sub(r"([0-9a-f]{4})[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-[0-9a-f]{8})?", r"\1", line)
    return re.sub(r"<(\d)>sxm-datapath: \[(\d+)\] \[\w+\]", r"<\1> \2", line)


class Journal:
    """Lines with times: what was done here, and what the processes logged meanwhile."""

    def __init__(self):
        self.lock = threading.Lock()
        self.start, self.lines, self.files = now(), [], {}

    def add(self, text):
        with self.lock:
            self.lines.append((now(), text))

    def watch(self, name, path):
        with self.lock:
            self.files.setdefault(path, [name, 0])

    def look(self):
        with self.lock:
            for path, entry in self.files.items():
                try:
                    with open(path, errors="replace") as f:
                        f.seek(entry[1])
                        text = f.read()
                        entry[1] = f.tell()
                except OSError:
                    continue
                self.lines += [(now(), f"        {entry[0]}: {short(line)}") for line in text.splitlines()]

    def text(self):
        self.look()
        with self.lock:
            return "".join(f"{at - self.start:8.3f} {line}\n" for at, line in sorted(self.lines, key=lambda x: x[0]))


class Heartbeat(threading.Thread):
    """When this machine (or this process) itself stood still."""

    def __init__(self):
        super().__init__(daemon=True)
        self.gaps = []

    def run(self):
        last = now()
        while True:
            time.sleep(0.01)
            at = now()
            if at - last > 0.05:
                self.gaps.append((last, at))
            last = at

    def lost(self, start, end):
        return sum(min(b, end) - max(a, start) for a, b in self.gaps[-500:] if a < end and b > start)


# --- the hosts

class Site(Host):
    def __init__(self, name, top, address, pid=None):
        self.name, self.address = name, address
        self.dir = os.path.join(top, name)
        self.root = os.path.join(os.environ["SXM_LIBEXECDIR"], "xapi-storage-script")
        self.run_dir = os.path.join(self.dir, "run")
        self.env = {**os.environ, "SXM_RUN_DIR": self.run_dir, "SXM_LOG": "stderr"}
        self.net = [] if pid is None else ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
        self.prefix = self.net
        os.makedirs(self.run_dir)
        command("mount", "-t", "tmpfs", "-o", "mode=700,size=256m", "tmpfs", self.run_dir)
        os.mkdir(f"{self.dir}/sr")
        self.sr = None

    def begin(self, bytes_):
        """A new SR of that size."""
        command("mount", "-t", "tmpfs", "-o", f"size={bytes_}", "tmpfs", f"{self.dir}/sr")
        self.sr = self.make_sr()

    def finish(self):
        self.end_processes()
        subprocess.run(["umount", "-l", f"{self.dir}/sr"], check=False)
        for name in os.listdir(self.run_dir):
            path = os.path.join(self.run_dir, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    def call(self, verb, **args):
        plugin = "datapath/sxm" if verb.startswith("Data") else "volume/org.xen.xapi.storage.filebased"
        start = now()
        done = self.run(f"{plugin}/{verb}", control_client.json.dumps({**args, "dbg": "stress"}), timeout=VERB_S)
        took = now() - start
        if took > 5 or verb != "Data.stat":
            JOURNAL.add(f"{self.name} {verb} {args.get('domain', args.get('operation', ''))} {took * 1000:.0f} ms"
                        f"{' REFUSED ' + done.stdout.decode() if done.returncode else ''}")
        if done.returncode:
            raise Refused(verb, done.returncode, done.stdout)
        return control_client.json.loads(done.stdout)


class Disk:
    def __init__(self, site, size):
        volume = site.call("Volume.create", sr=site.sr, name="disk", description="", size=size, sharable=False)
        self.site, self.key, self.uri = site, volume["key"], volume["uri"][0]
        self.image = f"{site.dir}/sr/{self.key}.raw"
        self.id = None

    def attach(self, domain):
        """The NBD URI there."""
        socket, export = nbd_of(self.site.call("Datapath.attach", uri=self.uri, domain=domain))
        self.id = export
        self.control_path = os.path.join(os.path.dirname(socket), "control")
        JOURNAL.watch(self.site.name, f"{self.site.run_dir}/{export}.log")
        return f"nbd+unix:///{export}?socket={socket}"

    def datapath(self, verb, domain):
        self.site.call("Datapath." + verb, uri=self.uri, domain=domain)

    def destroy(self):
        self.site.call("Volume.destroy", sr=self.site.sr, key=self.key)

    def ask(self, verb, **args):
        client = control_client.Control(self.control_path)
        client.sock.settimeout(20)
        try:
            return client.ask(verb, **args)
        finally:
            client.stream.close()
            client.sock.close()

    def try_ask(self, verb, **args):
        """None where it was refused, or nobody answers."""
        try:
            return self.ask(verb, **args)
        except (OSError, SystemExit, ValueError) as e:
            JOURNAL.add(f"{self.site.name} {verb}: {e}")
            return None

    def pid(self, name="sxm-datapath"):
        """Its process, which may be stopped: so nobody is asked."""
        for pid in self.site.processes():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f, open(f"/proc/{pid}/comm") as c:
                    if self.id.encode() in f.read() and c.read().strip() == name:
                        return pid
            except OSError:
                pass
        return None

    def kill(self, number, name="sxm-datapath"):
        pid = self.pid(name)
        if pid:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        return pid


# --- the guest

class Guest:
    def __init__(self, rng, top, region):
        self.uri_path, self.log, self.out = (os.path.join(top, n) for n in ("guest.uri", "guest.log", "guest.out"))
        for path in self.uri_path, self.log, self.out:
            if os.path.exists(path):
                os.unlink(path)
        self.region, self.child = region, None
        self.options = ["--seed", str(rng.randrange(1, 1 << 62)), "--depth", str(rng.choice([1, 2, 4, 8, 16])),
                        "--iops", str(rng.choice([100, 500, 1000, 2000, 4000])), "--zero-percent", str(rng.choice([0, 2, 10])),
                        "--flush-every", str(rng.choice([5, 20, 100, 500]))] + rng.choice([[], ["--overlap"]])

    def move(self, uri):
        with open(self.uri_path + ".new", "w", encoding="utf-8") as f:
            f.write(uri + "\n")
        os.rename(self.uri_path + ".new", self.uri_path)

    def start(self):
        with open(self.out, "w", encoding="utf-8") as out:
            self.child = subprocess.Popen([GUEST, "write", "--uri-file", self.uri_path, "--log", self.log, "--slow", "250", "--region",
                                           "{}:{}".format(*self.region), *self.options], stdout=out, stderr=subprocess.STDOUT)
        JOURNAL.watch("guest", self.out)
        JOURNAL.add("guest " + " ".join(self.options))

    def size(self):
        try:
            return os.path.getsize(self.log)
        except OSError:
            return 0

    def goes_on(self, seconds=10):
        """It was answered, and wrote more."""
        goal, end = self.size() + 24 * 40, now() + seconds
        while self.size() < goal:
            require(self.child.poll() is None, "the guest has ended: " + self.said())
            require(now() < end, f"the guest stands still for {seconds} s")
            time.sleep(0.01)

    def said(self):
        with open(self.out, encoding="utf-8") as f:
            return f.read().strip()

    def stop(self):
        self.child.terminate()
        status = self.child.wait(40)
        require(status == 0 and " errors=0 " in self.said(), "the guest saw an error: " + self.said())

    def slow(self):
        """(start, end) of each operation that took long."""
        for line in self.said().splitlines():
            if line.startswith("slow "):
                words = dict(w.split("=") for w in line.split()[1:3])
                yield float(words["at"]) - int(words["ms"]) / 1000, float(words["at"])

    def verify(self, uri):
        done = subprocess.run([GUEST, "verify", "--uri", uri, "--log", self.log], capture_output=True, text=True, check=False)
        require(done.returncode == 0, "LOST: " + done.stdout + done.stderr)
        JOURNAL.add("guest: " + done.stdout.strip())


class Relay:
    def __init__(self, port, target):
        self.port = port
        self.child = subprocess.Popen([sys.executable, os.path.join(os.environ["SXM_SRCDIR"], "tests/lib/relay.py"),
                                       f"127.0.0.1:{port}", target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.child.stdout.readline()

    def tell(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def end(self):
        self.child.stdin.close()
        self.child.wait(10)


# --- faults

class Faults(threading.Thread):
    """What is wrong now, and until when. Kinds are the methods whose names begin with do_; each says how it is undone."""

    def __init__(self, rng, r):
        super().__init__(daemon=True)
        self.rng, self.r, self.is_over, self.calls = rng, r, False, []
        self.live = []          # (when it ends, name, undo)
        self.near = []          # [start, end] in which the guest may have to wait
        self.seen = set()
        self.lock = threading.RLock()
        self.start()

    def inject(self, kind, seconds=None):
        seconds = seconds or self.rng.choice([0.05, 0.2, 0.5, 1, 2]) * self.rng.uniform(0.5, 1.5)
        with self.lock:
            if any(name == kind for _, name, _ in self.live):
                return
            self.seen.add(kind)
        JOURNAL.add(f"FAULT {kind} {seconds:.2f} s")
        undo = getattr(self, "do_" + kind)(seconds)
        if undo:
            with self.lock:
                self.live.append((now() + seconds, kind, undo))

    def run(self):
        while not self.is_over:
            self.undo_due(now())
            time.sleep(0.005)

    def undo_due(self, at):
        with self.lock:
            for entry in [e for e in self.live if e[0] <= at]:
                entry[2]()
                self.live.remove(entry)
                JOURNAL.add("over: " + entry[1])

    def heal(self):
        """Nothing is wrong when this returns."""
        self.undo_due(math.inf)
        for call in self.calls:
            call.wait()
            require(not call.error, f"{call.name}: {call.error}")
        self.calls = []

    def in_background(self, name, what):
        """Verbs that are part of a fault: they may have to wait for the end of another."""
        self.calls.append(Call(what))
        self.calls[-1].name = name

    def excuse(self, seconds):
        self.near.append([now() - 0.05, now() + seconds])

    # the far side's process

    def do_kill_far(self, seconds):
        self.r.far.kill(signal.SIGKILL)

    def do_kill_far_again(self, seconds):
        end = now() + seconds
        while now() < end:
            self.r.far.kill(signal.SIGKILL)
            time.sleep(self.rng.uniform(0.01, 0.3))

    def do_kill_far_and_keeper(self, seconds):
        self.r.far.kill(signal.SIGKILL, "sxm-keeper")
        self.r.far.kill(signal.SIGKILL)
        far = self.r.far
        return lambda: self.in_background("attach again", lambda: far.attach("MIR000001"))  # as any verb: starts it

    def pause(self):
        """Long enough for something to be under way."""
        time.sleep(math.exp(self.rng.uniform(math.log(0.002), math.log(0.2))))

    def do_stop_then_kill_far(self, seconds):
        """What it was sent meanwhile, it never read."""
        self.r.far.kill(signal.SIGSTOP)
        self.pause()
        self.r.far.kill(signal.SIGKILL)

    def do_stop_far_then_kill_near(self, seconds):
        """Both sides do not know of what is between them."""
        pid = self.r.far.kill(signal.SIGSTOP)
        self.pause()
        self.do_kill_near(seconds)
        return lambda: self.cont(pid)

    def do_stop_far(self, seconds):
        pid = self.r.far.kill(signal.SIGSTOP)
        return lambda: self.cont(pid)

    @staticmethod
    def cont(pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except (ProcessLookupError, TypeError):
            pass

    def do_full(self, seconds):
        path = f"{self.r.b.dir}/sr/filler"
        free = os.statvfs(os.path.dirname(path))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(fd, 0, max(free.f_bavail * free.f_frsize, 4096))
        except OSError:
            pass
        try:
            os.lseek(fd, 0, os.SEEK_END)
            while True:
                os.write(fd, bytes(4096))
        except OSError:
            pass
        os.close(fd)
        return lambda: os.path.exists(path) and os.unlink(path)

    # the path between

    def do_link_down(self, seconds):
        net = self.rng.choice([self.r.a, self.r.b]).net
        command(*net, "ip", "link", "set", "veth", "down")
        return lambda: command(*net, "ip", "link", "set", "veth", "up")

    def tell_relay(self, line):
        self.r.relay.tell(line)
        return lambda: self.r.relay.tell("pass")

    def do_relay_cut(self, seconds):
        self.r.relay.tell("cut")

    def do_relay_stall_then_cut(self, seconds):
        self.r.relay.tell("stall")
        self.pause()
        self.r.relay.tell("cut")
        self.r.relay.tell("pass")

    def do_relay_cut_after(self, seconds):
        n = int(math.exp(self.rng.uniform(0, math.log(4 * MIB))))
        direction = self.rng.choice(["up", "down"])
        JOURNAL.add(f"... {n} {direction}")
        return self.tell_relay(f"cut-after {n} {direction}")

    def do_relay_stall(self, seconds):
        return self.tell_relay("stall")

    def do_relay_refuse(self, seconds):
        return self.tell_relay("refuse")

    def do_relay_hang(self, seconds):
        self.r.relay.tell("cut")
        self.r.relay.tell("hang")

        def undo():
            self.r.relay.tell("cut")
            self.r.relay.tell("pass")
        return undo

    def do_relay_rate(self, seconds):
        return self.tell_relay(f"rate {self.rng.choice([20000, 200000, 2000000])}")

    # what is no fault, but comes at a bad time

    def do_verify(self, seconds):
        rate = self.rng.choice([0, 20, 200]) * MIB
        threading.Thread(target=self.r.near.try_ask, args=("verify.start",), kwargs={"rate_bytes": rate}, daemon=True).start()

    def do_mode(self, seconds):
        if self.r.operation:
            mode = self.rng.choice(["sync", "lag"])
            self.r.near.try_ask("mirror.mode", id=self.r.operation[1], mode=mode)
            JOURNAL.add("... " + mode)

    def do_dom0(self, seconds):
        near, domain = self.r.near, f"u0_stress_{self.rng.randrange(1 << 30)}"

        def visit():
            near.attach(domain)
            near.datapath("activate_readonly", domain)
            time.sleep(seconds)
            near.datapath("deactivate", domain)
            near.datapath("detach", domain)
        self.in_background("a reader in dom0", visit)

    # the guest's own side

    def do_stop_near(self, seconds):
        pid = self.r.near.kill(signal.SIGSTOP)
        self.excuse(seconds + 2)
        return lambda: self.cont(pid)

    def do_kill_near(self, seconds):
        self.excuse(4)
        self.r.near.kill(signal.SIGKILL)


FAR_KINDS = ["kill_far", "kill_far_again", "kill_far_and_keeper", "stop_far", "stop_then_kill_far", "stop_then_kill_far"]
LINK_KINDS = ["link_down"]
RELAY_KINDS = ["relay_cut", "relay_stall_then_cut", "relay_stall_then_cut", "relay_cut_after", "relay_cut_after", "relay_stall", "relay_refuse", "relay_hang", "relay_rate"]
ODD_KINDS = ["verify", "mode", "dom0"]
KILLS_NEAR = ["kill_near", "stop_far_then_kill_near"]
NEAR_KINDS = ["stop_near", "kill_near", "kill_near", "stop_far_then_kill_near", "stop_far_then_kill_near"]


# --- a round

class Poller(threading.Thread):
    """xapi's Data.stat loop."""

    def __init__(self, site, operation):
        super().__init__(daemon=True)
        self.site, self.operation = site, operation
        self.status, self.error, self.is_over = {}, None, False
        self.start()

    def run(self):
        while not self.is_over:
            try:
                status = self.site.call("Data.stat", operation=self.operation)
            except Exception as e:  # noqa: BLE001
                self.error = e
                return
            if [status.get(k) for k in ("complete", "failed")] != [self.status.get(k) for k in ("complete", "failed")]:
                JOURNAL.add(f"Data.stat {status}")
            self.status = status
            time.sleep(0.02)

    def stop(self):
        self.is_over = True
        self.join(VERB_S)
        require(not self.error, f"Data.stat raised: {self.error}")


class Round:
    def __init__(self, number, seed, options, sites, top):
        self.rng = random.Random(f"{seed}.{number}")
        self.number, self.options, self.top = number, options, top
        self.a, self.b = sites
        self.relay = self.near = self.far = self.guest = self.operation = self.poller = None
        self.faults = Faults(self.rng, self)
        self.domain, self.reclaims, self.failures, self.was_said = "1", 0, 0, False
        self.slowest_ms = 0

    # the parts

    def begin(self):
        rng = self.rng
        self.size = rng.choice([8, 16, 32, 64]) * MIB
        self.has_relay = rng.random() < 0.6
        self.rate = rng.choice([0, 8, 16, 32]) * MIB  # slow: something is under way at any time
        self.kinds = FAR_KINDS + ODD_KINDS + NEAR_KINDS + (RELAY_KINDS if self.has_relay else []) + LINK_KINDS
        if rng.random() < 0.3:
            self.kinds = self.kinds + ["full"] * 2
        if self.options.only:
            self.kinds = [k for k in self.kinds + ["full"] if k in self.options.only]
        self.a.begin(256 * MIB)
        self.b.begin(self.size + 2 * MIB)
        self.near = Disk(self.a, self.size)
        uri = self.near.attach(self.domain)
        self.near.datapath("activate", self.domain)
        filled = self.fill()
        self.guest = Guest(rng, self.top, (filled, self.size - filled))
        self.guest.move(uri)
        self.guest.start()
        self.guest.goes_on()
        JOURNAL.add(f"round {self.number}: {self.size // MIB} MiB, {filled // MIB} filled, "
                    f"{f'relay {self.rate}' if self.has_relay else 'direct'}")

    def fill(self):
        filled = self.rng.choice([0, 1, 4, self.size // MIB // 2]) * MIB
        filled = min(filled, self.size - 5 * MIB)
        with open(self.near.image, "r+b") as f:
            f.write(self.rng.randbytes(filled))
        return filled

    def new_far(self):
        self.far = Disk(self.b, self.size)
        self.far.attach("MIR000001")
        self.far.datapath("activate", "MIR000001")
        port = self.far.ask("listen", domain="MIR000001", host=self.b.address, port=10809)["port"]
        if self.has_relay:
            self.relay = Relay(10810, f"{self.b.address}:{port}")
            self.relay.tell(f"always {self.rate}")
        self.remote = f"nbd://{'127.0.0.1:10810' if self.has_relay else f'{self.b.address}:{port}'}/{self.far.id}"

    def end_far(self):
        if self.relay:
            self.relay.end()
            self.relay = None
        self.far.datapath("deactivate", "MIR000001")
        self.far.datapath("detach", "MIR000001")
        self.far.destroy()

    def mirror(self, is_disturbed):
        """Data.mirror; a fault in the middle of it may make it refuse, and then it is asked again when all is well."""
        fault = self.pick(FAR_KINDS + LINK_KINDS + RELAY_KINDS) if is_disturbed and self.rng.random() < 0.4 else None
        if fault and self.rng.random() < 0.5:
            self.faults.inject(fault)
            fault = None
        for _ in range(3):
            call = Call(lambda: self.a.call("Data.mirror", uri=self.near.uri, domain=self.domain, remote=self.remote))
            if fault:
                time.sleep(math.exp(self.rng.uniform(math.log(0.0005), math.log(0.3))))
                self.faults.inject(fault)
            call.wait()
            if not call.error:
                self.operation = call.result
                self.was_said = False
                self.poller = Poller(self.a, self.operation)
                return
            require(self.faults.seen and isinstance(call.error, Refused), f"Data.mirror: {call.error}")
            self.faults.heal()
            time.sleep(1)  # while the far side's keeper starts it
            fault = None
            if "has a mirror already" in str(call.error) or "receiv" in str(call.error):
                self.end_far()
                self.new_far()
        raise Failed(f"Data.mirror refuses: {call.error}")

    def pick(self, kinds):
        possible = [k for k in self.kinds if k in kinds]
        return self.rng.choice(possible) if possible else None

    def disturb(self):
        end = now() + self.options.seconds
        stops_at_once = self.rng.random() < 0.3
        while now() < end:
            time.sleep(self.rng.uniform(0.02, 1.2))
            if self.kinds:
                self.faults.inject(self.rng.choice(self.kinds))
            if self.poller.status.get("failed") or (stops_at_once and self.poller.status.get("complete")):
                break
        if self.rng.random() < 0.6:
            self.faults.heal()

    def reason(self):
        """Its process says, or its record, if that process is no more."""
        said = self.near.try_ask("mirror.stat", id=self.operation[1], wait_ms=0)
        if not said:
            try:
                with open(f"{self.a.run_dir}/state/operations/{self.operation[1]}.json", encoding="utf-8") as f:
                    said = control_client.json.load(f)
            except OSError:
                pass
        return (said or {}).get("text", "?")

    def wait_complete(self):
        """False: it failed, and a fault explains that."""
        end = None
        while not self.poller.status.get("complete"):
            require(self.guest.child.poll() is None, "the guest has ended: " + self.guest.said())
            require(not self.poller.error, f"Data.stat raised: {self.poller.error}")
            if self.poller.status.get("failed"):
                why = self.reason()
                JOURNAL.add("failed: " + why)
                require("full" in self.faults.seen and "o space" in why, "the mirror failed, and no fault explains it: " + why)
                return False
            end = end or (None if self.faults.live else now() + COMPLETE_S)
            if end and now() > end:
                raise Failed(f"not complete in {COMPLETE_S} s: " + str(self.near.try_ask("status")))
            time.sleep(0.01)
        self.was_said = True
        return True

    def mirrored(self):
        """Until one is complete."""
        self.new_far()
        self.mirror(True)
        self.disturb()
        while not self.wait_complete():
            self.again()

    def again(self):
        self.failures += 1
        require(self.failures < 4, "it fails again and again")
        self.poller.stop()
        self.faults.heal()
        self.faults.seen.discard("full")
        self.guest.goes_on()
        self.end_far()
        self.new_far()
        self.mirror(False)

    def barrier(self):
        """The deactivation at A, with a fault in it perhaps. False: it raised, for a reason."""
        kinds = FAR_KINDS + LINK_KINDS + RELAY_KINDS + NEAR_KINDS + ["full"]
        fault = self.pick(kinds) if self.rng.random() < 0.5 else None
        window = [now(), now() + VERB_S]
        self.faults.near.append(window)
        call = Call(lambda: self.near.datapath("deactivate", self.domain))
        if fault:
            time.sleep(math.exp(self.rng.uniform(math.log(0.0003), math.log(0.15))))
            self.faults.inject(fault)
        call.wait()
        window[1] = now()
        if not call.error:
            return True
        why = str(call.error)
        require(isinstance(call.error, Refused), f"deactivate: {why}")
        require(("o space" in why and "full" in self.faults.seen) or (self.failures and "has failed since" in why) or
                (fault in KILLS_NEAR and "was never handed over" in why), "the barrier raised: " + why)
        self.guest.goes_on(30)
        return False

    def handed_over(self):
        while not self.barrier():
            status = self.a.call("Data.stat", operation=self.operation)
            require(status["failed"], f"the barrier raised, and Data.stat says {status}")
            self.again()
            while not self.wait_complete():
                self.again()

    def reclaim(self):
        """The guest reboots at A after all."""
        self.reclaims += 1
        window = [now() - VERB_S, now() + VERB_S]
        self.faults.near.append(window)
        if self.rng.random() < 0.4 and self.pick(FAR_KINDS + LINK_KINDS + RELAY_KINDS):
            self.faults.inject(self.pick(FAR_KINDS + LINK_KINDS + RELAY_KINDS))
        self.near.datapath("detach", self.domain)
        self.domain = str(int(self.domain) + 1)
        self.guest.move(self.near.attach(self.domain))
        call = Call(lambda: self.near.datapath("activate", self.domain))
        call.wait()
        require(not call.error, f"the disk could not be had back: {call.error}")
        self.guest.goes_on(10)
        window[1] = now()
        if self.rng.random() < 0.5 and self.kinds:
            self.faults.inject(self.rng.choice(self.kinds))
            time.sleep(self.rng.uniform(0, 1))

    def compare(self):
        with open(self.near.image, "rb") as f, open(self.far.image, "rb") as g:
            different = [at for at in range(0, self.size, 4096) if f.read(4096) != g.read(4096)]
        require(not different, f"DIFFERENT after the barrier: {len(different)} chunks, the first at {different[:8]}")

    def go_on_there(self):
        is_early = self.rng.random() < 0.5
        window = [now() - VERB_S, now() + VERB_S]  # it is nowhere
        self.faults.near.append(window)
        self.faults.heal()
        uri = self.far.attach("7") if is_early else None
        if self.rng.random() < 0.2 and self.pick(FAR_KINDS):
            self.faults.inject(self.pick(FAR_KINDS))
        call = Call(lambda: (self.far.datapath("deactivate", "MIR000001"), self.far.datapath("detach", "MIR000001")))
        call.wait()
        require(not call.error, f"letting go at B: {call.error}")
        self.compare()
        uri = uri or self.far.attach("7")
        call = Call(lambda: self.far.datapath("activate", "7"))
        call.wait()
        require(not call.error, f"activate at B: {call.error}")
        self.guest.move(uri)
        self.guest.goes_on(15)
        window[1] = now()
        self.guest.stop()
        self.guest.verify(uri)

    def judge_waits(self):
        for start, end in self.guest.slow():
            own = sum(max(min(b, end) - max(a, start), 0) for a, b in self.faults.near)
            ms = (end - start - min(own, end - start)) * 1000
            ms -= HEARTBEAT.lost(start, end) * 1000 if ms > BOUND_MS else 0
            self.slowest_ms = max(ms, self.slowest_ms)
            require(ms <= BOUND_MS, f"the guest waited {ms:.0f} ms until {end - JOURNAL.start:.3f}, and its own side was well")

    def verified(self):
        status = self.near.try_ask("status") or {}
        for v in status.get("verifications", []):
            require(not v.get("different_bytes"), f"verify calls it different: {v}")
        return status

    def clean_up(self):
        self.near.datapath("detach", self.domain)
        end = now() + 10
        while True:
            try:
                self.near.destroy()
                break
            except Refused as e:
                require(now() < end, f"the source cannot be destroyed: {e}")
                time.sleep(0.1)
        self.far.datapath("deactivate", "7")
        self.far.datapath("detach", "7")
        self.far.destroy()
        end = now() + 10
        while left := self.a.processes() + self.b.processes():
            require(now() < end, f"processes stay: {left}")
            time.sleep(0.05)

    def judge_logs(self):
        """A process that dies by itself is started again, and nobody would know."""
        bad = re.findall(r".*(?:exited with|killed by signal (?!9 )|Sanitizer|runtime error|Assert|assert|this cannot be|"
                         r"DOES NOT HAVE).*", JOURNAL.text())
        require(not bad, "in the logs: " + "; ".join(bad[:3]))

    def play(self):
        self.begin()
        self.mirrored()
        self.handed_over()
        while self.rng.random() < 0.3 and self.reclaims < 3:
            self.reclaim()
            while not self.wait_complete_again():
                self.again()
            self.handed_over()
        self.verified()
        self.poller.stop()
        self.go_on_there()
        self.faults.heal()
        self.judge_waits()
        self.clean_up()
        self.judge_logs()

    def wait_complete_again(self):
        """Complete was said already; the mirror is in sync again when its state says so."""
        end = None
        while True:
            status = self.near.try_ask("status") or {}
            states = [o["state"] for o in status.get("operations", []) if o["id"] == self.operation[1]]
            if states == ["synced"] or self.rng.random() < 0.02:
                return self.wait_complete()
            if self.poller.status.get("failed"):
                return self.wait_complete()
            end = end or (None if self.faults.live else now() + COMPLETE_S)
            require(not end or now() < end, f"not in sync again: {status}")
            time.sleep(0.02)

    def end(self):
        if self.poller:
            self.poller.is_over = True
        self.faults.is_over = True
        self.faults.undo_due(math.inf)
        if self.guest and self.guest.child and self.guest.child.poll() is None:
            self.guest.child.kill()
            self.guest.child.wait()
        if self.relay:
            self.relay.end()


class Call(threading.Thread):
    """A verb in the background, while faults come and go."""

    def __init__(self, what):
        super().__init__(daemon=True)
        self.what, self.result, self.error = what, None, None
        self.start()

    def run(self):
        try:
            self.result = self.what()
        except Exception as e:  # noqa: BLE001
            self.error = e

    def wait(self):
        self.join()


# --- all of it

def watch_logs():
    while True:
        JOURNAL.look()
        time.sleep(0.01)


def keep(top, sites, number, seed, why):
    kept = tempfile.mkdtemp(prefix="sxm-stress.", dir=os.environ.get("SXM_STRESS_KEEP", "/var/tmp"))
    text = JOURNAL.text()
    with open(f"{kept}/journal", "w", encoding="utf-8") as f:
        f.write(f"--seed {seed} --first {number}: {why}\n{text}")
    for name in "guest.log", "guest.out", "guest.uri":
        if os.path.exists(f"{top}/{name}"):
            shutil.copy(f"{top}/{name}", kept)
    for site in sites:
        subprocess.run(["cp", "-r", "--sparse=always", f"{site.dir}/sr", f"{kept}/{site.name}"], check=False)
        for name in os.listdir(site.run_dir):
            if name.endswith(".log"):
                shutil.copy(f"{site.run_dir}/{name}", f"{kept}/{site.name}-{name}")
    print(text)
    say(f"FAILED: round {number} of seed {seed}: {why}")
    say(f"again: --seed {seed} --first {number} --rounds 1; kept: {kept}")


def play_rounds(options, top):
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    a, b = Site("A", top, "10.83.0.1"), None
    while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    b = Site("B", top, "10.83.0.2", holder.pid)
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", "veth", "type", "veth", "peer", "name", "veth", "netns", str(holder.pid))
    for site in a, b:
        command(*site.net, "ip", "addr", "add", site.address + "/30", "dev", "veth")
        command(*site.net, "ip", "link", "set", "veth", "up")
    HEARTBEAT.start()
    threading.Thread(target=watch_logs, daemon=True).start()
    for number in range(options.first, options.first + options.rounds):
        JOURNAL.__init__()
        r, why = Round(number, options.seed, options, (a, b), top), None
        try:
            r.play()
        except (Failed, Refused, AssertionError, subprocess.SubprocessError, OSError, SystemExit) as e:
            why = f"{type(e).__name__}: {e}"
            JOURNAL.add("FAILED: " + why)
        r.end()
        if why:
            keep(top, (a, b), number, options.seed, why)
            if not options.go_on:
                return 1
        else:
            say(f"round {number}: {now() - JOURNAL.start:.1f} s, {len(r.faults.seen)} kinds of faults, {r.failures} failed mirrors, "
                f"{r.reclaims} taken back, longest unexcused wait {r.slowest_ms:.0f} ms")
        if options.verbose:
            print(JOURNAL.text())
        for site in a, b:
            site.finish()
        options.bad += bool(why)
    return 1 if options.bad else 0


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", default=None)
    p.add_argument("--first", type=int, default=0)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=4)
    p.add_argument("--only", type=lambda s: s.split(","))
    p.add_argument("--go-on", action="store_true", help="after a round that failed")
    p.add_argument("--verbose", action="store_true")
    options = p.parse_args()
    options.seed = options.seed or str(random.SystemRandom().randrange(1 << 32))
    options.bad = 0
    return options


def main():
    options = parse()
    if not os.environ.get(INNER):
        if os.geteuid():
            skip("only root can do this")
        wall = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*wall, "ip", "link", "add", "sxm0", "type", "veth", "peer", "name", "sxm1"], check=False,
                          capture_output=True).returncode:
            skip("no namespaces here")
        os.environ[INNER] = "1"
        # The shell is the first process there: it reaps.
        os.execvp("unshare", [*wall, "bash", "-c", '"$@"; exit $?', "bash", sys.executable, os.path.abspath(__file__), *sys.argv[1:],
                              *([] if "--seed" in sys.argv else ["--seed", options.seed])])
    say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="sxm.") as top:
        try:
            return play_rounds(options, top)
        finally:
            subprocess.run(["umount", "-l", "-R", f"{top}/A/sr", f"{top}/A/run", f"{top}/B/sr", f"{top}/B/run"], check=False,
                           capture_output=True)


JOURNAL, HEARTBEAT = Journal(), Heartbeat()
if __name__ == "__main__":
    sys.exit(main())
