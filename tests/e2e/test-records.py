#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is known of operations outlives their processes and their host: Data.stat and Data.ls answer in every state, whatever
lies where records should be, and what ended a day ago is dropped. A reboot is played: all processes are killed, SXM_RUN_DIR is
wiped, SXM_STATE_DIR stays."""
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import Host, nbd_of, say, until_true  # noqa: E402

MIB = 1 << 20
DAY = 24 * 60 * 60
host, far = Host(), Host()
host.env["SXM_STATE_DIR"] = os.path.join(host.dir, "state")
records = os.path.join(host.dir, "state", "operations")
sr, far_sr = host.make_sr(), far.make_sr()


class Relay:
    """TCP before a unix socket. It passes the first `budget` bytes on, and the rest when it is opened."""

    def __init__(self, path, budget):
        self.path, self.budget, self.is_open = path, budget, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.path)
            except OSError:
                client.close()
                continue
            for a, b, is_metered in ((client, server, True), (server, client, False)):
                threading.Thread(target=self.pump, args=(a, b, is_metered), daemon=True).start()

    def pump(self, a, b, is_metered):
        try:
            while data := a.recv(65536):
                if is_metered and not self.is_open.is_set():
                    self.budget -= len(data)
                    if self.budget < 0:
                        self.is_open.wait()
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Disk:
    """An active volume of 8 MiB and, on the other host, what a mirror of it goes to."""

    def __init__(self):
        v = host.make_volume(sr, 8 * MIB)
        self.uri, self.key = v["uri"][0], v["key"]
        self.image = os.path.join(host.dir, "sr", self.key + ".raw")
        with open(self.image, "r+b") as f:
            f.write(os.urandom(8 * MIB))
        self.start()
        w = far.make_volume(far_sr, 8 * MIB)
        self.far_uri, self.far_image = w["uri"][0], os.path.join(far.dir, "sr", w["key"] + ".raw")
        self.to, self.export = nbd_of(far.call("Datapath.attach", uri=self.far_uri, domain="MIR1"))
        far.call("Datapath.activate", uri=self.far_uri, domain="MIR1")

    def start(self):
        host.call("Datapath.attach", uri=self.uri, domain="1")
        host.call("Datapath.activate", uri=self.uri, domain="1")

    def mirror(self, budget=1 << 40):
        self.relay = Relay(self.to, budget)
        return host.call("Data.mirror", uri=self.uri, domain="1", remote=f"nbd://127.0.0.1:{self.relay.port}/{self.export}")

    def end(self):
        for verb in ("Datapath.deactivate", "Datapath.detach"):
            host.call(verb, uri=self.uri, domain="1")
            far.call(verb, uri=self.far_uri, domain="MIR1")

    def is_same_there(self):
        with open(self.image, "rb") as a, open(self.far_image, "rb") as b:
            return a.read() == b.read()


def stat(operation):
    answer = host.call("Data.stat", operation=operation)
    return "failed" if answer["failed"] else "complete" if answer["complete"] else "running"


def is_failed_at_once(operation):
    took = []
    for _ in range(5):  # who waits for news takes a second, each time
        begun = time.monotonic()
        answer = stat(operation)
        assert answer == "failed", f"{operation} is {answer}"
        took.append(time.monotonic() - begun)
        if took[-1] < 0.9:
            return
    raise AssertionError(f"it took {took} s to say so")


def kill_all():
    while host.processes():
        for pid in host.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def reboot():
    kill_all()
    shutil.rmtree(host.run_dir)
    host.call("SR.attach", configuration={"uri": f"file://{host.dir}/sr"})


def path_of(operation):
    return os.path.join(records, operation[1] + ".json")


def test_a_death_is_not_seen_in_what_is_said():
    disk = Disk()
    operation = disk.mirror(budget=2 * MIB)
    for _ in range(3):
        kill_all()
        assert host.call("Data.ls") == [operation]  # the record speaks
        assert stat(operation) == "running"
        assert host.processes(), "nobody was started to go on with it"
        os.kill(json.loads(control(disk, "hello"))["ok"]["pid"], signal.SIGKILL)  # the keeper stays
        assert stat(operation) == "running"
        assert host.call("Data.ls") == [operation]
    disk.relay.is_open.set()
    until_true("the mirror", lambda: stat(operation) == "complete", 60)
    for _ in range(3):
        kill_all()
        assert stat(operation) == "complete"  # what was said once
    until_true("the barrier", lambda: can_end(disk), 60)
    assert disk.is_same_there() and stat(operation) == "complete"
    assert json.load(open(path_of(operation)))["ended"]
    kill_all()
    assert stat(operation) == "complete"
    host.call("Data.destroy", operation=operation)
    is_failed_at_once(operation)


def can_end(disk):
    disk.end()
    return True


def control(disk, verb):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(os.path.dirname(nbd_of(host.call("Datapath.attach", uri=disk.uri, domain="1"))[0]), "control"))
        s.sendall(json.dumps({"verb": verb}).encode() + b"\n")
        return s.makefile().readline()


def test_a_reboot_suspends_it():
    disk = Disk()
    operation = disk.mirror(budget=2 * MIB)
    reboot()
    assert host.call("Data.ls") == [operation] and stat(operation) == "running"
    assert not host.processes(), "a disk nobody asked for was opened"
    host.call("Datapath.attach", uri=disk.uri, domain="1")
    assert stat(operation) == "running"  # a process that knows nothing of it yet
    disk.start()
    disk.relay.is_open.set()
    until_true("the mirror", lambda: stat(operation) == "complete", 60)
    reboot()
    assert stat(operation) == "complete"  # said once: and nothing may be done with either side before it is settled
    disk.start()
    until_true("the barrier", lambda: can_end(disk), 60)
    assert disk.is_same_there() and stat(operation) == "complete"
    reboot()
    assert stat(operation) == "complete" and host.call("Data.ls") == [operation]
    host.call("Data.destroy", operation=operation)
    assert host.call("Data.ls") == []


def test_a_suspended_one_can_be_cancelled_and_destroyed():
    for verb in ("Data.cancel", "Data.destroy"):
        disk = Disk()
        operation = disk.mirror(budget=2 * MIB)
        reboot()
        assert os.path.exists(disk.image + ".mirror")
        host.call(verb, operation=operation)
        is_failed_at_once(operation)
        assert not os.path.exists(disk.image + ".mirror") and not os.path.exists(disk.image + ".marks")
        assert (host.call("Data.ls") == []) == (verb == "Data.destroy")
        disk.start()
        is_failed_at_once(operation)
        disk.end()
        host.call("Data.destroy", operation=operation)
    assert host.call("Data.ls") == []


def test_what_cannot_go_on_has_failed():
    disk = Disk()
    copy = host.call("Data.copy", uri=disk.uri, domain="1", blocklist={"blocksize": MIB, "ranges": [[0, 8]]},
                     remote=f"nbd://127.0.0.1:{Relay(disk.to, 2 * MIB).port}/{disk.export}")
    assert stat(copy) == "running"
    reboot()
    assert host.call("Data.ls") == [copy]
    is_failed_at_once(copy)
    disk.start()
    mirror = disk.mirror(budget=2 * MIB)
    reboot()
    os.rename(disk.image, disk.image + ".away")
    is_failed_at_once(mirror)
    os.rename(disk.image + ".away", disk.image)
    assert stat(mirror) == "running"
    host.call("Volume.destroy", sr=sr, key=disk.key)
    is_failed_at_once(mirror)
    for operation in (copy, mirror):
        host.call("Data.cancel", operation=operation)
        host.call("Data.destroy", operation=operation)
    assert host.call("Data.ls") == []


def test_the_beginning_and_the_end_of_one_that_never_began():
    disk = Disk()
    host.refused("", "Data.mirror", uri=disk.uri, domain="1", remote=f"nbd+unix:///x?socket={host.dir}/nobody")
    left = [n for n in os.listdir(records) if n.endswith(".json")]  # a kill in mid-write leaves a .tmp, for a day
    assert left == [], left
    disk.end()


def test_whatever_lies_there_is_no_error():
    good = {"id": "disk-01234567.9", "kind": "mirror", "failed": False, "complete": True, "text": "", "ended": 1}
    garbage = [b"", b"{", b"null", b"[]", b"\0" * 100, b"a" * 100000, b"[" * 60000, b"{}", b"\xff\xfe",
               json.dumps({**good, "failed": "no"}).encode(), json.dumps({**good, "ended": 1e300}).encode(),
               json.dumps({**good, "ended": 0, "path": "/", "journal": "/"}).encode(),
               json.dumps({**good, "ended": 0, "path": "/dev/null", "journal": "/dev/zero"}).encode(),
               json.dumps({**good, "ended": 0, "path": "x\n", "journal": 7}).encode()]
    operation = ["MirrorV1", good["id"]]
    os.makedirs(records, exist_ok=True)
    path = path_of(operation)
    for bytes_ in garbage:
        with open(path, "wb") as f:
            f.write(bytes_)
        is_failed_at_once(operation)
        assert host.call("Data.ls") in ([], [operation])
    os.unlink(path)
    for make in (os.mkdir, os.mkfifo, lambda p: os.symlink(p, p), lambda p: os.symlink("/dev/zero", p)):
        make(path)
        is_failed_at_once(operation)
        assert host.call("Data.ls") == []
        os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
    with open(path, "w") as f:
        json.dump(good, f)
    assert stat(operation) == "complete" and host.call("Data.ls") == [operation]
    host.call("Data.destroy", operation=operation)
    for word in ("", "x", "../../etc/passwd", "disk-01234567.", "disk-01234567.x", "a" * 5000, "disk-01234567.9/../x.1"):
        is_failed_at_once(["MirrorV1", word])
    host.runs_nothing_soon()


def test_a_place_for_records_that_is_none():
    disk = Disk()
    os.rename(host.dir + "/state", host.dir + "/away")
    with open(host.dir + "/state", "w"):
        pass
    is_failed_at_once(["MirrorV1", "disk-01234567.9"])
    assert host.call("Data.ls") == []
    operation = disk.mirror()
    until_true("the mirror", lambda: stat(operation) == "complete")
    assert host.call("Data.ls") == [operation]
    disk.end()
    host.call("Data.destroy", operation=operation)
    os.unlink(host.dir + "/state")
    os.rename(host.dir + "/away", host.dir + "/state")


def test_what_ended_is_dropped_after_a_day():
    disk, other = Disk(), Disk()
    live, suspended = disk.mirror(budget=2 * MIB), other.mirror(budget=2 * MIB)
    ended = {"kind": "mirror", "failed": True, "complete": False, "text": "why", "ended": 1}
    now = time.time()
    name = "disk-01234567.%d.json"
    ages = {name % 1: DAY + 60, name % 2: DAY - 60, name % 3: -10 * DAY, name % 4: 10 * DAY, (name % 5) + ".77.tmp": DAY + 60,
            (name % 6) + ".78.tmp": 60, "notes.json": 10 * DAY, "README": 10 * DAY, name % 7: DAY + 60}
    for file, age in ages.items():
        record = {**ended, "id": file.removesuffix(".json")}
        if file == name % 7:  # it ended with its process
            record.update(ended=0, failed=False, path="/nowhere", journal="/nowhere.mirror")
        with open(os.path.join(records, file), "w") as f:
            f.write("garbage" if file == name % 4 else json.dumps(record))
        os.utime(f.name, (now - age, now - age))
    reboot()
    disk.start()
    for operation in (live, suspended):
        os.utime(path_of(operation), (now - 3 * DAY, now - 3 * DAY))
    assert stat(live) == stat(suspended) == "running"
    host.call("Data.ls")
    # Who was killed while it wrote leaves a file that is as old as its death.
    left = {n for n in os.listdir(records) if not n.endswith(".tmp") or n.endswith((".77.tmp", ".78.tmp"))}
    kept = {name % 2, name % 3, (name % 6) + ".78.tmp", "notes.json", "README", live[1] + ".json", suspended[1] + ".json"}
    assert left == kept, left ^ kept
    assert os.stat(os.path.join(records, name % 3)).st_mtime < now + DAY  # its day begins anew
    os.utime(os.path.join(records, name % 2), (now - DAY - 60, now - DAY - 60))
    kill_all()
    assert stat(live) == "running"  # starts a process
    until_true("the old record to go", lambda: name % 2 not in os.listdir(records))
    for operation in (live, suspended):
        host.call("Data.destroy", operation=operation)
    disk.end()


cases = os.environ.get("SXM_CASES", "").split()
for name, test in list(globals().items()):
    if name.startswith("test_") and (not cases or name[5:] in cases):
        say(name[5:].replace("_", " "))
        test()
