#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""sxm doctor: what a failed move or a crash leaves is planted, told, and put right when asked to; nothing is changed unasked, what is
in use is left, a doctor that is killed is gone on with by the next, and a second one finds nothing."""
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sick import CLEAN, KEY, LEFT, NOT_DONE, REPAIRED, USAGE, Sick, bound_socket, owner  # noqa: E402
from smapi import say, skip, until_true  # noqa: E402

BUILD = os.environ["SXM_BUILDDIR"]
CRASH, DATAPATH = os.path.join(BUILD, "tests/lib/crash"), os.path.join(BUILD, "sxm-datapath")
if os.geteuid() != 0:
    skip("only root can do this")


# --- what is planted: it returns what must hold after the repair, or nothing

def plant_files_left(host):
    place = f"{host.run_dir}/{KEY}-01234567"
    for name in ("control", "nbd-00000001"):
        bound_socket(f"{place}/{name}").close()
    host.write(f"{place}/map", "m")
    host.write(f"{place}/domains.json.123.tmp", "m")
    return lambda: not os.path.exists(place)


def plant_process_dead(host):
    sock = host.start("5")
    host.kill_datapaths()

    def greets():
        with socket.socket(socket.AF_UNIX) as s, contextlib.suppress(OSError):
            s.settimeout(60)
            s.connect(sock)
            return s.recv(8) == b"NBDMAGIC"

    def serves():  # its process is there; it opens the disk before it lets anybody in
        until_true("it serves its guest", greets)
        return True
    return serves


def plant_process_dying(host):
    """It was killed, and the kernel has not closed its sockets yet: whoever asks is hung up on, and then it is gone."""
    place = f"{host.run_dir}/{KEY}-01234567"
    listener = bound_socket(f"{place}/control")
    listener.listen()

    def die():
        listener.accept()[0].close()
        listener.close()
    threading.Thread(target=die, daemon=True).start()
    return lambda: not os.path.exists(place)


def plant_process_idle(host):
    name = host.vdi_id()
    subprocess.run([DATAPATH, "--id", name, "--path", host.image], env=host.env, check=True, timeout=60)
    until_true("it has begun", lambda: os.path.isdir(f"{host.state}/operations"))
    return lambda: not host.processes()


def plant_receiver(host):
    host.start("MIRabcdef")

    def holds():
        until_true("its process is gone", lambda: not host.processes())
        return host.call("Volume.stat", sr=host.sr, key=host.key)
    return holds


def plant_domain_gone(host):
    host.start("77")
    return lambda: host.call("Volume.destroy", sr=host.sr, key=host.key) is None


def plant_record_stale(host):
    operation = host.record()
    return lambda: host.call("Data.stat", operation=["MirrorV1", operation])["failed"]


def plant_journal(host):
    owner(host, "owned", ended=True)
    host.write(host.image + ".mirror", '{"id":"x.1"}')
    host.write(host.image + ".marks", "m")
    return lambda: not os.path.exists(host.image + ".mirror") and not os.path.exists(host.image + ".marks")


def plant_half_made(host):
    path = host.write(f"{host.place}/.{KEY}.raw.new", "p")
    return lambda: not os.path.exists(path)


def plant_mark(host):
    path = host.write(f"{host.run_dir}/mnt/{KEY}.json", '{"fstype":"xfs","source":"/dev/nowhere","device":"1:1"}')
    return lambda: not os.path.exists(path)


def plant_mount(host):
    device = host.make_device("disk2", 64 << 20)
    host.volume, old = "volume/org.xen.xapi.storage.ext4-ng", host.volume
    handle = host.make_sr("x", uuid=KEY, device=device, format="raw")
    host.volume = old
    for note in os.listdir(f"{host.run_dir}/srs"):
        with open(f"{host.run_dir}/srs/{note}") as f:
            if f.read() == handle:
                os.unlink(f.name)
    assert any(KEY in d for d, _, _ in host.mounts()), host.mounts()
    return lambda: not any(KEY in d for d, _, _ in host.mounts())


def plant_proxy(host):
    bound_socket(host.env["SXM_NBDPROXY_DIR"] + "/MIR111111").close()
    host.listener = bound_socket(host.env["SXM_NBDPROXY_DIR"] + "/MIR222222")
    host.listener.listen(1)
    host.listener.setblocking(False)

    def holds():
        try:
            host.listener.accept()
            raise AssertionError("a relay's only connection was taken")
        except BlockingIOError:
            return os.listdir(host.env["SXM_NBDPROXY_DIR"]) == ["MIR222222"]
    return holds


def plant_key(host):
    """Of a move that is over, of one that is not, and of one with which a disk listens."""
    state, run = host.env["SXM_STATE_DIR"] + "/journeys", f"{host.run_dir}/journeys"
    for move, step in (("m1", "done"), ("m2", "mirrored"), ("m3", None), ("m4", None)):
        host.write(f"{run}/{move}/key", f"{move}:00\n")
        if step:
            host.write(f"{state}/{move}.json", json.dumps({"step": step}))
    host.start("5")
    place, = (n for n in os.listdir(host.run_dir) if n.startswith(KEY) and os.path.isdir(f"{host.run_dir}/{n}"))
    with open(f"{host.run_dir}/{place}/domains.json") as f:
        text = f.read()
    host.write(f"{host.run_dir}/{place}/domains.json", text.replace("{", '{"key":"/m3/key",', 1))
    return lambda: sorted(m for m in os.listdir(run) if os.path.exists(f"{run}/{m}/key")) == ["m2", "m3"]


def plant_lease(host):
    os.mkdir(host.image + ".lease", 0o700)
    host.write(host.image + ".lease/8.3.9f3a01c2d4e5f607.this-host")
    return lambda: os.listdir(host.image + ".lease") == ["8.free"]


PLANTS = [  # kind, plant, more arguments
    ("files-left", plant_files_left, ()),
    ("process-dead", plant_process_dead, ("--alive", "5")),
    ("process-idle", plant_process_idle, ("--older", "0")),
    ("receiver-unused", plant_receiver, ("--older", "0")),
    ("domain-gone", plant_domain_gone, ("--alive", "0,1,2")),
    ("record-stale", plant_record_stale, ()),
    ("journal-left", plant_journal, ()),
    ("half-made", plant_half_made, ()),
    ("mark-left", plant_mark, ()),
    ("mount-left", plant_mount, ()),
    ("proxy-left", plant_proxy, ()),
    ("lease-left", plant_lease, ()),
]


def test_what_is_planted_is_told_and_put_right():
    for kind, plant, args in PLANTS:
        host = Sick()
        assert host.kinds(*args) == [], host.findings(*args)
        holds = plant(host)
        before = host.files()
        status, found = host.findings(*args)
        assert status == LEFT and [f["kind"] for f in found] == [kind] and "remedy" in found[0] and not found[0]["fixed"], (kind, status, found)
        assert host.files() == before, f"{kind}: changed without being asked"
        done = host.doctor("--fix", *args)
        assert done.returncode == REPAIRED and f"{kind}: " in done.stdout and ": done" in done.stdout, (kind, done)
        assert holds(), kind
        status, found = host.findings("--fix", *args)
        assert status == CLEAN and not [f for f in found if f["kind"] != "mirror-failed"], (kind, found)
        host.end()
    say(f"  {len(PLANTS)} of them")


ADVISED = [  # kind, plant: only a person can put it right
    ("volume-half", lambda host: owner(host, "receiving", role="far")),
    ("volume-half", lambda host: owner(host, "incomplete", role="far")),
    ("volume-in-doubt", lambda host: owner(host, "eligible", role="far")),
    ("volume-in-doubt", lambda host: owner(host, "released", role="far")),
    ("volume-in-doubt", lambda host: owner(host, "offered")),
    ("volume-in-doubt", lambda host: owner(host, "given")),
    ("volume-moved", lambda host: owner(host, "given", taken=True)),
    ("volume-in-doubt", lambda host: owner(host, "owned", told=True)),
    ("files", lambda host: os.chmod(host.image, 0o644)),
    ("sr-gone", lambda host: shutil.rmtree(host.place)),
    ("lease-damaged", lambda host: (os.mkdir(host.image + ".lease"), host.write(host.image + ".lease/what"))),
]


def suspend(host):
    operation = host.record(journal=host.image + ".mirror")
    owner(host, "owned", mirror=operation)
    host.write(host.image + ".mirror", json.dumps({"id": operation}))


ADVISED.append(("mirror-suspended", suspend))


def test_one_that_dies_while_it_is_asked_is_dead():
    host = Sick()
    holds = plant_process_dying(host)
    status, found = host.findings()
    assert status == LEFT and [f["kind"] for f in found] == ["files-left"], found
    assert host.doctor("--fix").returncode == REPAIRED and holds()
    host.end()


def test_what_only_a_person_knows_is_left():
    for i, (kind, plant) in enumerate(ADVISED):
        host = Sick()
        plant(host)
        before = host.files()
        for args in ((), ("--fix",)):
            status, found = host.findings(*args)
            assert status == LEFT and [f["kind"] for f in found] == [kind] and "advice" in found[0], (i, kind, status, found)
            assert host.files() == before, f"{kind} was changed"
        host.end()
    say(f"  {len(ADVISED)} of them")


def test_what_failed_is_told_and_is_no_fault():
    host = Sick()
    host.record(failed=True, text="the far side hung up", ended=int(time.time()))
    status, found = host.findings()
    assert status == CLEAN and [f["kind"] for f in found] == ["mirror-failed"] and "hung up" in found[0]["what"], (status, found)
    host.end()


def test_what_is_in_use_is_left():
    host = Sick()
    host.start("MIR000001")
    assert host.kinds() == [], "it is young"
    sock = host.start("77")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sock)
        assert s.recv(8) == b"NBDMAGIC"
        status, found = host.findings("--fix", "--alive", "0")
        assert status == LEFT and [f["kind"] for f in found] == ["domain-gone"] and "connected" in found[0]["advice"], found
    assert host.kinds("--alive", "0,77") == []
    done = host.doctor("--domains", "--alive", "0")
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert set(lines) == {"MIR000001", "77"} and "no such domain" in lines["77"] and "no such" not in lines["MIR000001"], done
    names = json.loads(host.doctor("--domains", "--json").stdout)["domains"]
    assert sorted((d["domain"], d["active"], d["gone"]) for d in names) == [("77", True, False), ("MIR000001", True, False)], names
    host.end()


def snapshots_come_and_go(host):
    """Three bases, of which two are to be merged into the third."""
    keys = []
    for n in range(3):
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write {n * 128}k 64k", host.image], check=True, stdout=subprocess.DEVNULL)
        keys.append(host.call("Volume.snapshot", sr=host.sr, key=host.key)["key"])
    for key in keys:
        host.call("Volume.destroy", sr=host.sr, key=key)


def test_merging_that_stands_still_is_started():
    if not shutil.which("qemu-io"):
        say("  not here: there is no qemu-io")
        return
    host = Sick(format="qcow2")
    snapshots_come_and_go(host)
    until_true("all is merged", lambda: host.kinds() == [])
    [path] = [e.path for e in os.scandir(f"{host.run_dir}/coalesce") if not e.name.endswith((".again", ".doing", ".log"))]
    with open(path, "r+") as f:  # whoever has this lock merges, and nobody else is started
        fcntl.flock(f, fcntl.LOCK_EX)
        snapshots_come_and_go(host)
        status, found = host.findings()
    assert status == LEFT and [f["kind"] for f in found] == ["merge-stopped"], found
    assert host.doctor("--fix").returncode == REPAIRED
    until_true("it is merged", lambda: host.kinds() == [])
    host.end()


def test_one_that_is_killed_is_gone_on_with():
    for kind, plant, args in PLANTS:
        if kind not in ("files-left", "record-stale", "journal-left", "half-made", "lease-left"):
            continue
        n = 0
        while True:
            n += 1
            host = Sick()
            holds = plant(host)
            killed = host.doctor("--fix", *args, prefix=(CRASH, "-u", host.dir, str(n))).returncode == 137
            assert host.doctor("--fix", *args).returncode in (CLEAN, REPAIRED), (kind, n)
            assert holds(), (kind, n)
            assert host.doctor(*args).returncode == CLEAN, (kind, n)
            host.end()
            if not killed:
                break
        assert n > 1, kind
        say(f"  {kind}: killed {n - 1} times")


def test_usage():
    host = Sick()
    assert host.doctor().stdout == "nothing found\n"
    for args in (("--frob",), ("a", "b"), ("--older", "x"), ("--older", "")):
        assert host.doctor(*args).returncode == USAGE, args
    done = host.doctor("/nowhere/at/all")
    assert done.returncode == NOT_DONE and "/nowhere" in done.stderr, done
    other = host.call("SR.create", uuid=KEY, name="n", description="", configuration={"uri": f"file://{host.dir}/other", "format": "raw"})["uri"]
    host.write(f"{host.dir}/other/.{KEY}.raw.new")
    assert host.kinds() == [] and host.kinds(f"{host.dir}/other") == ["half-made"] and host.kinds(other) == ["half-made"]
    host.end()


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
