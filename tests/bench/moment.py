# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a guest waits while its disk is snapshotted, against how many extents the image has: xfs-ng's way, blocks shared.

max_ms: the longest write from the snapshot's begin to a second after its end. Beside it, of the same guest: before_max_ms, of two
seconds in which nothing happens; name_max_ms, when the volume only gets another name (a flush of the file system)."""
import fcntl
import os
import struct
import subprocess
import time

from engines import Host
from rig import MIB, Guest, until

FS_IOC_FIEMAP = 0xC020660B
EXTENT, STRIDE = 4096, 16384
GUEST_MB, SIZE_MB, QCOW2_MB = 256, 2048, 8192


def make_extents(image, count):
    """Where the guest writes there is data; behind it one block of data every STRIDE bytes, and hole between."""
    with open(image, "r+b") as f:
        for i in range(GUEST_MB):
            os.pwrite(f.fileno(), os.urandom(MIB), i * MIB)
        for i in range(count):
            os.pwrite(f.fileno(), os.urandom(EXTENT), GUEST_MB * MIB + i * STRIDE)
        os.fsync(f.fileno())


def count_extents(image):
    """As FIEMAP tells them."""
    head = struct.pack("=QQIIII", 0, (1 << 64) - 1, 0, 0, 0, 0)
    with open(image, "rb") as f:
        return struct.unpack_from("=I", fcntl.ioctl(f.fileno(), FS_IOC_FIEMAP, head), 20)[0]


class Xfs:
    """A file system that shares blocks, in a file."""

    def __init__(self, room):
        self.image, self.dir = os.path.join(room, "xfs"), os.path.join(room, "sxm", "sr")
        os.makedirs(self.dir)
        with open(self.image, "wb") as f:
            for _ in range(3 << 10):  # written once, or each of its flushes is one of the file system below
                f.write(bytes(MIB))
            os.fsync(f.fileno())
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", self.image], check=True)
        self.device = subprocess.run(["losetup", "-f", "--show", "--direct-io=on", self.image], check=True, capture_output=True,
                                     text=True).stdout.strip()
        subprocess.run(["mount", self.device, self.dir], check=True)

    def close(self):
        until("the file system to be free", lambda: subprocess.run(["umount", self.dir], check=False).returncode == 0)
        subprocess.run(["losetup", "-d", self.device], check=False)


def snapshot(c):
    xfs, guest, host = Xfs(c.room), None, Host(os.path.join(c.room, "sxm"))
    try:
        disk = host.make_volume(SIZE_MB * MIB)
        image = disk.split("://", 1)[1]
        make_extents(image, int(float(c.name.split("-")[1])))
        path, export = host.attach(disk, "1")
        guest = Guest(f"nbd+unix:///{export}?socket={path}", c.scenario.guest, GUEST_MB * MIB, 60, c.room)
        time.sleep(2)
        quiet = time.time()
        time.sleep(2)
        extents = count_extents(image)
        synced = time.time()
        host.volume("Volume.set_name", sr=host.sr, key=os.path.basename(image).removesuffix(".raw"), new_name="x")
        time.sleep(2)
        begin = time.time()
        host.volume("Volume.snapshot", sr=host.sr, key=os.path.basename(image).removesuffix(".raw"))
        taken = time.time()
        time.sleep(1)
        end = time.time()
        guest.end()
        row = guest.figures(begin, end)
        row.update(extents=extents, snapshot_ms=round((taken - begin) * 1e3), before_max_ms=guest.figures(quiet, synced)["max_ms"],
                   name_max_ms=guest.figures(synced, begin)["max_ms"])
        return row
    finally:
        if guest:
            guest.end()
        host.end()
        xfs.close()


def snapshot_qcow2(c):
    guest, host = None, Host(os.path.join(c.room, "sxm"))
    try:
        disk = host.make_volume(QCOW2_MB * MIB, "qcow2")
        path, export = host.attach(disk, "1")
        guest = Guest(f"nbd+unix:///{export}?socket={path}", c.scenario.guest, QCOW2_MB * MIB, 60, c.room)
        time.sleep(2.5)
        begin = time.time()
        for _ in range(3):
            host.volume("Volume.snapshot", sr=host.sr, key=os.path.basename(disk).removesuffix(".qcow2"))
            time.sleep(2)
        end = time.time()
        guest.end()
        row = guest.figures(begin, end)
        row.update(before_max_ms=guest.figures(begin - 2, begin)["max_ms"])
        return row
    finally:
        if guest:
            guest.end()
        host.end()
