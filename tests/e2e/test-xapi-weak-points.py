#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What xapi's storage motion does not see to, W1 to W16 (the table in plugins/README): each is answered by the datapath or the verbs, and
seen here from xapi's side. Two hosts are two SXM_RUN_DIRs; between them is a relay as xapi's is: a unix socket that takes one
connection, 64 KiB at a time each way. One name, or several, may be given: w4 w11."""
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import ActiveDisk, Host, nbd_of, say, skip, until_true  # noqa: E402

MIB = 1 << 20
IS_LONG = "SXM_LONG" in os.environ
if not shutil.which("qemu-nbd"):
    skip("there is no qemu-nbd")
here, there = Host(), Host()
for one in (here, there):
    one.in_memory("sr")
for one in (here, there):
    os.mkdir(os.path.join(one.dir, "sr", "d"))
sr, far_sr = here.make_sr("sr/d", uri=f"file://{here.dir}/sr/d"), there.make_sr("sr/d", uri=f"file://{there.dir}/sr/d")
GUEST = ActiveDisk.GUEST


class Relay:
    """xapi's: /var/run/nbdproxy/export/MIRxxxxxx on one side, the far volume's socket on the other. One connection in its life."""

    names = 0

    def __init__(self, target):
        Relay.names += 1
        self.path, self.target = os.path.join(here.dir, f"MIR{Relay.names:06x}"), target
        self.passes, self.ends, self.budget = threading.Event(), [], 0
        self.passes.set()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            near = self.listener.accept()[0]
            self.listener.close()
            far = socket.socket(socket.AF_UNIX)
            far.connect(self.target)
        except OSError:
            return
        self.ends = [near, far]
        for a, b in ((near, far), (far, near)):
            threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, a, b):
        try:
            while data := a.recv(65536):
                self.budget -= len(data)
                if self.budget < 0:
                    self.passes.wait()
                b.sendall(data)
        except OSError:
            pass
        self.kill()

    def kill(self):
        self.passes.set()
        for end in [self.listener, *self.ends]:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Move:
    """The steps up to Data.mirror: a volume there, active as MIR, and a relay to it."""

    count = 0

    def __init__(self, disk, is_foreign=False, stalls=False):
        Move.count += 1
        self.disk, self.mir = disk, f"MIR{Move.count:06x}"
        if is_foreign:
            self.serve_by_another()
        else:
            self.volume = there.make_volume(far_sr, disk.volume["virtual_size"])
            self.key, self.uri = self.volume["key"], self.volume["uri"][0]
            self.socket, self.export = nbd_of(there.call("Datapath.attach", uri=self.uri, domain=self.mir))
            there.call("Datapath.activate", uri=self.uri, domain=self.mir)
        self.relay = Relay(self.socket)
        if stalls:
            self.relay.budget = 256 << 10
            self.relay.passes.clear()
            threading.Timer(stalls, self.relay.passes.set).start()
        self.operation = here.call("Data.mirror", uri=disk.uri, domain=disk.domain, remote=f"nbd+unix:///{self.export}?socket={self.relay.path}")

    def serve_by_another(self):
        """A server that is no sxm, so that no link is ever made anew: a relay's end is the move's end."""
        self.image, self.socket, self.export = os.path.join(there.dir, self.mir + ".raw"), os.path.join(there.dir, self.mir), "x"
        with open(self.image, "wb") as f:
            f.truncate(self.disk.volume["virtual_size"])
        self.server = subprocess.Popen(["qemu-nbd", "-t", "-f", "raw", "-k", self.socket, "-x", "x", "--shared=2", self.image], env=there.env)
        until_true("qemu-nbd listens", lambda: os.path.exists(self.socket))

    def stat(self):
        return here.call("Data.stat", operation=self.operation)

    def sync(self):
        end = time.monotonic() + 180
        while not (status := self.stat())["complete"]:
            assert not status["failed"] and time.monotonic() < end, status
        return self

    def let_go(self):
        """xapi's finalise."""
        there.call("Datapath.deactivate", uri=self.uri, domain=self.mir)
        there.call("Datapath.detach", uri=self.uri, domain=self.mir)

    def start(self, domain="9"):
        sock, export = nbd_of(there.call("Datapath.attach", uri=self.uri, domain=domain))
        there.call("Datapath.activate", uri=self.uri, domain=domain)
        return f"nbd+unix:///{export}?socket={sock}"

    def end(self):
        self.relay.kill()
        if hasattr(self, "server"):
            self.server.terminate()
            self.server.wait()


