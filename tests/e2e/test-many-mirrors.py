#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many mirrors at once on one host: all end, each in its fair part of the time, in bounded memory; and together they send no more than the
host may (SXM_RUN_DIR/bandwidth), whoever comes and goes. Four of them; with SXM_LONG sixteen."""
import concurrent.futures
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import Host, is_sanitized, nbd_of, say, until_true  # noqa: E402

MIB = 1 << 20
COUNT = 16 if "SXM_LONG" in os.environ else 4
EACH, LIMIT = 12 * MIB, 4 * COUNT * MIB  # bytes a second, of all: three seconds
here, there = Host(), Host()
for host in (here, there):
    host.in_memory("sr")
    os.mkdir(os.path.join(host.dir, "sr", "d"))
sr, far_sr = (host.make_sr("d", uri=f"file://{host.dir}/sr/d") for host in (here, there))


def set_limit(text):
    path = os.path.join(here.run_dir, "bandwidth")
    if text is None:
        os.unlink(path)
        return
    with open(path + ".new", "w") as f:
        f.write(text + "\n")
    os.chmod(path + ".new", 0o600)
    os.rename(path + ".new", path)


class Mirror:
    def __init__(self, number):
        volume, far = here.make_volume(sr, 2 * EACH), there.make_volume(far_sr, 2 * EACH)
        self.key, self.uri, self.far_uri = volume["key"], volume["uri"][0], far["uri"][0]
        with open(self.uri.removeprefix("sxm://"), "r+b") as f:
            f.write(os.urandom(EACH))
        self.socket, self.export = nbd_of(there.call("Datapath.attach", uri=self.far_uri, domain=f"MIR{number:06x}"))
        there.call("Datapath.activate", uri=self.far_uri, domain=f"MIR{number:06x}")
        here.call("Datapath.attach", uri=self.uri, domain=str(number + 1))
        here.call("Datapath.activate", uri=self.uri, domain=str(number + 1))
        self.domain = str(number + 1)

    def start(self):
        self.began = time.monotonic()
        self.operation = here.call("Data.mirror", uri=self.uri, domain=self.domain, remote=f"nbd+unix:///{self.export}?socket={self.socket}")

    def wait(self):
        """Seconds until it was complete."""
        while not (status := here.call("Data.stat", operation=self.operation))["complete"]:
            assert not status["failed"], status
        return time.monotonic() - self.began

    def status(self):
        return here.control(self.key, "status")["ok"]

    def end(self):
        here.call("Datapath.deactivate", uri=self.uri, domain=self.domain)
        with open(self.uri.removeprefix("sxm://"), "rb") as a, open(self.far_uri.removeprefix("sxm://"), "rb") as b:
            assert a.read() == b.read()
        here.call("Datapath.detach", uri=self.uri, domain=self.domain)
        here.call("Data.destroy", operation=self.operation)


def set_own_limit(mirror, text):
    path = os.path.join(here.run_dir, mirror.status()["id"], "bandwidth")
    with open(path + ".new", "w") as f:
        f.write(text + "\n")
    os.chmod(path + ".new", 0o600)
    os.rename(path + ".new", path)


def limit_of(mirror):
    return mirror.status()["operations"][-1]["limit_bytes"]


def test_all_end_in_their_fair_part_of_the_time():
    set_limit(f"{LIMIT // MIB}MiB")
    mirrors = [Mirror(n) for n in range(COUNT)]
    with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
        list(pool.map(Mirror.start, mirrors))
        waiting = [pool.submit(m.wait) for m in mirrors]
        until_true("each has its share", lambda: all(0.9 < limit_of(m) / (LIMIT / COUNT) < 1.1 for m in mirrors))
        took = sorted(w.result() for w in waiting)
    fair = COUNT * EACH / LIMIT
    say(f"  {COUNT} of them, fair {fair:.2f} s, took {took[0]:.2f} to {took[-1]:.2f} s")
    assert took[-1] <= 1.3 * fair, f"not every mirror was done in 1.3 times its fair part: {took}"
    assert took[-1] >= 0.75 * fair, f"together they sent more than the host may: {took}"
    memory = [m.status()["rss_bytes"] for m in mirrors]
    say(f"  {sum(memory) / MIB:.0f} MiB in all, {max(memory) / MIB:.1f} at most")
    assert is_sanitized() or sum(memory) <= COUNT * 64 * MIB, memory
    for m in mirrors:
        m.end()


def test_what_one_leaves_is_the_others():
    """One alone has all of it, two a half each; without the file there is no limit, and nonsense in it is none."""
    set_limit("4MiB")
    first, second = Mirror(100), Mirror(101)
    first.start()
    until_true("one has all", lambda: limit_of(first) == 4 * MIB)
    second.start()
    until_true("two have a half each", lambda: limit_of(first) == limit_of(second) == 2 * MIB)
    here.call("Data.cancel", operation=second.operation)
    until_true("one has all again", lambda: limit_of(first) == 4 * MIB)
    for text in ("much", None):
        set_limit(text)
        until_true("there is none", lambda: limit_of(first) == 0)
    first.wait()
    first.end()


def test_a_disk_may_have_a_limit_of_its_own():
    """The lower one counts, and the rest is the others'; with the process it goes."""
    set_limit("4MiB")
    first, second = Mirror(200), Mirror(201)
    first.start()
    set_own_limit(first, "1MiB")
    second.start()
    until_true("each has what it may", lambda: (limit_of(first), limit_of(second)) == (MIB, 3 * MIB))
    set_own_limit(first, "1GiB")
    until_true("two have a half each", lambda: limit_of(first) == limit_of(second) == 2 * MIB)
    set_own_limit(first, "1MiB")
    set_limit(None)
    until_true("only its own is left", lambda: (limit_of(first), limit_of(second)) == (MIB, 0))
    second.wait()
    second.end()
    directory = os.path.join(here.run_dir, first.status()["id"])
    here.call("Data.cancel", operation=first.operation)
    for verb in ("deactivate", "detach"):
        here.call("Datapath." + verb, uri=first.uri, domain=first.domain)
    until_true("its directory goes, and the file with it", lambda: not os.path.exists(directory))


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
