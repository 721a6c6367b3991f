#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What test-migrate-vm.py stands on, and what `sxm migrate` warns of (migrate/THEORY-vm, 6), with QEMU alone: memory whose size is no
multiple of 256 KiB is there as it was here when the VM stopped. Of other memory an emulating QEMU older than 9.0 may send what is older;
whether this one does is said.

       A: a ROM that counts in each of 112 pages, for ever  -- unix socket -->  B: -incoming, -S
"""
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests/e2e"))
from smapi import say, skip, until_true

PAGE, ROM_BYTES = 4096, 65536
FIRST_PAGE, PAGES = 16, 112
LIMIT_BYTES_S = 1 << 20  # 112 pages take a while, so that the guest writes to each after it was sent
PASSES = 4
LONG_S = 120
# cli; again: mov ax, 0x1000; next: mov ds, ax; inc dword [0]; add ax, 0x100; cmp ax, 0x8000; jne next; jmp again
COUNT = bytes.fromhex("fa b80010 8ed8 66ff060000 050001 3d0080 75f1 ebec")


def write_rom(path):
    """Its last 16 bytes are where a processor begins: a jump to its first."""
    rom = bytearray(ROM_BYTES)
    rom[:len(COUNT)] = COUNT
    rom[-16:-13] = b"\xe9" + struct.pack("<H", 16 - 3)
    with open(path, "wb") as f:
        f.write(rom)


class Qemu:
    def __init__(self, directory, name, kib, *more):
        path = os.path.join(directory, name)
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", f"{kib}k", "-nodefaults", "-display", "none", "-bios",
             os.path.join(directory, "rom"), "-qmp", f"unix:{path},server=on,wait=off", *more])
        self.memory = path + ".memory"
        self.socket = socket.socket(socket.AF_UNIX)
        until_true("QEMU is there", lambda: self.process.poll() is not None or self.socket.connect_ex(path) == 0, LONG_S)
        assert self.process.poll() is None
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **args):
        self.socket.sendall(json.dumps({"execute": command, "arguments": args}).encode())
        for line in self.lines:
            answer = json.loads(line)
            if "event" not in answer:
                return answer["return"]
        raise EOFError(command)

    def migration(self):
        return self.ask("query-migrate").get("status")

    def pages(self, kib):
        self.ask("pmemsave", val=0, size=kib * 1024, filename=self.memory)
        with open(self.memory, "rb") as f:
            memory = f.read()
        os.unlink(self.memory)
        return [memory[at:at + PAGE] for at in range(0, len(memory), PAGE)]

    def end(self):
        self.process.kill()
        self.process.wait()
        self.socket.close()


def counts(pages):
    return [struct.unpack_from("<I", page)[0] for page in pages[FIRST_PAGE:FIRST_PAGE + PAGES]]


def stop_in_the_middle(a):
    """After some passes at least, where it knows that pages are written all the time; else it thinks itself that it is done."""
    def is_there():
        now = a.ask("query-migrate")
        if now["status"] == "active" and now["ram"]["dirty-sync-count"] > PASSES:
            a.ask("migrate-set-parameters", **{"downtime-limit": 2000})
        return now["status"] == "pre-switchover"
    until_true("the VM stands still", is_there, LONG_S)


def move(directory, kib):
    """How many pages are there what they were not here."""
    way = "unix:" + os.path.join(directory, "way")
    a, b = Qemu(directory, "a", kib), Qemu(directory, "b", kib, "-S", "-incoming", way)
    try:
        for qemu in (a, b):
            qemu.ask("migrate-set-capabilities", capabilities=[{"capability": "pause-before-switchover", "state": True}])
        a.ask("migrate-set-parameters", **{"max-bandwidth": LIMIT_BYTES_S, "downtime-limit": 1})
        a.ask("migrate", uri=way)
        stop_in_the_middle(a)
        here = a.pages(kib)
        a.ask("migrate-continue", state="pre-switchover")
        until_true("all is there", lambda: (a.migration(), b.migration()) == ("completed", "completed"), LONG_S)
        there = b.pages(kib)
        assert min(counts(here)) > 0 and max(counts(here)) - min(counts(here)) <= 1, counts(here)
        return sum(one != other for one, other in zip(here, there))
    finally:
        a.end()
        b.end()
        os.unlink(os.path.join(directory, "a"))
        os.unlink(os.path.join(directory, "b"))


def main():
    if not shutil.which("qemu-system-x86_64"):
        skip("this needs qemu-system-x86_64")
    with tempfile.TemporaryDirectory(prefix="sxm.") as directory:
        write_rom(os.path.join(directory, "rom"))
        version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
        say(f"{version}: {move(directory, 128 * 1024)} pages of a memory of whole 256 KiB are older there")
        for kib in (128 * 1024 + 8, 128 * 1024 + 128):
            older = move(directory, kib)
            assert older == 0, f"{kib} KiB: {older} pages are older there"


main()
