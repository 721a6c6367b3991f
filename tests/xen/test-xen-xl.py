#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host without xapi: a disk in an xl config is a volume's URI, sxm-xl-dm its device model, and the broker has it served. Created, rebooted
by xl and by the guest itself, more disks while it runs, shut down, moved to its own host: a new domain each time, and the disk goes with
it."""
import bed
from xl_guest import XlGuest

def more_disks(host, guest):
    disk = bed.Disk(host, mib=8)
    host.sh(f"xl block-attach {guest.domid} format=raw,vdev=xvdb,access=rw,backendtype=qdisk,target={disk.uri}")
    guest.backend["xvdb"] = f"/local/domain/0/backend/qdisk/{guest.domid}/{bed.DEVICES['xvdb']}"
    guest.connected("xvdb")
    guest.sh("dd if=/dev/urandom of=/dev/xvdb bs=64k count=4 conv=fsync")
    inside = guest.sum("xvdb")
    host.sh(f"xl block-detach {guest.domid} xvdb")
    is_released(host, disk)
    assert inside == disk.sum()
    bed.say("xl block-attach and block-detach")


def is_released(host, disk):
    host.until(f"! grep -rl {disk.uri} /run/sxm/xenbus && ! /usr/local/sbin/sxm vbd list | grep -q {disk.file}")


def works(guest):
    guest.work()
    guest.end_work()
    inside = guest.sum()
    assert inside == guest.disk.sum(), "the guest reads something else than what is in the image"
    return inside


def moves_to_its_own_host(host, disk):
    """For a moment two domains have the disk in their keys: the new one gets it when the old one is gone."""
    guest = XlGuest(host, "m", disk, kind="pvh").create()
    guest.work()
    before = guest.domid
    status, said = host.try_sh("xl migrate -s '' m 'exec xl migrate-receive' 2>&1", 170)
    assert not status, said
    guest.find()
    guest.connected()
    guest.goes_on()
    assert host.sh(f"grep ' {guest.domid}/.*domain {before} has it' /var/log/broker")
    guest.end_work()
    inside = guest.sum()
    host.sh("xl shutdown -w m", 60)
    is_released(host, disk)
    assert inside == disk.sum()
    bed.say("moved to its own host, at work")


def refused(host):
    """A disk that is not there: xl says so, and nothing is left."""
    nowhere = XlGuest(host, "nowhere", type("Nowhere", (), {"uri": "sxm:///sr/none.raw"}))
    config = bed.shlex.quote(nowhere.config)
    status, said = host.try_sh(f"echo {config} >/run/nowhere.cfg; xl create -p /run/nowhere.cfg", 120)
    assert status and "device model" in said, said
    log = host.sh("cat /var/log/xen/qemu-dm-nowhere.log")
    assert "nobody serves" in log, log
    host.until("! xl domid nowhere")
    bed.say("refused: " + log.splitlines()[-1])


def xl():
    host = bed.host().boot()
    host.make_sr()
    host.start_broker()
    disk = bed.Disk(host, mib=8)
    guest = XlGuest(host, "g", disk).create()
    kept = works(guest)
    guest.has_rebooted("xl reboot g")
    assert guest.sum() == kept, "its disk is another after a reboot"
    bed.say("rebooted by xl")
    more_disks(host, guest)
    guest.work()
    guest.has_rebooted("/bed/in-guest g 1 'reboot -f'; true")
    kept = works(guest)
    bed.say("rebooted by itself, at work")
    host.sh("xl shutdown -w g", 60)
    is_released(host, disk)
    assert disk.sum() == kept
    bed.say("shut down")
    moves_to_its_own_host(host, disk)
    refused(host)


bed.play(xl)
