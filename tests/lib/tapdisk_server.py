#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stand-in for the NBD server in tapdisk, the destination of a mirror to a SMAPIv1 host, as a client meets it:

      tapdisk_server.py SOCKET IMAGE [--slow MS] [--die-after WRITES]

- fixed newstyle; EXPORT_NAME (any name), ABORT, LIST, INFO, GO with block sizes 1, 4096 and 2 MiB, STRUCTURED_REPLY and
  SET_META_CONTEXT of base:allocation; STARTTLS, LIST_META_CONTEXT and what is not known are answered as unsupported;
- the export's flags are HAS_FLAGS and no more: no FLUSH, FUA, TRIM, WRITE_ZEROES or several connections; an error in an answer
  is a negative errno; whoever sends what was not offered, less than sectors, or more than 64 MiB, is told so, and it is noted;
- 8 requests of a client at a time; after DISC negotiation begins again on the same socket.

At its end (SIGTERM) it prints one JSON object: what it was asked."""
import argparse
import errno
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

NEW_MAGIC, REPLY_MAGIC = 0x49484156454F5054, 0x0003E889045565A9
REQUEST_MAGIC, SIMPLE_MAGIC, CHUNK_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED, SET_META = 1, 2, 3, 6, 7, 8, 10
ACK, SERVER, REP_INFO, META = 1, 2, 3, 4
UNSUPPORTED = 0x80000001
HAS_FLAGS = 1
READ, WRITE, DISC, BLOCK_STATUS = 0, 1, 2, 7
LARGEST, STATUS_MAX, AT_ONCE = 64 << 20, 2 << 20, 8


class HungUp(Exception):
    pass


class Session:
    def __init__(self, server, sock):
        self.server, self.sock, self.lock = server, sock, threading.Lock()
        self.slots = threading.Semaphore(AT_ONCE)

    def read(self, count):
        parts = bytearray()
        while len(parts) < count:
            part = self.sock.recv(count - len(parts))
            if not part:
                raise HungUp
            parts += part
        return bytes(parts)

    def reply(self, option, kind, data=b""):
        self.sock.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

    def negotiate(self):
        self.is_structured = self.has_context = False
        self.sock.sendall(b"NBDMAGIC" + struct.pack(">QH", NEW_MAGIC, 3))
        no_zeroes = struct.unpack(">I", self.read(4))[0] & 2
        export = struct.pack(">QH", self.server.size, HAS_FLAGS)
        while True:
            magic, option, length = struct.unpack(">QII", self.read(16))
            data = self.read(length)
            if magic != NEW_MAGIC:
                raise HungUp
            self.server.count["options"].append(option)
            if option == EXPORT_NAME:
                self.sock.sendall(export + (b"" if no_zeroes else bytes(124)))
                return
            if option == ABORT:
                self.reply(option, ACK)
                raise HungUp
            if option == LIST:
                self.reply(option, SERVER, struct.pack(">I", 0))
                self.reply(option, ACK)
            elif option in (INFO, GO):
                self.reply(option, REP_INFO, struct.pack(">H", 0) + export)
                self.reply(option, REP_INFO, struct.pack(">HIII", 3, 1, 4096, 2 << 20))
                self.reply(option, ACK)
                if option == GO:
                    return
            elif option == STRUCTURED:
                self.is_structured = True
                self.reply(option, ACK)
            elif option == SET_META:
                name, = struct.unpack_from(">I", data)
                if b"base:allocation" in data[4 + name:]:
                    self.has_context = True
                    self.reply(option, META, struct.pack(">I", 1) + b"base:allocation")
                self.reply(option, ACK)
            else:
                self.reply(option, UNSUPPORTED)

    def answer(self, handle, error=0, data=b""):
        with self.lock:
            self.sock.sendall(struct.pack(">II", SIMPLE_MAGIC, -error & 0xFFFFFFFF) + handle + data)

    def chunk(self, handle, kind, data):
        with self.lock:
            self.sock.sendall(struct.pack(">IHH", CHUNK_MAGIC, 1, kind) + handle + struct.pack(">I", len(data)) + data)

    def do(self, command, handle, offset, length, data):
        try:
            time.sleep(self.server.slow_s)
            if command == WRITE:
                self.server.write(offset, data)
                self.answer(handle)
            elif command == READ and self.is_structured:
                self.chunk(handle, 1, struct.pack(">Q", offset) + os.pread(self.server.image, length, offset))
            elif command == READ:
                self.answer(handle, 0, os.pread(self.server.image, length, offset))
            else:
                self.chunk(handle, 5, struct.pack(">III", 1, *self.server.extent(offset, min(length, STATUS_MAX))))
        except OSError:
            pass  # who asked has hung up
        finally:
            self.slots.release()

    def drain(self):
        for _ in range(AT_ONCE):
            self.slots.acquire()
        for _ in range(AT_ONCE):
            self.slots.release()

    def transmit(self):
        """Until DISC."""
        count = self.server.count
        while True:
            magic, flags, command, handle, offset, length = struct.unpack(">IHH8sQI", self.read(28))
            if magic != REQUEST_MAGIC:
                raise HungUp
            if command == DISC:
                count["goodbyes"] += 1
                return
            data = self.read(length) if command == WRITE and length <= LARGEST else b""
            is_offered = command in (READ, WRITE) or (command == BLOCK_STATUS and self.has_context)
            if not is_offered or flags & ~8 or offset % 512 or length % 512 or not 0 < length <= LARGEST or \
                    offset + length > self.server.size:
                count["wrong"].append([command, flags, offset, length])
                self.answer(handle, errno.EINVAL)
                continue
            count["largest"] = max(count["largest"], length if command == WRITE else 0)
            count["writes"] += command == WRITE
            count["bytes"] += len(data)
            if self.server.die_after and count["writes"] > self.server.die_after:
                self.sock.shutdown(socket.SHUT_RDWR)
                raise HungUp
            self.slots.acquire()
            threading.Thread(target=self.do, args=(command, handle, offset, length, data), daemon=True).start()

    def run(self):
        try:
            while True:
                self.negotiate()
                self.transmit()
                self.drain()
        except (HungUp, OSError, struct.error):
            pass
        self.sock.close()


class Server:
    def __init__(self, path, image, slow_s=0, die_after=0):
        self.image, self.slow_s, self.die_after = os.open(image, os.O_RDWR), slow_s, die_after
        self.size = os.fstat(self.image).st_size
        self.count = {"writes": 0, "bytes": 0, "largest": 0, "goodbyes": 0, "connections": 0, "wrong": [], "options": []}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(5)

    def write(self, offset, data):
        os.pwrite(self.image, data, offset)

    def extent(self, offset, length):
        """(length, flags) of what is at the beginning: data, or a hole that reads as zeros."""
        try:
            data = os.lseek(self.image, offset, os.SEEK_DATA)
        except OSError:
            data = self.size
        if data > offset:
            return min(length, data - offset), 3
        return min(length, os.lseek(self.image, offset, os.SEEK_HOLE) - offset), 0

    def run(self):
        while True:
            sock, _ = self.listener.accept()
            self.count["connections"] += 1
            threading.Thread(target=Session(self, sock).run, daemon=True).start()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("socket")
    p.add_argument("image")
    p.add_argument("--slow", type=float, default=0)
    p.add_argument("--die-after", type=int, default=0)
    a = p.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in all threads but where it is waited for
    server = Server(a.socket, a.image, a.slow / 1000, a.die_after)
    threading.Thread(target=server.run, daemon=True).start()
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    print(json.dumps(server.count), flush=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
