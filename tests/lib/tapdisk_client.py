#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stand-in for the NBD client in tapdisk, the source of a mirror from a SMAPIv1 host, as a server meets it:

- it is given a connected socket, and waits there for a greeting, old style or fixed newstyle;
- newstyle: client flags FIXED_NEWSTYLE | NO_ZEROES, then NBD_OPT_EXPORT_NAME alone, "tapdisk_client" with its NUL counted (15
  bytes); 10 bytes are read in answer, and the export's flags are not looked at;
- READ, WRITE and DISC, never FLUSH, FUA, TRIM or WRITE_ZEROES; whole sectors, at most 44 KiB each, up to 352 not answered;
- any error in an answer ends the mirror for good;
- when it is paused: DISC, then what is in flight is waited for, and the socket is kept; when it goes on the greeting is waited for
  on the same socket.

The xapi in between (pass_socket) hands a connection over a unix socket: one sendmsg with one descriptor."""
import array
import os
import random
import select
import socket
import struct

OLD_MAGIC, NEW_MAGIC = 0x420281861253, 0x49484156454F5054
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
READ, WRITE, DISC = 0, 1, 2
FIXED_NEWSTYLE, NO_ZEROES, OPT_EXPORT_NAME = 1, 2, 1
EXPORT_NAME = b"tapdisk_client\0"
SECTOR = 512
REQUEST_MAX = 44 << 10
SLOTS = 352


class MirrorFailed(Exception):
    """As nbd_mirror_failed: nothing more is sent."""


def pass_socket(path, sock, text):
    """As xapi does: no answer, and its own copy of the descriptor is closed."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        data = text.encode()
        sent = s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
        assert sent == len(data), sent
    sock.close()


class Client:
    def __init__(self, sock, size):
        self.sock, self.size = sock, size  # of the leaf: it must be the export's
        self.waiting = {}  # handle -> bytes to be read in answer
        self.next_id, self.is_failed, self.pauses = 0, False, 0
        self.buffer = b""

    def read_exactly(self, count):
        while len(self.buffer) < count:
            more = self.sock.recv(1 << 20)
            if not more:
                self.is_failed = True
                raise MirrorFailed("the server hung up")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def open(self, patience=10):
        """Blocks, 10 s for each answer."""
        self.sock.settimeout(patience)
        assert self.read_exactly(8) == b"NBDMAGIC"
        magic, = struct.unpack(">Q", self.read_exactly(8))
        if magic == OLD_MAGIC:
            size, _ = struct.unpack(">QI", self.read_exactly(12))
            self.read_exactly(124)
        else:
            assert magic == NEW_MAGIC, hex(magic)
            flags, = struct.unpack(">H", self.read_exactly(2))
            assert flags & FIXED_NEWSTYLE and flags & NO_ZEROES, flags
            self.sock.sendall(struct.pack(">I", FIXED_NEWSTYLE | NO_ZEROES))
            self.sock.sendall(struct.pack(">QII", NEW_MAGIC, OPT_EXPORT_NAME, len(EXPORT_NAME)) + EXPORT_NAME)
            size, _ = struct.unpack(">QH", self.read_exactly(10))
        assert size == self.size, f"the far disk has {size} bytes, not {self.size}"
        assert not self.buffer, "the server said more than it was asked"
        self.sock.settimeout(60)

    def submit(self, command, offset, length, data=b""):
        assert offset % SECTOR == 0 and length % SECTOR == 0 and 0 < length <= REQUEST_MAX, (offset, length)
        if self.is_failed:
            raise MirrorFailed("it had failed before")
        while len(self.waiting) >= SLOTS:
            self.take_one()
        handle = (b"td%05x" % self.next_id).ljust(8, b"\0")
        self.next_id = (self.next_id + 1) % 65535
        self.waiting[handle] = length if command == READ else 0
        self.sock.sendall(struct.pack(">IHH8sQI", REQUEST_MAGIC, 0, command, handle, offset, length) + data)
        return handle

    def take_one(self):
        magic, error, handle = struct.unpack(">II8s", self.read_exactly(16))
        if magic != REPLY_MAGIC or error or handle not in self.waiting:
            self.is_failed = True
            raise MirrorFailed(f"magic {magic:x}, error {error}, handle {handle}")
        return self.read_exactly(self.waiting.pop(handle))

    def write(self, offset, data):
        """A guest's write: its segments, each a request of its own. Their handles."""
        pieces = [(at, data[at:at + REQUEST_MAX]) for at in range(0, len(data), REQUEST_MAX)]
        return [self.submit(WRITE, offset + at, len(piece), piece) for at, piece in pieces]

    def read(self, offset, length):
        self.drain()
        self.submit(READ, offset, length)
        return self.take_one()

    def drain(self):
        while self.waiting:
            self.take_one()

    def pause(self):
        """DISC goes out at once, and then what is in flight is waited for. The socket is kept."""
        self.sock.sendall(struct.pack(">IHH8sQI", REQUEST_MAGIC, 0, DISC, b"\0" * 8, 0, 0))
        while self.waiting:
            self.take_one()
        self.pauses += 1

    def unpause(self):
        self.open()

    def has_news(self):
        return bool(self.buffer) or bool(select.select([self.sock], [], [], 0)[0])


class Writer:
    """A guest that writes stamps over a disk, to both sides: `here` has what it wrote, the client's far side must have it."""

    def __init__(self, client, here, seed):
        self.client, self.here, self.random, self.count = client, here, random.Random(seed), 0
        self.under_way = []  # at most: two writes that overlap have no order, so a guest waits for the first of them

    def write(self, offset, length, is_zero=False):
        self.count += 1
        stamp = struct.pack("<QQ", self.count, offset)
        data = bytes(length) if is_zero else (stamp * (length // len(stamp) + 1))[:length]
        os.pwrite(self.here, data, offset)
        if not self.client.waiting or any(a < offset + length and offset < b for a, b in self.under_way):
            self.client.drain()
            self.under_way = []
        self.under_way.append((offset, offset + length))
        self.client.write(offset, data)

    def burst(self, writes, span=None):
        """Sizes as guests have them: many of 4 KiB, single sectors, some large; some of zeros."""
        for _ in range(writes):
            length = self.random.choice([512, 4096, 4096, 4096, 8192, 1536, 65536])
            offset = self.random.randrange(0, (span or self.client.size) - length, SECTOR)
            if self.random.random() < 0.7:
                offset -= offset % 4096
            self.write(offset, length, is_zero=self.random.random() < 0.1)
