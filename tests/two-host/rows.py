# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests on the stage share: one play, as a row of words."""
import os
import random
import subprocess
import sys
import time

STAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sxm-stage")
XFS = ["--sr-type", "xfs-ng", "--device-config", "device={device}"]
RAW, QCOW2 = ["--format", "raw"], ["--format", "qcow2"]


def some(rows):
    """All of them; a third, others each time, where all have been played before (tests/README)."""
    return rows[random.randrange(3)::3] if os.environ.get("SXM_BRIEF") == "2" else rows


def play(words):
    began = time.monotonic()
    done = subprocess.run([STAGE, "--quiet", "--size", "32M", *words], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        print(done.stderr.strip())
        sys.exit(77)
    assert done.returncode == 0, f"sxm-stage {' '.join(words)}: {done.stdout}{done.stderr}"
    print(f"{' '.join(words)}: {time.monotonic() - began:.1f} s", flush=True)
