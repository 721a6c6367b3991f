#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that means harm (hostile.c), of a real Xen: its disk's process lives, keeps to its memory and its log, and serves it when it is
honest; nothing was written but what it may write."""
import sys

import bed

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
MIB = 8


def hostile():
    host = bed.host().boot()
    host.make_sr()
    disk, other = bed.Disk(host, mib=MIB), bed.Disk(host, mib=MIB)
    guest = bed.Guest(host, "g", extra="bed.frontend=none").create()
    disk.give_to(guest)
    guest.start()
    before, pid, untouched = memory_kib(host, disk), disk.pid(), other.sum()
    log = log_bytes(host)
    said = guest.sh(f"hostile {SECONDS} {MIB * 2048}", SECONDS + 60)
    bed.say(said.replace("\n", ", "))
    status = disk.status(guest.domid)
    log, grown = log_bytes(host) - log, memory_kib(host, disk) - before
    bed.say(f"{status['ring_errors']} requests refused, {status['reads']} read, {status['writes']} written; the log has {log} bytes more, "
            f"the process {grown} KiB")
    assert disk.pid() == pid, "the process died"
    assert status["ring_errors"] > 100 and status["writes"] > 0, status
    assert log < 20000 * (SECONDS // 10 + 1), host.sh("tail -n 20 /run/sxm/*.log")
    assert grown < 64 << 10
    assert other.sum() == untouched and int(host.sh(f"stat -c %s {disk.file}")) == MIB << 20
    guest.destroy()
    disk.take_from(guest.domid)


def log_bytes(host):
    return int(host.sh("cat /run/sxm/*.log | wc -c"))


def memory_kib(host, disk):
    return int(host.sh(f"sed -n 's/VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/{disk.pid()}/status"))


bed.play(hostile)
