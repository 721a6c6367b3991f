#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""xapi's sequences on the stage: one of each kind. SXM_LONG: all of them with each format, numbers of disks and with snapshots."""
import itertools
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
STAGE = os.path.join(HERE, "sxm-stage")
SHORT = [
    ["--disks", "2", "life"],
    ["migrate-send"],
    ["--format", "qcow2", "--disks", "2", "--set", "early_attach=yes", "migrate-send"],
]


def play(words):
    began = time.monotonic()
    done = subprocess.run([STAGE, "--quiet", *words], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        print(done.stderr.strip())
        sys.exit(77)
    assert done.returncode == 0, f"sxm-stage {' '.join(words)}: {done.stdout}{done.stderr}"
    print(f"test-stage: {' '.join(words)}: {time.monotonic() - began:.1f} s", flush=True)


def unread(text, words):
    """Such a sequence is refused with those words, and its line."""
    with tempfile.NamedTemporaryFile("w", suffix=".seq") as f:
        f.write("title t\nhosts S\n" + text + "\n")
        f.flush()
        done = subprocess.run([STAGE, "--check", f.name], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and f"{f.name}:" in done.stderr and words in done.stderr, (text, done.returncode, done.stderr)


def test_what_is_not_understood_is_refused_with_its_line():
    unread("S Volume.create(here)", "neither a statement")
    unread("Volume.stat(disk)", "runs on a host")
    unread("S: Volume.set(disk, k=a, k=b)", "given twice")
    unread("S: Volume.set(disk, a)", "has no name")
    unread("S: Volume.stat(disk) perhaps", "may be")
    unread("for each disk\nS: Volume.stat(disk)", 'has no "end"')
    unread("end", "ends nothing")
    unread("on error", "belongs into")
    unread("sr here", "not understood")
    unread("if a b c", '"if NAME"')


def long_rows():
    for name, fmt, disks, snapshots in itertools.product(("migrate-send",), ("raw", "qcow2"), ("1", "4"), ("0", "2")):
        kind = ["--sr-type", "xfs-ng", "--device-config", "device={device}"] if fmt == "raw" and snapshots != "0" else []
        yield [*kind, "--format", fmt, "--disks", disks, "--snapshots", snapshots, name]


def main():
    test_what_is_not_understood_is_refused_with_its_line()
    for words in [*SHORT, *(long_rows() if os.environ.get("SXM_LONG") else [])]:
        play(words)


main()
