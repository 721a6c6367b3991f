# SPDX-License-Identifier: LGPL-2.1-or-later
"""An NBD client that asks one thing at a time, as xapi's own do: the export by NBD_OPT_EXPORT_NAME, or structured replies and
base:allocation, where somebody must know what is there."""
import socket
import struct

OPTION, REPLY, ACK, ERROR_BIT = b"IHAVEOPT", 0x3e889045565a9, 1, 1 << 31
EXPORT_NAME, GO, STRUCTURED, SET_CONTEXT = 1, 7, 8, 10
READ, WRITE, DISC, FLUSH, BLOCK_STATUS = 0, 1, 2, 3, 7
STATUS_MAX = 32 << 20  # tapdisk takes no request of more than 64 MiB


class NbdError(Exception):
    pass


class Client:
    def __init__(self, connection, export, is_structured=False):
        self.socket, self.cookie, self.is_structured = connection, 0, is_structured
        magic, option, flags = struct.unpack(">8s8sH", self.get(18))
        if (magic, option) != (b"NBDMAGIC", OPTION):
            raise NbdError("that is no NBD server of the new style")
        self.socket.sendall(struct.pack(">I", flags & 3))
        self.has_no_zeroes = bool(flags & 2)
        if is_structured:
            self.negotiate(export.encode())
        else:
            self.option(EXPORT_NAME, export.encode())
            self.size, self.flags = struct.unpack(">QH", self.get(10))
            if not self.has_no_zeroes:
                self.get(124)

    @classmethod
    def at(cls, path, export, is_structured=False):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        return cls(connection, export, is_structured)

    def get(self, count):
        data = bytearray()
        while len(data) < count:
            more = self.socket.recv(min(count - len(data), 1 << 20))
            if not more:
                raise NbdError("the server hung up")
            data += more
        return bytes(data)

    def option(self, number, data):
        self.socket.sendall(struct.pack(">8sII", OPTION, number, len(data)) + data)

    def replies(self, number):
        """[(kind, data)] up to the acknowledgement."""
        found = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.get(20))
            data = self.get(length)
            if magic != REPLY or option != number or kind & ERROR_BIT:
                raise NbdError(f"the server refused option {number}: {kind & ~ERROR_BIT} {data!r}")
            if kind == ACK:
                return found
            found.append((kind, data))

    def negotiate(self, name):
        self.option(STRUCTURED, b"")
        self.replies(STRUCTURED)
        context = b"base:allocation"
        self.option(SET_CONTEXT, struct.pack(">I", len(name)) + name + struct.pack(">II", 1, len(context)) + context)
        if not self.replies(SET_CONTEXT):
            raise NbdError("the server has no base:allocation")
        self.option(GO, struct.pack(">I", len(name)) + name + struct.pack(">H", 0))
        for kind, data in self.replies(GO):
            if kind == 3 and data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:12])

    # --- requests

    def ask(self, kind, offset, length, data=b"", flags=0):
        self.cookie += 1
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, self.cookie, offset, length) + data)

    def simple(self, length=0):
        magic, error, cookie = struct.unpack(">IIQ", self.get(16))
        if magic != 0x67446698 or cookie != self.cookie:
            raise NbdError("that is no reply")
        if error:
            raise NbdError(f"error {error}")
        return self.get(length)

    def chunks(self):
        """[(type, data)] of a structured reply."""
        found, is_done = [], False
        while not is_done:
            magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.get(20))
            data = self.get(length)
            if magic != 0x668e33ef or cookie != self.cookie:
                raise NbdError("that is no structured reply")
            if kind & 1 << 15:
                raise NbdError(f"error {struct.unpack('>I', data[:4])[0]}")
            found.append((kind, data))
            is_done = flags & 1
        return found

    def read(self, offset, length):
        self.ask(READ, offset, length)
        if not self.is_structured:
            return self.simple(length)
        data = bytearray(length)
        for kind, chunk in self.chunks():
            if kind == 1:
                at = struct.unpack(">Q", chunk[:8])[0] - offset
                data[at:at + len(chunk) - 8] = chunk[8:]
        return bytes(data)

    def write(self, offset, data):
        self.ask(WRITE, offset, len(data), data)
        self.simple()

    def extents(self):
        """(offset, length, flags) of the whole export."""
        at = 0
        while at < self.size:
            self.ask(BLOCK_STATUS, at, min(self.size - at, STATUS_MAX))
            for kind, data in self.chunks():
                if kind != 5:
                    continue
                for length, flags in struct.iter_unpack(">II", data[4:]):
                    if not length or length % 512:
                        raise NbdError(f"an extent of {length} bytes")
                    yield at, length, flags
                    at += length

    def close(self):
        """As xapi's clients end: with a word, and no flush."""
        self.ask(DISC, 0, 0)
        self.socket.close()
