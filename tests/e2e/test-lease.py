#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two hosts and one directory: a volume is active for writing on one of them. The other one gets it at once when it was
deactivated, in bounded time when the first one is dead, and never while that one may still write."""
import concurrent.futures
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import Host, Refused, nbd_of, say, until_true  # noqa: E402

RENEW, HOLD, LOST, LOCK = 0.1, 1.0, 3.0, 0.2  # a machine that is busy may keep a process from running for longer than HOLD / 4
GUEST = "1"


class Disk:
    """A guest: an NBD client with one request at a time."""

    def __init__(self, backend):
        path, export = nbd_of(backend)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        assert self.get(18)[:16] == b"NBDMAGICIHAVEOPT"
        self.socket.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, len(export)) + export.encode())
        self.get(10)

    def get(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("hung up on")
            data += more
        return data

    def ask(self, kind, offset, length, data=b""):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 7, offset, length) + data)

    def answer(self, length=0):
        _, error, _ = struct.unpack(">IIQ", self.get(16))
        assert not error, error
        return self.get(length)

    def write(self, byte, offset=0, length=4096):
        self.ask(1, offset, length, bytes([byte]) * length)
        self.answer()

    def read(self, offset=0, length=4096):
        self.ask(0, offset, length)
        return self.answer(length)


def make_host(name):
    host = Host()
    host.env.update(SXM_HOST_ID=name, SXM_LEASE_RENEW_MS=str(int(RENEW * 1000)), SXM_LEASE_HOLD_MS=str(int(HOLD * 1000)),
                    SXM_LEASE_LOST_MS=str(int(LOST * 1000)), SXM_LEASE_LOCK_MS=str(int(LOCK * 1000)))
    return host


a, b = make_host("host-a"), make_host("host-b")
shared = tempfile.mkdtemp(prefix="sxm.", dir="/var/tmp")
config = {"uri": f"file://{shared}/sr", "shared": "true"}
os.mkdir(f"{shared}/sr")
sr = a.make_sr(**config)
assert b.call("SR.attach", configuration=config) == sr


def volume(sharable=False):
    v = a.call("Volume.create", sr=sr, name="v", description="", size=1 << 20, sharable=sharable)
    return v["uri"][0], v["key"]


def activate(host, uri, domain=GUEST):
    backend = host.call("Datapath.attach", uri=uri, domain=domain)
    host.call("Datapath.activate", uri=uri, domain=domain)
    return backend


def let_go(host, uri, domain=GUEST):
    host.call("Datapath.deactivate", uri=uri, domain=domain)
    host.call("Datapath.detach", uri=uri, domain=domain)


def lease(key):
    names = os.listdir(f"{shared}/sr/{key}.raw.lease")
    return names[0] if len(names) == 1 else ""


def elsewhere(host, name, verb, **args):
    try:
        host.call(verb, **args)
    except Refused as e:
        assert e.params == ["Activated_on_another_host", name], e.params
        return
    raise AssertionError(f"{verb} should have been refused")


def raw(key, offset=0):
    with open(f"{shared}/sr/{key}.raw", "rb") as f:
        f.seek(offset)
        return f.read(1)[0]


def stop_all(host, number):
    for pid in host.processes():
        os.kill(pid, number)


def test_while_one_has_it_the_other_is_refused():
    uri, key = volume()
    disk = Disk(activate(a, uri))
    b.call("Datapath.attach", uri=uri, domain=GUEST)  # on both, as a live migration does
    began = time.monotonic()
    elsewhere(b, "host-a", "Datapath.activate", uri=uri, domain=GUEST)
    assert time.monotonic() - began < LOST + 15  # at once, on a busy machine, too
    disk.write(1)
    elsewhere(b, "host-a", "Volume.destroy", sr=sr, key=key)
    elsewhere(b, "host-a", "Volume.resize", sr=sr, key=key, new_size=2 << 20)
    elsewhere(b, "host-a", "Volume.snapshot", sr=sr, key=key)
    elsewhere(b, "host-a", "Volume.clone", sr=sr, key=key)
    elsewhere(b, "host-a", "Volume.revert", sr=sr, snapshot=volume()[1], key=key)
    for verb in ("enable_cbt", "disable_cbt"):
        elsewhere(b, "host-a", "Volume." + verb, sr=sr, key=key)
    a.call("Volume.resize", sr=sr, key=key, new_size=2 << 20)
    disk.write(2)
    let_go(a, uri)
    assert lease(key).endswith(".free")
    b.call("Datapath.activate", uri=uri, domain=GUEST)
    elsewhere(a, "host-b", "Volume.destroy", sr=sr, key=key)
    let_go(b, uri)
    a.call("Volume.destroy", sr=sr, key=key)
    assert not [n for n in os.listdir(f"{shared}/sr") if n.startswith(key)]


def test_a_handover_waits_for_nothing():
    """What deactivation and activation take together, over what they take on a directory that is not shared, is in the downtime."""
    own = a.make_sr("alone", uuid="0a0b0c0d-1111-2222-3333-444455556668")
    alone = a.call("Volume.create", sr=own, name="v", description="", size=1 << 20, sharable=False)["uri"][0]
    uri, _ = volume()
    took, took_alone = [], []

    def turn(uri, source, target):
        began = time.monotonic()
        source.call("Datapath.deactivate", uri=uri, domain=GUEST)
        target.call("Datapath.activate", uri=uri, domain=GUEST)
        return time.monotonic() - began

    for host in (a, b):
        host.call("Datapath.attach", uri=uri, domain=GUEST)
    a.call("Datapath.activate", uri=uri, domain=GUEST)
    activate(a, alone)
    for _ in range(10):
        took += [turn(uri, a, b), turn(uri, b, a)]
        took_alone += [turn(alone, a, a), turn(alone, a, a)]
    more = sorted(took)[10] - sorted(took_alone)[10]
    say(f"deactivate here, activate there: {sorted(took)[10] * 1000:.1f} ms (median), {more * 1000:.1f} more than without a lease")
    assert more < LOCK / 2, (took, took_alone)
    let_go(a, alone)
    for host in (a, b):
        let_go(host, uri)


def test_a_killed_process_goes_on_at_once():
    uri, key = volume()
    backend = activate(a, uri)
    Disk(backend).write(3)
    before = lease(key)
    stop_all(a, signal.SIGKILL)  # keeper and all
    began = time.monotonic()
    backend = activate(a, uri)
    disk = Disk(backend)
    assert disk.read() == bytes([3]) * 4096
    assert time.monotonic() - began < LOST
    assert int(lease(key).split(".")[0]) == int(before.split(".")[0]) + 1
    disk.write(4)
    let_go(a, uri)


def test_a_killed_child_is_followed_by_the_next():
    uri, key = volume()
    backend = activate(a, uri)
    before = int(lease(key).split(".")[0])
    os.kill(max(a.processes()), signal.SIGKILL)
    until_true("the next process to have the lease", lambda: lease(key) and int(lease(key).split(".")[0]) > before)
    until_true("it to serve", lambda: can_write(backend))
    let_go(a, uri)


def can_write(backend):
    try:
        Disk(backend).write(9)
        return True
    except OSError:
        return False


def test_a_dead_host_loses_it_in_bounded_time():
    uri, key = volume()
    disk = Disk(activate(a, uri))
    disk.write(5)
    stop_all(a, signal.SIGKILL)
    b.call("Datapath.attach", uri=uri, domain=GUEST)
    began = time.monotonic()
    b.call("Datapath.activate", uri=uri, domain=GUEST)
    took = time.monotonic() - began
    assert LOST - HOLD < took < 3 * LOST, took
    assert "host-b" in lease(key)
    let_go(b, uri)
    shutil.rmtree(a.run_dir)  # it was booted
    b_has_none_left = activate(a, uri)
    assert Disk(b_has_none_left).read() == bytes([5]) * 4096
    let_go(a, uri)


def test_a_dead_hosts_volume_can_be_destroyed():
    uri, key = volume()
    activate(a, uri)
    stop_all(a, signal.SIGKILL)
    b.call("Volume.destroy", sr=sr, key=key)
    shutil.rmtree(a.run_dir)


def test_who_was_stopped_and_goes_on_writes_nothing():
    uri, key = volume()
    disk = Disk(activate(a, uri))
    disk.write(6)
    stop_all(a, signal.SIGSTOP)
    for i in range(8):
        disk.ask(1, 4096 * i, 4096, bytes([66]) * 4096)  # in its socket when it goes on
    backend = b.call("Datapath.attach", uri=uri, domain=GUEST)
    b.call("Datapath.activate", uri=uri, domain=GUEST)  # the lock of the stopped one is still there
    other = Disk(backend)
    for i in range(8):
        other.write(7, 4096 * i)
    stop_all(a, signal.SIGCONT)
    try:
        disk.answer()
        raise AssertionError("a write was answered by a host that has lost the lease")
    except ConnectionError:
        pass  # its process has ended
    assert all(other.read(4096 * i) == bytes([7]) * 4096 for i in range(8))
    assert "host-b" in lease(key)
    let_go(a, uri)  # it has nothing any more, and says so
    other.write(8)
    let_go(b, uri)


def exchange(one, other):
    """At once: a lease that is not there for a moment would be nobody's."""
    assert ctypes.CDLL(None).renameat2(-100, one.encode(), -100, other.encode(), 2) == 0


