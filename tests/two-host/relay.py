# SPDX-License-Identifier: LGPL-2.1-or-later
"""The way of a mirror's bytes through xapi, and the two ways into the destination.

      plugin --unix--> /var/run/nbdproxy/export/MIR --relay--> HTTP PUT .../nbdproxy/import/MIR/... --relay--> the NBD socket
             one connection, ever                             asked of Datapath.attach when it comes

      tapdisk --> HTTP PUT .../nbd/MIR/...: no relay there: the connection itself goes to the socket that import_activate names"""
import array
import os
import queue
import socket
import subprocess
import threading
import time
import urllib.parse

from hosts import complain, in_background
from verbs import Failed, nbd_of

PORT = 80
EXPORTS = "/var/run/nbdproxy/export/"
HEADERS_MAX = 65536


class Refused(Exception):
    """What the other host's HTTP server said instead of 200."""


def read_headers(connection):
    """The lines up to the empty one, and not a byte more: what follows is NBD."""
    text = b""
    while not text.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(text) > HEADERS_MAX:
            raise ConnectionError(f"the connection ended in the middle of HTTP headers: {text!r}")
        text += byte
    return text.decode("latin-1").split("\r\n")[:-2]


class Pump:
    """Between two sockets, in a process of its own. limits: what pump's command line takes."""

    def __init__(self, host, program, one, other, limits):
        words = [program, str(one.fileno()), str(other.fileno()), *(f"--{k}={v}" for k, v in limits.items() if v)]
        self.process = host.run(subprocess.Popen, words, pass_fds=(one.fileno(), other.fileno()), stdin=subprocess.DEVNULL)
        one.close()
        other.close()

    def cut(self):
        self.process.kill()
        self.process.wait()


class Relay:
    """One host's part of xapi in this. find(mir): who takes what is sent to that name: a Target."""

    def __init__(self, host, pump_program):
        self.host, self.program, self.lock = host, pump_program, threading.Lock()
        self.pumps, self.targets, self.limits = [], {}, {}
        self.problems = queue.SimpleQueue()
        self.server = host.run(self.listen_http)
        in_background(self.serve)

    def listen_http(self):
        server = socket.socket(socket.AF_INET)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((self.host.address, PORT))
        server.listen(64)
        return server

    def pump(self, one, other, limits=None):
        pump = Pump(self.host, self.program, one, other, limits or {})
        with self.lock:
            self.pumps.append(pump)

    def cut(self):
        """All that is carried through this host breaks off; as xapi's restart does it."""
        with self.lock:
            pumps, self.pumps = self.pumps, []
        for pump in pumps:
            pump.cut()
        return len(pumps)

    def carried_cpu_s(self):
        """What the relays of this host used of the processors."""
        total = 0.0
        for pump in list(self.pumps):
            try:
                with open(f"/proc/{pump.process.pid}/stat", encoding="ascii") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            except OSError:
                pass
        return total

    # --- the source: the listener that accepts one connection

    def export(self, mir, there, path, after_s=0.0):
        """Takes one connection at the proxy's socket, and only then asks the other host for its end. The socket's path."""
        where = EXPORTS + mir
        in_background(self.export_one, where, there, path, after_s)
        return where

    def listen_unix(self, where):
        if os.path.exists(where):
            os.unlink(where)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(where)
        listener.listen(1)
        return listener

    def export_one(self, where, there, path, after_s):
        time.sleep(after_s)
        with self.host.run(self.listen_unix, where) as listener:
            client, _ = listener.accept()
        self.host.run(os.unlink, where)
        try:
            server = self.put(there, path)
        except (OSError, Refused) as e:  # the client's socket is left open, as xapi leaves it: it hears nothing
            complain(f"relay of {where}: {e}")
            self.problems.put((client, e))
            return
        self.pump(client, server, self.limits)

    def put(self, there, path):
        """The connection on which the other host speaks NBD from now on."""
        server = self.host.run(socket.create_connection, (there.host.address, PORT), 10)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as xapi's own connections and its stunnel have it
        server.sendall(f"PUT {path} HTTP/1.0\r\nHost: {there.host.address}\r\nUser-Agent: sxm-stage\r\n\r\n".encode())
        status, *headers = read_headers(server)
        if status.split()[1:2] != ["200"] or not any(h.lower() == "transfer-encoding: nbd" for h in headers):
            server.close()
            raise Refused(f"PUT {path}: {status}")
        server.settimeout(None)
        return server

    def put_or_fail(self, there, path):
        """The same where a step of xapi's fails with it."""
        try:
            return self.put(there, path)
        except (OSError, Refused) as e:
            raise Failed("HTTP", "INTERNAL_ERROR", [f"PUT {path} to host {there.host.name}: {e}"]) from None

    # --- the destination: HTTP

    def serve(self):
        while True:
            try:
                client, _ = self.server.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                return
            in_background(self.answer, client)

    def answer(self, client):
        try:
            method, target, _ = read_headers(client)[0].split()
            parts = urllib.parse.urlsplit(target).path.split("/")
            if method != "PUT" or parts[:3] != ["", "services", "SM"] or len(parts) < 5:
                raise Refused(f"{method} {target} is nothing that is answered here")
            if parts[3:5] == ["nbdproxy", "import"]:
                self.import_proxy(client, parts[5])
            elif parts[3] == "nbd":
                self.import_fd(client, parts[4], parts[-1])
            else:
                raise Refused(f"{target} is nothing that is answered here")
        except (OSError, ValueError, KeyError, Refused, Failed) as e:
            complain(f"HTTP on host {self.host.name}: {e!r}")
            try:
                client.sendall(b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n\r\n")
            except OSError:
                pass
            client.close()

    @staticmethod
    def say_ok(client):
        client.sendall(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\nTransfer-encoding: nbd\r\n\r\n")

    def connect_unix(self, path):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        return connection

    def import_proxy(self, client, mir):
        path, _ = nbd_of(self.targets[mir].attach())  # get_nbd_server: attach once more
        server = self.host.run(self.connect_unix, path)
        self.say_ok(client)
        self.pump(client, server)

    def import_fd(self, client, mir, datapath):
        """One sendmsg of the datapath's id with the connection; whoever has it then speaks on it first."""
        path = self.targets[mir].import_activate()
        with self.host.run(self.connect_unix, path) as plugin:
            self.say_ok(client)
            sent = plugin.sendmsg([datapath.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [client.fileno()]))])
        if sent != len(datapath):
            raise Refused(f"the plugin took {sent} of {len(datapath)} bytes with the connection")
        client.close()

    def end(self):
        self.cut()
        self.server.close()
