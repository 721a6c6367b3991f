#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients of a kind that ours are not: one that takes only small records is served all the same, in pieces; one that offers nothing
but a group that takes long to compute is not, at once."""
import ctypes
import os
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import Host, say, skip  # noqa: E402

try:
    tls = ctypes.CDLL("libgnutls.so.30")
except OSError:
    skip("no libgnutls")
for name in ("gnutls_record_send", "gnutls_record_recv"):
    getattr(tls, name).restype = ctypes.c_ssize_t
CLIENT, CRD_PSK, KEY_HEX = 2, 4, 1
KEY = b"00112233445566778899aabbccddeeff"
GREETING, OPTION, STARTTLS, EXPORT_NAME = 18, 0x49484156454F5054, 5, 1
MAX, ANY = 512, b"NORMAL:-KX-ALL:+ECDHE-PSK:+DHE-PSK"


class Datum(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_uint)]


class Client:
    """NBD's plain beginning, then TLS with that priority."""

    def __init__(self, port, priority, record_max=None):
        self.sock = socket.create_connection(("127.0.0.1", port), 20)
        assert len(self.sock.recv(GREETING, socket.MSG_WAITALL)) == GREETING
        self.sock.sendall(struct.pack(">IQII", 3, OPTION, STARTTLS, 0))
        assert len(self.sock.recv(20, socket.MSG_WAITALL)) == 20
        self.session, self.credentials = ctypes.c_void_p(), ctypes.c_void_p()
        tls.gnutls_init(ctypes.byref(self.session), CLIENT)
        error = ctypes.c_char_p()
        assert tls.gnutls_priority_set_direct(self.session, priority, ctypes.byref(error)) == 0, error.value
        tls.gnutls_psk_allocate_client_credentials(ctypes.byref(self.credentials))
        tls.gnutls_psk_set_client_credentials(self.credentials, b"sxm", ctypes.byref(Datum(KEY, len(KEY))), KEY_HEX)
        tls.gnutls_credentials_set(self.session, CRD_PSK, self.credentials)
        if record_max:
            assert tls.gnutls_record_set_max_recv_size(self.session, ctypes.c_size_t(record_max)) == 0
        tls.gnutls_transport_set_int2(self.session, self.sock.fileno(), self.sock.fileno())
        tls.gnutls_handshake_set_timeout(self.session, 20000)

    def shake_hands(self):
        self.sock.setblocking(True)
        code = tls.gnutls_handshake(self.session)
        while code < 0 and not tls.gnutls_error_is_fatal(code):
            code = tls.gnutls_handshake(self.session)
        return code

    def say(self, data):
        assert tls.gnutls_record_send(self.session, data, ctypes.c_size_t(len(data))) == len(data)

    def hear(self, count):
        """And how large the largest piece was."""
        heard, largest, room = b"", 0, ctypes.create_string_buffer(65536)
        while len(heard) < count:
            n = tls.gnutls_record_recv(self.session, room, ctypes.c_size_t(min(len(room), count - len(heard))))
            assert n > 0, (n, len(heard), count)
            heard, largest = heard + room.raw[:n], max(largest, n)
        return heard, largest


def main():
    host = Host()
    image, psk = os.path.join(host.dir, "d.raw"), os.path.join(host.dir, "psk")
    content = os.urandom(1 << 20)
    with open(image, "wb") as f:
        f.write(content)
    with open(os.open(psk, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as f:
        f.write(b"sxm:" + KEY + b"\n")
    subprocess.run([os.path.join(os.environ["SXM_BUILDDIR"], "sxm-datapath"), "--id", "d", "--path", image, "--keep"], env=host.env, check=True)
    assert "ok" in host.control("d", "activate", domain="1")
    answer = host.control("d", "listen", domain="1", host="127.0.0.1", tls={"psk_username": "sxm", "psk_file": psk})
    if "NOTSUP" in str(answer):
        skip("built without GnuTLS")
    port = answer["ok"]["port"]
    for version in (b":-VERS-ALL:+VERS-TLS1.3", b":-VERS-ALL:+VERS-TLS1.2"):
        c = Client(port, ANY + version, MAX)
        assert c.shake_hands() == 0
        c.say(struct.pack(">IQII", 3, OPTION, EXPORT_NAME, 0)[4:])
        c.hear(8 + 2)
        c.say(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, len(content)))
        head, _ = c.hear(16)
        assert head == struct.pack(">IIQ", 0x67446698, 0, 7), head
        data, largest = c.hear(len(content))
        assert data == content and largest <= MAX, largest
        say(f"{version.decode()}: {len(content)} bytes, in records of {largest} at most")
    for version in (b":-VERS-ALL:+VERS-TLS1.3", b":-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-PSK"):
        for group in (b"FFDHE8192", b"FFDHE6144"):
            assert Client(port, ANY + version + b":-GROUP-ALL:+GROUP-" + group).shake_hands() < 0, (version, group)
    assert Client(port, ANY + b":-GROUP-ALL:+GROUP-FFDHE2048").shake_hands() == 0


main()
