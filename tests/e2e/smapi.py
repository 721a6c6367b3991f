# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the verbs in Python share: a host with its own SXM_RUN_DIR, verbs run as xapi runs them (one process
each, one compact JSON object on standard input, then its end), and the interface's types as xapi's reader judges them."""
import atexit
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

NAME = os.path.basename(sys.argv[0]).removesuffix(".py")
VOLUME = "volume/org.xen.xapi.storage.filebased"
DATAPATH = "datapath/sxm"
SR_UUID = "0a0b0c0d-1111-2222-3333-444455556666"


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a test made goes with it, also when its time is over


def skip(why):
    print(f"{NAME}: skipped: {why}")
    sys.exit(77)


def say(text):
    print(f"{NAME}: {text}", flush=True)


def mount_apart():
    """What this test mounts, nobody else has: a namespace that another test makes meanwhile would hold a copy of each, and with
    it the device. Only for root; what others unmount goes here, too."""
    new_namespace, recursive, slave = 0x20000, 0x4000, 0x80000  # CLONE_NEWNS, MS_REC, MS_SLAVE
    libc = ctypes.CDLL(None)
    if libc.unshare(new_namespace) == 0:
        libc.mount(None, b"/", None, ctypes.c_ulong(recursive | slave), None)


mount_apart()


PATIENCE = 6


def until_true(what, condition, seconds=10, otherwise=lambda: ""):
    """Waits for it; what otherwise() says is part of the complaint. The seconds are those of a machine that has nothing else to do; this one may
    run other tests beside this, in programs that a sanitizer made slower."""
    end = time.monotonic() + PATIENCE * seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what} {otherwise()}"
        time.sleep(0.02)


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f"{pid}: " + f.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return f"{pid}: gone"


IS_BRIEF = os.environ.get("SXM_BRIEF", "") in ("1", "2")


def chain_stays(image):
    """What a command begins with that reads an SR's qcow2 image by its path: opened one by one, files whose chain is made
    shorter meanwhile may name one that is gone."""
    return ["flock", "-s", os.path.join(os.path.dirname(image), "sxm-sr.chains")]


def times(n):
    """How often something is tried that is tried again and again: less in a brief run."""
    return max(1, n // 4) if IS_BRIEF else n


def read_slots(path):
    """What a file in slots (src/base/slots.h) says: of those in it the one with the highest number."""
    with open(path, encoding="utf-8") as f:
        lines = f.read().split("\n")
    found = [(line.split()[1], text) for line, text in zip(lines, lines[1:]) if line.startswith("slot ")]
    return json.loads(max(found)[1] if found else "\n".join(lines))


def is_sanitized():
    """Built with a sanitizer, which takes memory as it likes."""
    with open(os.path.join(os.environ["SXM_LIBEXECDIR"], "sxm", "sxm-datapath"), "rb") as f:
        return b"libasan" in f.read()


class Refused(Exception):
    """A verb's error report; what is not one is a failed assertion."""

    def __init__(self, verb, status, stdout):
        self.report = json.loads(stdout)
        check("error_report", self.report)
        self.params = self.report["params"]
        super().__init__(f"{verb}: exit {status}: {self.params}")


