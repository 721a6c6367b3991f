#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A mirror to a SMAPIv1 host, whose NBD server is tapdisk's (tests/lib/tapdisk_server.py): no flush, no zeroing, no second connection. All
that was written is there when the deactivation returns, nothing is asked that it does not offer, the far disk may be larger, and
where it fails the deactivation says so."""
import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests", "lib"))
from smapi import ActiveDisk, Host, say, until_true  # noqa: E402

SERVER = os.path.join(os.environ["SXM_SRCDIR"], "tests/lib/tapdisk_server.py")
MIB = 1 << 20
SIZE = 64 * MIB
host = Host()
sr = host.make_sr()


class Far:
    def __init__(self, name, size, *more):
        self.path, self.image = os.path.join(host.dir, name + ".sock"), os.path.join(host.dir, name + ".img")
        with open(self.image, "wb") as f:
            f.truncate(size)
        self.process = subprocess.Popen([sys.executable, SERVER, self.path, self.image, *more], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def end(self):
        self.process.terminate()
        return json.loads(self.process.communicate()[0])


def mirror(disk, far):
    operation = host.call("Data.mirror", uri=disk.uri, domain=disk.domain, remote=f"nbd+unix:///{disk.key}?socket={far.path}")
    stat = {}

    def is_decided():
        stat.update(host.call("Data.stat", operation=operation))
        return stat["complete"] or stat["failed"]
    until_true("the mirror is complete, or failed", is_decided, 60)
    return operation, stat


def same(disk, far):
    with open(disk.uri.removeprefix("sxm://"), "rb") as a, open(far.image, "rb") as b:
        for at in range(0, SIZE, MIB):
            if a.read(MIB) != b.read(MIB):
                return False
    return True


def start_logging(disk):
    """Its process anew, with a log to look at."""
    disk.deactivate()
    until_true("its process ends", lambda: not host.processes())
    host.env["SXM_LOG"] = "stderr"
    done = host.run("datapath/sxm/Datapath.attach", json.dumps({"uri": disk.uri, "domain": disk.domain, "dbg": ""}))
    assert done.returncode == 0, done
    del host.env["SXM_LOG"]
    disk.activate()
    return disk


def test_all_is_there_when_the_deactivation_returns(size, *more):
    disk = start_logging(ActiveDisk(host, sr, SIZE)).start()
    far = Far(f"far{size}", size, *more)
    _, stat = mirror(disk, far)
    assert stat["complete"], stat
    status = host.control(disk.key, "status")["ok"]
    assert status["operations"][0]["unfenced"] and "offers no flush" in status["operations"][0]["barrier"], status
    began = disk.bytes_logged()
    until_true("the guest goes on", lambda: disk.bytes_logged() > began + 200 * 24)
    out = disk.stop()
    began = time.monotonic()
    disk.deactivate()
    took = (time.monotonic() - began) * 1000
    log = "".join(open(entry.path).read() for entry in os.scandir(host.run_dir) if entry.name.endswith(".log"))
    assert re.search(r"barrier of \S+ took [0-9]+ ms; the far side is no sxm and offers no flush", log), log
    count = far.end()
    assert same(disk, far), out
    assert not count["wrong"] and count["connections"] == 1 and count["largest"] <= 2 * MIB, count
    say(f"far disk of {size >> 20} MiB: {count['writes']} writes, {count['bytes'] >> 20} MiB; deactivation and detachment {took:.1f} ms")
    host.call("Volume.destroy", sr=sr, key=disk.key)


def test_an_empty_disk_stays_thin():
    disk = ActiveDisk(host, sr, SIZE)
    far = Far("thin", SIZE)
    _, stat = mirror(disk, far)
    assert stat["complete"], stat
    disk.deactivate()
    count = far.end()
    allocated = os.stat(far.image).st_blocks * 512
    say(f"an empty disk: {count['writes']} writes, {allocated >> 10} KiB allocated there")
    assert allocated == 0 and not count["wrong"], count
    host.call("Volume.destroy", sr=sr, key=disk.key)


def test_a_far_side_that_dies_after_complete_is_raised():
    disk = ActiveDisk(host, sr, SIZE).start()
    far = Far("dies", SIZE)
    operation, stat = mirror(disk, far)
    assert stat["complete"], stat
    far.end()
    until_true("that is known", lambda: host.call("Data.ls") is not None)
    disk.stop()
    host.refused("", "Datapath.deactivate", uri=disk.uri, domain=disk.domain)
    disk.deactivate()  # the second is ordinary
    host.call("Data.destroy", operation=operation)
    host.call("Volume.destroy", sr=sr, key=disk.key)


test_all_is_there_when_the_deactivation_returns(SIZE)
test_all_is_there_when_the_deactivation_returns(SIZE + 2 * MIB, "--slow", "2")
test_an_empty_disk_stays_thin()
test_a_far_side_that_dies_after_complete_is_raised()
say("ok")
