#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to a disk in a guest's life, with the guest at work on it: plugged while it runs, grown, its process killed, taken
over a suspend, and killed again."""
import bed

MIB = 1 << 20


def plug(host, disk, guest):
    guest.start()
    disk.give_to(guest)
    guest.connected()
    guest.work(more="discard")
    bed.say("plugged, and at work")


def grow(host, disk, guest):
    host.verb("Volume.resize", sr=host.sr, key=disk.key, new_size=12 * MIB)
    guest.sh(f"(for _ in $(seq 100); do [ $(cat /sys/block/xvda/size) != {12 * MIB // 512} ] || exit 0; usleep 300000; done; exit 1)")
    guest.goes_on()
    bed.say("grown")


def kill(host, disk, guest, times):
    for _ in range(times):
        killed = disk.pid()
        host.sh(f"kill -9 {killed}")
        host.until(f"/bed/wire ask /run/sxm/{disk.export}/control '{{\"id\":1,\"verb\":\"hello\",\"args\":{{}}}}' | grep -v '\"pid\":{killed}[,}}]'")
        guest.goes_on()
        status = disk.status(guest.domid)
        assert disk.pid() != killed and status["connected"], status
        bed.say(f"killed; {status['ring_left']} requests were in its hands")


def suspend(host, disk, guest):
    """As xenopsd and xl do it: the new domain's devices are there before it runs."""
    before = guest.domid
    host.sh(f"xl save {guest.name} /run/memory", 120)
    guest.forget()
    disk.take_from(before)
    held = disk.sum()
    host.sh("xl restore -p /run/memory && rm /run/memory", 120)
    guest.find()
    assert guest.domid != before
    disk.give_to(guest)
    assert held == disk.sum(), "something was written after deactivate"
    host.sh(f"xl unpause {guest.name}")
    guest.connected()
    guest.goes_on()
    bed.say("suspended and resumed")


def life():
    host = bed.host().boot()
    host.make_sr()
    disk = bed.Disk(host, mib=8)
    guest = bed.Guest(host, "g").create()
    plug(host, disk, guest)
    grow(host, disk, guest)
    kill(host, disk, guest, 2)
    suspend(host, disk, guest)
    kill(host, disk, guest, 1)
    guest.end_work()
    inside = guest.sum()
    guest.destroy()
    disk.take_from(guest.domid)
    assert inside == disk.sum(), "the guest reads something else than what is in the image"


bed.play(life)