class Host:
    prefix = ()  # a command that runs a verb: nsenter ...
    volume = VOLUME  # the plugin that has the SRs

    def __init__(self):
        self.root = os.path.join(os.environ["SXM_LIBEXECDIR"], "xapi-storage-script")
        self.dir = tempfile.mkdtemp(prefix="sxm.")
        self.run_dir = os.path.join(self.dir, "run")
        self.devices = []
        self.env = {**{k: v for k, v in os.environ.items() if k != "SXM_LOG"}, "SXM_RUN_DIR": self.run_dir}
        atexit.register(self.end)

    def processes(self):
        """Whatever was started by a verb here; it has our SXM_RUN_DIR in its environment."""
        found, mark = [], ("SXM_RUN_DIR=" + self.run_dir).encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f, open(f"/proc/{pid}/stat") as s:
                    if mark in f.read().split(b"\0") and s.read().rsplit(")", 1)[1].split()[0] != "Z":
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def runs_nothing_soon(self):
        """What was told to end may take a moment; what stays is named."""
        until_true("no process is left", lambda: not self.processes(), otherwise=lambda: [command_of(p) for p in self.processes()])

    def end_processes(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.processes():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            end = time.monotonic() + (3 if number == signal.SIGTERM else 60)
            while self.processes() and time.monotonic() < end:
                time.sleep(0.02)

    def end(self):
        self.end_processes()
        self.unmount_all()
        while self.devices:
            subprocess.run(["losetup", "-d", self.devices.pop()])
        self.unmount_all()  # what a device's file was in
        shutil.rmtree(self.dir, ignore_errors=True)

    def mounts(self):
        """What is mounted in this host's directory, the last first: [(directory, source, options)]."""
        with open("/proc/self/mountinfo") as f:
            lines = [line.split() for line in f]
        return [(m[4], m[m.index("-") + 2], m[5]) for m in reversed(lines) if m[4].startswith(self.dir + "/")]

    def unmount_all(self):
        for directory, _, _ in self.mounts():
            subprocess.run(["umount", "-n", directory], stderr=subprocess.DEVNULL)

    def make_device(self, name="disk", size=400 << 20):
        """A loop device over a file of that name, made when it is not there."""
        path = os.path.join(self.dir, name)
        with open(path, "a") as f:
            f.truncate(size)
        device = subprocess.run(["losetup", "-f", "--show", path], check=True, capture_output=True, text=True).stdout.strip()
        self.devices.append(device)
        return device

    def in_memory(self, name):
        """A directory of that name, in memory where that can be: for tests in which nobody loses power."""
        directory = os.path.join(self.dir, name)
        os.mkdir(directory)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", directory], stderr=subprocess.DEVNULL)
        return directory

    def make_xfs(self, name, size=4 << 30):
        """A directory of that name on a file system that shares blocks; the test is skipped where that is not to be had."""
        place, image = os.path.join(self.dir, name), os.path.join(self.dir, name + ".image")
        os.mkdir(place)
        with open(image, "wb") as f:
            f.truncate(size)
        if subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image]).returncode or \
                subprocess.run(["mount", "-o", "loop,discard", image, place], stderr=subprocess.DEVNULL).returncode:
            skip("no XFS with shared blocks can be mounted here")
        return place

    def make_place(self, kind):
        """A directory, "plain" or of a file system that shares blocks. None: not to be had here. In memory: nobody loses power here."""
        if kind == "plain":
            return self.in_memory(kind)
        place = os.path.join(self.dir, kind)
        os.mkdir(place)
        if os.geteuid() != 0 or not shutil.which("mkfs.xfs") or not shutil.which("losetup"):
            return None
        device = self.make_device("plain/xfs.img", 512 << 20)
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", device], check=True)
        subprocess.run(["mount", device, place], check=True)
        return place

    def run(self, verb, stdin, args=("--json",), **options):
        """verb: "datapath/sxm/Data.ls"; stdin: text. The finished process."""
        options = {"timeout": 180, "env": self.env, "input": stdin.encode(), **options}
        done = subprocess.run([*self.prefix, os.path.join(self.root, verb), *args], capture_output=True, **options)
        assert done.returncode >= 0, f"{verb}: killed by signal {-done.returncode}: {done.stderr}"
        return done

    def call(self, verb, **args):
        """The result of a verb of ours, e.g. call("SR.ls", sr=...); Refused when it is one."""
        plugin = DATAPATH if verb.startswith("Data") else self.volume
        done = self.run(f"{plugin}/{verb}", json.dumps({**args, "dbg": NAME}, ensure_ascii=False, separators=(",", ":")))
        if done.returncode:
            raise Refused(verb, done.returncode, done.stdout)
        assert done.stderr == b"", f"{verb}: {done.stderr}"
        return json.loads(done.stdout)

    def refused(self, word, verb, **args):
        try:
            result = self.call(verb, **args)
        except Refused as e:
            said = " ".join(e.params + [e.report["backtrace"]["error"]])
            assert word.lower() in said.lower(), f"{verb}: {word} is not in {said}"
            return e
        raise AssertionError(f"{verb} {args} should have been refused, but gave {result}")

    def make_sr(self, name="sr", uuid=SR_UUID, **configuration):
        """configuration: none for a directory of that name."""
        configuration = {"format": "raw", **(configuration or {"uri": f"file://{self.dir}/{name}"})}
        configuration = self.call("SR.create", uuid=uuid, name="n", description="d", configuration=configuration)
        return self.call("SR.attach", configuration=configuration)

    def control(self, key, verb, **args):
        """Asks the process of the disk itself."""
        name = [n for n in os.listdir(self.run_dir) if n.startswith(key[:36]) and os.path.isdir(os.path.join(self.run_dir, n))][0]
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(180)
            s.connect(os.path.join(self.run_dir, name, "control"))
            s.sendall(json.dumps({"id": 1, "verb": verb, "args": args}).encode() + b"\n")
            line = s.makefile("rb").readline()
        return json.loads(line) if line else None

    def make_volume(self, sr, size=1 << 20):
        return self.call("Volume.create", sr=sr, name="v", description="", size=size, sharable=False)


