# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scenarios in which something goes wrong, or in which there is more than a disk and a far side. Each returns a row."""
import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import time

from engines import Sxm, SxmPair
from rig import MIB, FarSide, Guest, Relay, allocated_mb, is_same, note, start_nbdkit, stop, until

CUT_S = 5.0


@dataclasses.dataclass
class Course:
    name: str
    scenario: object
    kind: str
    make: callable
    gold: str
    room: str
    args: object

    def size(self):
        return os.path.getsize(self.gold)


def run_guest(uri, c, seconds, room=None):
    """p50 and the rest of one who is alone with that server."""
    guest = Guest(uri, c.scenario.guest, c.size(), seconds, room or c.room)
    guest.wait()
    return guest.figures()


def set_sync(engine):
    if isinstance(engine, Sxm):
        engine.is_sync = True


def wait_synced(engine, seconds):
    until("the mirror to be in sync", engine.is_synced, seconds, 0.01)


# --- both legs 2 ms long

def sync_two_by_two(c):
    """A mirror that answers when both sides have it should cost what the slower leg costs, not the sum."""
    source, path = os.path.join(c.room, "source"), os.path.join(c.room, "source.sock")
    shutil.copyfile(c.gold, source)
    server = start_nbdkit(path, "--filter=delay", "file", source, "wdelay=2ms")
    engine, far = c.make(c.room), None
    try:
        uri = engine.start_far(path)
        set_sync(engine)
        row = {"alone_p50_us": run_guest(uri, c, c.args.seconds)["p50_us"]}
        far = FarSide(c.room, c.size(), c.scenario.delay_ms)
        row["alone_p50_us"] = max(row["alone_p50_us"], run_guest(far.uri, c, c.args.seconds)["p50_us"])
        far.close()
        far = FarSide(c.room, c.size(), c.scenario.delay_ms)
        engine.mirror(far.uri)
        wait_synced(engine, c.args.limit)
        row.update(run_guest(uri, c, c.args.seconds))
        row["alone_over"] = round(row["p50_us"] / row["alone_p50_us"], 3)
        engine.freeze_guests()
        engine.finish()
        far.close()
        row["same"] = is_same(source, far.file)
        return row
    finally:
        engine.close()
        stop(server)
        if far:
            far.close()


# --- the far side stands still

def stopped(c):
    """Beside it another disk of its kind, without a mirror: what its guest waits for is this machine's doing."""
    aside = os.path.join(c.room, "beside")
    os.mkdir(aside)
    with contextlib.ExitStack() as after:
        engine, beside = c.make(c.room), c.make(aside)
        after.callback(engine.close)
        after.callback(beside.close)
        uri, beside_uri = engine.start(c.gold), beside.start(c.gold)
        far = FarSide(c.room, c.size())
        after.callback(far.close)
        if c.name == "stopped-sync":
            set_sync(engine)
        engine.mirror(far.uri)
        wait_synced(engine, c.args.limit)
        os.sync()  # what the page cache has of the disks' making is written after 30 s, and guests wait for it
        guest, other = (Guest(at, c.scenario.guest, c.size(), c.args.stop_s + 30, room) for at, room in ((uri, c.room), (beside_uri, aside)))
        after.callback(guest.end)
        after.callback(other.end)
        time.sleep(2)
        begin = time.time()
        far.process.send_signal(signal.SIGSTOP)
        time.sleep(c.args.stop_s)
        end = time.time()
        far.process.send_signal(signal.SIGCONT)
        time.sleep(2)
        guest.end()
        other.end()
        row = guest.figures(begin, time.time())  # who waited all the time is logged at its end
        row["beside_ms"] = other.figures(begin, time.time())["max_ms"]
        with open(guest.log, encoding="ascii") as f:
            writes = [(int(ns), int(at_ms)) for at_ms, ns, *_ in (line.split(",") for line in f)]
        row["slow_writes"] = sum(ns > 100e6 for ns, _ in writes)
        row["longest_at_s"] = round(max(writes)[1] / 1e3 - begin, 1)
        row["stopped_s"] = round(end - begin, 1)
        return row


# --- the link is cut, or the near process killed

def wait_half(pair):
    until("half of the pass", lambda: pair.near.status()["progress"] >= 0.5, 30, 0.001)


