# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks of SMAPIv1 on the stage: no plugin has them, a stand-in for tapdisk serves each (tests/lib/tapdisk_*.py). One that is the source of
a move serves its guest and duplicates its writes; one that is the destination only serves.

      S: Source --- its own end of a connection --- HTTP PUT .../nbd/MIR/... --- the other end, passed to import_activate's socket"""
import itertools
import json
import os
import socket
import subprocess
import sys
import uuid

from actions import Target, texts
from guest import Wrong
from sequence import Unreadable
from verbs import Failed, Volume

HERE = os.path.dirname(os.path.realpath(__file__))
PLACE = "/run/blktap-control"
MINORS = itertools.count()


def program(name):
    """Installed it is beside this file, else in tests/lib."""
    beside = os.path.join(HERE, name)
    return beside if os.path.exists(beside) else os.path.join(HERE, "..", "lib", name)


class Tapdisk(Volume):
    """An image, and the process that serves it, both of one host. backend: where; answer: what attach would say."""

    PROGRAM = "tapdisk_server.py"

    def __init__(self, host, sr, size):
        key = str(uuid.uuid4())
        super().__init__(sr, {"key": key, "virtual_size": size, "name": "tapdisk"})
        self.host, self.image = host, os.path.join(host.dir, key + ".img")
        if not os.path.exists(self.image):
            with open(self.image, "xb") as f:
                f.truncate(size)
        self.serve(self.image)

    def serve(self, image):
        minor = next(MINORS)
        path = f"{PLACE}/nbd1.{minor}"
        self.control = self.host.outside(f"{PLACE}/control{minor}")
        os.makedirs(self.host.outside(PLACE), exist_ok=True)
        words = [sys.executable, program(self.PROGRAM), path, image] + ([f"{PLACE}/control{minor}"] if self.PROGRAM == "tapdisk_source.py" else [])
        self.process = self.host.run(subprocess.Popen, words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise Wrong(f"{' '.join(words)} did not start")
        self["backend"] = {"host": self.host, "socket": path, "export": self["key"]}
        self["answer"] = {"implementations": [["Nbd", {"uri": f"nbd:unix:{path}:exportname={self['key']}"}]]}

    def end(self):
        """The process ends; what it counted."""
        self.process.terminate()
        return self.process.communicate()[0]


class Frozen(Tapdisk):
    """A snapshot of a source's disk."""

    def __init__(self, source, path):
        self.path = path
        super().__init__(source.host, source["sr"], source["virtual_size"])

    def serve(self, image):
        os.replace(self.path, image)
        super().serve(image)


class Source(Tapdisk):
    PROGRAM = "tapdisk_source.py"

    def ask(self, what, fd=None):
        """The answer; whether the mirror has failed is in it."""
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(self.control)
                socket.send_fds(s, [json.dumps(what).encode()], [fd] if fd is not None else [])
                answer = json.loads(s.makefile("rb").readline())
        except (OSError, ValueError) as e:
            raise Failed("tapdisk", "TAPDISK", [f"it is gone: {e}"]) from None
        if "error" in answer:
            raise Failed("tapdisk", "TAPDISK", [answer["error"]])
        return answer


def taken(player, line, scope, kind=Tapdisk):
    volume = player.volume(line.first, scope, line)
    if not isinstance(volume, kind):
        raise Unreadable(f"{line.where}: {line.first} is not a disk of tapdisk's that {line.name} can be done with")
    return volume


def create(player, line, scope):
    """A disk on this host, two MiB larger than was asked for, as VHD's may be."""
    size, = texts(player, line, scope, "size")
    return Tapdisk(player.host(line), "tapdisk", int(size) + (2 << 20))


def connect(player, line, scope):
    """A connection, made by HTTP, passed to import_activate's socket on the other host and kept by tapdisk here. The datapath's name."""
    mir, to, volume = texts(player, line, scope, "mir", "to", "volume")
    source, there, record = taken(player, line, scope, Source), player.roles[to], player.volume(volume, scope, line)
    player.relays[there].targets[mir] = Target(player, there, record, mir, scope, line)
    name = str(uuid.uuid4())
    path = f"/services/SM/nbd/{mir}/{record['sr']}/{record['key']}/{name}?session_id=OpaqueRef:stage"
    with player.relays[player.host(line)].put_or_fail(player.relays[there], path) as connection:
        source.ask({"stash": name}, connection.fileno())
    return name


def snapshot(player, line, scope):
    """The one pause: what is there goes into the snapshot, what is written later through the connection of that name, too."""
    mirror, = texts(player, line, scope, "mirror")
    source = taken(player, line, scope, Source)
    path = source.image + ".frozen"
    source.ask({"snapshot": path, "mirror": mirror})
    return Frozen(source, path)


def stop(player, line, scope):
    """The mirror is taken out of it, which goes on."""
    texts(player, line, scope)
    taken(player, line, scope, Source).ask({"snapshot": None, "mirror": None})


def close(player, line, scope):
    """The guest is gone: nothing is outstanding any more; an error where its mirror has failed."""
    texts(player, line, scope)
    source = taken(player, line, scope, Source)
    answer = source.ask({"close": True})
    source.process.communicate()
    if answer["failed"]:
        raise Failed("tapdisk", "Migration_mirror_failure", ["tapdisk's counter says that its mirror failed"])


def reopen(player, line, scope):
    """It is served again."""
    texts(player, line, scope)
    source = taken(player, line, scope, Source)
    source.serve(source.image)


def destroy(player, line, scope):
    """The disk is gone. What a client asked that tapdisk does not offer is an error."""
    texts(player, line, scope)
    disk = taken(player, line, scope)
    if not os.path.exists(disk.image):
        raise Failed("tapdisk", "TAPDISK", ["the disk was destroyed before"])
    said = disk.end() if disk.process.poll() is None else ""
    os.unlink(disk.image)
    if said and json.loads(said)["wrong"]:
        raise Wrong(f"{line.where}: tapdisk was asked what it does not offer: {said}")


ACTIONS = {"tapdisk.create": create, "tapdisk.connect": connect, "tapdisk.snapshot": snapshot, "tapdisk.stop": stop, "tapdisk.close": close,
           "tapdisk.reopen": reopen, "tapdisk.destroy": destroy}
