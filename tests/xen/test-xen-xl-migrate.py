#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xl migrate` of a guest whose disk is on storage that two hosts share, there and back, at work: the disk is the old host's until its domain
is gone there, and then the new one's, by the brokers alone. What the guest knows to be there is there, inside and out."""
import os

import bed
from moving import MEMORY_PORT
from xl_guest import XlGuest

CONFIGURATION = {"uri": "file:///share/sr", "format": "raw", "shared": "true"}
TMP = bed.make_link()


def attach_sr(host, is_first):
    host.sh(f"echo {host.number:032x} >/etc/machine-id; mkdir -p /share; mount -t 9p -o trans=virtio,version=9p2000.L,cache=none share /share")
    if is_first:
        host.verb("SR.create", uuid="8a6b29d5-93ae-4ae8-9a3a-b5a1a7a6d7c1", name="sr", description="", configuration=CONFIGURATION)
    host.sr = host.verb("SR.attach", configuration=CONFIGURATION)
    host.start_broker()


def start_two():
    share = os.path.join(os.path.dirname(TMP), "share")
    os.makedirs(os.path.join(share, "sr"))
    one, two = bed.host(1, link=(TMP, True), share=share), bed.host(2, link=(TMP, False), share=share)
    one.start()
    one.wait_for(TMP)
    two.start()
    for host in (one, two):
        host.wait_until_up()
        attach_sr(host, host is one)
    return one, two


def move(guest, source, target):
    before = guest.domid
    target.sh(f"/bed/wire tcp-listen:{MEMORY_PORT} exec xl migrate-receive >/run/receive.log 2>&1 </dev/null &")
    status, said = source.try_sh(f"xl migrate -s '' {guest.name} 'exec /bed/wire - tcp:{target.address}:{MEMORY_PORT}' 2>&1", 170)
    if status:
        raise bed.Failed(f"xl migrate: {said}\n{target.try_sh('cat /run/receive.log')[1]}")
    guest.host = guest.disk.host = target
    guest.find()
    guest.connected()
    guest.goes_on()
    source.until(f"! xl list {before} && ! ls /run/sxm/xenbus | grep qdisk.{before}")
    bed.say(f"{guest.name} goes on on {target.name}, its longest wait so far: {guest.longest_ms()} ms")


def xl_migrate():
    one, two = start_two()
    disk = bed.Disk(one, mib=8)
    guest = XlGuest(one, "g", disk, kind="pvh").create()
    guest.work()
    move(guest, one, two)
    move(guest, two, one)
    guest.end_work()
    inside = guest.sum()
    one.sh("xl shutdown -w g", 120)
    one.until("! ls /run/sxm/xenbus | grep qdisk.[0-9]")
    assert inside == disk.sum() == two.sh(f"sha256sum <{disk.file}").split()[0], "the guest read something else than what is in the image"
    bed.say("what the guest read is what is in the image")


bed.play(xl_migrate)
