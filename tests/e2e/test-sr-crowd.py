#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""An SR with many verbs at once, and one with many volumes: no change is lost, nothing waits for ever, SR.ls is complete whenever it is
asked; and what is asked often is answered soon."""
import concurrent.futures
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import DATAPATH, Host, Refused, say  # noqa: E402

AT_ONCE = 32
ROUNDS = int(os.environ.get("SXM_CROWD_ROUNDS", "3"))
MIB = 1 << 20
host = Host()


class Crowd:
    """What is to be true in the end is noted as the verbs succeed."""

    def __init__(self, kind, sr, seed):
        self.can_share, self.sr, self.random = kind == "reflink", sr, random.Random(seed)
        self.shared = [host.make_volume(sr, MIB)["key"] for _ in range(3)]
        self.present = set(self.shared)  # for as long as the crowd is there
        self.lock = threading.Lock()
        self.keys, self.sizes, self.names = {k: {} for k in self.shared}, {k: MIB for k in self.shared}, {k: set() for k in self.shared}
        self.sr_names = set()
        self.made, self.destroyed, self.own = set(), set(), {}

    def jobs(self):
        jobs = []
        for i in range(AT_ONCE):
            key = self.random.choice(self.shared)
            kinds = [self.set, self.name, self.resize, self.create, self.create_and_destroy, self.ls, self.copy, self.sweep, self.name_sr]
            if self.can_share:
                kinds += [self.snapshot, self.clone, self.revert]
            jobs.append((self.random.choice(kinds), key, i))
        return jobs

    def call(self, verb, **args):
        return host.call(verb, sr=self.sr, **args)

    def set(self, key, i):
        for n in range(3):
            self.call("Volume.set", key=key, k=f"k{i}", v=str(n))
        with self.lock:
            self.keys[key][f"k{i}"] = "2"

    def name(self, key, i):
        with self.lock:
            self.names[key].add(f"name {i}")
        self.call("Volume.set_name", key=key, new_name=f"name {i}")

    def name_sr(self, _, i):
        with self.lock:
            self.sr_names.add(f"sr {i}")
        self.call("SR.set_name", new_name=f"sr {i}")

    def resize(self, key, i):
        size = MIB + 4096 * (i + 1)
        try:
            self.call("Volume.resize", key=key, new_size=size)
        except Refused as e:
            # Of two at once the larger may come first; and a revert makes it small again under whoever grows it.
            assert "can only grow" in str(e) or "in use" in str(e), e
        with self.lock:
            self.sizes[key] = max(self.sizes[key], size)

    def made_of(self, key, verb, **more):
        try:
            new = self.call(verb, key=key, **more)["key"]
        except Refused as e:
            assert "in use" in str(e), e  # it is being reverted, or grown
            return
        with self.lock:
            self.made.add(new)

    def snapshot(self, key, i):
        self.made_of(key, "Volume.snapshot")

    def clone(self, key, i):
        self.made_of(key, "Volume.clone")

    def copy(self, key, i):
        self.made_of(key, "Volume.copy", dest_sr=self.sr)

    def revert(self, key, i):
        own = host.make_volume(self.sr, MIB)["key"]
        snapshot = self.call("Volume.snapshot", key=own)["key"]
        self.call("Volume.revert", key=own, snapshot=snapshot)
        with self.lock:
            self.made |= {own, snapshot}

    def create(self, key, i):
        new = host.make_volume(self.sr, MIB)["key"]
        with self.lock:
            self.made.add(new)

    def create_and_destroy(self, key, i):
        new = host.make_volume(self.sr, MIB)["key"]
        self.call("Volume.destroy", key=new)
        with self.lock:
            self.destroyed.add(new)

    def ls(self, key, i):
        for _ in range(3):
            with self.lock:
                want = set(self.present) | self.made
            seen = {v["key"]: v for v in self.call("SR.ls")}
            assert want <= set(seen), f"SR.ls left out {want - set(seen)}"
            assert all(v["name"] and v["virtual_size"] >= MIB for v in seen.values()), seen

    def sweep(self, key, i):
        host.call("SR.attach", configuration={"uri": self.sr})

    def check(self):
        seen = {v["key"]: v for v in self.call("SR.ls")}
        assert set(seen) == self.present | self.made and not self.destroyed & set(seen), set(seen) ^ (self.present | self.made)
        for key in self.shared:
            v = seen[key]
            assert {k: v["keys"].get(k) for k in self.keys[key]} == self.keys[key], (v, self.keys[key])
            assert v["virtual_size"] == self.sizes[key], (v, self.sizes[key])
            assert v["name"] in (self.names[key] or {"v"}), (v, self.names[key])
        assert host.call("SR.stat", sr=self.sr)["name"] in (self.sr_names or {"n"})
        names = {n.split(".")[0] for n in os.listdir(self.sr.removeprefix("file://"))} - set(seen) - {"sxm-sr"}
        assert not names, f"left behind: {names}"


def test_verbs_at_once():
    for kind in ("plain", "reflink"):
        directory = host.make_place(kind)
        if not directory:
            say(f"  {kind}: left out, this needs root, losetup and mkfs.xfs")
            continue
        for n in range(ROUNDS):
            seed = random.randrange(1 << 32)
            crowd = Crowd(kind, host.make_sr(f"{kind}/sr{n}"), seed)
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
                for done in [pool.submit(*job) for job in crowd.jobs()]:
                    try:
                        done.result()
                    except Exception:
                        say(f"  {kind}, seed {seed}")
                        raise
            say(f"  {kind}: {AT_ONCE} at once in {time.monotonic() - start:.2f} s, seed {seed}")
            crowd.check()


# --- speed

def median_ms(verb, count, **args):
    plugin = DATAPATH if verb.startswith("Data") else host.volume
    times = []
    for _ in range(count):
        start = time.monotonic()
        host.run(f"{plugin}/{verb}", json.dumps({**args, "dbg": ""}))
        times.append((time.monotonic() - start) * 1000)
    return sorted(times)[count // 2]


def test_what_is_asked_often_is_answered_soon():
    sr = host.make_sr("many")  # on a disk
    directory = sr.removeprefix("file://")
    v = host.make_volume(sr)
    for k, value in (("vdi-type", "user"), ("snapshot_time", "19700101T00:00:00Z"), ("_sm_config_x", "y" * 40)):
        host.call("Volume.set", sr=sr, key=v["key"], k=k, v=value)
    with open(os.path.join(directory, v["key"] + ".json")) as f:
        record = f.read()
    for _ in range(999):
        key = str(uuid.uuid4())
        with open(os.path.join(directory, key + ".json"), "w") as f:
            f.write(record.replace(v["key"], key))
        with open(os.path.join(directory, key + ".raw"), "w") as f:
            f.truncate(MIB)
    assert len(host.call("SR.ls", sr=sr)) == 1000
    host.call("Datapath.attach", uri=v["uri"][0], domain="1")
    # The limits are those of a wait that should not be there: a loaded machine is no failure.
    for verb, asked_ms, limit_ms, count, args in (("SR.ls", 100, 2000, 9, {"sr": sr}), ("Volume.stat", 5, 900, 21, {"sr": sr, "key": v["key"]}),
                                                  ("Datapath.attach", 5, 900, 21, {"uri": v["uri"][0], "domain": "1"})):
        took_ms = median_ms(verb, count, **args)
        say(f"  {verb}, of 1000 volumes: median {took_ms:.1f} ms (asked: {asked_ms})")
        assert took_ms < limit_ms
    host.call("Datapath.detach", uri=v["uri"][0], domain="1")


for name, test in list(globals().items()):
    if name.startswith("test_") and all(word in name for word in sys.argv[1:]):
        say(name[5:].replace("_", " "))
        test()
