#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A mirror from a SMAPIv1 host, whose NBD client is tapdisk's (tests/lib/tapdisk_client.py): import_activate, the connection that is
passed as a descriptor, pauses in it, a parent that is copied beside, Volume.compose, and the guest that goes on at once. What it
finds is compared with what the source has, and again when all is merged, and after kills in between."""
import os
import random
import signal
import socket
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests", "lib"))
from smapi import Host, nbd_of, say, until_true  # noqa: E402
from tapdisk_client import Client, Writer, pass_socket  # noqa: E402

IS_LONG = bool(os.environ.get("SXM_LONG"))
MIB = 1 << 20
SIZE = 64 * MIB
host = Host()


class Socket:
    """A plain NBD client, of EXPORT_NAME and NO_ZEROES, as sparse_dd's and a guest's are."""

    def __init__(self, path, size):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.client = Client(self.sock, size)
        self.client.open()

    def write(self, offset, data):
        self.client.write(offset, data)
        self.client.drain()

    def read(self, offset, length):
        out = b""
        while length:
            piece = min(length, 40 << 10)
            out += self.client.read(offset, piece)
            offset, length = offset + piece, length - piece
        return out

    def close(self):
        self.client.pause()
        self.sock.close()


def attach(uri, domain):
    return nbd_of(host.call("Datapath.attach", uri=uri, domain=domain))[0]


def activate(uri, domain):
    path = attach(uri, domain)
    host.call("Datapath.activate", uri=uri, domain=domain)
    return path


def let_go(uri, domain):
    host.call("Datapath.deactivate", uri=uri, domain=domain)
    host.call("Datapath.detach", uri=uri, domain=domain)


def connect(uri, domain="MIR1"):
    """What the source's tapdisk gets: the other end of a connection that was passed here."""
    path = host.call("Datapath.import_activate", uri=uri, domain=domain)
    assert not os.path.basename(path).startswith("nbd"), path
    assert path == host.call("Datapath.import_activate", uri=uri, domain=domain)
    ours, theirs = socket.socketpair()
    pass_socket(path, theirs, "5b0e6d3c-2222-3333-4444-555566667777")
    return ours


class Move:
    """The source's disk, and what is made for it here, in xapi's order."""

    def __init__(self, sr, seed, size=SIZE):
        self.sr, self.size, self.seed = sr, size, seed
        self.path = os.path.join(host.dir, f"source.{seed}")
        self.here = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.ftruncate(self.here, size)
        generator = random.Random(seed)
        for at in range(0, size, 4 * MIB):  # what the disk held before
            os.pwrite(self.here, generator.randbytes(MIB + 512 * generator.randrange(64)), at + 512 * generator.randrange(100))
        leaf = host.make_volume(sr, size)
        self.leaf, self.uri = leaf["key"], leaf["uri"][0]
        self.dummy = host.call("Volume.snapshot", sr=sr, key=self.leaf)["key"]
        self.socket = activate(self.uri, "MIR1")
        self.parent = host.make_volume(sr, size)

    def begin(self):
        self.client = Client(connect(self.uri), self.size)
        self.client.open()
        self.writer = Writer(self.client, self.here, self.seed)

    def snapshot(self):
        """The one pause in which the source's snapshot is made: what is copied is from here, what is mirrored from then on."""
        self.frozen = os.pread(self.here, self.size, 0)

    def copy(self):
        """As sparse_dd: what is not zero, one write at a time, no flush."""
        uri = self.parent["uri"][0]
        to = Socket(activate(uri, "CP1"), self.size)
        for at in range(0, self.size, 32 << 10):
            piece = self.frozen[at:at + (32 << 10)]
            if piece.strip(b"\0"):
                to.write(at, piece)
        to.close()
        let_go(uri, "CP1")
        host.call("Volume.set", sr=self.sr, key=self.parent["key"], k="content_id", v="c")

    def finalise(self, kill_after=None):
        """The verbs of the destination in the time in which the guest waits; what each took, in ms. kill_after: which of them its process outlives
        by little."""
        took = {}
        for verb, args in (("Datapath.deactivate", {"uri": self.uri, "domain": "MIR1"}), ("Datapath.detach", {"uri": self.uri, "domain": "MIR1"}),
                           ("Volume.compose", {"sr": self.sr, "key": self.leaf, "key2": self.parent["key"]}),
                           ("Volume.destroy", {"sr": self.sr, "key": self.dummy}),
                           ("Volume.unset", {"sr": self.sr, "key": self.leaf, "k": "_sm_config_base_mirror"})):
            began = time.monotonic()
            host.call(verb, **args)
            took[verb] = (time.monotonic() - began) * 1000
            if verb == kill_after:
                os.kill(self.pid(), signal.SIGKILL)
        return took

    def pid(self):
        return host.control(self.leaf, "hello")["ok"]["pid"]

    def check(self, client, what):
        for at in range(0, self.size, MIB):
            ours = os.pread(self.here, MIB, at)
            if client.read(at, MIB) != ours:
                theirs = client.read(at, MIB)
                first = next(i for i in range(0, MIB, 512) if ours[i:i + 512] != theirs[i:i + 512])
                raise AssertionError(f"{what}: sector at {at + first} differs")


