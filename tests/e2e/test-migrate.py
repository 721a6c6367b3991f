#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""`sxm migrate`: disks go to another host under a guest that writes. Whatever dies, and whenever, the move is finished or undone by a
second command, the guest's data is whole, and each disk has one owner."""
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests/lib"))
import sshd  # noqa: E402
from terminal import Terminal  # noqa: E402
from smapi import Host, ActiveDisk, SR_UUID, is_sanitized, nbd_of, read_slots, say, until_true

MiB = 1 << 20
SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
CRASH = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/crash")


class Side(Host):
    """A host with an SR, its own run and state directories, and an identity."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.env.update(SXM_STATE_DIR=os.path.join(self.dir, "state"), SXM_HOST_ID=f"host-{name}")
        self.sr_dir = self.in_memory("sr")
        self.sr = self.make_sr(uri=f"file://{self.sr_dir}", uuid=SR_UUID[:-1] + name[0])

    def env_words(self):
        return " ".join(f"{k}={self.env[k]}" for k in ("SXM_RUN_DIR", "SXM_STATE_DIR", "SXM_HOST_ID"))

    def keys(self):
        return sorted(n[:-5] for n in os.listdir(self.sr_dir) if n.endswith(".json") and n != "sxm-sr.json")

    def volume_of(self, key):
        return self.call("Volume.stat", sr=self.sr, key=key)

    def owner(self, key):
        path = os.path.join(self.sr_dir, key + ".raw.owner")
        if not os.path.exists(path):
            return "owned"
        return read_slots(path)["state"]


class Relay:
    """Asked by hand."""

    def __init__(self, side):
        self.process = subprocess.Popen([SXM, "relay"], env=side.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, verb, **args):
        self.process.stdin.write(json.dumps({"id": 1, "verb": verb, "args": args}) + "\n")
        self.process.stdin.flush()

    def has_answered(self):
        return select.select([self.process.stdout], [], [], 0)[0]

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        assert self.process.wait() == 0


def is_waited_for(path):
    """Somebody wants this file's lock."""
    if not os.path.exists(path):
        return False
    with open("/proc/locks") as f:
        return any("->" in line and f":{os.stat(path).st_ino} " in line for line in f)


