#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest with an ext4 on its disk, and at work there, moves with its disk to another host's local SR, and back: the verbs in
xapi's order, and xl moves the memory. What it knows to be there is there, inside and out."""
import bed

MEMORY_PORT, MIRROR_PORT = 8002, 8003
KEY = "_sm_config_base_mirror"


def mirror(source, target, disk, guest):
    """Steps 3 to 9 of a storage migration: the far volume, and what it is called there as long as it receives."""
    far = bed.Disk(target, mib=disk.mib)
    name = "MIR" + far.key[:6]
    far.attach(name)
    far.activate(name)
    disk.attach(f"u0_mirror_vbd_{guest.domid}_51712")
    proxy = f"/var/run/nbdproxy/export/{name}"
    target.sh(f"/bed/wire tcp-listen:{MIRROR_PORT} unix:{far.socket} >/run/mirror.log 2>&1 &")
    source.sh(f"mkdir -p $(dirname {proxy}); /bed/wire unix-listen:{proxy} tcp:{target.address}:{MIRROR_PORT} >/run/mirror.log 2>&1 &")
    source.until(f"[ -S {proxy} ]")
    operation = source.verb("Data.mirror", uri=disk.uri, domain=str(guest.domid),
                            remote=f"nbd+unix:///{far.export}?socket={proxy}")
    while True:
        stat = source.verb("Data.stat", uri=disk.uri, operation=operation)
        assert not stat["failed"], stat
        if stat["complete"]:
            break
    bed.say("mirrored: the guest's disk is the same on both hosts")
    return far, name


def move(source, target, disk, guest):
    far, name = mirror(source, target, disk, guest)
    mirror_name, before = f"u0_mirror_vbd_{guest.domid}_51712", guest.domid
    disk.deactivate(mirror_name)
    disk.detach(mirror_name)
    target.sh(f"/bed/wire tcp-listen:{MEMORY_PORT} exec xl migrate-receive -p >/run/receive.log 2>&1 </dev/null &")
    source.sh(f"(xl migrate -s '' {guest.name} 'exec /bed/wire - tcp:{target.address}:{MEMORY_PORT}' >/run/migrate.log 2>&1; "
              f"echo $? >/run/migrated) >/dev/null 2>&1 &")
    # Suspended: now, while the last of its memory goes, its disk is let go of here.
    source.until(f"xl list {guest.domid} | grep -E -- '-s--' || [ -e /run/migrated ]", 90)
    bed.say("suspended")
    disk.deactivate(before)
    far.take_from(name)
    target.verb("Volume.unset", sr=target.sr, key=far.key, k=KEY)
    bed.say("the disk was handed over")
    source.until("[ -e /run/migrated ]", 60)
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
    link = bed.make_link()
    one, two = bed.host(1, link=(link, True)), bed.host(2, link=(link, False))
    one.start()
    one.wait_for(link)
    two.start()
    one.wait_until_up()
    two.wait_until_up()
    one.make_sr()
    two.make_sr()
    disk = bed.Disk(one, mib=16)
    one.sh(f"mkfs.ext4 -q -F {disk.file}")
    guest = bed.Guest(one, "g", kind="pvh").create()
    disk.give_to(guest)
    guest.start(90)
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