def test_who_cannot_renew_stops_before_it_is_lost():
    """... and goes on when he can again and nobody has taken it."""
    uri, key = volume()
    disk = Disk(activate(a, uri))
    place = f"{shared}/sr/{key}.raw.lease"
    last = []
    acknowledged = threading.Event()

    def write_on():
        for n in range(10**9):
            disk.write(n % 250, 8192)
            last.append(time.monotonic())
            if acknowledged.is_set():
                return

    with concurrent.futures.ThreadPoolExecutor() as pool:
        guest = pool.submit(write_on)
        until_true("some writes", lambda: len(last) > 20)
        open(place + ".away", "w").close()
        exchange(place, place + ".away")  # neither there nor absent: whatever is asked of it fails
        began = time.monotonic()
        until_true("the writes to stop", lambda: time.monotonic() - last[-1] > 3 * HOLD)
        assert last[-1] - began < LOST, last[-1] - began
        count = len(last)
        exchange(place, place + ".away")
        os.unlink(place + ".away")
        until_true("the writes to go on", lambda: len(last) > count + 20)
        acknowledged.set()
        guest.result()
    let_go(a, uri)


def test_readers_and_sharable_volumes_are_everybodys():
    uri, key = volume()
    for host in (a, b):
        host.call("Datapath.attach", uri=uri, domain=GUEST)
        host.call("Datapath.activate_readonly", uri=uri, domain=GUEST)
    for host in (a, b):
        let_go(host, uri)
    uri, key = volume(sharable=True)
    disks = [Disk(activate(host, uri)) for host in (a, b)]
    assert lease(key) == "sharable"
    disks[0].write(1)
    disks[1].write(2, 4096)
    assert disks[0].read(4096) == bytes([2]) * 4096
    for host in (a, b):
        let_go(host, uri)


