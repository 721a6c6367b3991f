#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log of a disk's changes goes with it to another SR: what changed since a snapshot that was copied there is what differs from
it, and no more than was written; whoever is killed meanwhile, it is never less. Where the far side cannot take it, that is said."""
import base64
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests", "lib"))
from smapi import DATAPATH, Host, Refused, nbd_of, say, skip, until_true  # noqa: E402
import xsxm  # noqa: E402
from xsxm import Gone, Link  # noqa: E402

if os.geteuid() != 0:
    skip("only root can mount")
if not shutil.which("mkfs.xfs"):
    skip("this needs: mkfs.xfs")
SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
BLOCK = 65536
MIB = 1 << 20
SIZE = 128 * MIB


class Logging(Host):
    """Its processes' logs are files, for there it is said that a log stays behind."""

    def call(self, verb, **args):
        plugin = DATAPATH if verb.startswith("Data") else self.volume
        done = self.run(f"{plugin}/{verb}", json.dumps({**args, "dbg": "moves"}), env={**self.env, "SXM_LOG": "stderr"})
        if done.returncode:
            raise Refused(verb, done.returncode, done.stdout)
        return json.loads(done.stdout)


host = Logging()
MOUNT = host.make_xfs("xfs")
for name in ("a", "b"):
    os.mkdir(os.path.join(MOUNT, name))
SR = {name: host.make_sr("xfs/" + name, uuid=f"0a0b0c0d-1111-2222-3333-44445555666{name}") for name in ("a", "b")}


class Volume:
    def __init__(self, side, key=None):
        self.side = side
        self.key = key or host.make_volume(SR[side], SIZE)["key"]
        self.uri = self.call("stat")["uri"][0]

    def call(self, verb, **args):
        return host.call("Volume." + verb, sr=SR[self.side], key=self.key, **args)

    def path(self, suffix=".raw"):
        return os.path.join(MOUNT, self.side, self.key + suffix)

    def snapshot(self):
        return Volume(self.side, self.call("snapshot")["key"])

    def is_tracked(self):
        return self.call("stat")["cbt_enabled"]

    def activate(self, domain):
        self.socket, self.export = nbd_of(host.call("Datapath.attach", uri=self.uri, domain=domain))
        host.call("Datapath.activate", uri=self.uri, domain=domain)
        return f"nbd+unix:///{self.export}?socket={self.socket}"

    def deactivate(self, domain):
        host.call("Datapath.deactivate", uri=self.uri, domain=domain)

    def let_go(self, domain):
        self.deactivate(domain)
        host.call("Datapath.detach", uri=self.uri, domain=domain)

    def kill(self):
        """Its process; whether there was one."""
        try:
            os.kill(host.control(self.key, "hello")["ok"]["pid"], signal.SIGKILL)
            return True
        except (OSError, IndexError, TypeError):
            return False

    def copied(self, side):
        """A snapshot that was copied, as an orchestrator does it: a new volume with its bytes, and a snapshot of that."""
        copy = Volume(side)
        shutil.copyfile(self.path(), copy.path())
        snapshot = copy.snapshot()
        copy.call("destroy")
        return snapshot

    def said(self, words):
        """Whether its process' log has them."""
        with open(os.path.join(host.run_dir, self.export + ".log"), encoding="utf-8", errors="replace") as f:
            return words in f.read()


def changed(a, b):
    """The set of blocks; None: no chain leads there."""
    try:
        said = host.call("Volume.list_changed_blocks", sr=SR[b.side], key=a.key, key2=b.key, offset=0, length=-1)
    except Refused as e:
        assert "no unbroken chain" in str(e) or "not tracked" in str(e), e
        return None
    bits = base64.b64decode(said["bitmap"], validate=True)
    return {i * 8 + j for i, byte in enumerate(bits) for j in range(8) if byte >> (7 - j) & 1}


