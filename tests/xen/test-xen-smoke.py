#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest of a real Xen has a disk over its ring: it connects, writes, flushes, reads, and what it wrote is in the image."""
import bed


def smoke():
    host = bed.host().boot()
    host.make_sr()
    disk = bed.Disk(host, mib=8)
    guest = bed.Guest(host, "g").create()
    disk.attach(guest.domid)
    disk.activate(guest.domid)
    disk.serve_ring(guest.domid)
    guest.plug()
    guest.start()
    host.until(f"[ $(xenstore-read /local/domain/{guest.domid}/device/vbd/51712/state) = 4 ]")
    bed.say("connected")
    guest.sh("worker /dev/xvda 8 4 & worker=$!; sleep 3; kill $worker; wait $worker")
    inside = guest.sh("sync; sha256sum /dev/xvda").split()[0]
    status = disk.status(guest.domid)
    bed.say(f"the guest worked: {guest.sh('cat /run/worker.*').split()} {status}")
    assert status["connected"] and status["ring_errors"] == 0 and status["writes"] > 0 and status["flushes"] > 0, status
    assert inside == disk.sum(), "the guest reads something else than what is in the image"
    guest.destroy()
    host.until(f"! xenstore-exists /local/domain/{guest.domid}")
    disk.deactivate(guest.domid)
    disk.detach(guest.domid)
    assert inside == disk.sum()


bed.play(smoke)
