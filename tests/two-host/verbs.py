# SPDX-License-Identifier: LGPL-2.1-or-later
"""The verbs of a plugin root, run on a host as xapi-storage-script runs them: fork and exec, one compact JSON object on standard
input, one JSON value on standard output, both read to their end before the exit status is looked at. Each is timed."""
import json
import os
import re
import threading
import time

from launch import Done, Launchers


class Failed(Exception):
    """A verb's error, as xapi sees it: code and parameters."""

    def __init__(self, verb, code, params):
        self.verb, self.code, self.params = verb, code, params
        super().__init__(f"{verb}: {code} {json.dumps(params, ensure_ascii=False)}")


class Aborted(Failed):
    """xapi itself is gone: nobody does what it does after an error."""


def failed(verb, done):
    """The error in what a verb wrote, or what is made of it where that is none."""
    bad = Failed(verb, "SCRIPT_FAILED", ["signalled" if done.returncode < 0 else "non-zero exit and bad json on stdout",
                                         str(done.returncode), done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")])
    try:
        report = json.loads(done.stdout)
        code, params, trace = report["code"], report["params"], report["backtrace"]
        good = isinstance(code, str) and all(isinstance(p, str) for p in params) and isinstance(trace["error"], str) and \
            isinstance(trace["files"], list) and isinstance(trace["lines"], list)
    except (ValueError, KeyError, TypeError):
        return bad
    if done.returncode < 0 or not good:
        return bad
    return Failed(verb, code, params + ([trace["error"]] if trace["error"] and trace["error"] not in params else []))


class Volume(dict):
    """A volume as a verb described it; sr: what the sequence calls its SR. backend: of a tapdisk's disk, for which no plugin is asked."""

    def __init__(self, sr, record):
        super().__init__(record)
        self["sr"] = sr


class Timed:
    """One run of a verb."""

    def __init__(self, host, verb, label, disk, started, ended, error):
        self.host, self.verb, self.label, self.disk, self.started, self.ended, self.error = host, verb, label, disk, started, ended, error
        self.window = None

    @property
    def ms(self):
        return (self.ended - self.started) * 1000


class Verbs:
    """One host's plugins."""

    def __init__(self, host, root, sr_type, launcher, is_python=False):
        self.host, self.root, self.type, self.is_python = host, os.path.abspath(root), sr_type, is_python
        self.launchers = Launchers(host, launcher)
        self.log, self.lock, self.plants = [], threading.Lock(), []
        self.on_run = None  # called with each Timed

    def plant(self, verb, kind, times):
        """The next runs of that verb fail: "refuse" without being run, "lose" after they were."""
        self.plants.append([verb, kind, times])

    def planted(self, verb):
        with self.lock:
            for plant in self.plants:
                if plant[0] == verb and plant[2] > 0:
                    plant[2] -= 1
                    return plant[1]
        return None

    def directory(self, verb, scheme):
        return f"datapath/{scheme}" if verb.startswith("Dat") else f"volume/org.xen.xapi.storage.{self.type}"

    def find(self, verb, scheme):
        """As xapi does: the exact name, else without regard to case, of several the smallest."""
        place = os.path.join(self.root, self.directory(verb, scheme))
        path = os.path.join(place, verb)
        if not os.path.exists(path):
            try:
                names = sorted(n for n in os.listdir(place) if n.lower() == verb.lower())
            except OSError:
                names = []
            if not names:
                raise Failed(verb, "SCRIPT_MISSING", [path, "Check whether the file exists and has correct permissions"])
            path = os.path.join(place, names[0])
        return path

    def has(self, verb, scheme="sxm"):
        try:
            return bool(self.find(verb, scheme))
        except Failed:
            return False

    def execute(self, verb, scheme, args):
        """What it wrote, and when it ran."""
        path = self.find(verb, scheme)
        words = ["python3", path, "--json"] if self.is_python else [path, "--json"]
        text = json.dumps({**args, "dbg": "stage"}, ensure_ascii=False, separators=(",", ":")).encode()
        began = time.monotonic_ns()
        return self.launchers.run(words, text) or Done(-9, began, time.monotonic_ns(), b"", b"")

    @staticmethod
    def result(verb, done):
        if done.returncode:
            raise failed(verb, done)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise Failed(verb, "SCRIPT_FAILED", ["bad json on stdout", done.stdout.decode(errors="replace")]) from None

    def call(self, verb, args, scheme="sxm", label="", disk=""):
        """The result of a verb on this host; Failed."""
        plant, error, started, ended = self.planted(verb), None, time.monotonic(), None
        try:
            if plant == "refuse":
                raise Failed(verb, "PLANTED", ["the sequence says that it fails here"])
            done = self.execute(verb, scheme, args)
            started, ended = done.began, done.ended
            result = self.result(verb, done)
            if plant == "lose":
                raise Failed(verb, "PLANTED", ["the sequence says that its answer is lost here"])
            return result
        except Failed as e:
            error = e
            raise
        finally:
            run = Timed(self.host.name, verb, label, disk, started, ended or time.monotonic(), error)
            with self.lock:
                self.log.append(run)
            if self.on_run:
                self.on_run(run)


def nbd_of(backend):
    """(socket, export) of an answer to attach, taken apart as xapi does."""
    uris = [implementation["uri"] for tag, implementation in backend["implementations"] if tag == "Nbd"]
    if not uris:
        raise Failed("Datapath.attach", "NO_NBD", ["the answer has no Nbd implementation: nothing can be mirrored to it"])
    parts = uris[-1].split(":")
    if len(parts) != 4 or parts[:2] != ["nbd", "unix"] or not parts[3].startswith("exportname=") or len(parts[2].encode()) > 107:
        raise Failed("Datapath.attach", "BAD_NBD", [f"{uris[-1]} is not nbd:unix:SOCKET:exportname=NAME"])
    return parts[2], parts[3].removeprefix("exportname=")


def scheme_of(uris):
    """(uri, scheme) of the first URI that names a datapath."""
    for uri in uris:
        found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", uri)
        if found:
            return uri, found[1].lower()
    raise Failed("Volume.stat", "MISSING_URI", ["Please include a URI in the device-config"])
