#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program as if it were far away: far_away.py MS[,BYTES_S] PROGRAM ARGS...

What goes to its standard input and comes from its standard output arrives MS milliseconds later, in each direction, and no
faster than BYTES_S a second to it. Its standard error is ours.
"""
import collections
import os
import subprocess
import sys
import threading
import time

CHUNK = 64 << 10
MOST = 64 << 20  # under way


class Way(threading.Thread):
    """One direction: a thread that reads and one that writes what is due."""

    def __init__(self, source, to, delay_s, rate):
        super().__init__(daemon=True)
        self.source, self.to, self.delay_s, self.rate = source, to, delay_s, rate
        self.queue, self.has, self.bytes, self.free_at = collections.deque(), threading.Condition(), 0, 0.0
        self.writer = threading.Thread(target=self.write, daemon=True)

    def due(self, size):
        """The link is a pipe of that width, and then a distance."""
        now = time.monotonic()
        if self.rate:
            self.free_at = max(self.free_at, now) + size / self.rate
            return self.free_at + self.delay_s
        return now + self.delay_s

    def run(self):
        self.writer.start()
        while True:
            data = os.read(self.source, CHUNK)
            with self.has:
                self.has.wait_for(lambda: self.bytes < (MOST if not self.rate else CHUNK + self.rate * self.delay_s))
                self.queue.append((self.due(len(data)), data))
                self.bytes += len(data)
                self.has.notify_all()
            if not data:
                break
        self.writer.join()

    def write(self):
        while True:
            with self.has:
                self.has.wait_for(lambda: self.queue)
                due, data = self.queue.popleft()
            time.sleep(max(0, due - time.monotonic()))
            if not data:
                os.close(self.to)
                return
            at = 0
            while at < len(data):
                at += os.write(self.to, data[at:])
            with self.has:
                self.bytes -= len(data)
                self.has.notify_all()


def main():
    ms, _, rate = sys.argv[1].partition(",")
    process = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    to, back = os.dup(process.stdin.fileno()), os.dup(process.stdout.fileno())
    process.stdin.close()
    ways = Way(0, to, float(ms) / 1e3, float(rate or 0)), Way(back, 1, float(ms) / 1e3, 0)
    try:
        for way in ways:
            way.start()
        ways[1].join()
    except BrokenPipeError:
        pass
    process.kill()
    process.wait()
    os._exit(0)


main()
