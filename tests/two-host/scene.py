# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is there when a sequence begins: the SRs it names, and the guest's disks with something on them, perhaps with snapshots."""
import os
import uuid

from actions import nbd_uri
from guest import Guest
import tapdisk
from play import Disk, Scope
from sequence import Line
from verbs import Volume, nbd_of

LINE = Line("action", "the stage itself", label="", host="", name="", text="")


def configuration_of(player, name, is_shared):
    """The device-config of one SR: what was asked for, its placeholders filled in."""
    setup, machine = player.setup, player.machine
    wanted = dict(setup.device_config) or {"uri": "file://{place}"}
    if setup.format:
        wanted.setdefault("format", setup.format)
    if is_shared:
        wanted.setdefault("shared", "true")
    place = os.path.join(machine.dir, name)
    made = {}
    for key, value in wanted.items():
        if "{device}" in value:
            value = value.replace("{device}", machine.make_device(name + ".img", setup.device_bytes))
        made[key] = value.replace("{place}", place).replace("{sr}", name)
    if any("{place}" in v for v in wanted.values()):
        os.makedirs(place, exist_ok=True)
    return made


def make_srs(player):
    for name, roles, kind in player.main.srs:
        hosts = [player.roles[r] for r in roles]
        if kind == "tapdisk":
            player.tapdisks[name] = hosts[0]
            continue
        wanted = configuration_of(player, name, kind == "shared")
        made = player.verbs[hosts[0]].call("SR.create", {"uuid": str(uuid.uuid4()), "configuration": wanted, "name": name, "description": ""})
        player.configurations[name] = made
        for host in hosts:
            if (name, host) in player.handles:
                continue
            player.handles[name, host] = player.verbs[host].call("SR.attach", {"configuration": made})
            player.run(host, "SR.stat", {"sr": player.handles[name, host]}, Scope(), LINE)


def host_of(player, sr):
    return player.tapdisks.get(sr) or next(host for name, host in player.handles if name == sr)


def fill(player, disk, scope):
    """Its first half has something on it, which nobody writes to later."""
    host, volume, domain = host_of(player, player.main.disks_in), disk.variables["disk"], {"domain": "u0_fill"}
    log = disk.guest.log + ".fill"
    disk.logs.append(log)
    if "backend" in volume:
        disk.guest.fill(nbd_uri(volume["backend"]), (0, disk.guest.region[0]), player.setup.fill_writes, log)
        return
    path, export = nbd_of(player.of_volume(host, "Datapath.attach", volume, domain, scope, LINE))
    player.of_volume(host, "Datapath.activate", volume, domain, scope, LINE)
    disk.guest.fill(nbd_uri({"host": host, "socket": path, "export": export}), (0, disk.guest.region[0]), player.setup.fill_writes, log)
    player.of_volume(host, "Datapath.deactivate", volume, domain, scope, LINE)
    player.of_volume(host, "Datapath.detach", volume, domain, scope, LINE)


def make_snapshot(player, disk, number, scope):
    host, volume = host_of(player, player.main.disks_in), disk.variables["disk"]
    sr = player.handles[volume["sr"], host]
    made = player.run(host, "Volume.snapshot", {"sr": sr, "key": volume["key"]}, scope, LINE)
    for k, v in (("snapshot_time", "20261123T14:35:06Z"), ("is_a_snapshot", "true"), ("snapshot_of", volume["key"]), ("vdi-type", "user")):
        player.run(host, "Volume.set", {"sr": sr, "key": made["key"], "k": k, "v": v}, scope, LINE)
    snapshot = Disk(number, {"disk": Volume(volume["sr"], made), "size": made["virtual_size"], "name": made["name"]}, None)
    snapshot.of = disk
    snapshot.logs = list(disk.logs)
    player.snapshots.append(snapshot)


def make_volume(player, host, disk, scope):
    sr, variables = player.main.disks_in, disk.variables
    record = player.run(host, "Volume.create", {"sr": player.handles[sr, host], "name": variables["name"], "description": "",
                                                "size": variables["size"], "sharable": False}, scope, LINE)
    player.run(host, "Volume.set", {"sr": player.handles[sr, host], "key": record["key"], "k": "vdi-type", "v": "user"}, scope, LINE)
    return Volume(sr, record)


def make_disks(player):
    setup, sr = player.setup, player.main.disks_in
    if not sr:
        return
    host = host_of(player, sr)
    for number in range(1, setup.disks + 1):
        size = setup.size_bytes * (setup.disks + number) // (setup.disks + 1) // 4194304 * 4194304
        half = size // 2 // 65536 * 65536
        options = ["--iops", str(setup.iops), "--depth", "8", "--zero-percent", "5", "--flush-every", "100"]
        guest = Guest(setup.tools + "/sxm-stage-guest", player.machine.dir, f"disk{number}", (half, size - half), options)
        disk = Disk(number, {"size": size, "name": f"disk {number}", "device": "xvd" + "abcdefghijklmnop"[number - 1]}, guest)
        scope = Scope(disk)
        disk.variables["disk"] = tapdisk.Source(host, sr, size) if sr in player.tapdisks else make_volume(player, host, disk, scope)
        player.disks.append(disk)
        fill(player, disk, scope)
        for more in range(setup.snapshots):
            make_snapshot(player, disk, number * 100 + more + 1, scope)


def make(player):
    make_srs(player)
    make_disks(player)