def test_a_pause_keeps_it():
    """The image is closed for a moment, for what is done to its files; the lease stays, and is renewed."""
    uri, key = volume()
    backend = activate(a, uri)
    before = lease(key).split(".")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(os.path.dirname(nbd_of(backend)[0]), "control"))
        s.sendall(json.dumps({"id": 1, "verb": "pause", "args": {}}).encode() + b"\n")
        assert "ok" in json.loads(s.makefile().readline())
        time.sleep(2 * HOLD)
        elsewhere(b, "host-a", "Volume.destroy", sr=sr, key=key)
    until_true("it to serve again", lambda: can_write(backend))
    after = lease(key).split(".")
    assert after[0] == before[0] and int(after[1]) > int(before[1]), (before, after)
    let_go(a, uri)


def test_who_takes_a_copy_while_another_activates_has_another_content():
    """Attached there, with a new content_id for its guest, and not open yet: here it looks unused."""
    uri, key = volume()

    def content_id(key):
        return a.call("Volume.stat", sr=sr, key=key)["keys"]["content_id"]

    before, backend = content_id(key), b.call("Datapath.attach", uri=uri, domain=GUEST)
    with socket.socket(socket.AF_UNIX) as s, concurrent.futures.ThreadPoolExecutor() as pool:
        s.connect(os.path.join(os.path.dirname(nbd_of(backend)[0]), "control"))
        s.sendall(json.dumps({"id": 1, "verb": "pause", "args": {}}).encode() + b"\n")
        assert "ok" in json.loads(s.makefile().readline())
        activation = pool.submit(b.call, "Datapath.activate", uri=uri, domain=GUEST)
        until_true("it has a new content_id", lambda: content_id(key) != before)
        copy = a.call("Volume.copy", sr=sr, key=key, dest_sr=sr)["key"]
        s.close()  # the pause is over
        activation.result()
    assert content_id(copy) != content_id(key), "two contents have one name"
    let_go(b, uri)


def test_what_is_not_shared_pays_nothing():
    own = a.make_sr("own", uuid="0a0b0c0d-1111-2222-3333-444455556667")
    v = a.call("Volume.create", sr=own, name="v", description="", size=1 << 20, sharable=False)
    activate(a, v["uri"][0])
    assert not [n for n in os.listdir(os.path.join(a.dir, "own")) if "lease" in n]
    let_go(a, v["uri"][0])


def test_many_want_it_and_one_gets_it():
    for _ in range(5):
        uri, key = volume()
        for host in (a, b):
            host.call("Datapath.attach", uri=uri, domain=GUEST)

        def want(host, uri=uri):
            try:
                host.call("Datapath.activate", uri=uri, domain=GUEST)
                return True
            except Refused:
                return False

        with concurrent.futures.ThreadPoolExecutor() as pool:
            got = list(pool.map(want, (a, b)))
        assert sum(got) == 1, got
        for host in (a, b):
            let_go(host, uri)


try:
    for name, test in list(globals().items()):
        if name.startswith("test_") and (len(sys.argv) < 2 or sys.argv[1] in name):
            began = time.monotonic()
            test()
            say(f"{name}: {time.monotonic() - began:.1f} s")
finally:
    for host in (a, b):
        stop_all(host, signal.SIGCONT)
        host.end_processes()
    shutil.rmtree(shared, ignore_errors=True)
