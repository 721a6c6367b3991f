#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest of a real Xen has a disk over its ring: it connects, writes, flushes, reads, and what it wrote is in the image."""
import bed


def smoke():
    host = bed.host().boot()
    host.make_sr()
    disk = bed.Disk(host, mib=8)
    guest = bed.Guest(host, "g").create()
    disk.give_to(guest)
    guest.start()
    guest.connected()
    bed.say("connected")
    guest.work()
    guest.end_work()
    inside, status = guest.sum(), disk.status(guest.domid)
    bed.say(f"{status['reads']} reads, {status['writes']} writes, {status['flushes']} flushes")
    assert status["connected"] and status["ring_errors"] == 0 and status["writes"] > 0 and status["flushes"] > 0, status
    assert inside == disk.sum(), "the guest reads something else than what is in the image"
    guest.destroy()
    disk.take_from(guest.domid)
    assert inside == disk.sum()


bed.play(smoke)
