#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""xapi's sequences on the stage: one of each kind. SXM_LONG: all of them with each format, numbers of disks and with snapshots."""
import itertools
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from rows import QCOW2, RAW, STAGE, XFS, play, some  # noqa: E402

SHORT = [
    ["--disks", "2", "life"],
    ["graphs"],
    [*QCOW2, "--disks", "2", "--snapshots", "1", "--set", "early_attach=yes", "migrate-send"],
    ["pool-migrate"],
    [*QCOW2, "--disks", "2", "--set", "early_attach=yes", "local-migrate"],
    ["vdi-pool-migrate"],
    ["vdi-copy"],
    ["d-in"],
    [*QCOW2, "d-in-snapshots"],
    ["d-out"],
    [*QCOW2, "--snapshots", "1", "d-out-snapshots"],
    [*QCOW2, "snapshot"],
    [*QCOW2, "cbt-backup"],
]


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


def test_every_sequence_can_be_read():
    names = sorted(n.removesuffix(".seq") for n in os.listdir(os.path.join(HERE, "sequences")))
    done = subprocess.run([STAGE, "--check", *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def long_rows():
    """Names, formats, disks, snapshots; a raw disk with a snapshot is on XFS."""
    moves = ("migrate-send", "vdi-pool-migrate", "life", "vdi-copy")
    for name, form, disks, snapshots in itertools.product(moves, ("raw", "qcow2"), ("1", "4"), ("0", "2")):
        yield [*(XFS if form == "raw" and snapshots != "0" else []), "--format", form, "--disks", disks, "--snapshots", snapshots, name]
    for name, form, disks in itertools.product(("pool-migrate", "local-migrate", "d-in", "d-out"), ("raw", "qcow2"), ("1", "4")):
        yield ["--format", form, "--disks", disks, name]
    for form in (RAW, QCOW2):  # sixteen mirrors at once, each under a guest's writes
        yield [*form, "--disks", "16", "--size", "16M", "--iops", "100", "migrate-send"]
    for name, form, disks in itertools.product(("d-in-snapshots", "d-out-snapshots"), (XFS, QCOW2), ("1", "4")):
        yield [*form, "--disks", disks, *(["--snapshots", "2"] if name == "d-out-snapshots" else []), name]
    for disks in ("1", "4"):
        yield [*XFS, "--disks", disks, "cbt-backup"]
        yield [*QCOW2, "--disks", disks, "snapshot"]


def main():
    test_what_is_not_understood_is_refused_with_its_line()
    test_every_sequence_can_be_read()
    for words in [*some(SHORT), *(long_rows() if os.environ.get("SXM_LONG") else [])]:
        play(words)


main()
