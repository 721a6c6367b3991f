#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every verb that changes an SR is killed just before its 1st, 2nd, 3rd... change of a file system, until it runs through. After
each kill: what SR.ls shows is the state before or the state after, whole, every volume with its bytes; the verb, called again,
does its work; and then nothing lies in the SR that does not belong there, nor if the SR was only attached anew.

And once more with a file system that is full from its 1st, 2nd, 3rd... change on: that is said, and nothing is left.

A verb is a row in CASES. SXM_CRASH_LONG=1: also the rows that take long."""
import collections
import dataclasses
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import typing

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests", "lib"))
from smapi import DATAPATH, IS_BRIEF, Host, Refused, check, say, skip  # noqa: E402
from tapdisk_client import Client, pass_socket  # noqa: E402

CRASH = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/crash")
KILLED = 137
IS_LONG = os.environ.get("SXM_CRASH_LONG") == "1"
HOURS_AGO = (1, 1)
BLOCK = 65536
host = Host()
numbers = itertools.count()
# No leak is looked for under ptrace, which the checker needs itself.
host.env["ASAN_OPTIONS"] = "detect_leaks=0:" + host.env.get("ASAN_OPTIONS", "")


@dataclasses.dataclass
class Case:
    """verb, killed everywhere, with what args(world) gives."""
    name: str
    verb: str
    args: typing.Callable
    kinds: tuple = ("reflink", "plain")
    prepare: typing.Callable = lambda w: None  # before the verb, each time
    finish: typing.Callable = lambda w: None  # when all was looked at
    srs: tuple = ("sr",)  # which of the world's SRs it is about
    is_of_sr: bool = False  # before or after it there is no SR to be attached
    is_long: bool = False
    done_says: str = ""  # how it is refused when it was done before
    # What may be seen besides, of (before, after): the next SR.attach, and the verb called again, make the new state of it.
    between: typing.Callable = lambda before, after: None


class World:
    """Two SRs in a directory of their own, which is copied for each kill."""

    def __init__(self, place, name):
        self.name, self.dir = name, os.path.join(place, name)
        self.sr, self.other, self.fresh = (f"file://{self.dir}/{n}" for n in ("sr", "other", "fresh"))

    def copy(self, name):
        w = World(os.path.dirname(self.dir), name)
        subprocess.run(["cp", "-a", "--reflink=auto", self.dir, w.dir], check=True)
        for member in ("key", "known", "names", "without_data", "is_stat_wanted"):
            setattr(w, member, getattr(self, member))
        return w

    @property
    def looked_at(self):
        return [getattr(self, name) for name in self.names]

    def remove(self):
        shutil.rmtree(self.dir)

    def image(self, key):
        return os.path.join(self.dir, "sr", key + ".raw")

    def uri(self, name):
        return "sxm://" + self.image(self.key[name])

    # --- what it is like

    def sr_state(self, handle):
        """What SR.ls and SR.stat show, in a form that two runs of a verb agree in; or that there is no SR."""
        try:
            volumes = host.call("SR.ls", sr=handle)
        except Refused as e:
            assert "SR_does_not_exist" in str(e), e
            return "no SR"
        stat = host.call("SR.stat", sr=handle) if self.is_stat_wanted else {"name": "", "description": ""}
        return stat["name"], stat["description"], sorted(self.volume_state(v) for v in volumes)

    def volume_state(self, v):
        keys = dict(v["keys"])
        path = v["uri"][0].removeprefix("sxm://")
        digest = "no data"
        if os.path.exists(path) or v["key"] not in self.without_data:
            with open(path, "rb") as f:
                digest = hashlib.sha256(f.read()).hexdigest()
            assert os.stat(path).st_size == v["virtual_size"], v
        assert v["uuid"] == v["key"], v
        content_id = keys.pop("content_id")
        assert content_id, v
        assert digest == "no data" or self.known.get(content_id, digest) == digest, f"content_id {content_id} is that of other bytes: {v}"
        keys.pop("snapshot_time", None)
        name = {key: name for name, key in self.key.items()}.get(v["key"], "new")
        # Whether the data is there of what is to lose it is no matter: nobody can read it.
        digest = "no data" if v["key"] in self.without_data else digest
        return (name, v["name"], v["description"], v["read_write"], v["sharable"], v["virtual_size"], v["cbt_enabled"], digest,
                sorted(keys.items()))

    def state(self):
        return [self.sr_state(handle) for handle in self.looked_at]

    def files(self):
        """The names of all that is there; what has a new key has none."""
        found = collections.Counter()
        for directory, _, names in os.walk(self.dir):
            for name in names:
                for key in re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", name):
                    name = name.replace(key, {key: name for name, key in self.key.items()}.get(key, "new"))
                # The log of a volume that is no more belongs to the next one in the chain, until it is merged into that.
                if name != "new.cbt":
                    found[os.path.join(os.path.relpath(directory, self.dir), name)] += 1
        return found

    def attach_all(self):
        """As at the next start of the host, an hour later: what verbs half did is swept away."""
        for directory, _, names in os.walk(self.dir):
            for name in names:
                if name.endswith(".tmp"):
                    os.utime(os.path.join(directory, name), HOURS_AGO)
        for handle in self.looked_at:
            if os.path.exists(handle.removeprefix("file://") + "/sxm-sr.json"):
                host.call("SR.attach", configuration={"uri": handle})


def make_base(place, can_share):
    w = World(place, "base")
    os.mkdir(w.dir)
    w.key, w.known, w.names, w.without_data, w.is_stat_wanted = {}, {}, ("sr",), set(), True
    for i, name in enumerate(("sr", "other")):
        host.make_sr(f"{os.path.relpath(w.dir, host.dir)}/{name}", uuid=f"0a0b0c0d-1111-2222-3333-44445555000{i}")
    os.mkdir(os.path.join(w.dir, "fresh"))
    for i, name in enumerate(("a", "b")):
        w.key[name] = host.make_volume(w.sr, 2 * BLOCK)["key"]
        with open(w.image(w.key[name]), "r+b") as f:
            f.write(bytes([i + 1]) * BLOCK)
        host.call("Volume.set", sr=w.sr, key=w.key[name], k="vdi-type", v="user")
    if can_share:
        w.key["s"] = host.call("Volume.snapshot", sr=w.sr, key=w.key["a"])["key"]
    else:
        w.key["s"] = host.call("Volume.copy", sr=w.sr, key=w.key["a"], dest_sr=w.sr)["key"]
    with open(w.image(w.key["a"]), "r+b") as f:  # and away from its snapshot
        f.write(b"\7" * BLOCK)
    host.call("Volume.set", sr=w.sr, key=w.key["a"], k="content_id", v="of-a-now")
    for v in host.call("SR.ls", sr=w.sr):
        with open(w.image(v["key"]), "rb") as f:
            w.known[v["keys"]["content_id"]] = hashlib.sha256(f.read()).hexdigest()
    return w


# --- killing

def call(case, w):
    try:
        host.call(case.verb, **case.args(w))
    except Refused as e:
        if not case.done_says or case.done_says not in str(e):
            raise


def call_killed(case, w, n):
    """None: it ran through. Else what it was about to do."""
    log = os.path.join(host.dir, "changes")
    plugin = DATAPATH if case.verb.startswith("Data") else host.volume
    host.prefix = (CRASH, "-o", log, str(n))
    try:
        done = host.run(f"{plugin}/{case.verb}", json.dumps({**case.args(w), "dbg": "killed"}))
    finally:
        host.prefix = ()
    if done.returncode == KILLED:
        with open(log) as f:
            return f.read().splitlines()[-1]
    assert done.returncode == 0, (case.name, n, done)
    return None


def left_behind(w, now, expected, listings):
    """What lies there that is of none of the states that look like this."""
    left = [w.files() - listing for state, listing in zip(expected, listings) if state == now]
    return dict(min(left, key=len))


def check_killed(case, w, expected, listings):
    before, after, twice = expected
    now, between = w.state(), case.between(before, after)
    assert now in (before, after, between), f"neither the old nor the new state: {now}\nold: {before}\nnew: {after}"
    if not case.is_of_sr:
        swept = w.copy(w.name + "-swept")
        swept.attach_all()
        assert swept.state() == (after if now == between else now), "the sweep changed something that is seen"
        left = left_behind(swept, after if now == between else now, expected, listings)
        assert not left, f"not swept away: {left}"
        swept.remove()
    call(case, w)
    again = w.state()
    assert again == after or (now == after and again == twice), f"called again: {again}\nnew: {after}"
    w.attach_all()
    left = left_behind(w, again, expected, listings)
    assert not left, f"left behind: {left}"


def call_full(case, w, n):
    """The SR's file system is full from the n-th change on. False: it never came so far."""
    log = os.path.join(host.dir, "changes")
    plugin = DATAPATH if case.verb.startswith("Data") else host.volume
    host.prefix = (CRASH, "-f", "-o", log, "-u", w.dir, str(n))
    try:
        done = host.run(f"{plugin}/{case.verb}", json.dumps({**case.args(w), "dbg": "full"}))
    finally:
        host.prefix = ()
    with open(log) as f:
        changes = len(f.readlines())
    if changes < n:
        return None
    if done.returncode:
        report = json.loads(done.stdout)
        check("error_report", report)
        assert report["code"] == "SR_BACKEND_FAILURE_44", report
    return done


