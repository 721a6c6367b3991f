#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host loses its power, and its disk what was not flushed (volatile-disk of tests/lib): what the guest was told is flushed is there after
a boot. Once right after it was told, when nothing but that flush can have done it; and once while it writes and flushes on: what a
host finds after a power loss is lost once more."""
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


def cut(host, medium, what, pledged):
    host.cut()
    bed.say(f"no power {what}, round {pledged} was flushed; the disk: {medium.lose_power()}")
    return pledged


def cut_after_a_flush(host, medium, guest, first):
    """Nothing is written after it that could have been flushed in its stead."""
    guest.sh(f"pledge /dev/xvda write {first} {ROUNDS}", 120)
    return cut(host, medium, "after a flush", first + ROUNDS - 1)


def cut_in_a_round(host, medium, guest, first):
    """What was said of the last one is what must be there."""
    guest.sh(f"rm -f /run/pledged; pledge /dev/xvda write {first} 1000000 >/run/pledging 2>&1 &")
    guest.sh(f"until [ $(cat /run/pledged 2>/dev/null || echo 0) -ge {first + ROUNDS - 1} ]; do usleep 100000; done", 120)
    return cut(host, medium, "in a round", guest.sh("cat /run/pledged"))


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
    for first, lose_power in ((1, cut_after_a_flush), (1 + ROUNDS, cut_in_a_round)):
        pledged = lose_power(host, medium, guest, first)
        boot(host, medium)
        host.attach_sr()
        guest = begin(host, disk)
        bed.say(guest.sh(f"pledge /dev/xvda check {pledged}"))
    guest.destroy()
    disk.take_from(guest.domid)


bed.play(power)