def make_disk(size=32 * MIB, **options):
    return ActiveDisk(here, options.get("sr", sr), size)


def write(disk, *more, region=None):
    """Some stamped writes, all acknowledged."""
    disk.log = os.path.join(here.dir, disk.key + ".log")
    subprocess.run([GUEST, "write", "--uri", disk.nbd, "--log", disk.log, "--depth", "8", "--count", "600", *more], check=True, capture_output=True)


def verify(uri, log):
    done = subprocess.run([GUEST, "verify", "--uri", uri, "--log", log], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def verify_here(disk):
    """What was acknowledged is there: read by another domain, since the guest's is gone."""
    sock, export = nbd_of(here.call("Datapath.attach", uri=disk.uri, domain="u0_check"))
    here.call("Datapath.activate_readonly", uri=disk.uri, domain="u0_check")
    verify(f"nbd+unix:///{export}?socket={sock}", disk.log)
    for verb in ("deactivate", "detach"):
        here.call("Datapath." + verb, uri=disk.uri, domain="u0_check")


def deactivate(disk):
    here.call("Datapath.deactivate", uri=disk.uri, domain=disk.domain)


def detach(disk):
    here.call("Datapath.detach", uri=disk.uri, domain=disk.domain)


def is_same(disk, move):
    with open(disk.uri.removeprefix("sxm://"), "rb") as a, open(move.uri.removeprefix("sxm://"), "rb") as b:
        return a.read() == b.read()


# --- each of them

def w1_nobody_checks_the_mirror_at_the_switchover():
    """Data.stat answers in every state, and deactivate is the check: it returns when the far side has everything, or raises."""
    disk = make_disk()
    move = Move(disk)
    disk.start("--iops", "2000")
    move.sync()
    disk.stop()
    deactivate(disk)
    assert is_same(disk, move), "deactivate returned before the far side had everything"
    assert move.stat()["complete"] and not move.stat()["failed"]  # the guest is paused now, and it is asked again
    detach(disk)
    move.let_go()
    verify(move.start(), disk.log)
    move.end()
    disk = make_disk()
    move = Move(disk, is_foreign=True).sync()
    write(disk)
    move.relay.kill()
    until_true("it is seen", lambda: move.stat() == {**move.stat(), "failed": True, "complete": False})
    here.refused("", "Datapath.deactivate", uri=disk.uri, domain=disk.domain)  # VM_save fails: the guest stops, the good copy stays
    deactivate(disk)  # once told, the shutdown that follows is an ordinary one
    detach(disk)
    verify_here(disk)
    move.end()


def w2_xapi_is_restarted_after_the_sync():
    """All its relays die, and xenopsd migrates on: the barrier finds no far side, and raises, though nobody asked Data.stat meanwhile."""
    disk = make_disk()
    move = Move(disk, is_foreign=True).sync()
    write(disk)
    move.relay.kill()
    here.refused("", "Datapath.deactivate", uri=disk.uri, domain=disk.domain)
    deactivate(disk)
    detach(disk)
    verify_here(disk)
    move.end()
    disk = make_disk()  # and to an sxm, whose link would be made anew if anybody listened where the relay was
    move = Move(disk).sync()
    write(disk)
    move.relay.kill()
    began = time.monotonic()
    here.refused("could not be reached", "Datapath.deactivate", uri=disk.uri, domain=disk.domain)
    assert time.monotonic() - began < 8, "the guest was held for a relay that will never listen again"
    deactivate(disk)
    detach(disk)
    verify_here(disk)
    move.end()


def w3_the_destination_cannot_tell_a_whole_mirror_from_a_broken_one():
    """It can: activation for a guest is refused while it receives, and after a link that ended early, also for the next process."""
    disk = make_disk()
    write(disk)
    move = Move(disk, stalls=1).sync()
    there.refused("", "Datapath.activate", uri=move.uri, domain="9")
    move.let_go()  # before the barrier: receive_cancel2
    for _ in range(2):
        there.refused("", "Datapath.activate", uri=move.uri, domain="9")
        there.end_processes()
    move.end()
    deactivate_after_the_end(disk)
    move = Move(make_disk())
    move.sync()
    deactivate(move.disk)
    move.let_go()
    move.start()
    move.end()


def deactivate_after_the_end(disk):
    """The far side said that it is over, so nothing is raised; or that was not heard yet, and it is, once."""
    try:
        deactivate(disk)
    except Exception:  # noqa: BLE001
        deactivate(disk)
    detach(disk)


def w4_the_mirror_is_bound_to_the_live_domain():
    """It is bound to the volume: the guest stops, or reboots as another domain, in the midst of it, and it goes on."""
    disk = make_disk()
    write(disk, "--region", f"0:{8 * MIB}")
    move = Move(disk, stalls=1.5)
    deactivate(disk)
    detach(disk)
    assert not move.stat()["failed"]
    disk.domain = "2"  # it rebooted
    disk.activate()
    os.unlink(disk.log)
    disk.start("--iops", "1000", "--seed", "7", "--region", f"{16 * MIB}:{8 * MIB}")
    move.sync()
    disk.stop()
    deactivate(disk)
    assert is_same(disk, move)
    detach(disk)
    move.let_go()
    verify(move.start(), disk.log)
    move.end()


def w5_finalise_is_skipped():
    """A guest can be started over a MIR activation that nobody let go of, once the move is committed; what a guest has is not destroyed;
    and what is left is told by diagnostics and `sxm doctor`."""
    disk = make_disk()
    write(disk)
    move = Move(disk).sync()
    deactivate(disk)
    detach(disk)
    uri = move.start("9")  # MIR is active still
    verify(uri, disk.log)
    there.refused("", "Volume.destroy", sr=far_sr, key=move.key)
    assert move.key in there.call("Plugin.diagnostics")
    move.let_go()  # late, and no harm
    verify(uri, disk.log)
    move.end()
    left = there.make_volume(far_sr, MIB)
    there.call("Datapath.attach", uri=left["uri"][0], domain="MIR0000ff")
    there.call("Datapath.activate", uri=left["uri"][0], domain="MIR0000ff")
    done = subprocess.run([os.path.join(os.environ["SXM_BUILDDIR"], "sxm"), "doctor", "--older", "0", "--json"], capture_output=True, text=True, env=there.env)
    found = [f for f in json.loads(done.stdout)["findings"] if f["kind"] == "receiver-unused"]
    assert any(left["key"] in f["subject"] for f in found), done
    there.call("Volume.destroy", sr=far_sr, key=left["key"])  # F1: xapi never let go of it


def w6_data_stat_is_polled_without_a_pause():
    """It waits for news, a second at most, and answers at once when there is some."""
    disk = make_disk()
    write(disk)
    move = Move(disk, stalls=5)
    start = time.monotonic()
    polls = 0
    while time.monotonic() - start < 2:
        assert not move.stat()["complete"]
        polls += 1
    assert polls <= 8, f"{polls} polls in 2 s"
    move.sync()
    at_once(lambda: move.stat()["complete"], 0.9)
    end_quietly(move)


def at_once(is_so, seconds):
    """It is, and the quickest of five times that it is asked takes no longer: a busy machine is no failure, a wait in the path is."""
    took = []
    for _ in range(5):
        start = time.monotonic()
        assert is_so()
        took.append(time.monotonic() - start)
        if took[-1] < seconds:
            return
    raise AssertionError(f"not at once: {took} s")


def end_quietly(move):
    here.call("Data.destroy", operation=move.operation)
    deactivate_after_the_end(move.disk)
    move.end()


def w7_nobody_cancels_or_destroys_an_operation():
    """It ends by itself: by its barrier, or when its link is gone. Who wants to can cancel it. What ended is known for a day."""
    disk = make_disk()
    write(disk)
    move = Move(disk, stalls=2)
    here.call("Data.cancel", operation=move.operation)
    assert move.stat()["failed"] and move.operation in here.call("Data.ls")
    deactivate(move.disk)  # never complete: nothing is raised
    detach(move.disk)
    here.call("Data.destroy", operation=move.operation)
    assert move.operation not in here.call("Data.ls") and move.stat()["failed"]
    move.end()
    move = Move(make_disk()).sync()
    deactivate(move.disk)
    detach(move.disk)
    move.let_go()
    move.start()
    until_true("its process has ended", lambda: not any(n.startswith(move.disk.key) and "lock" not in n and "log" not in n for n in os.listdir(here.run_dir)))
    assert move.stat() == {**move.stat(), "complete": True, "failed": False} and move.operation in here.call("Data.ls")
    move.end()


def w8_a_snapshot_is_taken_and_destroyed_to_stop_a_mirror():
    """It is cheap, and the mirror goes on; the guest, too."""
    if not shutil.which("qemu-img") or not shutil.which("qemu-storage-daemon"):
        say("  not here: no qemu")
        return
    os.makedirs(os.path.join(here.dir, "sr", "q"))
    chains = here.make_sr("q", uuid="0a0b0c0d-1111-2222-3333-444455556667", uri=f"file://{here.dir}/sr/q", format="qcow2")
    disk = make_disk(sr=chains)
    move = Move(disk)
    disk.start("--iops", "500")
    move.sync()
    snapshot = here.call("Volume.snapshot", sr=chains, key=disk.key)["key"]
    here.call("Volume.destroy", sr=chains, key=snapshot)
    move.sync()
    disk.stop()
    deactivate(disk)
    detach(disk)
    move.let_go()
    verify(move.start(), disk.log)
    move.end()


def w9_all_goes_through_one_relay():
    """Few large requests, and nothing for what was never written."""
    disk = make_disk(256 * MIB)
    deactivate(disk)
    detach(disk)
    with open(disk.uri.removeprefix("sxm://"), "r+b") as f:
        f.write(os.urandom(8 * MIB))
    disk.activate()
    move = Move(disk).sync()
    [status] = here.control(disk.key, "status")["ok"]["operations"]
    [far] = there.control(move.key, "status")["ok"]["domains"]
    assert status["sent_bytes"] + status["zeroed_bytes"] <= 9 * MIB, status  # of 256
    assert far["writes"] <= 64, far
    say(f"  {status['sent_bytes'] >> 10} KiB of 256 MiB in {far['writes']} requests")
    end_quietly(move)


def w10_a_relay_that_failed_is_silent():
    """xapi keeps the accepted socket and never answers: that is a failed mirror in bounded time, and a guest that notices nothing."""
    disk = make_disk()
    listener = socket.socket(socket.AF_UNIX)
    path = os.path.join(here.dir, "MIRsilent")
    listener.bind(path)
    listener.listen(1)
    start = time.monotonic()
    result = {}

    def mirror():
        done = here.run("datapath/sxm/Data.mirror", json.dumps({"uri": disk.uri, "domain": disk.domain, "remote": f"nbd+unix:///x?socket={path}", "dbg": ""}))
        result.update(status=done.returncode, answer=json.loads(done.stdout), after=time.monotonic() - start)
    thread = threading.Thread(target=mirror)
    thread.start()
    write(disk)
    assert time.monotonic() - start < 8, "the guest waited"

    def later():
        thread.join()
        assert result["after"] < 60, result
        if result["status"] == 0:
            assert not here.call("Data.stat", operation=result["answer"])["complete"]
            if IS_LONG:
                until_true("it has failed", lambda: here.call("Data.stat", operation=result["answer"])["failed"], 60)
            here.call("Data.destroy", operation=result["answer"])
        deactivate(disk)
        detach(disk)
        verify_here(disk)
        listener.close()
    LATER.append(later)  # it takes 10 s, in which the others go on


LATER = []


def w11_a_slow_mirror_stalls_the_guest():
    """It does not: the far side stands still for 3 s after the sync, and the guest writes on; at the barrier it has everything."""
    disk = make_disk(64 * MIB)
    move = Move(disk).sync()
    disk.start("--iops", "500")
    move.relay.passes.clear()
    at = os.path.getsize(disk.log)
    time.sleep(3)  # how long it stands still is what is tried
    written = os.path.getsize(disk.log) - at
    move.relay.passes.set()
    move.sync()
    out = disk.stop()
    deactivate(disk)
    assert is_same(disk, move)
    slowest = float(out.split("slowest_ms=")[1].split()[0])
    assert slowest < 2500 and written > 500 * 24, (out, written)
    say(f"  slowest write {slowest:.0f} ms")
    detach(disk)
    move.let_go()
    verify(move.start(), disk.log)
    move.end()


def w12_progress_is_not_shown():
    """Data.stat has it: it grows, from 0 to 1."""
    disk = make_disk()
    write(disk)
    move = Move(disk, stalls=1)
    seen = [0.0]
    while not (status := move.stat())["complete"]:
        seen.append(status["progress"])
    seen.append(status["progress"])
    assert seen == sorted(seen) and seen[-1] <= 1 and len(seen) > 2, seen
    end_quietly(move)


def w13_names_of_moves_collide():
    """Everything goes by (URI, domain): two disks of one name do not meet."""
    volumes = [there.make_volume(far_sr, MIB) for _ in range(2)]
    sockets = [nbd_of(there.call("Datapath.attach", uri=v["uri"][0], domain="MIR123456"))[0] for v in volumes]
    assert sockets[0] != sockets[1]
    for v in volumes:
        there.call("Datapath.activate", uri=v["uri"][0], domain="MIR123456")
    for verb in ("deactivate", "detach"):
        there.call("Datapath." + verb, uri=volumes[0]["uri"][0], domain="MIR123456")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sockets[1])
        assert s.recv(8) == b"NBDMAGIC"
    for v in volumes:
        there.call("Volume.destroy", sr=far_sr, key=v["key"])