def check_full(case, w, done, expected, listings):
    now = w.state()
    between = case.between(*expected[:2])
    assert now in (*expected[:2], between), f"neither the old nor the new state: {now}\nold: {expected[0]}\nnew: {expected[1]}"
    # What could not be made durable is there all the same, and said to have failed: a second call finds it done.
    assert now == expected[1] or done.returncode, "said to be done"
    left = left_behind(w, now, expected, listings) if now != between else None
    assert not left, f"left behind: {left}"
    call(case, w)
    if now == between:
        assert w.state() == expected[1], "called again it is not done"


def every():
    """1, 2, 3... the changes before which a verb is killed; in a brief run every fourth, others each time."""
    stride = 4 if IS_BRIEF else 1
    return range(random.randrange(stride) + 1, 1000, stride)


def run_case(case, base):
    def fresh():
        w = base.copy(f"w{next(numbers)}")
        w.names, w.is_stat_wanted = case.srs, case.verb.startswith("SR.")
        case.prepare(w)
        return w

    whole = fresh()
    expected, listings = [whole.state()], [whole.files()]
    for _ in range(2):
        call(case, whole)
        expected.append(whole.state())
        listings.append(whole.files())
    case.finish(whole)
    whole.remove()
    for n in every():
        w = fresh()
        done = call_full(case, w, n)
        if done:
            try:
                check_full(case, w, done, expected, listings)
            except (AssertionError, Refused) as e:
                raise AssertionError(f"{case.name}, full from change {n} on: {e}") from e
        case.finish(w)
        w.remove()
        if not done:
            break
    for n in every():
        w = fresh()
        what = call_killed(case, w, n)
        if what:
            try:
                check_killed(case, w, expected, listings)
            except (AssertionError, Refused) as e:
                raise AssertionError(f"{case.name}, killed before {what}: {e}") from e
        case.finish(w)
        w.remove()
        if not what:
            return n - 1
    raise AssertionError(f"{case.name} does not end")