def differing(a, b):
    with open(a.path(), "rb") as x, open(b.path(), "rb") as y:
        return {n for n in range(SIZE // BLOCK) if x.read(BLOCK) != y.read(BLOCK)}


def check(a, b, written):
    said, differs = changed(a, b), differing(a, b)
    assert said is not None, "the chain is broken"
    assert differs <= said, f"NOT REPORTED: {sorted(differs - said)[:10]} of {len(differs)}"
    assert said <= written, f"too much: {sorted(said - written)[:10]} of {len(said)}; {len(written)} were written"


class Guest:
    """Writes what was not there, here and there in a region, until it is stopped or its server is gone."""

    def __init__(self, volume, first=0, blocks=SIZE // BLOCK):
        self.link, self.written, self.operations, self.is_over = Link(volume.socket), set(), 0, False
        self.first, self.blocks = first, blocks
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        self.more(20)

    def run(self):
        dice = random.Random()
        try:
            while not self.is_over:
                at = self.first * BLOCK + dice.randrange(self.blocks * BLOCK // 4096 - 1) * 4096
                if dice.randrange(4) == 0:
                    at += 512 * dice.randrange(8)
                self.written |= {at // BLOCK, (at + 4095) // BLOCK}
                if self.link.write(at, dice.randbytes(4096)):
                    return
                self.operations += 1
        except (OSError, xsxm.Gone):
            pass

    def more(self, count):
        want = self.operations + count
        until_true("the guest writes", lambda: self.operations >= want or not self.thread.is_alive(), 30)

    def stop(self):
        self.is_over = True
        self.thread.join()
        self.link.close()
        return self.written


def mirror(volume, far, remote=None):
    operation = host.call("Data.mirror", uri=volume.uri, domain="1", remote=remote or far.activate("MIR1"))
    until_true("it is in sync", lambda: host.call("Data.stat", operation=operation)["complete"], 60)


def write(volume, domain, *blocks):
    volume.activate(domain)
    link = Link(volume.socket)
    for block in blocks:
        assert link.write(block * BLOCK + 512, os.urandom(4096)) == 0
    link.close()
    volume.let_go(domain)


def test_there_and_back():
    disk = Volume("a")
    disk.call("enable_cbt")
    write(disk, "1", *range(0, 600, 3))
    s1 = disk.snapshot()
    disk.activate("1")
    guest = Guest(disk, 100, 200)
    guest.more(300)
    before_s2 = set(guest.written)
    s2 = disk.snapshot()
    since_s2 = set(guest.written)
    guest.written -= before_s2
    guest.stop()
    guest = Guest(disk, 700, 300)
    far = Volume("b")
    assert not far.is_tracked()
    mirror(disk, far)
    guest.more(100)
    first_s3 = len(guest.written)
    s3 = disk.snapshot()  # the chain is another one than was sent
    guest.more(200)
    guest.stop()
    while not changed(s3, disk):
        write_one = Link(disk.socket)
        assert write_one.write(5 * BLOCK, os.urandom(512)) == 0
        write_one.close()
        guest.written.add(5)
    was = {s: changed(s, disk) for s in (s1, s2, s3)}
    disk.let_go("1")
    far.let_go("MIR1")
    assert differing(disk, far) == set() and far.is_tracked() and first_s3
    write(far, "2", 1, 2, 3, 900)
    copies = {s: s.copied("b") for s in (s1, s2, s3)}
    for s, copy in copies.items():
        assert changed(copy, far) is None, "nobody has said yet what it is a copy of"
        copy.call("set", k="copy_of", v=s.key)
        assert changed(copy, far) == was[s] | {1, 2, 3, 900}
    check(copies[s1], far, since_s2 | before_s2 | guest.written | {1, 2, 3, 900})
    check(copies[s2], far, since_s2 | guest.written | {1, 2, 3, 900})
    check(copies[s3], far, guest.written | {1, 2, 3, 900})
    clone = Volume("b", copies[s3].call("clone")["key"])
    assert "copy_of" not in clone.call("stat")["keys"]
    backup = far.snapshot()
    write(far, "2", 7)
    assert changed(copies[s3], backup) == was[s3] | {1, 2, 3, 900} and changed(backup, far) == {7}
    for side in ("a", "b"):
        done = subprocess.run([SXM, "fsck", os.path.join(MOUNT, side)], capture_output=True, text=True, env=host.env)
        assert done.returncode == 0, done.stdout + done.stderr
    # Back to where its snapshots are: they are found as they are.
    disk.call("destroy")
    far.activate("1")
    home = Volume("a")
    mirror(far, home)
    far.let_go("1")
    home.let_go("MIR1")
    assert home.is_tracked() and differing(far, home) == set()
    write(home, "1", 11)
    for s in (s1, s2, s3):
        assert changed(s, home) == was[s] | {1, 2, 3, 900, 7, 11}
        check(s, home, changed(s, home))
    return home, s3


def test_what_was_sent_early_is_no_more_than_a_beginning():
    """Sent when it was in sync; then written for a while; moved when there is a guest, and when there is none."""
    for has_guest in (True, False):
        disk, far = Volume("a"), Volume("b")
        disk.call("enable_cbt")
        s = disk.snapshot()
        disk.activate("1")
        if has_guest:
            mirror(disk, far)
        link, blocks = Link(disk.socket), random.sample(range(SIZE // BLOCK), 40)
        for block in blocks:
            assert link.write(block * BLOCK, os.urandom(BLOCK)) == 0
        link.close()
        disk.deactivate("1")
        if not has_guest:
            mirror(disk, far)
        far.let_go("MIR1")
        copy = s.copied("b")
        copy.call("set", k="copy_of", v=s.key)
        assert changed(copy, far) == set(blocks) == differing(copy, far)


def test_of_a_disk_that_is_not_tracked_nothing_comes():
    disk, far = Volume("a"), Volume("b")
    disk.activate("1")
    mirror(disk, far)
    disk.let_go("1")
    far.let_go("MIR1")
    assert not far.is_tracked()


def test_a_log_of_its_own_stays():
    """It tells what changed since a snapshot that was made there; one that tells nothing makes room."""
    for has_snapshot in (True, False):
        disk, far = Volume("a"), Volume("b")
        disk.call("enable_cbt")
        s = disk.snapshot()
        far.call("enable_cbt")
        own = far.snapshot() if has_snapshot else None
        disk.activate("1")
        mirror(disk, far)
        write_one = Link(disk.socket)
        assert write_one.write(9 * BLOCK, b"x" * 512) == 0
        disk.let_go("1")
        far.let_go("MIR1")
        copy = s.copied("b")
        copy.call("set", k="copy_of", v=s.key)
        assert changed(copy, far) == (None if has_snapshot else {9})
        if has_snapshot:
            assert {9} <= changed(own, far)
            assert far.said("snapshot made here") and disk.said("does not move with it")


class Older:
    """A relay that makes a far side one of version 1: it is asked for versions 9 and 1."""

    def __init__(self, volume):
        self.target, self.path = volume.socket, os.path.join(host.dir, "older." + volume.key)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            client, server = self.listener.accept()[0], socket.socket(socket.AF_UNIX)
            server.connect(self.target)
            for one, other, old, new in ((client, server, b"x-sxm:2/", b"x-sxm:9/"), (server, client, b"", b"")):
                threading.Thread(target=self.pump, args=(one, other, old, new), daemon=True).start()

    @staticmethod
    def pump(one, other, old, new):
        try:
            while data := one.recv(1 << 20):
                other.sendall(data.replace(old, new) if old else data)
        except OSError:
            pass
        for s in (one, other):
            s.close()


def test_an_older_far_side_takes_the_disk_and_not_its_log():
    disk, far = Volume("a"), Volume("b")
    disk.call("enable_cbt")
    disk.snapshot()
    disk.activate("1")
    far.activate("MIR1")
    mirror(disk, far, f"nbd+unix:///{far.export}?socket={Older(far).path}")
    disk.let_go("1")
    far.let_go("MIR1")
    assert not far.is_tracked() and disk.said("does not move with it: the far side is an older sxm")
    write(far, "2", 3)


def test_a_link_of_version_1_is_told_nothing_of_it():
    far = Volume("b")
    far.activate("MIR1")
    link = Link(far.socket, "x-sxm:1/m/7/1")
    assert link.hello().status == xsxm.OK
    assert link.ask(xsxm.LOG_BEGIN).status == xsxm.UNKNOWN
    assert link.write(xsxm.LOG_AT, bytes(4096)) not in (0, xsxm.EPERM)


def test_what_is_no_log_is_refused():
    far = Volume("b")
    far.activate("MIR1")
    link = Link(far.socket, "x-sxm:2/m/7/1")
    assert link.write(xsxm.LOG_AT, bytes(4096)) == xsxm.EPERM
    assert link.hello().status == xsxm.OK
    assert link.write(xsxm.LOG_AT, bytes(4096)) == xsxm.EPERM
    assert link.ask(xsxm.LOG_END).status == xsxm.BAD_STATE
    assert link.ask(xsxm.LOG_BEGIN).status == xsxm.OK
    for at, data in ((0, bytes(4096)), (0, os.urandom(4096)), (4096, bytes(4096)), (1 << 40, bytes(4096)), ((1 << 62) - 4096, bytes(8192)),
                     (512, bytes(4096)), (0, bytes(512)), (0, bytes((1 << 20) + 4096))):
        assert link.write(xsxm.LOG_AT + at, data) == 22, (at, len(data))
    assert link.ask(xsxm.LOG_END).status == xsxm.BAD_STATE
    link = Link(far.socket, "x-sxm:2/m/7/2")
    assert link.hello().status == xsxm.OK and link.write(xsxm.LOG_AT, bytes(4096)) == xsxm.EPERM
    assert link.ask(xsxm.PREPARE).status == xsxm.OK and link.ask(xsxm.COMMIT).status == xsxm.OK
    assert link.write(xsxm.LOG_AT, bytes(4096)) == xsxm.EPERM and link.ask(xsxm.LOG_BEGIN).status == xsxm.BAD_STATE
    link.close()
    far.let_go("MIR1")
    assert not far.is_tracked()


def moves(disk, far):
    """Deactivated, again where it raised. Whether a guest may start over there."""
    try:
        disk.deactivate("1")
        has_moved = True
    except Refused as e:
        say(f"  {str(e)[:200]}")
        disk.deactivate("1")
        has_moved = False
    host.call("Datapath.detach", uri=disk.uri, domain="1")
    far.let_go("MIR1")
    try:
        far.activate("2")
    except Refused:
        assert not has_moved
        return False
    return True


def goes(volume):
    try:
        volume.call("destroy")
    except Refused:
        return False
    return True


def is_served(volume):
    try:
        Link(volume.socket).close()
    except (OSError, Gone):  # the one that was killed had let it in
        return False
    return True


def test_killed_around_the_commit():
    for i in range(int(os.environ.get("SXM_LONG") and 40 or 6)):
        disk, far = Volume("a"), Volume("b")
        disk.call("enable_cbt")
        s = disk.snapshot()
        disk.activate("1")
        mirror(disk, far)
        link, blocks = Link(disk.socket), random.sample(range(SIZE // BLOCK), 30)
        for block in blocks:
            assert link.write(block * BLOCK, os.urandom(4096)) == 0
        link.close()
        victim = (disk, far)[i % 2]
        killer = threading.Timer(random.random() * 0.06, victim.kill)
        killer.start()
        has_moved = moves(disk, far)
        killer.join()
        say(f"  {'source' if victim is disk else 'far side'} killed: it {'moved' if has_moved else 'stays'}")
        if has_moved:
            until_true("it is served, also when it was killed so late", lambda v=far: is_served(v))
            Link(far.socket).write(77 * BLOCK, b"y" * 512)
            far.let_go("2")
            copy = s.copied("b")
            copy.call("set", k="copy_of", v=s.key)
            assert far.is_tracked() and changed(copy, far) >= differing(copy, far) | {77}
            copy.call("destroy")
        else:
            assert changed(s, disk) >= differing(s, disk)
        for volume in (s, disk, far) if has_moved else (s, far):
            until_true("it may go", lambda v=volume: goes(v))


only = os.environ.get("ONLY", "")
for name, test in list(globals().items()):
    if name.startswith("test_") and only in name:
        say(name[5:].replace("_", " "))
        test()
