#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest with an ext4 on its disk, and at work there, moves with its disk to another host's local SR, and back: the verbs in
xapi's order, and xl moves the memory. What it knows to be there is there, inside and out."""
import bed
from moving import KEY, MEMORY_PORT, mirror, mirror_name, start_two


def move(source, target, disk, guest):
    far, name = mirror(source, target, disk, guest)
    before = guest.domid
    disk.take_from(mirror_name(guest))
    target.sh(f"/bed/wire tcp-listen:{MEMORY_PORT} exec xl migrate-receive -p >/run/receive.log 2>&1 </dev/null &")
    source.sh(f"(xl migrate -s '' {guest.name} 'exec /bed/wire - tcp:{target.address}:{MEMORY_PORT}' >/run/migrate.log 2>&1; "
              f"echo $? >/run/migrated) >/dev/null 2>&1 &")
    # Suspended: now, while the last of its memory goes, its disk is let go of here.
    source.until(f"xl list {guest.domid} | grep -e ---ss- || [ -e /run/migrated ]", 200)
    bed.say("suspended")
    disk.deactivate(before)
    far.take_from(name)
    target.verb("Volume.unset", sr=target.sr, key=far.key, k=KEY)
    bed.say("the disk was handed over")
    source.until("[ -e /run/migrated ]", 200)
    assert source.sh("cat /run/migrated; rm /run/migrated") == "0", source.sh("cat /run/migrate.log")
    guest.host = target
    guest.find()
    far.give_to(guest)
    target.sh(f"xl unpause {guest.name}")
    guest.connected()
    guest.goes_on()
    bed.say(f"{guest.name} goes on on {target.name}, its longest wait so far: {guest.longest_ms()} ms")
    disk.take_from(before)
    source.sh(f"xenstore-rm /local/domain/0/backend/qdisk/{before}")
    source.verb("Volume.destroy", sr=source.sr, key=disk.key)
    return far


def migrate():
    one, two = start_two()
    disk = bed.Disk(one, mib=16)
    one.sh(f"mkfs.ext4 -q -F {disk.file}")
    guest = bed.Guest(one, "g", kind="pvh").create()
    disk.give_to(guest)
    guest.start(300)
    guest.connected()
    guest.sh("mount -t ext4 /dev/xvda /mnt && dd if=/dev/zero of=/mnt/file bs=1M count=4 conv=fsync")
    guest.work("/mnt/file", 4)
    disk = move(one, two, disk, guest)
    disk = move(two, one, disk, guest)
    guest.end_work()
    inside = guest.sh("sync; sha256sum </mnt/file && umount /mnt").split()[0]
    guest.destroy()
    disk.take_from(guest.domid)
    one.sh(f"e2fsck -fn {disk.file}")
    assert inside == one.sh(f"mkdir -p /tmp/look && mount -o loop,ro {disk.file} /tmp/look && sha256sum </tmp/look/file").split()[0]
    bed.say("what the guest read is what is in the image")


bed.play(migrate)
