#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a stream to another host costs: from a file in the page cache to an sshd on this machine, whose relay throws it away; over each
kind of carrier, and over a plain `ssh` pipe, taking turns.

    ./run tests/bench/carriers.py [--runs N] [--mib N] [--kinds ssh,ssh2,pipe,pipe:CIPHER]
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests", "lib"))
import sshd  # noqa: E402

TRY = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/carrier-try")
parser = argparse.ArgumentParser()
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--mib", type=int, default=2048)
parser.add_argument("--kinds", default="ssh2,ssh,pipe,pipe:aes128-gcm@openssh.com")
args = parser.parse_args()
if sshd.why_not():
    sys.exit(sshd.why_not())


def command(kind, config):
    if not kind.startswith("pipe"):
        return [TRY, "--kind", kind, "--config", config, "far", "pump"]
    cipher = kind.partition(":")[2]
    return ["ssh", "-F", config, *(["-c", cipher] if cipher else []), "far", "sxm relay"]


dir = tempfile.mkdtemp(prefix="sxm.", dir="/tmp")
rates = {kind: [] for kind in args.kinds.split(",")}
os.mkdir(os.path.join(dir, "bin"))
with open(os.path.join(dir, "bin", "sxm"), "w") as f:
    f.write("#!/bin/sh\ncat >/dev/null\necho done\n")
os.chmod(os.path.join(dir, "bin", "sxm"), 0o755)
data = os.path.join(dir, "data")
with open(data, "wb") as f:
    for _ in range(args.mib):
        f.write(os.urandom(1 << 20))
far = sshd.Sshd(os.path.join(dir, "far"), os.path.join(dir, "bin") + ":/usr/bin:/bin").start()
try:
    config = far.write_client_config()
    for _ in range(args.runs):
        for kind, found in rates.items():
            with open(data, "rb") as f:
                start = time.monotonic()
                cat = subprocess.Popen(["cat"], stdin=f, stdout=subprocess.PIPE)
                answer = subprocess.run(command(kind, config), stdin=cat.stdout, stdout=subprocess.PIPE, check=True).stdout
                found.append(args.mib / (time.monotonic() - start))
                assert cat.wait() == 0 and answer == b"done\n"
    for kind, found in rates.items():
        print(f"{kind:28} {statistics.median(found):5.0f} MiB/s   {' '.join(f'{rate:.0f}' for rate in found)}")
finally:
    far.stop()
    shutil.rmtree(dir)