# --- the verbs

def of(name, **more):
    """The arguments of a verb about that volume."""
    return lambda w: {"sr": w.sr, "key": w.key[name], **{k: v(w) if callable(v) else v for k, v in more.items()}}


def put_beside(w):
    """What a datapath leaves beside an image that it has let go of."""
    with open(w.image(w.key["b"]) + ".marks", "wb") as f:
        f.write(b"x")


def empty(w):
    for v in host.call("SR.ls", sr=w.sr):
        host.call("Volume.destroy", sr=w.sr, key=v["key"])


def track(w):
    host.call("Volume.enable_cbt", sr=w.sr, key=w.key["a"])


def track_and_snapshot(w):
    track(w)
    w.key = {**w.key, "t": host.call("Volume.snapshot", sr=w.sr, key=w.key["a"])["key"]}
    w.without_data = {w.key["t"]}


def activate(w):
    for verb in ("attach", "activate"):
        host.call("Datapath." + verb, uri=w.uri("a"), domain="1")


def deactivate(w):
    for verb in ("deactivate", "detach"):
        host.call("Datapath." + verb, uri=w.uri("a"), domain="1")


def make_leaf(w):
    """Of the size of b, never written to."""
    v = host.make_volume(w.sr, 2 * BLOCK)
    w.key = {**w.key, "leaf": v["key"]}
    w.known = {**w.known, v["keys"]["content_id"]: hashlib.sha256(bytes(2 * BLOCK)).hexdigest()}
    w.without_data = {w.key["b"]}


def mirror_to_leaf(w):
    """As from a SMAPIv1 host: what is mirrored lies beside the leaf."""
    make_leaf(w)
    uri = w.uri("leaf")
    for verb in ("attach", "activate"):
        host.call("Datapath." + verb, uri=uri, domain="MIR1")
    ours, theirs = socket.socketpair()
    pass_socket(host.call("Datapath.import_activate", uri=uri, domain="MIR1"), theirs, "5b0e6d3c-2222-3333-4444-555566667777")
    client = Client(ours, 2 * BLOCK)
    client.open()
    client.write(512, b"m" * 512)
    client.pause()
    ours.close()
    for verb in ("deactivate", "detach"):
        host.call("Datapath." + verb, uri=uri, domain="MIR1")
    assert os.path.exists(w.image(w.key["leaf"]) + ".overlay")