def is_merged(image):
    return not os.path.exists(image + ".overlay.map") and not os.path.exists(image + ".overlay")


def whole_move(kind, sr, seed, writes=200, kill=False):
    m = Move(sr, seed)
    m.begin()
    m.snapshot()
    m.writer.burst(writes)
    m.client.pause()  # SM pauses tapdisk for its own reasons, too
    m.client.unpause()
    m.copy()
    m.writer.burst(writes)
    host.refused("compose", "Datapath.activate", uri=m.uri, domain="7")
    m.client.drain()
    pid = m.pid()
    took = m.finalise()
    image = m.uri.removeprefix("sxm://")
    keys = [v["key"] for v in host.call("SR.ls", sr=sr)]
    assert m.leaf in keys and m.parent["key"] not in keys and m.dummy not in keys, keys
    guest = Socket(activate(m.uri, "7"), m.size)
    assert m.pid() == pid, "another process serves the guest than the one that was mirrored to"
    m.client = guest.client
    m.writer.client = guest.client
    m.writer.burst(100)  # while it is merged
    m.client.drain()
    if kill:
        for _ in range(3):
            os.kill(host.control(m.leaf, "hello")["ok"]["pid"], signal.SIGKILL)
            until_true("a successor serves", lambda: can_connect(guest_socket(m.uri)))
            guest = Socket(guest_socket(m.uri), m.size)
            m.check(guest, f"{kind}: after a kill")
            m.writer.client = m.client = guest.client
            m.writer.burst(50)
            m.client.drain()
    m.check(guest, f"{kind}: after the move")
    until_true("all is merged", lambda: is_merged(image), 30)
    m.check(guest, f"{kind}: merged")
    guest.close()
    let_go(m.uri, "7")
    guest = Socket(activate(m.uri, "8"), m.size)
    m.check(guest, f"{kind}: opened anew")
    guest.close()
    let_go(m.uri, "8")
    host.call("Volume.destroy", sr=sr, key=m.leaf)
    os.close(m.here)
    os.unlink(m.path)
    return took


def killed_move(kind, sr, seed, kill_after):
    """The process that stays for the guest dies before it has heard that the leaf is composed, or with the image open."""
    m = Move(sr, seed, 4 * MIB)
    m.begin()
    m.snapshot()
    m.copy()
    m.writer.burst(50)
    m.client.drain()
    m.finalise(kill_after)
    guest = Socket(activate(m.uri, "7"), m.size)
    m.check(guest, f"{kind}: killed after {kill_after}")
    until_true("all is merged", lambda: is_merged(m.uri.removeprefix("sxm://")), 30)
    m.check(guest, f"{kind}: killed after {kill_after}, merged")
    guest.close()
    let_go(m.uri, "7")
    host.call("Volume.destroy", sr=sr, key=m.leaf)


