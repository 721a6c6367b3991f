#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest reads and writes is where xcp-rrdd looks for it: in a file of protocol 2, read here as its reader does. The file goes on
when the process is killed, and goes when the domain is detached."""
import os
import signal
import socket
import sys
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), *(os.path.join(os.environ["SXM_SRCDIR"], "tests", d) for d in ("lib", "two-host"))]
import rrd  # noqa: E402
import tapdisk_client  # noqa: E402
from smapi import ActiveDisk, Host, say, until_true  # noqa: E402

MIB = 1 << 20
VM = "5e0b8c3d-0000-4000-8000-00000000000a"
host = Host()
host.in_memory("sr")
os.mkdir(os.path.join(host.dir, "sr", "d"))
metrics = host.env["SXM_METRICS_DIR"] = os.path.join(host.dir, "metrics")
sr = host.make_sr("d", uri=f"file://{host.dir}/sr/d")


def files():
    return [os.path.join(metrics, name) for name in os.listdir(metrics)]


def read(path):
    """{data source: value}, written just now, and of this VM."""
    found, owners, written = rrd.read(path)
    assert abs(written - time.time()) < 60 and owners == {"vm " + VM}, owners
    return found


def work(disk, reads, writes):
    """A guest, as many requests of 4 KiB, one after the other."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(disk.socket)
        guest = tapdisk_client.Client(s, 16 * MIB)
        guest.open()
        for i in range(writes):
            guest.write(i * 4096, b"w" * 4096)
            guest.drain()
        for i in range(reads):
            guest.read(i * 4096, 4096)


def figures(disk):
    answer = host.control(disk.key, "figures", domain="1", vm=VM, device="xvda")
    assert "ok" in answer, answer
    path, = files()
    return read(path)


def status(disk):
    try:
        answer = host.control(disk.key, "status")
    except ConnectionError:
        answer = None
    return answer["ok"] if answer else {}


def check(found, **wanted):
    for name, value in wanted.items():
        assert found["vbd_xvda_" + name] == value, (name, value, found)


def test_figures():
    disk = ActiveDisk(host, sr, 16 * MIB)
    answer = host.control(disk.key, "figures", domain="1", vm=VM, device="xvda")
    assert answer["error"]["code"] == "ENOENT", answer  # xcp-rrdd makes that directory
    os.mkdir(metrics)
    answer = host.control(disk.key, "figures", domain="7", vm=VM, device="xvda")
    assert answer["error"]["code"] == "ENOTCONN" and not files(), answer
    check(figures(disk), read=0, write=0, inflight=0)
    inode = os.stat(files()[0]).st_ino

    say("what the guest did is in it")
    work(disk, reads=7, writes=5)
    found = figures(disk)
    check(found, read=7 * 4096, write=5 * 4096, iops_read=7, iops_write=5, iops_total=12, inflight=0)
    assert found["vbd_xvda_io_throughput_total"] == 12 * 4096 / MIB and 0 < found["vbd_xvda_iowait"] < 60, found
    assert 0 < found["vbd_xvda_write_latency"] < 5e6, found

    say("it is written without being asked")
    work(disk, reads=1, writes=0)
    until_true("the next reading", lambda: read(files()[0])["vbd_xvda_read"] == 8 * 4096, 15)

    say("a successor goes on in the same file")
    pid = status(disk)["pid"]
    os.kill(pid, signal.SIGKILL)
    until_true("another process serves the guest", lambda: status(disk).get("pid", pid) != pid and status(disk)["domains"][0]["served"])
    work(disk, reads=2, writes=1)
    check(figures(disk), read=10 * 4096, write=6 * 4096, iops_read=2, iops_write=1)
    assert os.stat(files()[0]).st_ino == inode, "xcp-rrdd has mapped the other one"

    say("a guest that is stopped and started again is the same; one that is detached is not")
    host.call("Datapath.deactivate", uri=disk.uri, domain="1")
    check(read(files()[0]), read=10 * 4096, write=6 * 4096)
    host.call("Datapath.activate", uri=disk.uri, domain="1")
    work(disk, reads=1, writes=0)
    check(figures(disk), read=11 * 4096, write=6 * 4096)
    disk.deactivate()
    assert not files(), files()


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
