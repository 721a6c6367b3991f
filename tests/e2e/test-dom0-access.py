#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What dom0 does with a disk (VDI.copy, export, backup): Datapath.attach offers an Nbd that its clients can take; the map that they copy
by (base:allocation) is exact, since who copies leaves out what it calls zero; and many read at once, while a guest writes."""
import json
import os
import random
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import ActiveDisk, Host, nbd_of, say, skip  # noqa: E402

MIB = 1 << 20
if not all(map(shutil.which, ("nbdinfo", "nbdcopy", "qemu-img", "qemu-io"))):
    skip("nbdinfo, nbdcopy, qemu-img and qemu-io are needed")
host = Host()
host.in_memory("memory")
os.mkdir(os.path.join(host.dir, "memory", "raw"))
os.mkdir(os.path.join(host.dir, "memory", "qcow2"))
chance = random.Random(4)


def make_sr(place, form):
    number = {"memory/raw": 1, "memory/qcow2": 2, "plain": 3}[place]
    return host.make_sr(place, uuid=f"0a0b0c0d-1111-2222-3333-44445555666{number}", uri=f"file://{host.dir}/{place}", format=form)


def tool(*args):
    return subprocess.run(args, check=True, capture_output=True, text=True, timeout=60).stdout


class Dom0:
    """A reader as VBD.plug makes one: its own domain, read-only."""

    def __init__(self, uri, name, is_reader=True):
        self.uri, self.domain = uri, "u0_vbd_0_" + name
        backend = host.call("Datapath.attach", uri=uri, domain=self.domain)
        kinds = [kind for kind, _ in backend["implementations"]]
        assert "Nbd" in kinds and not {"BlockDevice", "File"} & set(kinds), backend  # who has neither connects /dev/nbdN to the socket
        host.call("Datapath.activate_readonly" if is_reader else "Datapath.activate", uri=uri, domain=self.domain)
        sock, export = nbd_of(backend)
        self.nbd = f"nbd+unix:///{export}?socket={sock}"

    def map(self):
        """[(start, length, reads as zero)], neighbours that are alike made one."""
        extents = []
        for e in json.loads(tool("nbdinfo", "--map", "--json", self.nbd)):
            assert e["offset"] % 512 == 0 and e["length"] % 512 == 0, e
            extents.append((e["offset"], e["length"], e["type"] & 2 != 0))
        return joined(extents)

    def end(self):
        for verb in ("deactivate", "detach"):
            host.call("Datapath." + verb, uri=self.uri, domain=self.domain)


def joined(extents):
    found = []
    for start, length, zero in extents:
        if found and found[-1][2] == zero:
            found[-1] = (found[-1][0], found[-1][1] + length, zero)
        else:
            found.append((start, length, zero))
    return found


def truth(path, size):
    """By SEEK_DATA and SEEK_HOLE."""
    with open(path, "rb") as f:
        at, extents = 0, []
        while at < size:
            try:
                data = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                data = size
            hole = size if data == size else os.lseek(f.fileno(), data, os.SEEK_HOLE)
            extents += [e for e in ((at, data - at, True), (data, hole - data, False)) if e[1]]
            at = hole
    return joined(extents)


def scatter(form, image, size):
    """Data here and there, some of it zeros, some taken away again."""
    commands = []
    for _ in range(60):
        at, length = chance.randrange(0, size - 256 * 1024, 4096), chance.choice((512, 4096, 65536, 200 * 1024))
        at = at // length * length if length > 4096 else at
        commands += ["-c", f"write -P {chance.choice((0, 7, 255))} {at} {length}"]
    for _ in range(8):
        commands += ["-c", f"write -z -u {chance.randrange(0, size - MIB, 65536)} 131072"]
    tool("qemu-io", "-f", form, *commands, "-c", "flush", image)


def content_of(form, path):
    out = os.path.join(host.dir, "content")
    tool("qemu-img", "convert", "-f", form, "-O", "raw", path, out)
    with open(out, "rb") as f:
        return f.read()


def copied_by_map(reader, size):
    """As sparse_dd copies to a new volume: only what the map calls data is read, the rest is zeros."""
    whole = os.path.join(host.dir, "whole")
    tool("nbdcopy", "--no-extents", reader.nbd, whole)
    result = bytearray(size)
    with open(whole, "rb") as f:
        for start, length, zero in reader.map():
            if not zero:
                f.seek(start)
                result[start:start + length] = f.read(length)
    return bytes(result)


def check_format(place, form):
    sr = make_sr(place, form)
    size = 48 * MIB
    v = host.make_volume(sr, size)
    uri, image = v["uri"][0], v["uri"][0].removeprefix("sxm://")
    reader = Dom0(uri, "xvda")
    assert reader.map() == [(0, size, True)], "a new disk is one hole"
    reader.end()
    scatter(form, image, size)
    want = content_of(form, image)
    reader = Dom0(uri, "xvda")
    found = reader.map()
    assert sum(length for _, length, _ in found) == size
    if form == "raw":
        assert found == truth(image, size), "the map is not what SEEK_HOLE says"
    for e in json.loads(tool("qemu-img", "map", "-f", "raw", "--output=json", reader.nbd)):
        assert not e["zero"] or not any(want[e["start"]:e["start"] + e["length"]]), e
    local = [e for e in json.loads(tool("qemu-img", "map", "-U", "-f", form, "--output=json", image))]
    assert joined([(e["start"], e["length"], e["zero"]) for e in local]) == found, "the map is not what qemu-img sees in the file"
    assert copied_by_map(reader, size) == want, "who copies by the map loses something"
    tool("nbdcopy", reader.nbd, os.path.join(host.dir, "copy"))
    with open(os.path.join(host.dir, "copy"), "rb") as f:
        assert f.read() == want
    reader.end()
    zeros = sum(length for _, length, zero in found if zero)
    say(f"  {place}, {form}: {len(found)} extents, {zeros >> 10} KiB of zeros")


def test_the_map_is_exact():
    check_format("memory/raw", "raw")
    check_format("plain", "raw")  # on whatever file system the tests' directory is
    if shutil.which("qemu-storage-daemon") or shutil.which("qemu-nbd"):
        check_format("memory/qcow2", "qcow2")


def test_many_read_while_a_guest_writes():
    """Four copies at once, each over connections of its own; what the guest does not touch is the same in each, and what it has been
    told is stored is in a copy that begins later."""
    size, still = 48 * MIB, 16 * MIB
    sr = f"file://{host.dir}/memory/raw"
    disk = ActiveDisk(host, sr, size)
    readers = [Dom0(disk.uri, f"xvd{c}") for c in "abcd"]
    with open(os.path.join(host.dir, "data"), "wb") as f:
        f.write(chance.randbytes(still))
    subprocess.run(["qemu-io", "-f", "raw", "-c", f"write -s {f.name} 0 {still}", disk.nbd], check=True, capture_output=True)
    disk.start("--iops", "2000", "--region", f"{still}:{size - still}")
    copies = [os.path.join(host.dir, f"copy.{i}") for i in range(len(readers))]
    copying = [subprocess.Popen(["nbdcopy", "--connections=2", r.nbd, to]) for r, to in zip(readers, copies)]
    for c in copying:
        assert c.wait(60) == 0
    for to in copies:
        with open(to, "rb") as a, open(f.name, "rb") as b:
            assert a.read(still) == b.read(), "a copy has other bytes where nobody wrote"
            assert len(a.read()) == size - still
    for _ in range(4):  # no data that was acknowledged is ever called a hole
        at = disk.bytes_logged()
        found = readers[0].map()
        check_acknowledged(disk.log, at, found)
    out = disk.stop()
    assert "errors=0" in out, out
    later = os.path.join(host.dir, "later")
    tool("nbdcopy", readers[1].nbd, later)
    with open(disk.uri.removeprefix("sxm://"), "rb") as a, open(later, "rb") as b:
        assert a.read() == b.read()
    refused = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 4096", readers[2].nbd], capture_output=True, text=True)
    assert refused.returncode != 0 and "ermi" in refused.stderr, refused  # Permission denied
    for r in readers:
        r.end()
    disk.deactivate()


def check_acknowledged(log, until, found):
    """The map that was asked for after the log had so many bytes (guest.h) has all that was written and acknowledged by then."""
    with open(log, "rb") as f:
        f.seek(32)
        text = f.read((until - 32) // 24 * 24)
    holes, issued = [(start, start + length) for start, length, zero in found if zero], {}
    for kind, length, number, start in struct.iter_unpack("<IIQQ", text):
        if kind == 1:
            issued[number] = (start, start + length)
        elif kind == 3 and number in issued:
            start, end = issued.pop(number)
            assert not any(start < b and a < end for a, b in holes), f"{start} to {end} was acknowledged, and is called a hole"


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
