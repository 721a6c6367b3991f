#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk moves from host A to host B while everything goes wrong, again and again.

    ./run tests/e2e/stress.py [--seed S] [--first N] [--rounds N] [--seconds S] [--only KIND,KIND] [--go-on] [--verbose]

A round is a new disk: a guest writes stamps at A, Data.mirror to B, faults at random for --seconds, then all is healed and the
mirror must be complete (or have failed for a reason that a fault explains; then there is another); the barrier, perhaps with a
fault in it, perhaps taken back once (the guest reboots); then both images are the same, byte by byte, B's guest goes on, and
not one of its acknowledged writes is lost. The guest may never see an error, and may wait longer than BOUND_MS only for a
fault of its own side.

Every choice of round N comes from "S.N": --seed S --first N --rounds 1 plays it again, as far as time allows. When a round
fails it says what was done when, and everything is kept.

Needs root: it runs in network, mount and process namespaces of its own, which end with it.

    A: this process' own network            B: a network of its own
    10.83.0.1 =============================== 10.83.0.2      SR and SXM_RUN_DIR of each on a tmpfs; B's can be filled
        '-- relay.py, 127.0.0.1 --'
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

INNER = "SXM_STRESS_INNER"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ.get("SXM_SRCDIR", ""), "tests", "lib"))
from smapi import Refused, say, skip  # noqa: E402
from stress_hosts import HEARTBEAT, JOURNAL, Failed, Site, command, now  # noqa: E402
from stress_round import Round  # noqa: E402


def watch_logs():
    while True:
        JOURNAL.look()
        time.sleep(0.01)


def keep(top, sites, number, seed, why):
    kept = tempfile.mkdtemp(prefix="sxm-stress.", dir=os.environ.get("SXM_STRESS_KEEP", "/var/tmp"))
    text = JOURNAL.text()
    with open(f"{kept}/journal", "w", encoding="utf-8") as f:
        f.write(f"--seed {seed} --first {number}: {why}\n{text}")
    for name in "guest.log", "guest.out", "guest.uri":
        if os.path.exists(f"{top}/{name}"):
            shutil.copy(f"{top}/{name}", kept)
    for site in sites:
        subprocess.run(["cp", "-r", "--sparse=always", f"{site.dir}/sr", f"{kept}/{site.name}"], check=False)
        for name in os.listdir(site.run_dir):
            if name.endswith(".log"):
                shutil.copy(f"{site.run_dir}/{name}", f"{kept}/{site.name}-{name}")
    print(text)
    say(f"FAILED: round {number} of seed {seed}: {why}")
    say(f"again: --seed {seed} --first {number} --rounds 1; kept: {kept}")


def play_rounds(options, top):
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    a, b = Site("A", top, "10.83.0.1"), None
    while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    b = Site("B", top, "10.83.0.2", holder.pid)
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", "veth", "type", "veth", "peer", "name", "veth", "netns", str(holder.pid))
    for site in a, b:
        command(*site.net, "ip", "addr", "add", site.address + "/30", "dev", "veth")
        command(*site.net, "ip", "link", "set", "veth", "up")
    HEARTBEAT.start()
    threading.Thread(target=watch_logs, daemon=True).start()
    for number in range(options.first, options.first + options.rounds):
        JOURNAL.__init__()
        r, why = Round(number, options.seed, options, (a, b), top), None
        try:
            r.play()
        except (Failed, Refused, AssertionError, subprocess.SubprocessError, OSError, SystemExit) as e:
            why = f"{type(e).__name__}: {e}"
            JOURNAL.add("FAILED: " + why)
        r.end()
        if why:
            keep(top, (a, b), number, options.seed, why)
            if not options.go_on:
                return 1
        else:
            say(f"round {number}: {now() - JOURNAL.start:.1f} s, {len(r.faults.seen)} kinds of faults, {r.failures} failed mirrors, "
                f"{r.reclaims} taken back, longest unexcused wait {r.slowest_ms:.0f} ms")
        if options.verbose:
            print(JOURNAL.text())
        for site in a, b:
            site.finish()
        options.bad += bool(why)
    return 1 if options.bad else 0


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", default=None)
    p.add_argument("--first", type=int, default=0)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=4)
    p.add_argument("--only", type=lambda s: s.split(","))
    p.add_argument("--go-on", action="store_true", help="after a round that failed")
    p.add_argument("--verbose", action="store_true")
    options = p.parse_args()
    options.seed = options.seed or str(random.SystemRandom().randrange(1 << 32))
    options.bad = 0
    return options


def main():
    options = parse()
    if not os.environ.get(INNER):
        if os.geteuid():
            skip("only root can do this")
        wall = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*wall, "ip", "link", "add", "sxm0", "type", "veth", "peer", "name", "sxm1"], check=False,
                          capture_output=True).returncode:
            skip("no namespaces here")
        os.environ[INNER] = "1"
        # The shell is the first process there: it reaps.
        os.execvp("unshare", [*wall, "bash", "-c", '"$@"; exit $?', "bash", sys.executable, os.path.abspath(__file__), *sys.argv[1:],
                              *([] if "--seed" in sys.argv else ["--seed", options.seed])])
    say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="sxm.") as top:
        try:
            return play_rounds(options, top)
        finally:
            subprocess.run(["umount", "-l", "-R", f"{top}/A/sr", f"{top}/A/run", f"{top}/B/sr", f"{top}/B/run"], check=False,
                           capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
