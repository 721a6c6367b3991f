# SPDX-License-Identifier: LGPL-2.1-or-later
"""xcp-rrdd on the stage: it makes the directory in which plugins leave their figures, and reads them (protocol 2). Which VM and which device a
disk is knows whoever plugs it in, and says it to the disk's process, where that is sxm's.

      vbd.plug --- "figures" domain, VM, device ---> datapath --- every 5 s ---> /run/metrics/sxm-... <--- graph.shows

What is there is held against the guest's own log: the bytes that it had answers to since the plug, and those that it has sent."""
import json
import os
import socket
import struct

import metrics
from guest import HEADER, RECORD, Wrong
from hosts import until_true
from sequence import Unreadable

PLACE = "/run/metrics"
KIND_WRITE, KIND_ZERO, KIND_ANSWERED = 1, 2, 3


def read(path):
    with open(path, "rb") as f:
        return metrics.parse(f.read())


def files(host):
    place = host.outside(PLACE)
    return sorted(os.path.join(place, name) for name in os.listdir(place))


def say_whose(player, disk, backend):
    """As the broker will, when it has connected the device. Nothing, where nobody listens: the plugins are others'."""
    path = os.path.join(os.path.dirname(backend["host"].outside(backend["socket"])), "control")
    if not os.path.exists(path) or "domain" not in backend:
        return
    args = {"domain": backend["domain"], "vm": player.vm, "device": disk.variables["device"]}
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(json.dumps({"id": 1, "verb": "figures", "args": args}).encode() + b"\n")
        answer = json.loads(s.makefile("rb").readline())
    if "ok" not in answer:
        raise Wrong(f"disk{disk.number}: figures: {answer['error']['text']}")


def logged(disk, until):
    """(bytes of writes that were answered, bytes that were sent), by so much of the guest's log."""
    answered = sent = 0
    with open(disk.guest.log, "rb") as f:
        data = f.read(until)[HEADER:]
    kinds = {}  # a sequence's number -> what it was; a flush has a number of its own kind
    for kind, length, sequence, _ in struct.iter_unpack("=IIQQ", data[:len(data) // RECORD * RECORD]):
        if kind in (KIND_WRITE, KIND_ZERO):
            kinds[sequence] = kind
            sent += length if kind == KIND_WRITE else 0
        elif kind == KIND_ANSWERED and kinds.get(sequence) == KIND_WRITE:
            answered += length
    return answered, sent


def of_disk(player, disk, host):
    """The data sources of one disk, by the names rrdp-iostat has; None: it has none on that host."""
    prefix = f"vbd_{disk.variables['device']}_"
    for path in files(host):
        found, owners, _ = read(path)
        if owners == {"vm " + player.vm} and all(name.startswith(prefix) for name in found):
            return {name.removeprefix(prefix): value for name, value in found.items()}
    return None


def shows(player, line, scope):
    """Of each disk what the guest wrote since it was plugged in there. wait=yes: and more as it writes on, nobody asking for it."""
    host, is_waiting = player.host(line), "wait" in line.args
    for disk in [scope.disk] if scope.disk else player.disks:
        if "plug_mark" not in disk.variables:
            raise Unreadable(f"{line.where}: disk{disk.number} was not plugged in")
        first = of_disk(player, disk, host)
        if first is None:
            raise Wrong(f"{line.where}: xcp-rrdd on host {host.name} finds nothing of disk{disk.number}")

        def grows():
            if not is_waiting:
                say_whose(player, disk, disk.variables["plugged"])  # asked again: it is written now
            now = of_disk(player, disk, host)
            return now and now["write"] > first["write"] and now["iops_write"] > 0 and now["iowait"] > 0
        until_true("the graph grows", grows, 15)
        check(player, line, disk, host)


def check(player, line, disk, host):
    """Neither less than the guest had answers to since the plug, nor more than it sent."""
    answered_before, sent_before = logged(disk, disk.variables["plug_mark"])
    least = logged(disk, disk.guest.bytes_logged())[0] - sent_before
    say_whose(player, disk, disk.variables["plugged"])
    now = of_disk(player, disk, host)
    most = logged(disk, disk.guest.bytes_logged())[1] - answered_before
    if not least <= now["write"] <= most:
        raise Wrong(f"{line.where}: disk{disk.number}: the graph has {now['write']} bytes written; the guest wrote {least} to {most}")
    player.remark(f"      disk{disk.number} on {host.name}: the graph has {now['write']} bytes written, the guest's log {least} to {most}")


def is_gone(player, line, _scope):
    """Nothing of this host's is left for xcp-rrdd."""
    host = player.host(line)
    if files(host):
        raise Wrong(f"{line.where}: host {host.name} still has {' '.join(files(host))}")


ACTIONS = {"graph.shows": shows, "graph.gone": is_gone}
