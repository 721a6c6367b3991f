#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a guest loses a disk, at work on it: unplugged in order, taken by force, destroyed. Between that it has it again. What it discards
is given back."""
import bed


def unplug(host, disk, guest):
    """By the toolstack, in order. Linux lets go of a disk that is in use, too, and whoever uses it gets errors."""
    guest.work()
    guest.ask_to_unplug()
    guest.unplugged()
    disk.take_from(guest.domid)
    guest.try_sh("kill -9 $worker; wait $worker")
    bed.say("unplugged")


def discard(host, disk, guest):
    disk.give_to(guest)
    guest.connected()
    guest.sh("dd if=/dev/urandom of=/dev/xvda bs=1M count=4 conv=fsync")
    used = int(host.sh(f"sync; stat -c %b {disk.file}"))
    guest.sh("blkdiscard /dev/xvda")
    left = int(host.sh(f"sync; stat -c %b {disk.file}"))
    assert used >= 4 * 2048 and left < used / 8, (used, left)
    bed.say(f"discarded: {used} sectors, and now {left}")


def remove(host, disk, guest):
    """The toolstack takes the frontend away: whoever waits for the end of it hears of it by these two keys."""
    guest.work()
    host.sh(f"xenstore-write {guest.backend['xvda']}/hotplug-status connected {guest.backend['xvda']}/online 0; "
            f"xenstore-rm /local/domain/{guest.domid}/device/vbd/51712")
    host.until(f"[ $(xenstore-read {guest.backend['xvda']}/state) = 6 ] && ! xenstore-exists {guest.backend['xvda']}/hotplug-status", 40)
    host.sh(f"xenstore-rm {guest.backend['xvda']}")
    disk.take_from(guest.domid)
    guest.try_sh("kill -9 $worker; wait $worker")
    bed.say("removed by force")


def destroy(host, disk, guest):
    other = bed.Disk(host, mib=8)
    other.give_to(guest, "xvdb")
    guest.connected("xvdb")
    guest.work("/dev/xvdb")
    guest.destroy()
    other.take_from(guest.domid)
    held = other.sum()
    host.sh("sleep 1")
    assert held == other.sum(), "something was written after deactivate"
    bed.say("destroyed, at work")


def unplugs():
    host = bed.host().boot()
    host.make_sr()
    disk = bed.Disk(host, mib=8)
    guest = bed.Guest(host, "g").create()
    disk.give_to(guest)
    guest.start()
    guest.connected()
    unplug(host, disk, guest)
    discard(host, disk, guest)
    remove(host, disk, guest)
    destroy(host, disk, guest)


bed.play(unplugs)
