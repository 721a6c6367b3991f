# SPDX-License-Identifier: LGPL-2.1-or-later
"""What stress.py disturbs: two hosts, a disk, a guest, a relay between; and the journal of what was done when."""
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import control as control_client
from smapi import Host, Refused, nbd_of

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


JOURNAL, HEARTBEAT = Journal(), Heartbeat()


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
                yield float(words["at"]) - float(words["ms"]) / 1000, float(words["at"])

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
