# SPDX-License-Identifier: LGPL-2.1-or-later
"""One NBD connection, spoken byte by byte, that may choose x-sxm (mirror/PROTOCOL.x-sxm): the source's end of a link, for tests.

    link = Link(path, "x-sxm:1/m/7/1")      link.chosen: the name, or None
    link.hello()                            an Answer: .status .state .epoch ...
    link.write(0, b"...")                   0, or the errno of the answer
    cookie = link.send_ask(WAIT)            and later link.answer(cookie)
"""
import ctypes
import socket
import struct

READ, WRITE, DISC, FLUSH, TRIM, ZEROES, BLOCK_STATUS = 0, 1, 2, 3, 4, 6, 7
HELLO, WAIT, PREPARE, COMMIT, RECLAIM, RELEASED, END, PING, LOG_BEGIN, LOG_KEEP, LOG_END = range(11)
LOG_AT = 1 << 62
OK, STALE, NOT_YOURS, FAILED, BAD_STATE, UNKNOWN = range(6)
OWNED, OFFERED, GIVEN, RECEIVING, ELIGIBLE, INCOMPLETE, GIVEN_BACK = range(1, 8)
ENDED, TAKEN, NEWS_RELEASED = 1, 2, 3
EPERM = 1


class Gone(Exception):
    """The server closed the connection."""


class Answer:
    def __init__(self, fields):
        self.fields = fields
        self.status = fields[0]
        self.state = fields[1] if len(fields) > 1 else 0
        self.epoch = self.u64(2)

    def u64(self, at):
        two = (self.fields[at:at + 2] + [0, 0])[:2]
        return two[0] << 32 | two[1]

    def __repr__(self):
        return f"Answer({self.fields})"


class Hash(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


class Digest:
    """What both ends should come to."""
    xxh3 = None

    def __init__(self):
        if not Digest.xxh3:
            Digest.xxh3 = ctypes.CDLL("libxxhash.so.0").XXH3_128bits
            Digest.xxh3.restype, Digest.xxh3.argtypes = Hash, [ctypes.c_char_p, ctypes.c_size_t]
        self.sum, self.count = 0, 0

    def fold(self, kind, offset, length, data=b""):
        text = struct.pack("<QQQ", kind, offset, length) + data
        h = Digest.xxh3(text, len(text))
        self.sum = (self.sum + (h.high << 64 | h.low)) % (1 << 128)
        self.count += 1


class Link:
    def __init__(self, address, *names, seconds=60):
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.sock.settimeout(seconds)
        self.sock.connect(address)
        self.cookie, self.answers, self.contexts, self.chosen = 0, {}, {}, None
        self.digest = Digest()
        self._enter(names)

    # --- bytes

    def _read(self, count):
        parts = b""
        while len(parts) < count:
            try:
                part = self.sock.recv(count - len(parts))
            except ConnectionResetError:
                part = b""
            if not part:
                raise Gone
            parts += part
        return parts

    def _option(self, option, data=b""):
        self.sock.sendall(struct.pack(">8sII", b"IHAVEOPT", option, len(data)) + data)
        while True:
            magic, _, reply, length = struct.unpack(">QIII", self._read(20))
            assert magic == 0x3e889045565a9
            yield reply, self._read(length)
            if reply == 1 or reply >> 31:
                return

    def _enter(self, names):
        assert self._read(16) == b"NBDMAGICIHAVEOPT"
        self._read(2)
        self.sock.sendall(struct.pack(">I", 3))
        assert [reply for reply, _ in self._option(8)] == [1]
        queries = b"".join(struct.pack(">I", len(n)) + n.encode() for n in names)
        for reply, data in self._option(10, struct.pack(">II", 0, len(names)) + queries):
            if reply == 4:
                self.contexts[struct.unpack(">I", data[:4])[0]] = data[4:].decode()
        for number, name in self.contexts.items():
            if name.startswith("x-sxm:"):
                self.chosen, self.number = name, number
        for reply, data in self._option(7, struct.pack(">IH", 0, 0)):
            assert reply in (1, 3), (reply, data)
            if reply == 3 and data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:])

    # --- requests

    def send(self, command, offset=0, length=0, data=b"", flags=0):
        self.cookie += 1
        self.sock.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, self.cookie, offset, length) + data)
        return self.cookie

    def _receive(self):
        """One simple reply or one chunk."""
        magic, = struct.unpack(">I", self._read(4))
        if magic == 0x67446698:
            error, cookie = struct.unpack(">IQ", self._read(12))
            self.answers[cookie] = (error, b"", [])
            return
        assert magic == 0x668e33ef, hex(magic)
        flags, kind, cookie, length = struct.unpack(">HHQI", self._read(16))
        data = self._read(length)
        error, text, fields = self.answers.pop((cookie, "part"), (0, b"", []))
        if kind == 1:
            text += data[8:]
        elif kind == 5 and struct.unpack(">I", data[:4])[0] == getattr(self, "number", 0):
            fields = [struct.unpack(">II", data[at:at + 8])[1] for at in range(4, length, 8)]
        elif kind == 0x8001:
            error, = struct.unpack(">I", data[:4])
        self.answers[cookie if flags & 1 else (cookie, "part")] = (error, text, fields)

    def reply(self, cookie):
        while cookie not in self.answers:
            self._receive()
        return self.answers.pop(cookie)

    def write(self, offset, data):
        error, _, _ = self.reply(self.send(WRITE, offset, len(data), data))
        if not error:
            self.digest.fold(1, offset, len(data), data)
        return error

    def zero(self, offset, length):
        error, _, _ = self.reply(self.send(ZEROES, offset, length))
        if not error:
            self.digest.fold(2, offset, length)
        return error

    def read(self, offset, length):
        error, data, _ = self.reply(self.send(READ, offset, length))
        assert not error, error
        return data

    def flush(self):
        return self.reply(self.send(FLUSH))[0]

    # --- questions

    def send_ask(self, opcode):
        return self.send(BLOCK_STATUS, opcode, 511)

    def answer(self, cookie):
        error, _, fields = self.reply(cookie)
        assert not error, f"answered with errno {error}"
        return Answer(fields)

    def ask(self, opcode):
        return self.answer(self.send_ask(opcode))

    def hello(self):
        return self.ask(HELLO)

    def is_closed(self):
        """Waits for that."""
        try:
            while True:
                self._receive()
        except Gone:
            return True

    def close(self):
        self.sock.close()
