# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a disk comes to be the same on two hosts: for scenarios in which a guest moves with it."""
import bed

MEMORY_PORT, MIRROR_PORT = 8002, 8003
KEY = "_sm_config_base_mirror"


def start_two():
    """Joined by a network; each with an SR of its own."""
    link = bed.make_link()
    one, two = bed.host(1, link=(link, True)), bed.host(2, link=(link, False))
    one.start()
    one.wait_for(link)
    two.start()
    for host in (one, two):
        host.wait_until_up()
    for host in (one, two):
        host.make_sr()
    return one, two


def mirror(source, target, disk, guest):
    """Steps 3 to 9 of a storage migration: the far volume, and what it is called there as long as it receives."""
    far = bed.Disk(target, mib=disk.mib)
    name = "MIR" + far.key[:6]
    far.attach(name)
    far.activate(name)
    disk.attach(mirror_name(guest))
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


def mirror_name(guest):
    return f"u0_mirror_vbd_{guest.domid}_51712"