def finish_pair(pair, relay, row):
    until("the mirror to be in sync", pair.near.is_synced, 60, 0.01)
    pair.near.finish()
    row["same"] = is_same(pair.near.image, pair.far_image)
    row["wire_mb"], row["again_mb"] = round(relay.up_bytes / MIB, 1), round(relay.again_bytes / MIB, 1)
    row["again_over"] = round(row["again_mb"] / row["allocated_mb"], 4)
    return row


def cut(c):
    """Nobody writes."""
    pair = SxmPair(c.room, c.gold)
    relay, guest = Relay(pair.far_port, c.size()), Guest(pair.uri, "rw=randread iodepth=1 rate_iops=10", c.size(), 120, c.room)
    try:
        row = {"allocated_mb": allocated_mb(pair.near.image)}
        pair.mirror(relay.port)
        wait_half(pair)
        (relay.darken if c.name == "cut-dark" else relay.cut)()
        row["before_mb"] = round(relay.up_bytes / MIB, 1)
        time.sleep(CUT_S)
        row["owed_mb"] = round((pair.near.status()["dirty_bytes"] + pair.near.status()["lag_bytes"]) / MIB, 1)
        relay.restore()
        until("the mirror to go on", lambda: relay.resumed, 60, 0.01)
        row["resumed_s"] = round(relay.resumed - relay.restored, 2)
        guest.end()
        return finish_pair(pair, relay, row)
    finally:
        guest.end()
        relay.close()
        pair.close()


def kill_source(c):
    """The guest is killed with it, as it were: fio does not reconnect; another goes on at once."""
    pair = SxmPair(c.room, c.gold)
    relay, guest = Relay(pair.far_port, c.size()), Guest(pair.uri, c.scenario.guest, c.size(), 120, c.room)
    try:
        time.sleep(1.5)
        row = {"allocated_mb": allocated_mb(pair.near.image)}
        begin = time.time()
        pair.mirror(relay.port)
        wait_half(pair)
        pid, killed = pair.near.pid, time.monotonic()
        os.kill(pid, signal.SIGKILL)
        until("the link to end", lambda: not relay.ends)
        relay.life, relay.restored = 2, time.monotonic()
        row["before_mb"] = round(relay.up_bytes / MIB, 1)
        pair.hello_of_next(pid)
        row["back_s"] = round(time.monotonic() - killed, 2)
        guest.end()
        row.update(guest.figures(begin), whole_mb=guest.figures(begin)["guest_mb"])
        guest = Guest(pair.uri, c.scenario.guest, c.size(), 120, c.room)
        until("the mirror to go on", lambda: relay.resumed, 30, 0.01)
        row["resumed_s"] = round(relay.resumed - killed, 2)
        until("the mirror to be in sync", pair.near.is_synced, 60, 0.01)
        guest.end()
        row["whole_mb"] += guest.figures()["guest_mb"]
        return finish_pair(pair, relay, row)
    finally:
        guest.end()
        relay.close()
        pair.close()


# --- power

def power(c):
    """A machine of its own has its power taken away: in the pass under 2000 writes a second, in sync, and when nobody writes."""
    test = os.path.join(os.environ["SXM_SRCDIR"], "tests", "e2e", "test-power.sh")
    done = subprocess.run(["bash", test], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode == 77:
        note(said.strip())
        return None
    copied = [(int(found[1]), int(found[2]), int(found[3]))
              for found in re.finditer(r"(\d+) KiB copied again, of (\d+); (\d+) regions are marked", said)]
    owed = [int(found[1]) for found in re.finditer(r"(\d+) MiB owed by the marks", said)]
    left = re.search(r"(\d+) MiB left, (\d+) regions are marked", said)
    if done.returncode or len(copied) != 3 or not left:
        return {"error": f"test-power.sh: exit {done.returncode}: {said.strip()[-300:]}"}
    return {"allocated_mb": copied[0][1] >> 10, "marked_mb": 16 * int(left[2]), "owed_mb": owed[0],
            "again_mb": owed[0] - int(left[1]), "synced_again_mb": copied[1][0] >> 10,
            "idle_again_over": round(copied[2][0] / copied[2][1], 4)}