class Move:
    """One guest with disks on A, to be moved to B."""

    def __init__(self, a, b, disks=1, size=24 * MiB, guest=True):
        self.a, self.b, self.count = a, b, disks
        self.before = set(b.keys())
        self.disks = [ActiveDisk(a, a.sr, size) for _ in range(disks)]
        for d in self.disks:
            d.fifo = os.path.join(a.dir, d.key + ".fifo")
            if guest:
                self.start_guest(d)

    @staticmethod
    def start_guest(d):
        """It reads the place it goes to from a FIFO, when its connection ends."""
        os.mkfifo(d.fifo)
        d.log = os.path.join(d.host.dir, d.key + ".log")
        d.process = subprocess.Popen([d.GUEST, "write", "--uri-file", d.fifo, "--log", d.log, "--depth", "8", "--slow", "200"],
                                     stdout=subprocess.PIPE, text=True)
        with open(d.fifo, "w") as f:
            f.write(d.nbd + "\n")
        until_true("the guest writes", lambda: os.path.exists(d.log) and os.path.getsize(d.log) > 100 * 24)

    def command(self, *args):
        via = f"env {self.b.env_words()} {SXM} relay"
        return [SXM, "migrate", "--via", via, "--patience", "20s", *args]

    def new(self, *args):
        return self.command(*args, *(d.uri for d in self.disks), f"b:{self.b.sr_dir}")

    def run(self, command, expect=0, stop=None, timeout=90):
        env = {**self.a.env, **({"SXM_MIGRATE_STOP": stop} if stop else {})}
        began = time.monotonic()
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
        if os.environ.get("SXM_TALK"):
            print(f"{time.monotonic() - began:.2f} s", command[3:], done.stdout, done.stderr)
        assert expect is None or done.returncode == expect, f"{command}: {done.returncode}, not {expect}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def run_until(self, place, command=None):
        """The command stands still there; killed."""
        p = subprocess.Popen(command or self.new(), env={**self.a.env, "SXM_MIGRATE_STOP": place},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        def stopped():
            assert p.poll() is None, f"{place}: it ended: {p.stdout.read()}"
            with open(f"/proc/{p.pid}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "T"
        until_true(f"it stands still where it is {place}", stopped, 60)
        p.send_signal(signal.SIGKILL)
        p.wait()

    def id(self):
        return self.record()["id"]

    def record(self):
        """The newest."""
        until_true("there is a record", self.records)
        return max(self.records(), key=lambda r: r["started_ms"])

    def records(self):
        place, found = os.path.join(self.a.dir, "state", "journeys"), []
        for n in os.listdir(place) if os.path.exists(place) else []:
            if n.endswith(".json"):
                with open(os.path.join(place, n)) as f:
                    found.append(json.load(f))
        return found

    def far_keys(self):
        return [k for k in self.b.keys() if k not in self.before]

    def verify(self, host, uri, d):
        """What a guest of that host reads is what this one had acknowledged."""
        sock, export = nbd_of(host.call("Datapath.attach", uri=uri, domain="9"))
        host.call("Datapath.activate", uri=uri, domain="9")
        if d.process:
            with open(d.fifo, "w") as f:
                f.write(f"nbd+unix:///{export}?socket={sock}\n")
            grown = os.path.getsize(d.log) + 50 * 24
            until_true("the guest goes on", lambda: os.path.getsize(d.log) > grown)
            d.process.terminate()
            out = d.process.communicate()[0]
            assert d.process.returncode == 0, out
            d.process = None
        if hasattr(d, "log"):
            done = subprocess.run([d.GUEST, "verify", "--uri", f"nbd+unix:///{export}?socket={sock}", "--log", d.log],
                                  capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        host.call("Datapath.deactivate", uri=uri, domain="9")
        host.call("Datapath.detach", uri=uri, domain="9")

    def moved(self, host="b"):
        record = self.record()
        for d, r in zip(self.disks, record["disks"]):
            self.a.call("Datapath.detach", uri=d.uri, domain="1")
            assert self.a.owner(d.key) == "given", self.a.owner(d.key)
            self.verify(self.b, r["far_uri"], d)
            assert self.b.owner(r["far_key"]) == "owned", self.b.owner(r["far_key"])
            v = self.b.volume_of(r["far_key"])
            assert v["name"] == "v" and v["description"] == "", v
            assert f"moved to {host}, kept until" in self.a.volume_of(d.key)["name"]
        self.run(self.command("--release", record["id"]))
        for d in self.disks:
            assert d.key not in self.a.keys()
        self.end()

    def stayed(self):
        """Aborted: nothing is left there, and the guest's disk is as it was."""
        assert not self.far_keys(), self.far_keys()
        for d in self.disks:
            assert self.a.owner(d.key) == "owned", self.a.owner(d.key)
            if d.process:
                grown = os.path.getsize(d.log) + 50 * 24
                until_true("the guest goes on", lambda: os.path.getsize(d.log) > grown)
                d.process.terminate()
                assert d.process.wait() == 0
                d.process = None
            self.a.call("Datapath.deactivate", uri=d.uri, domain="1")
            self.a.call("Datapath.detach", uri=d.uri, domain="1")
            self.verify(self.a, d.uri, d)
        self.end()

    def end(self):
        for d in self.disks:
            if d.key in self.a.keys():
                self.a.call("Datapath.detach", uri=d.uri, domain="1")
        for host in (self.a, self.b):
            for key in host.keys():
                host.call("Volume.destroy", sr=host.sr, key=key)


def a_disk_moves_under_its_guest(a, b):
    m = Move(a, b)
    out = m.run(m.new())
    assert "done" in out, out
    picture = subprocess.run([SXM, "report", m.id()], env=a.env, capture_output=True, text=True, check=True).stdout
    assert picture.startswith("<?xml") or picture.startswith("<svg"), picture[:200]
    assert "handed over" in picture and "held" in picture, picture
    m.moved()


def a_halted_disk_moves(a, b):
    m = Move(a, b, guest=False)
    d = m.disks[0]
    d.start()
    d.stop()
    d.deactivate()
    m.run(m.new("--no-verify"))
    m.moved()


def several_go_as_one(a, b):
    m = Move(a, b, disks=4, size=8 * MiB)
    m.run(m.new("--no-verify"))
    m.moved()


def says_what_became_of_them(m, out, how):
    """Whoever drove it until then."""
    lines = out.splitlines()
    assert [line[9:] for line in lines].count("v: moved") == m.count or sum("v: moved, 100 %" in line for line in lines) == m.count, out
    assert not any(line.startswith("00:00:00") or line.endswith(": -") for line in lines), out
    for d in m.record()["disks"]:
        assert any(how in line and line.endswith(d["far_uri"]) for line in lines), out


STEPS = ["planned", "made", "receiving", "mirrored", "synced", "verified", "begun", "prepared", "decided", "committed", "moved",
         "started", "kept"]
DECIDED = STEPS.index("decided")


def killed_and_resumed(a, b, place):
    m = Move(a, b, disks=2, size=8 * MiB)
    m.run_until(place, m.new("--domain", "9") if place == "started" else None)
    out = m.run(m.command("--resume", m.id()))
    says_what_became_of_them(m, out, "active for domain 9" if place == "started" else "free to be started")
    m.moved()


def killed_and_aborted(a, b, place):
    m = Move(a, b, disks=2, size=8 * MiB)
    m.run_until(place)
    if STEPS.index(place) < DECIDED:
        m.run(m.command("--abort", m.id()))
        m.stayed()
    else:
        out = m.run(m.command("--abort", m.id()), expect=4)
        assert "moved" in out or "move" in out, out
        m.run(m.command("--resume", m.id()))
        m.moved()


def status(host, *args, expect):
    done = subprocess.run([SXM, "status", *args], env=host.env, capture_output=True, text=True)
    assert done.returncode == expect, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout


def interrupted(a, b):
    """And seen from another terminal, all the while."""
    m = Move(a, b)
    p = subprocess.Popen(m.new("--switchover", "manual"), env=a.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until_true("it is in sync", lambda: m.record()["step"] == "verified", 30)
    for seen in (status(a, m.id(), expect=4), status(a, expect=4)):
        assert f"move {m.id()}" in seen and f"sxm migrate --go {m.id()}" in seen and "--resume" not in seen and "100%" in seen, seen
    for seen in (status(b, expect=0), status(b, m.id(), expect=0)):  # where the disk goes to
        assert f"of move {m.id()}" in seen, seen
    (seen,) = json.loads(status(b, "--json", m.id(), expect=0))["mirrors"]
    assert seen["receives"] and seen["move"] == m.id(), seen
    p.send_signal(signal.SIGINT)
    out = p.communicate(timeout=60)[0]
    assert p.returncode == 3 and "--resume" in out, (p.returncode, out)
    seen = status(a, m.id(), expect=1)
    assert "--go" not in seen and "nobody drives it" in seen and f"sxm migrate --resume {m.id()}" in seen and "it stopped: " in seen, seen
    (seen,) = json.loads(status(a, "--json", m.id(), expect=1))["moves"]
    assert seen["id"] == m.id() and not seen["driven"] and seen["disks"][0]["uri"] == m.disks[0].uri and "--abort" in seen["next"], seen
    assert "nobody drives" in m.run(m.command("--change", m.id(), "--bandwidth", "0"))
    watch = Terminal([SXM, "status", "--watch", m.id()], 24, 60, env={**a.env, "TERM": "xterm", "LANG": "C"})
    watch.until("it is shown", lambda t: m.id() in t[0] and any(f"sxm migrate --abort {m.id()}" in line for line in t))
    watch.type("\x03")
    assert watch.end() == 1, watch.screen.text()
    out = m.run(m.new(), expect=1)
    assert m.id() in out, out  # the second move of a disk names the first
    p = subprocess.Popen(m.command("--resume", m.id()), env=a.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(0.5)
    m.run(m.command("--go", m.id()))
    out = p.communicate(timeout=60)[0]
    assert p.returncode == 0, out
    seen = status(a, m.id(), expect=0)
    assert "done" in seen and m.record()["disks"][0]["far_uri"] in seen and f"--release {m.id()}" in seen, seen
    assert m.id() not in status(a, expect=0)
    m.moved()


def a_relay_whose_caller_died_is_waited_for(a, b):
    """It is in the middle of making a volume when the move is resumed, or given up: there is one volume, or none."""
    before = b.keys()
    for mark, verb in (("m1-0", "volume.make"), ("m2-0", "volume.undo")):
        old, new = Relay(b), Relay(b)
        args = {"sr": b.sr, "mark": mark, "size_bytes": MiB, "name": "x"}
        with open(os.path.join(b.sr_dir, "sxm-sr.lock"), "a") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            old.ask("volume.make", **args)
            until_true("it makes the volume", lambda: is_waited_for(f.name))
            new.ask(verb, **args)
            until_true("it waits", lambda: new.has_answered() or is_waited_for(os.path.join(b.run_dir, "moves", mark)))
        made, second = old.answer(), new.answer()
        assert "ok" in made and "ok" in second, (made, second)
        if verb == "volume.make":
            assert made["ok"]["key"] == second["ok"]["key"] and len(b.keys()) == len(before) + 1, (made, second)
            new.ask("volume.undo", **args)
            assert "ok" in new.answer()
        assert b.keys() == before, (verb, b.keys())
        old.ask("volume.make", **args)  # it was on its way all the while
        late = old.answer()
        assert late["error"]["code"] == "EPERM" and "undone" in late["error"]["text"] and b.keys() == before, late
        old.end()
        new.end()


def filled(a, b, size):
    """To be moved: a disk full of what cannot be guessed, with nobody who writes."""
    m = Move(a, b, size=size, guest=False)
    d = m.disks[0]
    with open(os.path.join(a.dir, "filling"), "wb") as f:
        f.write(os.urandom(size))
    subprocess.run(["nbdcopy", f.name, d.nbd], check=True)
    d.deactivate()
    return m


def write_some(b, uri, *commands):
    """By a guest of that host, which goes on running."""
    sock, export = nbd_of(b.call("Datapath.attach", uri=uri, domain="1"))
    b.call("Datapath.activate", uri=uri, domain="1")
    subprocess.run(["qemu-io", "-f", "raw", *(w for c in commands for w in ("-c", c)), f"nbd+unix:///{export}?socket={sock}"],
                   check=True, stdout=subprocess.DEVNULL)


def a_source_that_was_taken_by_force_is_no_kept_one(a, b):
    """The far host is lost after the move, and the guest is started from the source again."""
    m = filled(a, b, 8 * MiB)
    d = m.disks[0]
    m.run(m.new("--no-verify", "--quiet"))
    subprocess.run([SXM, "epoch", "take", "--force", d.uri], env=a.env, check=True)
    out = m.run(m.command("--release", m.id()), expect=1)
    assert d.key in a.keys() and "not given away" in out, out
    far = m.record()["disks"][0]["far_uri"]
    for verb in ("attach", "activate", "deactivate", "detach"):
        b.call(f"Datapath.{verb}", uri=far, domain="5")
    m.end()


def a_source_is_kept_until_the_other_host_has_the_disk(a, b):
    """Nobody to ask, not that host's, or not there any more: what may be the only copy goes by force alone."""
    m = filled(a, b, 8 * MiB)
    d = m.disks[0]
    m.run(m.new("--no-verify", "--quiet"))
    record = m.record()
    far = record["disks"][0]["far_key"]
    journey, owner = os.path.join(a.dir, f"state/journeys/{m.id()}.json"), os.path.join(b.sr_dir, far + ".raw.owner")

    def put(path, content):
        with open(path, "w") as f:
            json.dump(content, f)

    def stays(word):
        out = m.run(m.command("--release", m.id()), expect=1)
        assert word in out and "stays" in out and "--force" in out and d.key in a.keys(), out
    put(journey, {**record, "argv": ["false"]})
    stays("relay")
    put(journey, record)
    b.end_processes()
    said = read_slots(owner)
    assert said["state"] == "eligible", said
    put(owner, {**said, "state": "released"})
    stays("released there")
    for name in [n for n in os.listdir(b.sr_dir) if n.startswith(far)]:
        os.unlink(os.path.join(b.sr_dir, name))
    stays(far)
    m.run(m.command("--release", "expired", "--force"), expect=2)
    m.run(m.command("--release", m.id(), "--force"))
    assert d.key not in a.keys() and not [r for r in m.records() if r["id"] == record["id"]]
    m.end()


def what_was_moved_on_is_released_all_the_same(a, b):
    """A, B, C: B has handed on what it got, and has it still as it was then; once that is released nobody there can say who has it."""
    c = Side("c")
    moves = [filled(a, b, 4 * MiB) for _ in range(2)]
    for m in moves:
        m.run(m.command("--no-verify", "--quiet", m.disks[0].uri, f"b:{b.sr_dir}"))
        a.call("Datapath.detach", uri=m.disks[0].uri, domain="1")
        m.first = m.record()
        far = m.first["disks"][0]["far_uri"]
        write_some(b, far, "write -P 1 0 64k")
        on = m.on = Move.__new__(Move)
        on.a, on.b, on.disks = b, c, []
        on.run(on.command("--no-verify", "--quiet", far, f"c:{c.sr_dir}"))
        b.call("Datapath.detach", uri=far, domain="1")
        on.first = on.record()
        on.verify(c, on.first["disks"][0]["far_uri"], m.disks[0])
    given, gone = moves
    given.run(given.command("--release", given.first["id"]))
    assert given.disks[0].key not in a.keys()
    for m in moves:
        m.on.run(m.on.command("--release", m.on.first["id"]))
    out = gone.run(gone.command("--release", gone.first["id"]), expect=1)
    assert "moved on" in out and "--force" in out and gone.disks[0].key in a.keys(), out
    gone.run(gone.command("--release", gone.first["id"], "--force"))
    assert not a.keys() and not b.keys() and len(c.keys()) == 2
    c.end()


def handed_over_otherwise(a, b):
    """The guest is shut down while its move waits for its moment, which hands the disk over; and the command is gone."""
    m = Move(a, b, size=8 * MiB)
    d = m.disks[0]
    p = subprocess.Popen(m.new("--switchover", "manual"), env=a.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until_true("it is in sync", lambda: os.path.exists(os.path.join(a.dir, "state/journeys")) and m.record()["step"] == "verified", 30)
    d.process.terminate()
    d.process.wait()
    d.process = None
    d.deactivate()
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    far, = m.far_keys()
    assert a.owner(d.key) == "given" and b.owner(far) == "eligible", (a.owner(d.key), b.owner(far))
    return m, d, m.record()["disks"][0]["far_uri"]


def what_was_handed_over_otherwise_is_asked_back(a, b):
    m, d, _ = handed_over_otherwise(a, b)
    m.run(m.command("--abort", m.id()))
    assert not m.far_keys() and a.owner(d.key) == "owned", (m.far_keys(), a.owner(d.key))
    m.verify(a, d.uri, d)
    m.end()


def what_was_handed_over_otherwise_and_started_has_moved(a, b):
    m, d, far_uri = handed_over_otherwise(a, b)
    m.verify(b, far_uri, d)
    out = m.run(m.command("--abort", m.id()), expect=4)
    assert "a guest has it there" in out and "--resume" in out, out
    m.run(m.command("--resume", m.id()))
    m.moved()


def take_back(m, d):
    """A person's word, where the far host is thought to be lost; the guest goes on here."""
    subprocess.run([SXM, "epoch", "take", "--force", d.uri], env=m.a.env, check=True, stdout=subprocess.DEVNULL)
    m.verify(m.a, d.uri, d)


def taken_back_by_force(a, b, place):
    """The handover is decided, the command killed, and a person takes the disk back: the move can only be given up, and what was
    written here since is not lost, nor can what is there be started."""
    m = Move(a, b, size=8 * MiB)
    d = m.disks[0]
    m.run_until(place, m.new("--no-verify"))
    far, = m.far_keys()
    if place == "decided":  # else it waits for the decision with its guest held, and follows it by itself
        os.kill(a.control(d.key, "status")["ok"]["pid"], signal.SIGKILL)
    take_back(m, d)
    assert a.owner(d.key) == "owned" and b.owner(far) == {"decided": "receiving", "committed": "eligible"}[place], b.owner(far)
    out = m.run(m.command("--resume", m.id()), expect=3)
    assert "taken back" in out and "--abort" in out, out
    m.run(m.command("--abort", m.id()))
    assert not m.far_keys() and a.owner(d.key) == "owned", (m.far_keys(), a.owner(d.key))
    m.verify(a, d.uri, d)
    m.end()


def one_of_two_taken_back_by_force(a, b):
    m = Move(a, b, disks=2, size=8 * MiB)
    stays, moves = m.disks
    m.run_until("committed", m.new("--no-verify"))
    take_back(m, stays)
    out = m.run(m.command("--abort", m.id()), expect=4)
    assert "--resume" in out, out
    out = m.run(m.command("--resume", m.id()), expect=4)
    assert "taken back" in out and "stays here" in out, out
    first, second = m.record()["disks"]
    assert m.far_keys() == [second["far_key"]] and a.owner(stays.key) == "owned" and a.owner(moves.key) == "given", (m.far_keys(), first)
    m.verify(b, second["far_uri"], moves)
    a.call("Datapath.detach", uri=moves.uri, domain="1")
    m.run(m.command("--release", m.id()))
    assert stays.key in a.keys() and moves.key not in a.keys()
    m.verify(a, stays.uri, stays)
    m.end()


def taken_back_though_it_runs_there(a, b):
    """Both are somebody's then, and neither is removed."""
    m = Move(a, b, size=8 * MiB)
    d = m.disks[0]
    m.run_until("committed", m.new("--no-verify"))
    far, = m.far_keys()
    for verb in ("attach", "activate", "deactivate", "detach"):
        b.call(f"Datapath.{verb}", uri=m.record()["disks"][0]["far_uri"], domain="5")
    take_back(m, d)
    out = m.run(m.command("--abort", m.id()), expect=4)
    assert "given up" in out and "not removed" in out, out
    assert a.owner(d.key) == b.owner(far) == "owned" and m.record()["step"] == "aborted"
    m.verify(a, d.uri, d)
    m.end()


def the_way_back_knows_of_no_write_before_its_log(a, b):
    """The move is killed when the disk is handed over; a person starts the guest, and goes on with the move later."""
    m = filled(a, b, 8 * MiB)
    d = m.disks[0]
    m.run_until("committed", m.new("--no-verify"))
    far = m.record()["disks"][0]
    write_some(b, far["far_uri"], "write -P 7 1M 300k", "flush")
    out = m.run(m.command("--resume", m.id()))
    assert "not tracked" in out and "was started" in out, out
    assert not b.volume_of(far["far_key"])["cbt_enabled"]
    back = Move.__new__(Move)
    back.a, back.b, back.before, back.disks = b, a, set(a.keys()), []
    back.run(back.command("--no-verify", far["far_uri"], f"a:{a.sr_dir}"))
    record = back.record()
    home = record["disks"][0]
    assert not home["base"] and home["far_key"] != d.key, record
    b.call("Datapath.detach", uri=far["far_uri"], domain="1")
    a.call("Datapath.attach", uri=home["far_uri"], domain="5")
    a.call("Datapath.activate", uri=home["far_uri"], domain="5")
    subprocess.run(["cmp", os.path.join(a.sr_dir, home["far_key"] + ".raw"), os.path.join(b.sr_dir, far["far_key"] + ".raw")], check=True)
    a.call("Datapath.deactivate", uri=home["far_uri"], domain="5")
    a.call("Datapath.detach", uri=home["far_uri"], domain="5")
    back.run(back.command("--release", record["id"]))
    back.end()


def the_way_back_sends_what_changed(a, b):
    size = 64 * MiB
    m = filled(a, b, size)
    d = m.disks[0]
    m.run(m.new("--no-verify", "--quiet"))
    far = m.record()["disks"][0]
    write_some(b, far["far_uri"], "write -P 7 1M 300k", "write -P 8 40M 100k")
    back = Move.__new__(Move)
    back.a, back.b, back.before, back.disks = b, a, set(a.keys()), []
    out = back.run(back.command(far["far_uri"], f"a:{a.sr_dir}"))
    record = back.record()
    assert record["disks"][0]["base"] and record["disks"][0]["far_key"] == d.key, (out, record)
    sent = [o for o in b.control(far["far_key"], "status")["ok"]["operations"] if not o["copy"]][-1]["copied_bytes"]
    assert 400 * 1024 <= sent <= size * 2 // 100, sent
    b.call("Datapath.detach", uri=far["far_uri"], domain="1")
    sock, export = nbd_of(a.call("Datapath.attach", uri=d.uri, domain="5"))
    a.call("Datapath.activate", uri=d.uri, domain="5")
    subprocess.run(["cmp", os.path.join(a.sr_dir, d.key + ".raw"), os.path.join(b.sr_dir, far["far_key"] + ".raw")], check=True)
    a.call("Datapath.deactivate", uri=d.uri, domain="5")
    a.call("Datapath.detach", uri=d.uri, domain="5")
    assert a.volume_of(d.key)["name"] == "v" and a.owner(d.key) == "owned", a.volume_of(d.key)
    back.run(back.command("--release", record["id"]))
    back.end()


def ask(side, verb, **args):
    """The answer of a relay of its own."""
    r = Relay(side)
    r.ask(verb, **args)
    answer = r.answer()
    r.end()
    return answer


def a_base_that_is_half_taken(a, b):
    """Whoever takes the kept source as a base is killed before each thing he does there: it is taken by asking again, and whoever gives
    the move up, or releases the source, leaves nothing."""
    m = filled(a, b, 4 * MiB)
    m.run(m.new("--no-verify", "--quiet"))
    a.call("Datapath.detach", uri=m.disks[0].uri, domain="1")
    a.end_processes()
    key, mark, saved = m.disks[0].key, m.id() + "-0", os.path.join(a.dir, "saved")
    traced = {**a.env, "ASAN_OPTIONS": "detect_leaks=0:" + a.env.get("ASAN_OPTIONS", "")}
    shutil.copytree(a.sr_dir, saved)

    def is_killed(n, new):
        """As it was when the source was kept; then it is taken."""
        a.end_processes()
        for name in os.listdir(a.sr_dir):
            os.unlink(os.path.join(a.sr_dir, name))
        for name in os.listdir(saved):
            shutil.copy(os.path.join(saved, name), a.sr_dir)
        question = {"id": 1, "verb": "base.take", "args": {"sr": a.sr, "base": mark, "mark": new, "size_bytes": 4 * MiB}}
        done = subprocess.run([CRASH, "-u", a.sr_dir, str(n), SXM, "relay"], env=traced, input=json.dumps(question) + "\n",
                              capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 137), done
        return done.returncode == 137

    def again(new):
        answer = ask(a, "base.take", sr=a.sr, base=mark, mark=new, size_bytes=4 * MiB)
        assert answer.get("ok", {}).get("key") == key, answer
        v = a.volume_of(key)
        assert v["description"] == f"sxm migrate {new}: being received" and a.owner(key) == "incomplete", (v, a.owner(key))
        assert not [k for k in v["keys"] if k.startswith("sxm_")], v
        undone(new)

    def undone(new):
        assert "ok" in ask(a, "volume.undo", sr=a.sr, mark=new)
        if key in a.keys():  # it had not begun
            assert a.owner(key) == "given" and "sxm_taken" not in a.volume_of(key)["keys"], a.volume_of(key)
            again(new + "-again")

    def released(new):
        if "sxm_kept_until" in a.volume_of(key)["keys"]:
            assert "ok" in ask(a, "volume.release", sr=a.sr, key=key, mark=mark)
        else:
            undone(new)

    n, ways = 1, (again, undone, released)
    while is_killed(n, f"m{n}-0"):
        for i, way in enumerate(ways if os.environ.get("SXM_LONG") else [ways[n % len(ways)]]):
            assert i == 0 or is_killed(n, f"m{n}-{i}")
            way(f"m{n}-{i}")
            assert key not in a.keys()
        n += 1
    assert n > 8, n
    shutil.rmtree(saved)
    write_some(b, m.record()["disks"][0]["far_uri"], "write -P 1 0 64k")
    for verb in ("deactivate", "detach"):
        b.call(f"Datapath.{verb}", uri=m.record()["disks"][0]["far_uri"], domain="1")
    m.end()


def a_device_that_was_given_away_is_known_to_be(a, b):
    """Its record is not beside it, and no process has it any more."""
    if not shutil.which("losetup"):
        return
    device = a.make_device(size=4 * MiB)
    far = b.make_volume(b.sr, 4 * MiB)
    for host, uri, domain in ((a, f"sxm://{device}", "1"), (b, far["uri"][0], "MIR1")):
        sock, export = nbd_of(host.call("Datapath.attach", uri=uri, domain=domain))
        host.call("Datapath.activate", uri=uri, domain=domain)
    operation = a.call("Data.mirror", uri=f"sxm://{device}", domain="1", remote=f"nbd+unix:///{export}?socket={sock}")
    until_true("it is complete", lambda: a.call("Data.stat", operation=operation)["complete"])
    for verb in ("deactivate", "detach"):
        a.call(f"Datapath.{verb}", uri=f"sxm://{device}", domain="1")
        b.call(f"Datapath.{verb}", uri=far["uri"][0], domain="MIR1")
    a.end_processes()
    shutil.rmtree(a.run_dir)
    answer = ask(a, "volume.owner", uri=f"sxm://{device}")
    assert answer.get("ok", {}).get("state") == "given", answer
    answer = ask(a, "volume.find", source=device)
    assert answer.get("ok", {}).get("owner") == "given", answer
    write_some(b, far["uri"][0], "read 0 64k")
    for verb in ("deactivate", "detach"):
        b.call(f"Datapath.{verb}", uri=far["uri"][0], domain="1")
    b.call("Volume.destroy", sr=b.sr, key=far["key"])


def the_rate_is_bounded_and_may_change(a, b):
    m = Move(a, b, disks=2, guest=False)
    for d in m.disks:
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 5 0 16M", d.nbd], check=True, stdout=subprocess.DEVNULL)
        d.deactivate()
    p = subprocess.Popen(m.new("--bandwidth", "512KiB", "--no-verify"), env=a.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until_true("it mirrors", lambda: m.record()["step"] == "mirrored", 30)
    time.sleep(1)  # what comes through in it is what is bounded
    done = sum(o["copied_bytes"] for d in m.disks for o in a.control(d.key, "status")["ok"]["operations"])
    assert done < 10 * MiB and m.record()["step"] == "mirrored", (done, m.record()["step"])
    m.run(m.command("--change", m.id(), "--bandwidth", "0"))
    out = p.communicate(timeout=60)[0]
    assert p.returncode == 0, out
    m.moved()


def it_is_done_by_a_moment_and_takes_no_more_than_that_needs(a, b):
    m = Move(a, b, disks=2, guest=False)
    for d in m.disks:
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 5 0 16M", d.nbd], check=True, stdout=subprocess.DEVNULL)
        d.deactivate()
    m.run(m.new("--switchover", "finish-by=2020-01-01T00:00"), expect=2)
    plan = json.loads(m.run(m.new("--plan", "--json", "--bandwidth", "1MiB", "--switchover", "finish-by=+5s")))
    assert any("not be done by" in w for w in plan["warnings"]), plan
    p = subprocess.Popen(m.new("--bandwidth", "1MiB", "--no-verify", "--switchover", "finish-by=+6s"), env=a.env, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    for line in p.stdout:
        if "as it goes, both sides" in line:
            break
    else:
        raise AssertionError("it never said that it will be late")
    assert m.record()["step"] == "mirrored", m.record()  # long before it is
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    m.run(m.command("--abort", m.id()))
    by, began = int(time.time()) + 8, time.time()
    out = m.run(m.new("--switchover", "finish-by=" + time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(by))))
    assert began + 2 < time.time() < by + 5 and "no faster than it has to" in out and "will not be" not in out, (time.time() - began, out)
    m.moved()


def over_ssh(a, b, kind):
    """A real sshd; the way there is cut once in the middle, and it goes on by itself."""
    if sshd.why_not():
        say("no ssh: " + sshd.why_not())
        return
    place = os.path.join(b.dir, "bin-" + kind)
    os.mkdir(place)
    far = sshd.Sshd(os.path.join(b.dir, "sshd-" + kind), place + ":/usr/sbin:/usr/bin:/sbin:/bin").start()
    try:
        m = Move(a, b, size=32 * MiB)
        m.command = lambda *args: [SXM, "migrate", "--carrier", kind, "--config", far.write_client_config(), "--patience", "30s", *args]
        m.new = lambda *args: m.command(*args, *(d.uri for d in m.disks), f"far:{b.sr_dir}")
        out = m.run(m.new(), expect=1)
        assert "sxm" in out and not m.far_keys(), out
        with open(os.path.join(place, "sxm"), "w") as f:
            f.write(f"#!/bin/sh\nexec env {b.env_words()} {SXM} \"$@\"\n")
        os.chmod(f.name, 0o755)
        plan = json.loads(m.run(m.new("--plan", "--json", "--transport", "tcp", "--insecure")))
        assert plan["transport"] == "tcp" and plan["address"] == "127.0.0.1", plan  # where sshd was reached
        cut = sshd.Cut(far.port, 4 * MiB)
        config = far.write_client_config("cut", port=cut.port)
        m.run([SXM, "migrate", "--carrier", kind, "--config", config, "--patience", "30s", "--no-verify", m.disks[0].uri, f"far:{b.sr_dir}"])
        assert cut.has_cut.is_set()
        m.moved(host="far")
        not_let_in_again(a, b, kind, far)
    finally:
        far.stop()


def not_let_in_again(a, b, kind, far):
    """Its connection is lost, and the key is not authorized any more: that is said, and not waited for in vain."""
    m = filled(a, b, 8 * MiB)
    cut = sshd.Cut(far.port)
    way = ("--carrier", kind, "--patience", "60s", "--no-verify", "--config")
    p = subprocess.Popen([SXM, "migrate", *way, far.write_client_config("shut", port=cut.port), "--bandwidth", "1MiB", m.disks[0].uri,
                          f"far:{b.sr_dir}"], env=a.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until_true("it mirrors", lambda: m.records() and m.record()["step"] == "mirrored", 30)
    keys = far.file("authorized_keys")
    os.rename(keys, keys + ".away")
    cut.limit = 0
    out = p.communicate(timeout=90)[0]
    assert p.returncode == 3 and f"--resume {m.id()}" in out, (p.returncode, out)
    assert ("without somebody who logs in" if kind == "ssh" else "does not let") in out, out
    os.rename(keys + ".away", keys)
    m.command = lambda *args: [SXM, "migrate", "--patience", "30s", *args]
    m.run(m.command("--resume", m.id(), "--bandwidth", "0"))
    m.moved(host="far")


LOCAL = ("--listen", "127.0.0.1")


def keys_left(*hosts):
    found = [os.path.join(h.run_dir, "journeys", m, n) for h in hosts if os.path.exists(os.path.join(h.run_dir, "journeys"))
             for m in os.listdir(os.path.join(h.run_dir, "journeys")) for n in os.listdir(os.path.join(h.run_dir, "journeys", m))]
    return [p for p in found if os.path.basename(p).startswith("key")]


def knows_tls(m):
    """And what is said where TLS is not to be had."""
    out = m.run([SXM, "migrate", "--via", f"sh -c 'env {m.b.env_words()} {SXM} relay | sed -u s/tcp+tls/ssh/'", *TLS, m.disks[0].uri,
                 f"b:{m.b.sr_dir}"], expect=1)
    assert "without TLS" in out, out
    plan = subprocess.run(m.new("--plan", "--json", *TLS), env=m.a.env, capture_output=True, text=True)
    if "without TLS" in plan.stdout:
        return False
    plan = json.loads(plan.stdout)
    assert plan["possible"] and plan["transport"] == "tcp+tls" and plan["address"] == "127.0.0.1", plan
    return True


TLS = ("--transport", "tcp+tls", *LOCAL)


def over_tls(a, b):
    """Whoever drives it is killed in the middle: the mirror goes on; so it does when the far process is killed. Nobody without the key
    is let in, and the key is nowhere when it is over."""
    m = filled(a, b, 64 * MiB)
    d = m.disks[0]
    if not knows_tls(m):
        say("built without TLS")
        m.end()
        return
    p = subprocess.Popen(m.new("--bandwidth", "4MiB", "--no-verify", *TLS), env=a.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until_true("it mirrors", lambda: m.records() and m.record()["step"] == "mirrored", 30)
    p.kill()
    p.wait()
    r = m.record()
    port, export = r["disks"][0]["port"], r["disks"][0]["far_id"]
    here, there = sorted(keys_left(a)), sorted(keys_left(b))
    assert [os.path.basename(k) for k in here + there] == ["key", "key"], (here, there)
    for path in here + there:
        st = os.stat(path)
        assert st.st_mode & 0o7777 == 0o600 and st.st_uid == os.geteuid(), path
    with open(here[0]) as f, open(there[0]) as g:
        key = f.read()
        assert key == g.read() and key.startswith(r["id"] + ":") and len(key) == len(r["id"]) + 66, "not one key"
    secret = key.split(":")[1].strip()
    with open(os.path.join(a.dir, "state/journeys", r["id"] + ".json")) as f:
        assert secret not in f.read()
    wrong = os.path.join(a.dir, "wrong")
    with open(os.open(wrong, os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
        f.write(f"{r['id']}:{'0' * 64}\n")
    for uri, is_good in ((f"nbds://{r['id']}@127.0.0.1:{port}/{export}?tls-psk-file={here[0]}", True),
                         (f"nbds://{r['id']}@127.0.0.1:{port}/{export}?tls-psk-file={wrong}", False),
                         (f"nbd://127.0.0.1:{port}/{export}", False)):
        done = subprocess.run(["nbdinfo", "--size", uri], capture_output=True, text=True)
        assert (done.returncode == 0) == is_good, (uri, done)

    def copied():
        o = [o for o in a.control(d.key, "status")["ok"]["operations"] if not o["copy"]][-1]
        assert not o["failed"] and o["remote"].startswith(f"nbds://{r['id']}@127.0.0.1:{port}/"), o
        return o["copied_bytes"]
    before = copied()
    until_true("the mirror goes on without anybody", lambda: copied() > before + MiB)
    os.kill(b.control(r["disks"][0]["far_key"], "hello")["ok"]["pid"], signal.SIGKILL)
    before = copied()
    until_true("it goes on when the far process was killed", lambda: copied() > before + MiB)
    m.run(m.command("--resume", r["id"], "--bandwidth", "0"))
    assert not keys_left(a, b), keys_left(a, b)
    m.moved()


def over_tcp_or_not_at_all(a, b):
    m = Move(a, b, disks=2, size=8 * MiB)
    out = m.run(m.new("--transport", "tcp", *LOCAL), expect=2)
    assert "--insecure" in out, out
    for args in (("--transport", "udp"), ("--listen", "127.0.0.1"), ("--transport", "tcp+tls", "--listen", "localhost"),
                 ("--tls-certificates", "/x")):
        m.run(m.new(*args), expect=2)
    plan = m.run(m.new("--plan", "--transport", "tcp", "--insecure", "--listen", "192.0.2.1"), expect=1)
    assert "cannot listen at 192.0.2.1" in plan, plan
    plan = m.run(m.new("--plan", "--transport", "tcp", "--insecure"), expect=1)
    assert "--listen" in plan, plan
    assert not m.far_keys()
    m.run_until("synced", m.new("--transport", "tcp", "--insecure", *LOCAL))
    m.run(m.command("--resume", m.id()))
    assert all(d["port"] for d in m.record()["disks"])
    m.moved()


def make_certificates(place):
    """Of both ends, in one directory: what each host needs is in it."""
    def openssl(*args):
        return subprocess.run(["openssl", *args], cwd=place, capture_output=True, check=True)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-subj", "/CN=ca", "-days", "9")
    with open(os.path.join(place, "names"), "w") as f:
        f.write("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}-key.pem", "-out", "request", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", "request", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-out", f"{name}-cert.pem",
                "-days", "9", "-extfile", "names")
        os.chmod(os.path.join(place, f"{name}-key.pem"), 0o600)


def by_certificates(a, b):
    m = Move(a, b, size=8 * MiB)
    place = os.path.join(a.dir, "pki")
    if not shutil.which("openssl") or not knows_tls(m):
        say("no openssl, or built without TLS")
        stop_guests(m)
        return
    os.mkdir(place)
    make_certificates(place)
    m.run_until("synced", m.new("--no-verify", "--tls-certificates", place, *TLS))
    assert not keys_left(a, b)
    o = a.control(m.disks[0].key, "status")["ok"]["operations"][-1]
    assert o["remote"].startswith("nbds://127.0.0.1:") and o["remote"].endswith("?tls-certificates=" + place), o
    m.run(m.command("--resume", m.id()))
    m.moved()


def stop_guests(m):
    for d in m.disks:
        d.process.kill()
        d.process.wait()
        d.deactivate()
    m.end()


def given_up_over_tls(a, b):
    m = Move(a, b, size=8 * MiB)
    if knows_tls(m):
        m.run_until("synced", m.new(*TLS))
        assert keys_left(a, b)
        m.run(m.command("--abort", m.id()))
        assert not keys_left(a, b), keys_left(a, b)
        m.stayed()
    else:
        stop_guests(m)


def what_goes_through_is_made_shorter(a, b):
    """What a tee in front of the far relay has seen of it; and what was read back to compare is right."""
    m = Move(a, b, size=16 * MiB, guest=False)
    d = m.disks[0]
    with open(os.path.join(a.dir, "words"), "w") as f:
        f.write("".join(f"what line {i} says is in line {i * 7 % 1000}, too\n" for i in range(300000)))
    subprocess.run(["qemu-io", "-f", "raw", "-c", f"write -q -s {f.name} 0 12M", d.nbd], check=True)
    d.deactivate()
    seen = os.path.join(b.dir, "seen")
    os.mkdir(seen)
    via = f"sh -c 'tee {seen}/$$ | env {b.env_words()} {SXM} relay | cat'"
    out = m.run([SXM, "migrate", "--via", via, "--compress", d.uri, f"b:{b.sr_dir}"], expect=None)
    if "built without" in out:
        say("built without zstd: " + out.strip())
        m.end()
        return
    assert "done" in out, out
    bytes_seen = sum(os.path.getsize(os.path.join(seen, n)) for n in os.listdir(seen))
    assert 100 * 1024 < bytes_seen < 6 * MiB, bytes_seen
    far = m.record()["disks"][0]["far_key"]
    subprocess.run(["cmp", os.path.join(a.sr_dir, d.key + ".raw"), os.path.join(b.sr_dir, far + ".raw")], check=True)
    out = m.run(m.new("--compress", "--transport", "tcp+tls"), expect=2)
    assert "--compress" in out, out
    m.moved()


def what_is_refused_leaves_nothing(a, b):
    m = Move(a, b, guest=False)
    d = m.disks[0]
    out = m.run(m.command(d.uri, "b:/nowhere"), expect=1)
    assert "nowhere" in out, out
    out = m.run(m.command(d.uri, d.uri, f"b:{b.sr_dir}"), expect=1)
    assert "twice" in out, out
    plan = json.loads(m.run(m.new("--plan", "--json")))
    assert plan["possible"] and plan["steps"] and plan["rate_bytes_s"] > 0, plan
    out = m.run([SXM, "migrate", "--via", "false", d.uri, f"b:{b.sr_dir}"], expect=1)
    assert "relay" in out, out
    out = m.run([SXM, "migrate", "--via", "sh -c 'exec no-such-sxm relay'", d.uri, f"b:{b.sr_dir}"], expect=1)
    assert "was not found; is there an sxm" in out, out
    out = m.run([SXM, "migrate", "--carrier", "pigeon", d.uri, f"b:{b.sr_dir}"], expect=1)
    assert "no carrier pigeon" in out and "there is " in out, out
    assert m.run(m.command("--list")) == "no move is on record on this host\n"
    assert not m.far_keys()
    assert not [n for n in os.listdir(os.path.join(a.dir, "state", "journeys")) if n.endswith(".json")]
    d.deactivate()
    m.end()


def hooks(a, b):
    m = Move(a, b)
    seen = os.path.join(a.dir, "seen")
    hook = f"sh -c 'echo $1 $SXM_MIGRATE_OUTCOME >>{seen}' hook"
    m.run(m.new("--on-pause", hook + " pause", "--on-resume", hook + " resume", "--no-verify"))
    with open(seen) as f:
        assert f.read().split("\n")[:2] == ["pause", "resume moved"]
    m.moved()
    m = Move(a, b)
    os.unlink(seen)
    out = m.run(m.new("--on-pause", "false", "--on-resume", hook + " resume", "--no-verify"), expect=3)
    assert "false" in out, out
    with open(seen) as f:
        assert f.read().split("\n")[0] == "resume stayed"
    m.run(m.command("--abort", m.id()))
    m.stayed()


def main():
    a, b = Side("a"), Side("b")
    wanted = sys.argv[1:]

    def case(fn, *args):
        name = " ".join([fn.__name__.replace("_", " "), *args])
        if wanted and not any(w in name for w in wanted):
            return
        began = time.monotonic()
        fn(a, b, *args)
        say(f"{name}: {time.monotonic() - began:.1f} s")

    case(what_is_refused_leaves_nothing)
    case(a_relay_whose_caller_died_is_waited_for)
    case(a_disk_moves_under_its_guest)
    case(a_halted_disk_moves)
    case(what_goes_through_is_made_shorter)
    case(several_go_as_one)
    case(the_way_back_sends_what_changed)
    case(a_base_that_is_half_taken)
    case(a_device_that_was_given_away_is_known_to_be)
    case(the_way_back_knows_of_no_write_before_its_log)
    case(a_source_that_was_taken_by_force_is_no_kept_one)
    case(a_source_is_kept_until_the_other_host_has_the_disk)
    case(what_was_moved_on_is_released_all_the_same)
    case(the_rate_is_bounded_and_may_change)
    case(it_is_done_by_a_moment_and_takes_no_more_than_that_needs)
    case(over_ssh, "ssh")
    if not is_sanitized():  # libssh2 1.10 copies a part of its own list of methods over itself
        case(over_ssh, "ssh2")
    case(over_tls)
    case(over_tcp_or_not_at_all)
    case(given_up_over_tls)
    case(by_certificates)
    case(interrupted)
    case(hooks)
    case(what_was_handed_over_otherwise_is_asked_back)
    case(what_was_handed_over_otherwise_and_started_has_moved)
    case(taken_back_by_force, "decided")
    case(taken_back_by_force, "committed")
    case(one_of_two_taken_back_by_force)
    case(taken_back_though_it_runs_there)
    for place in STEPS[:: 1 if os.environ.get("SXM_LONG") else 3]:
        case(killed_and_resumed, place)
        case(killed_and_aborted, place)


main()
