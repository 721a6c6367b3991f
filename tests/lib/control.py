#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asks a datapath process over its control socket (src/PROTOCOL.control).

    control.py SOCKET VERB [ARGS-AS-JSON]           prints the "ok" value; an error: its sentence on stderr, exit 1
    control.py --get KEY[.KEY...] SOCKET VERB ...   prints one member only
    control.py --watch SOCKET OPERATION             a line each half second until the mirror is in sync; exit 1 if it failed

SOCKET is a path; PORT@HOST where something relays it (tests/lib/relay.c).
"""
import json
import socket
import sys
import time

MIB = 1 << 20


class Control:
    def __init__(self, path):
        port, at, host = path.partition("@")
        is_tcp = at and port.isdigit()
        self.sock = socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX)
        try:
            self.sock.connect((host, int(port)) if is_tcp else path)
        except OSError as e:
            raise SystemExit(f"control: no datapath process listens at {path}: {e.strerror}")
        self.stream = self.sock.makefile("rw", encoding="utf-8", newline="\n")
        self.number = 0

    def ask(self, verb, **args):
        self.number += 1
        self.stream.write(json.dumps({"id": self.number, "verb": verb, "args": args}) + "\n")
        self.stream.flush()
        line = self.stream.readline()
        if not line:
            raise SystemExit(f"control: {verb}: the process closed the connection")
        reply = json.loads(line)
        if "error" in reply:
            raise SystemExit(f"{reply['error']['code']}: {reply['error']['text']}")
        return reply["ok"]


def get(value, path):
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def numbers(status, operation):
    """The members of one mirror, wherever it is: alone, or one of a list."""
    for mirror in status.get("operations", []):
        if mirror.get("id") == operation:
            return mirror
    raise SystemExit(f"control: no operation {operation} in {json.dumps(status)}")


def progress_line(m):
    eta = m.get("eta_ms")
    return (f"{m['running_ms'] / 1000:6.1f} s  {m['sent_bytes'] / MIB:7.1f} MiB sent  {m['rate_bytes'] / MIB:6.1f} MiB/s  "
            f"dirty {m['dirty_bytes'] / MIB:7.1f} MiB  lag {m['lag_bytes'] / 1024:6.0f} KiB  "
            f"ETA {'-' if eta is None or eta < 0 else f'{eta / 1000:.1f} s'}  {m['state']}")


def watch(path, operation):
    control, shown = Control(path), 0.0
    while True:
        stat = control.ask("mirror.stat", id=operation, wait_ms=100)
        now = time.monotonic()
        is_over = stat["complete"] or stat["failed"]
        if is_over or now - shown >= 0.5:
            shown = now
            print(progress_line(numbers(control.ask("status"), operation)), flush=True)
        if is_over:
            return 1 if stat["failed"] else 0


def main(argv):
    if len(argv) == 3 and argv[0] == "--watch":
        return watch(argv[1], argv[2])
    path = None
    if argv[:1] == ["--get"]:
        path, argv = argv[1], argv[2:]
    if len(argv) not in (2, 3):
        raise SystemExit(__doc__)
    try:
        args = json.loads(argv[2] if len(argv) == 3 else "{}")
    except ValueError as e:
        raise SystemExit(f"control: the arguments are no JSON object: {e}")
    ok = Control(argv[0]).ask(argv[1], **args)
    value = get(ok, path) if path else ok
    print(value if isinstance(value, str) else json.dumps(value))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
