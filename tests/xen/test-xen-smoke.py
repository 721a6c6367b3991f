#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest of a real Xen has a disk over its ring: it connects, writes, flushes, reads, and what it wrote is in the image. What it did is
where xcp-rrdd reads it, as its VM's, which a guest that may write there itself does not say."""
import time

import bed

STRANGER = "5e0b8c3d-0000-4000-8000-00000000000a"


def let_guest_say(host, guest, is_allowed):
    host.sh(f"xenstore-chmod /local/domain/{guest.domid}/vm n0 {'b' if is_allowed else 'r'}{guest.domid}")


def compare_figures(disk, guest, vm):
    """They are written each 5 s. Nobody reads or writes meanwhile."""
    status = disk.status(guest.domid)
    wanted = {"vbd_xvda_read": status["bytes_read"], "vbd_xvda_write": status["bytes_written"], "vbd_xvda_inflight": 0}
    end = time.monotonic() + 60
    while True:
        found, owners = disk.figures()
        if all(found[name] == value for name, value in wanted.items()):
            break
        assert time.monotonic() < end, (found, wanted)
    assert owners == {"vm " + vm}, owners
    assert status["read_us"] > 0 and status["write_us"] > 0, status
    bed.say(f"the graphs of {vm} have {found['vbd_xvda_write']} bytes written")


def smoke():
    host = bed.host().boot()
    host.make_sr()
    disk = bed.Disk(host, mib=8)
    host.sh("mkdir /dev/shm/metrics")  # xcp-rrdd makes it
    guest = bed.Guest(host, "g").create()
    vm = host.sh(f"xenstore-read /local/domain/{guest.domid}/vm").strip().removeprefix("/vm/")
    let_guest_say(host, guest, True)
    disk.give_to(guest)
    guest.start()
    guest.connected()
    assert disk.figures() is None, "a guest could say whose its figures are"
    let_guest_say(host, guest, False)
    host.until("ls /dev/shm/metrics/sxm-*")
    bed.say("connected")
    guest.work()
    guest.end_work()
    inside, status = guest.sum(), disk.status(guest.domid)
    bed.say(f"{status['reads']} reads, {status['writes']} writes, {status['flushes']} flushes")
    assert status["connected"] and status["ring_errors"] == 0 and status["writes"] > 0 and status["flushes"] > 0, status
    assert inside == disk.sum(), "the guest reads something else than what is in the image"
    let_guest_say(host, guest, True)
    host.sh(f"xenstore-write /local/domain/{guest.domid}/vm /vm/{STRANGER}")
    compare_figures(disk, guest, vm)
    guest.destroy()
    disk.take_from(guest.domid)
    assert inside == disk.sum() and disk.figures() is None


bed.play(smoke)