def composed_and_nobody_comes(sr):
    """Composed twice, as its answer was lost, and then destroyed instead of started: nobody waits for the guest."""
    m = Move(sr, 97, MIB)
    m.begin()
    m.snapshot()
    m.copy()
    m.writer.burst(10)
    m.client.drain()
    m.finalise()
    until_true("it is open", lambda: host.control(m.leaf, "status")["ok"]["open"])
    host.refused("", "Volume.compose", sr=sr, key=m.leaf, key2=m.parent["key"])
    host.call("Volume.destroy", sr=sr, key=m.leaf)


def guest_socket(uri):
    return attach(uri, "7")


def can_connect(path):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        return True
    except OSError:
        return False


def srs():
    plain = host.make_place("plain")
    yield "raw, plain", host.make_sr(uri=f"file://{plain}", format="raw")
    if os.path.exists("/usr/bin/qemu-img"):
        os.mkdir(os.path.join(host.dir, "q"))
        yield "qcow2", host.make_sr(uuid="0a0b0c0d-1111-2222-3333-444455556667", uri=f"file://{host.dir}/q", format="qcow2")
    shared = host.make_place("xfs")
    if shared:
        yield "raw, shared blocks", host.make_sr(uuid="0a0b0c0d-1111-2222-3333-444455556668", uri=f"file://{shared}", format="raw")


def test_moves():
    for number, (kind, sr) in enumerate(srs()):
        runs = [whole_move(kind, sr, 10 * number + i, kill=i == 0) for i in range(10 if IS_LONG else 1)]
        for verb in runs[0]:
            say(f"{kind}: {verb} median {statistics.median(r[verb] for r in runs):.1f} ms, longest {max(r[verb] for r in runs):.1f} ms")
        for i, kill_after in enumerate(("Datapath.detach", "Volume.compose", "Volume.unset")):
            killed_move(kind, sr, 500 + 10 * number + i, kill_after)
        composed_and_nobody_comes(sr)


def test_wrong_order(sr):
    m = Move(sr, 99, MIB)
    host.refused("activate", "Datapath.import_activate", uri=m.uri, domain="3")
    m.begin()
    m.writer.write(4096, 512)
    m.client.drain()
    host.refused("active", "Volume.compose", sr=sr, key=m.leaf, key2=m.parent["key"])
    host.refused("compose", "Datapath.activate", uri=m.uri, domain="3")
    host.refused("", "Volume.snapshot", sr=sr, key=m.leaf)
    # A kill in the middle: what was under way is lost, and the leaf is no disk any more.
    os.kill(host.control(m.leaf, "hello")["ok"]["pid"], signal.SIGKILL)
    let_go(m.uri, "MIR1")
    host.refused("not whole", "Volume.compose", sr=sr, key=m.leaf, key2=m.parent["key"])
    host.refused("compose", "Datapath.activate", uri=m.uri, domain="3")
    host.call("Datapath.detach", uri=m.uri, domain="3")  # an activation that was refused had attached it
    for key in (m.leaf, m.dummy, m.parent["key"]):
        host.call("Volume.destroy", sr=sr, key=key)
    # What was never mirrored to is composed, too; what was written to directly is not, where nobody knows where.
    m = Move(sr, 98, MIB)
    m.snapshot()
    m.copy()
    m.begin()
    m.finalise()
    guest = Socket(activate(m.uri, "7"), m.size)
    m.check(guest, "nothing was mirrored")
    guest.close()
    let_go(m.uri, "7")


if __name__ == "__main__":
    test_moves()
    test_wrong_order(host.make_sr(name="wrong", uuid="0a0b0c0d-1111-2222-3333-444455556669"))
    say("ok")