class ActiveDisk:
    """A volume that is active for a guest, which writes to it."""

    GUEST = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/guest")

    def __init__(self, host, sr, size=256 << 20, domain="1"):
        self.host, self.sr = host, sr
        self.volume = host.make_volume(sr, size)
        self.key, self.uri, self.domain = self.volume["key"], self.volume["uri"][0], domain
        self.process = None
        self.activate()

    def activate(self):
        self.socket, self.export = nbd_of(self.host.call("Datapath.attach", uri=self.uri, domain=self.domain))
        self.host.call("Datapath.activate", uri=self.uri, domain=self.domain)
        self.nbd = f"nbd+unix:///{self.export}?socket={self.socket}"

    def start(self, *more):
        self.log = os.path.join(self.host.dir, self.key + ".log")
        uri_file = os.path.join(self.host.dir, self.key + ".uri")
        with open(uri_file, "w") as f:
            f.write(self.nbd + "\n")
        self.process = subprocess.Popen([self.GUEST, "write", "--uri-file", uri_file, "--log", self.log, "--depth", "16", "--slow", "50", *more],
                                        stdout=subprocess.PIPE, text=True)
        until_true("the guest writes", lambda: os.path.exists(self.log) and os.path.getsize(self.log) > 100 * 24)
        return self

    def stop(self):
        self.process.terminate()
        out = self.process.communicate()[0]
        assert self.process.returncode == 0, out
        self.process = None
        return out

    def deactivate(self):
        self.host.call("Datapath.deactivate", uri=self.uri, domain=self.domain)
        self.host.call("Datapath.detach", uri=self.uri, domain=self.domain)

    def bytes_logged(self):
        return os.path.getsize(self.log)

    def verify(self, key, before, after):
        """The volume `key` is this disk at one moment between these lengths of the log."""
        log = os.path.join(self.host.dir, "cut.log")
        with open(self.log, "rb") as f, open(log, "wb") as to:
            to.write(f.read(after))
        uri = self.host.call("Volume.stat", sr=self.sr, key=key)["uri"][0]
        sock, export = nbd_of(self.host.call("Datapath.attach", uri=uri, domain="u0_check"))
        self.host.call("Datapath.activate_readonly", uri=uri, domain="u0_check")
        done = subprocess.run([self.GUEST, "verify", "--moment", str(before), "--uri", f"nbd+unix:///{export}?socket={sock}", "--log", log],
                              capture_output=True, text=True)
        self.host.call("Datapath.deactivate", uri=uri, domain="u0_check")
        self.host.call("Datapath.detach", uri=uri, domain="u0_check")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def nbd_of(backend):
    """The socket of the last NBD implementation, as xapi takes it apart."""
    uri = [a["uri"] for t, a in backend["implementations"] if t == "Nbd"][-1]
    word, unix, socket, export = uri.split(":")
    assert (word, unix) == ("nbd", "unix") and re.fullmatch(r"exportname=[A-Za-z0-9._-]{1,64}", export) and len(socket) <= 107, uri
    return socket, export.removeprefix("exportname=")


