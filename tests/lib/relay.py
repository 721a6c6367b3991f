#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A TCP relay that misbehaves when it is told to.

    relay.py LISTEN-HOST:PORT TARGET-HOST:PORT          commands come on stdin, a line each; its end is ours

    pass                forwards (also undoes all below)
    stall               forwards nothing; connections stay
    cut                 every connection is reset, now
    cut-after N DIR     ... and so is each from now on, new ones too, N bytes further on in that direction (up: towards the target)
    refuse              ... now, and each new one at once
    hang                new connections are accepted and nothing is done about them
    rate N              at most about so many bytes a second, each connection and direction; what waits is in its sockets' buffers
    always N            the same, and pass does not undo it
"""
import socket
import struct
import sys
import threading
import time

PIECE = 65536


class Rules:
    def __init__(self):
        self.changed, self.always = threading.Condition(), 0
        self.reset()
        self.pairs, self.hung = set(), []

    def reset(self):
        self.is_stalled = self.refuses = self.hangs = False
        self.cut_after, self.rate = {}, self.always

    def command(self, words):
        with self.changed:
            if words[0] == "pass":
                self.reset()
            elif words[0] == "stall":
                self.is_stalled = True
            elif words[0] == "hang":
                self.hangs = True
            elif words[0] == "rate":
                self.rate = int(words[1])
            elif words[0] == "always":
                self.rate = self.always = int(words[1])
            elif words[0] == "cut-after":
                self.cut_after = {words[2]: int(words[1])}
                for pair in self.pairs:
                    pair.left = dict(self.cut_after)
            if words[0] in ("cut", "refuse"):
                self.refuses = words[0] == "refuse"
                for pair in list(self.pairs):
                    pair.reset()
                while self.hung:
                    self.hung.pop().close()
            self.changed.notify_all()


class Pair:
    """Two sockets and a thread for each direction."""

    def __init__(self, rules, near, target):
        self.rules, self.left = rules, dict(rules.cut_after)
        self.ends = [near, socket.create_connection(target, timeout=60)]
        rules.pairs.add(self)
        for end in self.ends:
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, source, sink in ("up", *self.ends), ("down", *self.ends[::-1]):
            threading.Thread(target=self.forward, args=(name, source, sink), daemon=True).start()

    def reset(self):
        self.rules.pairs.discard(self)
        for end in self.ends:
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
                end.close()
            except OSError:
                pass

    def may_pass(self, name, data):
        """How much of it, when it may; waits while all stands still."""
        with self.rules.changed:
            while self.rules.is_stalled and self in self.rules.pairs:
                self.rules.changed.wait()
            rate, left = self.rules.rate, self.left.get(name)
            if left is not None:
                self.left[name] = max(left - len(data), 0)
        if rate:
            time.sleep(len(data) / rate)
        return len(data) if left is None else min(left, len(data))

    def forward(self, name, source, sink):
        try:
            while data := source.recv(PIECE):
                passes = self.may_pass(name, data)
                sink.sendall(data[:passes])
                if passes < len(data) or self.left.get(name) == 0:
                    break
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        self.reset()


def serve(rules, listener, target):
    while True:
        near = listener.accept()[0]
        if rules.hangs:
            rules.hung.append(near)
            continue
        try:
            if rules.refuses:
                raise OSError
            Pair(rules, near, target)
        except OSError:
            near.close()


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def main():
    rules = Rules()
    listener = socket.create_server(address(sys.argv[1]), backlog=64)
    threading.Thread(target=serve, args=(rules, listener, address(sys.argv[2])), daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        rules.command(line.split())


if __name__ == "__main__":
    main()
