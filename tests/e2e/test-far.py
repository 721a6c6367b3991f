#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The far side of a mirror as its source meets it: who is let in, what is shut out, what a guest may start from, and what is
left when a process is killed between two steps. The source is played by tests/lib/xsxm.py."""
import concurrent.futures
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests", "lib"))
import xsxm  # noqa: E402
from smapi import Host, nbd_of, read_slots, say, until_true  # noqa: E402
from xsxm import Link  # noqa: E402

host = Host()
sr = host.make_sr()
MIB = 1 << 20


class Disk:
    """A new volume, active as the far end of a move."""

    def __init__(self, is_far=True):
        v = host.make_volume(sr, 16 * MIB)
        self.uri, self.key = v["uri"][0], v["key"]
        self.image = os.path.join(host.dir, "sr", self.key + ".raw")
        if is_far:
            self.socket = self.attach("MIR1")
            self.activate("MIR1")

    @classmethod
    def over(cls, image):
        disk = cls.__new__(cls)
        disk.uri, disk.image = "sxm://" + image, image
        disk.socket = disk.attach("MIR1")
        disk.activate("MIR1")
        return disk

    def attach(self, domain):
        return nbd_of(host.call("Datapath.attach", uri=self.uri, domain=domain))[0]

    def activate(self, domain, **args):
        host.call("Datapath.activate", uri=self.uri, domain=domain, **args)

    def refuses(self, domain, words):
        host.refused(words, "Datapath.activate", uri=self.uri, domain=domain)

    def let_go(self, domain):
        host.call("Datapath.deactivate", uri=self.uri, domain=domain)
        host.call("Datapath.detach", uri=self.uri, domain=domain)

    def link(self, generation, *more, epoch=7, mirror="m.1"):
        """Not said HELLO yet; comes again while a killed process is replaced."""
        for _ in range(500):
            try:
                return Link(self.socket, *more, f"x-sxm:1/{mirror}/{epoch}/{generation}")
            except (OSError, xsxm.Gone):
                time.sleep(0.02)
        raise AssertionError("nobody listens at " + self.socket)

    def linked(self, generation, state=xsxm.RECEIVING, epoch=7):
        link = self.link(generation)
        answer = link.hello()
        assert (answer.status, answer.state, answer.epoch) == (xsxm.OK, state, epoch), answer
        return link

    def control(self, verb, **args):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(os.path.join(os.path.dirname(self.socket), "control"))
            s.sendall(json.dumps({"id": 1, "verb": verb, "args": args}).encode() + b"\n")
            return json.loads(s.makefile().readline())

    def owner(self):
        return self.control("status")["ok"]["owner"]

    def on_record(self):
        return read_slots(self.image + ".owner")

    def kill(self):
        pid = self.control("hello")["ok"]["pid"]
        os.kill(pid, signal.SIGKILL)
        until_true("the process to be gone", lambda: pid not in host.processes())


def expect(answer, status, state, epoch):
    assert (answer.status, answer.state, answer.epoch) == (status, state, epoch), answer


def commit(disk, generation=1):
    link = disk.linked(generation)
    assert link.write(0, b"x" * 4096) == 0
    expect(link.ask(xsxm.PREPARE), xsxm.OK, xsxm.RECEIVING, 7)
    expect(link.ask(xsxm.COMMIT), xsxm.OK, xsxm.ELIGIBLE, 8)
    return link


def test_the_older_of_two_versions_is_agreed_on():
    disk = Disk()
    link = disk.link(1, "base:allocation", "x-sxm:3/m.1/7/1")
    assert link.chosen == "x-sxm:1/m.1/7/1", link.chosen
    answer = link.hello()
    expect(answer, xsxm.OK, xsxm.RECEIVING, 7)
    assert len(answer.fields) == 13, answer
    newer = Link(disk.socket, "x-sxm:3/m.1/7/2", "x-sxm:2/m.1/7/2", "x-sxm:1/m.1/7/2")
    assert newer.chosen == "x-sxm:2/m.1/7/2", newer.chosen
    answer = newer.hello()
    expect(answer, xsxm.OK, xsxm.RECEIVING, 7)
    assert str(answer.u64(13)) == disk.on_record()["volume"] and answer.u64(13), answer


def test_a_link_writes_and_nobody_else():
    disk = Disk()
    link = disk.link(1)
    assert link.write(0, b"a" * 512) == xsxm.EPERM
    plain = Link(disk.socket)
    expect(link.hello(), xsxm.OK, xsxm.RECEIVING, 7)
    assert disk.on_record()["state"] == "receiving" and disk.on_record()["generation"] == "1"
    owner = disk.owner()
    assert (owner["state"], owner["epoch"], owner["mirror"], owner["generation"]) == ("receiving", "7", "m.1", "1"), owner
    assert owner["links"] == 1
    assert link.write(0, b"a" * 512) == 0
    assert plain.chosen is None and plain.write(0, b"b" * 512) == xsxm.EPERM
    assert plain.read(0, 512) == b"a" * 512
    disk.refuses("3", "receiving a mirror")
    stranger = disk.link(1, mirror="m.2")
    assert stranger.hello().status == xsxm.NOT_YOURS and stranger.write(0, b"c") == xsxm.EPERM
    assert [v["key"] for v in host.call("SR.ls", sr=sr)].count(disk.key) == 1


def test_prepare_says_what_has_arrived():
    disk = Disk()
    link, twin = disk.linked(1), disk.linked(1)
    for i in range(200):
        data = bytes([i]) * (512 + 17 * i)
        assert (link, twin)[i % 2].write(i * 8192, data) == 0
    assert link.zero(4096, 1 * MIB) == 0
    assert link.write(16 * MIB, b"outside") != 0  # fails, and is in neither
    answer = twin.ask(xsxm.PREPARE)
    total = (link.digest.sum + twin.digest.sum) % (1 << 128)
    assert answer.u64(4) == link.digest.count + twin.digest.count == 201
    assert answer.u64(6) << 64 | answer.u64(8) == total, answer
    # Another generation begins from nothing.
    answer = disk.linked(2).ask(xsxm.PREPARE)
    assert answer.u64(4) == 0 and answer.fields[6:10] == [0] * 4, answer


def write_without_end(disk, told):
    """A child: many writes in flight, answers not taken, until it is stopped in the middle."""
    link = disk.linked(1)
    os.write(told, b"!")
    link.sock.settimeout(None)
    while True:
        for at in range(0, 8 * MIB, 256 * 1024):
            link.send(xsxm.WRITE, at, 256 * 1024, b"\x0d" * (256 * 1024))


def test_a_stopped_source_is_shut_out_by_a_newer_link():
    for _ in range(3):
        disk = Disk()
        heard, told = os.pipe()
        child = os.fork()
        if not child:
            try:
                write_without_end(disk, told)
            finally:
                os._exit(1)
        try:
            assert os.read(heard, 1) == b"!"
            until_true("some writes", lambda: disk.control("status")["ok"]["domains"][0]["writes"] > 20)
            os.kill(child, signal.SIGSTOP)
            start = time.monotonic()
            link = disk.linked(2)
            assert time.monotonic() - start < 5, "a stopped source was waited for"
            for at in range(0, 8 * MIB, MIB):
                assert link.write(at, b"\x0e" * MIB) == 0
            assert link.flush() == 0
            os.kill(child, signal.SIGCONT)
            answer = link.ask(xsxm.PREPARE)
            assert answer.u64(4) == 8 and answer.u64(6) << 64 | answer.u64(8) == link.digest.sum, answer
            assert all(link.read(at, MIB) == b"\x0e" * MIB for at in range(0, 8 * MIB, MIB)), "an older write landed"
            assert disk.link(1).hello().status == xsxm.STALE
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_a_newer_link_waits_for_what_the_older_has_in_flight():
    """Each write below takes 300 ms; nbdkit is asked directly whether it has landed."""
    if not shutil.which("nbdkit"):
        return
    below, image = os.path.join(host.dir, "below"), os.path.join(host.dir, "slow.nbd")
    nbdkit = subprocess.Popen(["nbdkit", "-f", "-U", below, "--filter=delay", "memory", "16M", "delay-write=300ms"])
    try:
        until_true("nbdkit", lambda: os.path.exists(below))
        with open(image, "w", encoding="utf-8") as f:
            f.write(f"nbd+unix:///?socket={below}\n")
        disk = Disk.over(image)
        old, new = disk.linked(1), disk.link(2)
        for at in range(0, 8 * 65536, 65536):
            old.send(xsxm.WRITE, at, 65536, b"\x0d" * 65536)
        old.sock.sendall(struct.pack(">IHHQQIB", 0x25609513, 0, xsxm.WRITE, 99, 8 * 65536, 65536, 0x0d))  # and part of one
        until_true("them to be in flight", lambda: disk.control("status")["ok"]["in_flight"] == 8)
        answer = new.hello()
        expect(answer, xsxm.OK, xsxm.RECEIVING, 7)
        direct = Link(below)
        assert direct.read(0, 8 * 65536) == b"\x0d" * (8 * 65536), "answered before the older writes had landed"
        assert direct.read(8 * 65536, 65536) == bytes(65536), "half a write was taken"
        assert old.is_closed()
        direct.close()
        disk.let_go("MIR1")
    finally:
        nbdkit.kill()
        nbdkit.wait()


def test_commit_ends_the_writing_and_reclaim_begins_it_again():
    disk = Disk()
    link = commit(disk)
    assert link.write(0, b"y" * 512) == xsxm.EPERM
    expect(link.ask(xsxm.COMMIT), xsxm.OK, xsxm.ELIGIBLE, 8)
    expect(link.ask(xsxm.RECLAIM), xsxm.OK, xsxm.RECEIVING, 9)
    assert link.write(0, b"z" * 512) == 0 and link.read(0, 512) == b"z" * 512
    disk.refuses("3", "receiving a mirror")
    answer = link.ask(xsxm.PREPARE)
    assert answer.epoch == 9 and answer.u64(6) << 64 | answer.u64(8) == link.digest.sum, answer
    twin = disk.linked(1, xsxm.RECEIVING, 9)  # its name was given before
    assert twin.write(4096, b"t" * 512) == 0
    expect(link.ask(xsxm.COMMIT), xsxm.OK, xsxm.ELIGIBLE, 10)
    expect(twin.ask(xsxm.RECLAIM), xsxm.OK, xsxm.RECEIVING, 11)
    assert twin.write(0, b"t" * 512) == 0 and link.write(512, b"t" * 512) == 0


def test_the_first_guest_takes_it_and_the_source_hears():
    disk = Disk()
    link = commit(disk)
    news = link.send_ask(xsxm.WAIT)
    disk.let_go("MIR1")
    expect(link.ask(xsxm.PING), xsxm.OK, xsxm.ELIGIBLE, 8)
    disk.attach("3")
    disk.activate("3")
    expect(link.answer(news), xsxm.OK, xsxm.TAKEN, 8)
    assert disk.on_record()["state"] == "owned" and disk.on_record()["epoch"] == "8"
    guest = Link(disk.attach("3"))
    assert guest.read(0, 4096) == b"x" * 4096 and guest.write(0, b"g" * 512) == 0
    disk.let_go("3")
    assert link.is_closed()
    until_true("the processes to end", lambda: not host.processes())


def test_without_a_commit_the_disk_starts_nobody():
    disk = Disk()
    link = disk.linked(1)
    news = link.send_ask(xsxm.WAIT)
    disk.let_go("MIR1")
    answer = link.answer(news)
    assert (answer.status, answer.fields[1]) == (xsxm.OK, xsxm.ENDED), answer
    disk.refuses("3", "before it was complete")
    assert disk.on_record()["state"] == "incomplete"
    disk.attach("3")
    assert "error" in disk.control("activate", domain="3")
    assert disk.control("activate", domain="3", force=True) == {"id": 1, "ok": {}}
    assert Link(disk.attach("3")).write(0, b"f" * 512) == 0
    disk.let_go("3")


def test_a_foreign_source_leaves_it_unverified():
    disk = Disk()
    plain = Link(disk.socket, "base:allocation")
    assert plain.write(0, b"t" * 512) == 0
    assert disk.on_record()["unverified"] is True and disk.owner()["unverified"] is True
    plain.close()
    disk.let_go("MIR1")
    disk.attach("3")
    disk.activate("3")
    disk.let_go("3")


def test_a_guests_disk_lets_no_mirror_in():
    disk = Disk(is_far=False)
    disk.attach("3")
    disk.activate("3")
    disk.let_go("3")
    disk.socket = disk.attach("MIR1")
    disk.activate("MIR1")
    assert disk.link(1).hello().status == xsxm.NOT_YOURS


def test_killed_while_receiving():
    disk = Disk()
    link = disk.linked(1)
    first = disk.linked(1).hello()
    assert link.write(4096, b"k" * 4096) == 0
    disk.kill()
    assert link.is_closed()
    assert disk.link(1).hello().status == xsxm.STALE  # what it wrote is in no digest
    disk.refuses("3", "receiving a mirror")
    link = disk.link(2)
    second = link.hello()
    expect(second, xsxm.OK, xsxm.RECEIVING, 7)
    assert second.u64(6) == first.u64(6), "another boot?"
    assert second.u64(8) != first.u64(8), "the same process?"
    assert link.read(4096, 4096) == b"k" * 4096 and link.write(0, b"l") == 0


def test_killed_after_commit_and_after_reclaim():
    disk = Disk()
    commit(disk)
    disk.kill()
    link = disk.linked(2, xsxm.ELIGIBLE, 8)
    assert link.write(0, b"n" * 512) == xsxm.EPERM
    expect(link.ask(xsxm.COMMIT), xsxm.OK, xsxm.ELIGIBLE, 8)  # its answer may have been lost
    expect(link.ask(xsxm.RECLAIM), xsxm.OK, xsxm.RECEIVING, 9)
    disk.kill()
    link = disk.linked(3, xsxm.RECEIVING, 9)  # the name says 7: it had not heard
    expect(link.ask(xsxm.COMMIT), xsxm.BAD_STATE, xsxm.RECEIVING, 9)  # an older epoch's
    expect(link.ask(xsxm.RECLAIM), xsxm.OK, xsxm.RECEIVING, 9)
    assert link.write(0, b"n" * 512) == 0


def test_killed_while_only_the_link_is_left():
    disk = Disk()
    commit(disk)
    disk.let_go("MIR1")
    disk.kill()
    link = disk.linked(2, xsxm.ELIGIBLE, 8)
    assert Link(disk.socket).is_closed(), "somebody without x-sxm was let in"
    news = link.send_ask(xsxm.WAIT)
    disk.attach("3")
    disk.activate("3")
    expect(link.answer(news), xsxm.OK, xsxm.TAKEN, 8)
    disk.kill()
    until_true("the guest to be served", lambda: Link(disk.attach("3")).write(0, b"g") == 0)
    disk.let_go("3")


def test_destroying_what_is_eligible_gives_it_back_first():
    disk = Disk()
    link = commit(disk)
    news = link.send_ask(xsxm.WAIT)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(host.call, "Volume.destroy", sr=sr, key=disk.key)
        expect(link.answer(news), xsxm.OK, xsxm.NEWS_RELEASED, 9)
        assert os.path.exists(disk.image) and disk.on_record()["state"] == "released"
        expect(link.ask(xsxm.RELEASED), xsxm.OK, xsxm.GIVEN_BACK, 9)
        done.result()
    assert not os.path.exists(disk.image) and not os.path.exists(disk.image + ".owner")
    assert link.is_closed()


def test_what_is_not_complete_may_go():
    """As xapi cleans up: the far end is still attached, and its link alive."""
    disk = Disk()
    link = disk.linked(1)
    news = link.send_ask(xsxm.WAIT)
    host.call("Volume.destroy", sr=sr, key=disk.key)
    assert link.answer(news).fields[1] == xsxm.ENDED and link.is_closed()
    assert not os.path.exists(disk.image) and not os.path.exists(disk.image + ".owner")
    disk = Disk()
    disk.linked(1)
    disk.let_go("MIR1")
    host.call("Volume.destroy", sr=sr, key=disk.key)
    assert not os.path.exists(disk.image + ".owner")
    until_true("the processes to end", lambda: not host.processes())


def test_what_may_be_the_only_copy_is_not_destroyed():
    disk = Disk()
    commit(disk).close()
    until_true("the link to be gone", lambda: disk.owner()["links"] == 0)
    host.refused("only copy", "Volume.destroy", sr=sr, key=disk.key)
    assert os.path.exists(disk.image)
    # As when nothing runs here any more.
    until_true("the far end to be let go of", lambda: not disk.control("status")["ok"]["domains"])
    assert disk.control("destroy", force=True) == {"id": 1, "ok": {}}
    until_true("the processes to end", lambda: not host.processes())
    host.refused("only copy", "Volume.destroy", sr=sr, key=disk.key)


def main():
    for name, test in list(globals().items()):
        if name.startswith("test_") and (len(sys.argv) < 2 or sys.argv[1] in name):
            test()
            say(name[5:].replace("_", " "))
            host.end_processes()


if __name__ == "__main__":
    main()