# --- the types, as strictly as the strictest reader

def _is_int(v):
    return isinstance(v, int) and not isinstance(v, bool) and -2**63 <= v < 2**63


def _record(value, required, optional=None):
    assert isinstance(value, dict), value
    for name, kind in required.items():
        assert name in value, f"{name} is missing in {value}"
    for name, member in value.items():
        kind = required.get(name) or (optional or {}).get(name)
        assert kind, f"{name} is not a member of the interface's"
        check(kind, member)


def _variant(value, tags):
    assert isinstance(value, list) and len(value) == 2 and value[0] in tags, value
    check(tags[value[0]], value[1])


RECORDS = {
    "query_result": ({"plugin": "string", "name": "string", "description": "string", "vendor": "string", "copyright": "string",
                      "version": "string", "required_api_version": "string", "features": "list<string>", "configuration": "map",
                      "required_cluster_stack": "list<string>"}, {}),
    "sr_stat": ({"sr": "string", "name": "string", "description": "string", "free_space": "int64", "total_space": "int64",
                 "datasources": "list<string>", "clustered": "bool", "health": "health"}, {"uuid": "string"}),
    "volume": ({"key": "string", "name": "string", "description": "string", "read_write": "bool", "sharable": "bool",
                "virtual_size": "int64", "physical_utilisation": "int64", "uri": "list<string>", "keys": "map"},
               {"uuid": "string", "cbt_enabled": "bool"}),
    "probe_result": ({"configuration": "map", "complete": "bool", "extra_info": "map"}, {"sr": "sr_stat"}),
    "blocklist": ({"blocksize": "int64", "ranges": "ranges"}, {}),
    "changed_blocks": ({"granularity": "int64", "bitmap": "string"}, {}),
    "xendisk": ({"params": "string", "extra": "map", "backend_type": "string"}, {}),
    "nbd": ({"uri": "string"}, {}),
    "backend": ({"implementations": "list<implementation>"}, {}),
    "status": ({"failed": "bool", "complete": "bool"}, {"progress": "float"}),
    "error_report": ({"code": "string", "params": "list<string>", "backtrace": "backtrace"}, {}),
    "backtrace": ({"error": "string", "files": "list<string>", "lines": "list<int64>"}, {}),
}
VARIANTS = {
    "health": {tag: "string" for tag in ("Healthy", "Recovering", "Unreachable", "Unavailable")},
    "implementation": {"XenDisk": "xendisk", "Nbd": "nbd"},
    "operation": {"CopyV1": "string", "MirrorV1": "string"},
}


def check(kind, value):
    """Fails when value is not of that type of the interface."""
    if kind.startswith("list<"):
        assert isinstance(value, list), value
        for item in value:
            check(kind[5:-1], item)
    elif kind in RECORDS:
        _record(value, *RECORDS[kind])
    elif kind in VARIANTS:
        _variant(value, VARIANTS[kind])
    elif kind == "ranges":
        assert all(isinstance(r, list) and len(r) == 2 and all(map(_is_int, r)) for r in value), value
    elif kind == "map":
        assert isinstance(value, dict) and all(isinstance(v, str) for v in value.values()), value
    else:
        good = {"string": isinstance(value, str), "bool": isinstance(value, bool), "int64": _is_int(value),
                "float": _is_int(value) or isinstance(value, float), "unit": value is None}[kind]
        assert good, f"{value!r} is no {kind}"
    if kind == "probe_result":  # what makes xapi refuse the whole answer
        assert "sr_uuid" not in value["configuration"] or value["complete"], value
        assert "sr" not in value or "sr_uuid" in value["configuration"], value
    if kind == "volume":
        assert value["virtual_size"] % 512 == 0 and value["uri"], value
        assert value["keys"].get("is_a_snapshot", "false") in ("true", "false"), value
    if kind == "status":
        assert not (value["failed"] and value["complete"]), value
