#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""sxm-xenbus in dom0: what a toolstack plugs is served by the process that its params name, in xenopsd's order and in xl's, and by hand
with `sxm vbd`. The broker is killed, a disk's process too, xenstored stands still, the guest is destroyed: who works goes on, and what comes
is served."""
import time

import bed
from plugged import VBD, NUMBER, attach, detach, plug


def plug_as_xenopsd(host, guest):
    """Offered when the hotplug script was through, and not before."""
    disk = plug(host, guest, "xvda")
    host.until(f"grep -q '{guest.domid}/{NUMBER['xvda']}: served by' /var/log/broker")
    assert guest.state() == ["1", "1"], f"offered before the hotplug script was through: {guest.state()}"
    host.sh(f"xenstore-write {guest.backend['xvda']}/hotplug-status connected")
    host.until(f"[ $(xenstore-read {guest.backend['xvda']}/state) = 2 ]")
    return disk


def kill_broker(host, guest):
    """What was plugged while there is none is served by the next one."""
    host.kill_broker()
    guest.goes_on()
    disk = plug(host, guest, "xvdc", **{"hotplug-status": "connected"})
    host.start_broker()
    guest.connected("xvdc")
    guest.sh("dd if=/dev/urandom of=/dev/xvdc bs=64k count=4 conv=fsync")
    guest.goes_on()
    bed.say("the broker was killed, and took up its work again")
    return disk


def kill_process(host, guest, disk):
    before = disk.pid()
    host.sh(f"kill -9 {before}")
    host.until(f"/bed/wire ask /run/sxm/{disk.export}/control '{{\"id\":1,\"verb\":\"hello\",\"args\":{{}}}}' | grep -v '\"pid\":{before}[,}}]'")
    guest.goes_on()
    status = disk.status(guest.domid)
    assert status["connected"] and guest.state("xvdb") == ["4", "4"], status
    bed.say(f"its process was killed; {status['ring_left']} requests were in its hands")


def stop_xenstored(host, guest, disk):
    """It answers nobody for a while (that it dies, Xen does not survive): rings need it for nothing."""
    host.sh("kill -STOP $(cat /run/xen/xenstored.pid)")
    before = disk.status(guest.domid)["writes"]
    end = time.monotonic() + 30
    while disk.status(guest.domid)["writes"] < before + 40:
        assert time.monotonic() < end, "the guest waits for xenstored"
    host.sh("kill -CONT $(cat /run/xen/xenstored.pid)")
    guest.goes_on()
    bed.say("xenstored stood still, the guest did not")


def unplug(host, guest, disk):
    """By the toolstack, of what the broker has had served."""
    inside = guest.sum("xvdc")
    guest.ask_to_unplug("xvdc")
    guest.unplugged("xvdc")
    disk.take_from(guest.domid)
    assert inside == disk.sum()


def destroy(host, guest, plugged, attached):
    """At work. Of what xl does not know the keys stay: it is said there that it is over."""
    guest.goes_on()
    guest.destroy()
    back = guest.backend["xvda"]
    host.until(f"[ $(xenstore-read {back}/state) = 6 ] && ! xenstore-exists {back}/hotplug-status")
    plugged.take_from(guest.domid)
    gone = f"^{guest.domid} *xvdb *gone .*{attached.file}"
    host.until(f"{VBD} list | grep '{gone}'")
    host.sh(f"{VBD} detach {guest.domid} xvdb")
    held = attached.sum()
    host.sh("sleep 1")
    assert held == attached.sum(), "something was written after deactivate"
    assert host.sh(f"{VBD} list").count("\n") == 0, host.sh(f"{VBD} list")
    bed.say("destroyed, at work: all is let go of")


def broker():
    host = bed.host().boot()
    host.make_sr()
    host.start_broker()
    guest = bed.Guest(host, "g").create()
    plugged = plug_as_xenopsd(host, guest)
    guest.start()
    guest.connected()
    disk = bed.Disk(host, mib=8)
    bed.say(f"attached in {attach(host, guest, disk, 'xvdb'):.1f} s")
    guest.sh("dd if=/dev/urandom of=/dev/xvdb bs=64k count=4 conv=fsync")
    detach(host, guest, disk, "xvdb")
    attach(host, guest, disk, "xvdb")
    guest.work("/dev/xvdb")
    third = kill_broker(host, guest)
    kill_process(host, guest, disk)
    stop_xenstored(host, guest, disk)
    unplug(host, guest, third)
    destroy(host, guest, plugged, disk)


bed.play(broker)