def has_both(before, after):
    """The leaf is what it is to be, and what it took is still listed."""
    (name, description, volumes), = after
    return [(name, description, sorted([*volumes, *(v for v in before[0][2] if v[0] == "b")]))]


def compose(name, prepare):
    return Case(f"Volume.compose, {name}", "Volume.compose", lambda w: {"sr": w.sr, "key": w.key["leaf"], "key2": w.key["b"]}, kinds=("plain",),
                prepare=prepare, done_says="Volume_does_not_exist", between=has_both)


CASES = [
    Case("SR.create", "SR.create", lambda w: {"uuid": "0a0b0c0d-1111-2222-3333-444455550009", "name": "n", "description": "d",
                                              "configuration": {"uri": w.fresh}}, kinds=("plain",), srs=("fresh",), is_of_sr=True),
    Case("SR.attach", "SR.attach", lambda w: {"configuration": {"uri": w.sr}}, kinds=("plain",)),
    Case("SR.detach", "SR.detach", lambda w: {"sr": w.sr}, kinds=("plain",),
         prepare=lambda w: host.call("SR.attach", configuration={"uri": w.sr})),
    Case("SR.destroy", "SR.destroy", lambda w: {"sr": w.sr}, kinds=("plain",), prepare=empty, is_of_sr=True),
    Case("SR.set_name", "SR.set_name", lambda w: {"sr": w.sr, "new_name": "other"}, kinds=("plain",)),
    Case("SR.set_description", "SR.set_description", lambda w: {"sr": w.sr, "new_description": "other"}, kinds=("plain",)),
    Case("Volume.create", "Volume.create", lambda w: {"sr": w.sr, "name": "c", "description": "", "size": BLOCK, "sharable": False},
         kinds=("plain",)),
    Case("Volume.destroy", "Volume.destroy", of("b"), kinds=("plain",), prepare=put_beside),
    Case("Volume.destroy, a snapshot", "Volume.destroy", of("s"), kinds=("reflink",)),
    Case("Volume.set", "Volume.set", of("a", k="tag", v="x"), kinds=("plain",)),
    Case("Volume.unset", "Volume.unset", of("a", k="vdi-type"), kinds=("plain",)),
    Case("Volume.set_name", "Volume.set_name", of("a", new_name="x"), kinds=("plain",)),
    Case("Volume.set_description", "Volume.set_description", of("a", new_description="x"), kinds=("plain",)),
    Case("Volume.resize", "Volume.resize", of("a", new_size=4 * BLOCK), kinds=("plain",)),
    Case("Volume.snapshot", "Volume.snapshot", of("a"), kinds=("reflink",)),
    Case("Volume.clone", "Volume.clone", of("s"), kinds=("reflink",)),
    Case("Volume.copy", "Volume.copy", of("a", dest_sr=lambda w: w.sr)),
    Case("Volume.copy, to another SR", "Volume.copy", of("a", dest_sr=lambda w: w.other), kinds=("reflink",), srs=("sr", "other")),
    Case("Volume.revert", "Volume.revert", lambda w: {"sr": w.sr, "snapshot": w.key["s"], "key": w.key["a"]}),
    compose("never written to", make_leaf),
    compose("mirrored to", mirror_to_leaf),
    Case("Volume.enable_cbt", "Volume.enable_cbt", of("b"), kinds=("plain",)),
    Case("Volume.disable_cbt", "Volume.disable_cbt", of("a"), kinds=("plain",), prepare=track),
    Case("Volume.snapshot, tracked", "Volume.snapshot", of("a"), kinds=("reflink",), prepare=track),
    Case("Volume.data_destroy", "Volume.data_destroy", of("t"), kinds=("reflink",), prepare=track_and_snapshot),
    Case("Volume.snapshot, in use", "Volume.snapshot", of("a"), kinds=("reflink",), prepare=activate, finish=deactivate),
    Case("Volume.resize, in use", "Volume.resize", of("a", new_size=4 * BLOCK), kinds=("plain",), prepare=activate, finish=deactivate),
]


def main():
    if subprocess.run([CRASH, "0", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        skip("this needs ptrace")
    chosen = sys.argv[1:]
    for kind in ("plain", "reflink"):
        place = host.make_place(kind)
        if not place:
            say(f"{kind}: left out, this needs root, losetup and mkfs.xfs")
            continue
        base = make_base(place, kind == "reflink")
        for case in CASES:
            if kind in case.kinds and (IS_LONG or not case.is_long) and (not chosen or case.name in chosen):
                say(f"{kind}: {case.name}: killed at {run_case(case, base)} places")


main()
