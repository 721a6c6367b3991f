#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host loses its power, and its disk what was not flushed (volatile-disk of tests/lib), while a guest writes and flushes: what the
guest was told is flushed is there after a boot. Done twice: what a host finds after a power loss is lost once more."""
import os
import signal
import subprocess

import bed
import image

ROUNDS = 5


class Medium:
    """A host's disk, with a write cache."""

    def __init__(self, host):
        self.path, self.socket = host.path("sr.img"), host.path("medium")
        image.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.path)  # with a journal
        host.sr_drive = f"file=nbd+unix:///?socket={self.socket},format=raw,if=virtio,cache=none"

    def start(self):
        self.process = subprocess.Popen([os.path.join(image.BUILD, "tests/lib/volatile-disk"), self.path, self.socket],
                                        stdout=subprocess.PIPE, text=True)
        assert "ready" in self.process.stdout.readline()

    def lose_power(self):
        self.process.send_signal(signal.SIGUSR1)
        return self.process.communicate()[0].strip().splitlines()[-1]


def cut(host, medium, guest):
    """In the middle of a round: what was said of the last one is what must be there."""
    guest.sh("pledge /dev/xvda >/run/pledging 2>&1 &")
    guest.sh(f"until [ $(cat /run/pledged 2>/dev/null || echo 0) -ge {ROUNDS} ]; do usleep 100000; done", 120)
    pledged = guest.sh("cat /run/pledged")
    host.cut()
    bed.say(f"no power, round {pledged} was flushed; the disk: {medium.lose_power()}")
    return pledged


def boot(host, medium):
    medium.start()
    host.boot()


def begin(host, disk):
    guest = bed.Guest(host, "g").create()
    disk.give_to(guest)
    guest.start()
    guest.connected()
    return guest


def power():
    host = bed.host()
    medium = Medium(host)
    boot(host, medium)
    host.make_sr()
    disk = bed.Disk(host, mib=8)
    guest = begin(host, disk)
    for _ in range(2):
        pledged = cut(host, medium, guest)
        boot(host, medium)
        host.attach_sr()
        guest = begin(host, disk)
        bed.say(guest.sh(f"pledge /dev/xvda {pledged}"))
    guest.destroy()
    disk.take_from(guest.domid)


bed.play(power)
