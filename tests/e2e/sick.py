# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of sxm doctor share: a host with an SR and one volume in it, and what the doctor says of it."""
import hashlib
import json
import os
import signal
import socket
import subprocess
import time

from smapi import Host, nbd_of, until_true

SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
CLEAN, REPAIRED, LEFT, NOT_DONE, USAGE = 0, 1, 4, 8, 16
KEY = "00000000-aaaa-bbbb-cccc-dddddddddddd"


class Sick(Host):
    """A host with an SR and one volume in it."""

    def __init__(self, environment=None, **configuration):
        super().__init__()
        self.env.update(environment or {})
        self.env.update(SXM_NBDPROXY_DIR=os.path.join(self.dir, "proxy"), SXM_HOST_ID="this-host", SXM_LOG="none")
        os.mkdir(self.env["SXM_NBDPROXY_DIR"])
        self.in_memory("sr")
        os.mkdir(os.path.join(self.dir, "sr", "d"))
        self.place = os.path.join(self.dir, "sr", "d")
        self.sr = self.make_sr("sr/d", **({"uri": "file://" + self.place, **configuration} if configuration else {}))
        self.disk = self.make_volume(self.sr)
        self.key, self.uri = self.disk["key"], self.disk["uri"][0]
        self.image = self.uri.removeprefix("sxm://")
        self.state = os.path.join(self.run_dir, "state")

    def doctor(self, *args, prefix=()):
        return subprocess.run([*prefix, SXM, "doctor", *args], capture_output=True, text=True, env=self.env, timeout=90)

    def findings(self, *args):
        done = self.doctor("--json", *args)
        assert done.returncode in (0, 1, 4, 5), done
        found = json.loads(done.stdout)
        assert len(found["findings"]) == found["found"] == found["repaired"] + found["left"] + found["told"], found
        for f in found["findings"]:
            assert all(len(f[m]) > 3 for m in ("kind", "subject", "what", "why")) and not ("remedy" in f and "advice" in f), f
        return done.returncode, found["findings"]

    def kinds(self, *args):
        return [f["kind"] for f in self.findings(*args)[1]]

    def start(self, domain, verb="activate"):
        answer = self.call("Datapath.attach", uri=self.uri, domain=domain)
        if verb == "activate":
            self.call("Datapath.activate", uri=self.uri, domain=domain)
        return nbd_of(answer)[0]

    def vdi_dir(self):
        return [e.path for e in os.scandir(self.run_dir) if e.name.startswith(self.key) and e.is_dir()][0]

    def kill_datapaths(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        until_true("they are gone", lambda: not self.processes())

    def write(self, path, text=""):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o600)
        return path

    def record(self, **members):
        operation = f"{self.vdi_id()}.1700000000000"
        self.write(f"{self.state}/operations/{operation}.json",
                   json.dumps({"id": operation, "kind": "mirror", "failed": False, "complete": False, "text": "", "ended": 0, "path": self.image,
                               "domain": "1", "remote": "nbd://x", **members}))
        os.utime(f"{self.state}/operations/{operation}.json", (time.time() - 120,) * 2)
        return operation

    def vdi_id(self):
        value = 2166136261
        for c in self.image.encode():
            value = ((value ^ c) * 16777619) & 0xffffffff
        return f"{self.key}-{value:08x}"

    def files(self):
        """Every file here, but locks, which whoever looks may make."""
        found = {}
        for directory, names, more in os.walk(self.dir):
            for name in names + more:
                path = os.path.join(directory, name)
                st = os.lstat(path)
                if not name.endswith((".lock", ".log")):
                    found[path] = (st.st_mode, st.st_size, self.digest(path) if os.path.isfile(path) and st.st_size < 1 << 20 else "")
        return found

    @staticmethod
    def digest(path):
        with open(path, "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()


def owner(host, state, **more):
    host.write(host.image + ".owner", json.dumps({"state": state, "role": "source", "epoch": "1", "mirror": "m.1", "generation": "1", "since": "0", "written": True,
                                                  **more}))


def bound_socket(path):
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    return s
