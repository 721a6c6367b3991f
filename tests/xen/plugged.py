# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks that guests have by sxm-xenbus: as a toolstack plugs them, and by `sxm vbd`."""
import time

import bed

VBD = "/usr/local/sbin/sxm vbd"
NUMBER = bed.DEVICES


def plug(host, guest, device, **keys):
    """As a toolstack does: the broker is told by nobody."""
    disk = bed.Disk(host, mib=8)
    disk.attach(guest.domid)
    disk.activate(guest.domid)
    guest.plug(device, params=disk.params, **keys)
    return disk


def is_listed(host, guest, disk, device):
    """By `sxm vbd list`, and by xl."""
    mine = [line.split() for line in host.sh(f"{VBD} list").splitlines() if disk.file in line]
    assert all(line[:3] == [str(guest.domid), device, "connected"] for line in mine), mine
    of_xl = [line for line in host.sh(f"xl block-list {guest.domid}").splitlines() if line.startswith(f"{NUMBER[device]} ")]
    assert len(of_xl) == len(mine), (mine, of_xl)
    return bool(mine)


def attach(host, guest, disk, device):
    began = time.monotonic()
    host.sh(f"{VBD} attach {disk.uri} {guest.domid} {device}")
    took = time.monotonic() - began
    guest.backend[device] = f"/local/domain/0/backend/qdisk/{guest.domid}/{NUMBER[device]}"
    assert guest.state(device) == ["4", "4"] and is_listed(host, guest, disk, device), guest.state(device)
    disk.export = host.sh(f"xenstore-read {guest.backend[device]}/params").split("exportname=")[1]
    return took


def detach(host, guest, disk, device):
    inside = guest.sum(device)
    host.sh(f"{VBD} detach {guest.domid} {device}")
    assert inside == disk.sum(), "the guest read something else than what is in the image"
    assert not is_listed(host, guest, disk, device)
    host.sh(f"! xenstore-exists {guest.backend[device]}")
