#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stand-in for the tapdisk of a disk on a SMAPIv1 host whose guest runs while the disk is mirrored away:

      tapdisk_source.py SOCKET IMAGE CONTROL

      guest --> SOCKET, as tapdisk_server.py serves it --> IMAGE and, while there is a mirror, the connection it was given
                                                           an answer when both have the write

CONTROL takes a line of JSON on each connection, and answers with one:

- {"stash": NAME} and a descriptor with it: a connection to mirror through, kept under that name until it is asked for;
- {"snapshot": PATH or null, "mirror": NAME or null}: one pause. What is under way is waited for, a mirror that there was is told
  goodbye; PATH is the disk at that moment, and what is written from then on goes through that connection, too;
- {"close": true}: the guest is gone. What is under way is waited for, the mirror told goodbye, and the process ends.

Each answer has "failed", the mirror's: whatever goes wrong with it ends it for good, and the guest does not notice."""
import json
import os
import shutil
import socket
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tapdisk_client import Client, MirrorFailed  # noqa: E402
from tapdisk_server import Server  # noqa: E402


class Mirror:
    """Many writers on one connection; a thread takes the answers while there is something to wait for."""

    def __init__(self, client):
        self.client, self.changed, self.is_failed, self.is_gone = client, threading.Condition(), False, False
        threading.Thread(target=self.take_answers, daemon=True).start()

    def fail(self, why):
        print(f"the mirror failed: {why}", file=sys.stderr, flush=True)
        with self.changed:
            self.is_failed = True
            self.changed.notify_all()

    def take_answers(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.client.waiting or self.is_gone)
                if self.is_gone:
                    return
            try:
                self.client.take_one()
            except (MirrorFailed, OSError) as e:
                self.fail(e)
                return
            with self.changed:
                self.changed.notify_all()

    def write(self, offset, data):
        with self.changed:
            if self.is_failed:
                return
            try:
                handles = self.client.write(offset, data)
            except (MirrorFailed, OSError) as e:
                self.is_failed = True
                print(f"the mirror failed: {e}", file=sys.stderr, flush=True)
                return
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.is_failed or not any(h in self.client.waiting for h in handles))

    def end(self):
        """Nothing is under way."""
        if not self.is_failed:
            self.client.pause()
        with self.changed:
            self.is_gone = True
            self.changed.notify_all()


class Source(Server):
    def __init__(self, path, image):
        super().__init__(path, image)
        self.path, self.mirror, self.stashed = image, None, {}
        self.moment, self.under_way, self.is_paused, self.is_failed = threading.Condition(), 0, False, False

    def write(self, offset, data):
        with self.moment:
            self.moment.wait_for(lambda: not self.is_paused)
            self.under_way += 1
        try:
            super().write(offset, data)
            if self.mirror:
                self.mirror.write(offset, data)
        finally:
            with self.moment:
                self.under_way -= 1
                self.moment.notify_all()

    def pause(self):
        with self.moment:
            self.is_paused = True
            self.moment.wait_for(lambda: not self.under_way)
        if self.mirror:
            self.is_failed = self.mirror.is_failed
            self.mirror.end()
            self.mirror = None

    def unpause(self):
        with self.moment:
            self.is_paused = False
            self.moment.notify_all()

    def snapshot(self, path, name):
        self.pause()
        try:
            if path:
                shutil.copyfile(self.path, path)
            if name:
                client = Client(self.stashed.pop(name), self.size)
                client.open()
                client.sock.settimeout(None)
                self.mirror = Mirror(client)
        finally:
            self.unpause()

    def answer(self, connection):
        text, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        asked = json.loads(text)
        if "stash" in asked:
            self.stashed[asked["stash"]] = socket.socket(fileno=fds[0])
        elif "snapshot" in asked:
            self.snapshot(asked["snapshot"], asked["mirror"])
        else:
            self.pause()
        failed = self.mirror.is_failed if self.mirror else self.is_failed
        connection.sendall(json.dumps({"failed": failed, "writes": self.count["writes"]}).encode() + b"\n")
        return "close" not in asked

    def control(self, path):
        listener, goes_on = socket.socket(socket.AF_UNIX), True
        listener.bind(path)
        listener.listen(5)
        print("ready", flush=True)
        while goes_on:
            connection, _ = listener.accept()
            with connection:
                try:
                    goes_on = self.answer(connection)
                except (OSError, ValueError, KeyError, AssertionError, MirrorFailed) as e:
                    connection.sendall(json.dumps({"error": repr(e)}).encode() + b"\n")


def main():
    source = Source(*sys.argv[1:3])
    threading.Thread(target=source.run, daemon=True).start()
    source.control(sys.argv[3])
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
