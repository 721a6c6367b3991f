#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every failure of a storage migration on the stage: what a sequence f1 to f14 says is to be so afterwards, is. SXM_LONG: those that wait
for a lost link, too, and all with each format and with several disks."""
import itertools
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rows import QCOW2, RAW, play, some  # noqa: E402

QUICK = ["f1", "f1-lost", "f2-refused", "f3", "f5", "f5-lost", "f6", "f8", "f9", "f10", "f12", "f14", "f14-late", "late-proxy", "migrate-halted"]
SLOW = ["f2", "f4", "f7", "f11", "f13", "w10"]  # a lost link is given 10 s
SHORT = [
    [*RAW, "f1-lost"],
    [*QCOW2, "f3"],
    [*RAW, "--disks", "2", "f5-lost"],
    [*RAW, "f6"],
    [*QCOW2, "f8"],
    [*RAW, "f9"],
    [*RAW, "f10"],
    [*RAW, "f14"],
    [*RAW, "--disks", "2", "migrate-halted"],
]


def main():
    for words in some(SHORT):
        play(["--set", "doctor=yes", *words])
    if os.environ.get("SXM_LONG"):
        for name, form, disks in itertools.product(QUICK + SLOW, (RAW, QCOW2), ("1", "3")):
            play(["--set", "doctor=yes", *form, "--disks", disks, name])


main()