def w14_an_error_of_data_stat_hides_the_cause():
    """It never raises: what is not known has failed, and is not complete."""
    for operation in (["MirrorV1", "nobody-01234567.1"], ["CopyV1", "x"], ["MirrorV1", ""]):
        status = here.call("Data.stat", operation=operation)
        assert status["failed"] and not status["complete"], status
    move = Move(make_disk()).sync()
    here.end_processes()  # the process, its keeper: all of it
    assert move.stat()["complete"] or move.stat()["failed"]
    end_quietly(move)


def w15_the_backend_is_not_waited_for():
    """Nobody promises that the ring is empty: deactivate under 16 writes in flight answers each that was stored, and stores each it answers."""
    disk = make_disk()
    move = Move(disk).sync()
    disk.log = os.path.join(here.dir, disk.key + ".log")
    guest = subprocess.Popen([GUEST, "write", "--uri", disk.nbd, "--log", disk.log, "--depth", "16"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until_true("it writes", lambda: os.path.exists(disk.log) and os.path.getsize(disk.log) > 24000)
    deactivate(disk)
    assert is_same(disk, move)
    guest.wait(30)
    detach(disk)
    move.let_go()
    verify(move.start(), disk.log)
    move.end()


def w16_a_scan_wants_a_healthy_sr():
    """It is, whatever runs in it, and answers at once."""
    disk = make_disk()
    write(disk)
    move = Move(disk, stalls=2)
    for host, handle in ((here, sr), (there, far_sr)):
        at_once(lambda: host.call("SR.stat", sr=handle)["health"][0] == "Healthy" and
                {v["key"] for v in host.call("SR.ls", sr=handle)} >= ({move.disk.key} if host is here else {move.key}), 1.5)
    move.sync()
    assert here.call("SR.stat", sr=sr)["health"][0] == "Healthy"
    end_quietly(move)


ALL = {name.split("_")[0]: test for name, test in list(globals().items()) if name[0] == "w" and name[1].isdigit()}
assert list(ALL) == [f"w{n}" for n in range(1, 17)], list(ALL)
wanted = sys.argv[1:] or sorted(ALL, key=lambda name: name != "w10")
for name in wanted:
    say(ALL[name].__name__.replace("_", " "))
    began = time.monotonic()
    ALL[name]()
    if time.monotonic() - began > 3:
        say(f"  {time.monotonic() - began:.1f} s")
for finish in LATER:
    finish()
