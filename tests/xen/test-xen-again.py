#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest ends at work on its disk and begins anew: it reboots, and the toolstack does as xenopsd does it; it crashes, and is preserved,
or destroyed at once by xl. What it had flushed is there each time, nothing is written once the disk was let go of, and no memory of a
dead domain is held."""
import bed

MIB = 16
PLEDGE = "bs=1M count=4"  # behind what worker works on


def pledge(guest):
    """What must be there from now on: its sum."""
    guest.sh(f"dd if=/dev/urandom of=/dev/xvda seek=8 {PLEDGE} conv=fsync")
    return kept(guest)


def kept(guest):
    return guest.sh(f"dd if=/dev/xvda iflag=direct skip=8 {PLEDGE} 2>/dev/null | sha256sum").split()[0]


def no_zombie(host, domid):
    """Of a domain whose memory somebody holds a number is left."""
    host.until(f"! xl list | awk '{{ print $2 }}' | grep -qx {domid}", 60)


def begin(host, disk, guest):
    host.sh(f"rm -f /var/log/xen/guest-{guest.name}.log")  # what an earlier one of that name said
    guest.create()
    disk.give_to(guest)
    guest.start()
    guest.connected()


def begin_again(host, disk, guest, held, pledged):
    begin(host, disk, guest)
    assert kept(guest) == pledged, "what the guest had flushed is not there"
    assert disk.sum() == held, "something was written that no guest wrote"


def end(host, disk, guest, command, state):
    """With requests under way, and no time to say so. As xenopsd does it: the disk is let go of while the dead domain is still there."""
    pledged, before = pledge(guest), guest.domid
    guest.work()
    guest.try_sh(command, 0)
    host.until(f"xl list {before} | grep -E -- '{state}'", 60)
    disk.take_from(before)
    held = disk.sum()
    guest.destroy()
    no_zombie(host, before)
    begin_again(host, disk, guest, held, pledged)


def crash_alone(host, disk):
    """xl destroys it, and tells nobody: of our own accord we let go of its memory."""
    guest = bed.Guest(host, "alone", more='on_crash="destroy"')
    begin(host, disk, guest)
    pledged, before = pledge(guest), guest.domid
    guest.work()
    guest.try_sh("echo c >/proc/sysrq-trigger", 0)
    no_zombie(host, before)
    disk.take_from(before)
    begin_again(host, disk, guest, disk.sum(), pledged)
    guest.destroy()
    disk.take_from(guest.domid)


def again():
    host = bed.host().boot()
    host.make_sr()
    disk = bed.Disk(host, mib=MIB)
    guest = bed.Guest(host, "g", more='on_reboot="preserve"\non_crash="preserve"')
    begin(host, disk, guest)
    end(host, disk, guest, "reboot -f", "---sr-")
    bed.say("rebooted")
    end(host, disk, guest, "echo c >/proc/sysrq-trigger", "---sc-")
    bed.say("crashed, preserved, begun anew")
    domid = guest.domid
    guest.destroy()
    no_zombie(host, domid)
    disk.take_from(domid)
    crash_alone(host, disk)
    bed.say("crashed, destroyed by xl, begun anew")


bed.play(again)
