#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What sxm doctor leaves to a person: it is told with what to do, nothing is changed, and that done, nothing is told any more. So it is with
disks that a move left in doubt, on either side, and sxm epoch take is the person's word."""
import ctypes
import fcntl
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sick import CLEAN, KEY, LEFT, REPAIRED, SXM, Sick, owner  # noqa: E402
from smapi import nbd_of, say, skip, until_true  # noqa: E402

if os.geteuid() != 0:
    skip("only root can do this")


def obey(host, findings, words):
    """What a person is told to do, in the one finding whose sentence ends with a command that begins so."""
    commands = [f["advice"][f["advice"].index(words):] for f in findings if words in f.get("advice", "")]
    assert len(commands) == 1, findings
    return subprocess.run([SXM, *commands[0].split()[1:]], capture_output=True, text=True, env=host.env, timeout=60)


# --- what only a person can put right, and does: (kinds, plant); a plant returns what the person does

def plant_given(host):
    """The far host died after COMMIT, and this one's process, too."""
    owner(host, "given", epoch="2")

    def by_a_person():
        done = obey(host, host.findings()[1], "sxm epoch take")
        assert done.returncode == 0 and "owned here" in done.stdout, done
    return by_a_person


def plant_silent_process(host):
    host.start("5")
    pid = host.control(host.key, "status")["ok"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def plant_silent_sr(host):
    """Whatever reads the directory gets an error that is not "nothing there"."""
    os.rename(host.place, host.place + ".away")
    os.symlink(host.place, host.place)
    return lambda: (os.unlink(host.place), os.rename(host.place + ".away", host.place))


def plant_files_locked(host):
    """A verb that takes its time."""
    f = open(host.place + "/sxm-sr.lock", "a")
    fcntl.flock(f, fcntl.LOCK_EX)
    return f.close


def plant_unmounted(host):
    device = host.make_device("disk3", 64 << 20)
    host.volume, old = "volume/org.xen.xapi.storage.ext4-ng", host.volume
    handle = host.make_sr("x", uuid=KEY, device=device, format="raw")
    place = [d for d, _, _ in host.mounts() if KEY in d][0]
    subprocess.run(["umount", place], check=True)

    def by_a_person():  # xe pbd-unplug, xe pbd-plug
        host.call("SR.detach", sr=handle)
        host.call("SR.attach", configuration={"device": device, "format": "raw", "sr_uuid": KEY})
        host.volume = old
    return by_a_person


def plant_late_lease(host):
    """The lease's directory becomes, in one step, a file: whatever is asked of it fails, as of a storage that does not answer."""
    host.start("5")
    lease = host.image + ".lease"

    def exchange():
        assert ctypes.CDLL(None).renameat2(-100, lease.encode(), -100, (lease + ".away").encode(), 2) == 0

    def left_ms():
        return host.control(host.key, "status")["ok"]["lease_left_ms"]

    def by_a_person():
        exchange()
        os.unlink(lease + ".away")
        until_true("it is renewed", left_ms)
    host.write(lease + ".away")
    exchange()
    until_true("it is late", lambda: not left_ms())
    return by_a_person


SHORT_LEASES = {"SXM_LEASE_RENEW_MS": "50", "SXM_LEASE_HOLD_MS": "400", "SXM_LEASE_LOST_MS": "2000", "SXM_LEASE_LOCK_MS": "200"}
FOR_A_PERSON = [  # kind, plant, what the host is like
    ("volume-in-doubt", plant_given, {}),
    ("process-silent", plant_silent_process, {}),
    ("sr-silent", plant_silent_sr, {}),
    ("sr-silent", plant_files_locked, {}),
    ("sr-unmounted", plant_unmounted, {}),
    ("lease-late", plant_late_lease, {"environment": SHORT_LEASES, "shared": "true"}),
]


def test_what_a_person_is_told_to_do_helps():
    for kind, plant, more in FOR_A_PERSON:
        host = Sick(**more)
        by_a_person = plant(host)
        status, found = host.findings("--fix")
        assert status == LEFT and [f["kind"] for f in found] == [kind] and "advice" in found[0], (kind, status, found)
        by_a_person()
        assert host.kinds() == [], (kind, host.findings())
        host.end()
    say(f"  {len(FOR_A_PERSON)} of them")


def test_whose_a_disk_is_says_a_person():
    """sxm epoch take: by path, URI and SR/KEY; once; not of what is whole nowhere, but by force."""
    def take(*words):
        return subprocess.run([SXM, "epoch", "take", *words], capture_output=True, text=True, env=host.env, timeout=60)
    for how in ("path", "uri", "sr"):
        host = Sick()
        name = {"path": host.image, "uri": host.uri, "sr": f"{host.place}/{host.key}"}[how]
        owner(host, "given", epoch="2")
        host.refused("sxm epoch take", "Datapath.activate", uri=host.uri, domain="1")
        assert take(name).returncode == 0 and host.kinds() == [], host.findings()
        host.start("1")
        done = take(name)
        assert done.returncode == 1 and "owned here already" in done.stderr, done
        host.end()
    host = Sick()
    owner(host, "incomplete", role="far")
    refused = take(host.image)
    assert refused.returncode == 1, refused
    until_true("the process that was asked has ended", lambda: not host.processes())  # until then it, too, may have the image
    assert host.kinds() == ["volume-half"], host.findings()
    assert take("--force", host.image).returncode == 0 and host.kinds() == []
    for words in ((), ("a", "b"), ("--frob", host.image)):
        assert take(*words).returncode == 2, words
    for words in ("/nowhere", "/nowhere/at/all", "what", f"{host.place}/{KEY}"):
        assert take(words).returncode == 1, words
    assert subprocess.run([SXM, "epoch", "give", host.image], env=host.env, stderr=subprocess.DEVNULL, check=False).returncode == 2
    host.end()


# --- moves whose far side is gone

def begin_move(here, sock, export):
    here.start("1")
    operation = here.call("Data.mirror", uri=here.uri, domain="1", remote=f"nbd+unix:///{export}?socket={sock}")
    until_true("it is complete", lambda: here.call("Data.stat", operation=operation)["complete"])
    return operation


def begin_receiver(there):
    answer = there.call("Datapath.attach", uri=there.uri, domain="MIR000001")
    there.call("Datapath.activate", uri=there.uri, domain="MIR000001")
    return nbd_of(answer)


def test_a_mirror_whose_link_is_lost_is_told():
    here, there = Sick(), Sick()
    begin_move(here, *begin_receiver(there))
    assert here.kinds("--alive", "1") == [] == there.kinds()
    there.kill_datapaths()
    until_true("it is seen", lambda: here.control(here.key, "status")["ok"]["operations"][0]["links_lost"])
    status, found = here.findings("--fix", "--alive", "1")
    assert status == CLEAN and [f["kind"] for f in found] == ["mirror-unlinked"] and "lost its link" in found[0]["what"], found
    here.end()
    there.end()


def test_a_complete_mirror_that_failed_is_owed():
    """The far side is no sxm, so a lost link is its end."""
    here = Sick()
    place, image = f"{here.dir}/tapdisk", here.write(f"{here.dir}/tapdisk.img")
    os.truncate(image, 4 << 20)
    server = subprocess.Popen([sys.executable, os.path.join(os.environ["SXM_SRCDIR"], "tests/lib/tapdisk_server.py"), place, image],
                              stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    operation = begin_move(here, place, "x")
    assert here.kinds("--alive", "1") == []
    server.kill()
    server.communicate()
    until_true("it has failed", lambda: here.call("Data.stat", operation=operation)["failed"])
    status, found = here.findings("--fix", "--alive", "1")
    assert status == CLEAN and [f["kind"] for f in found] == ["mirror-failed", "debt"] and "will fail once" in found[1]["what"], found
    here.refused("", "Datapath.deactivate", uri=here.uri, domain="1")
    assert here.kinds("--alive", "1") == ["mirror-failed"]
    here.call("Datapath.deactivate", uri=here.uri, domain="1")
    here.call("Datapath.detach", uri=here.uri, domain="1")
    assert here.kinds() == ["mirror-failed"]  # its record, for a day
    here.end()


def test_a_far_side_that_died_after_the_handover_needs_a_word():
    """Both ends, each without the other: on either a person is told, and on the source the word is a command."""
    here, there = Sick(), Sick()
    begin_move(here, *begin_receiver(there))
    here.call("Datapath.deactivate", uri=here.uri, domain="1")
    assert here.kinds("--alive", "1") == [] == there.kinds(), "between two that are linked this is how each move ends"
    for verb in ("Datapath.deactivate", "Datapath.detach"):
        there.call(verb, uri=there.uri, domain="MIR000001")
    assert there.kinds() == [], "its link lingers"
    there.kill_datapaths()
    until_true("it is seen", lambda: not here.control(here.key, "status")["ok"]["operations"][0]["linked"])
    status, found = here.findings("--fix", "--alive", "1")
    assert status == LEFT and [f["kind"] for f in found] == ["volume-in-doubt"] and "handed over" in found[0]["what"], found
    for verb in ("Datapath.deactivate", "Datapath.detach"):
        here.call(verb, uri=here.uri, domain="1")
    done = obey(here, here.findings()[1], "sxm epoch take")
    told = here.findings()[1]
    assert done.returncode == 0 and told == [], (done, told)
    here.start("2")
    assert there.doctor("--fix").returncode in (REPAIRED, REPAIRED | LEFT)  # its process is started again
    assert there.kinds() == ["volume-in-doubt"], there.findings()
    here.end()
    there.end()


def test_every_kind_is_planted():
    """What the manual has is what the sources say, and each is seen by a test."""
    here, top = os.path.dirname(os.path.abspath(__file__)), os.environ["SXM_SRCDIR"]

    def read(*names):
        return "".join(open(name, encoding="utf-8").read() for name in names)
    manual = read(f"{top}/cmd/sxm.pod").split("=over", 1)[1].split("=back", 1)[0]
    kinds = {k for line in manual.splitlines() if line.startswith("=item") for k in re.findall("C<([a-z-]+)>", line)}
    told = read(*(f"{top}/plugins/doctor{part}.c" for part in ("-host", "-process", "-volume", "")))
    assert {k for text in re.findall(r"\.kind = ([^,]*)", told) for k in re.findall('"([a-z-]+)"', text)} <= kinds
    tests = read(*(f"{here}/test-{name}.py" for name in ("copy", "doctor", "doctor-person", "export-import")))
    for kind in kinds:
        assert f'"{kind}"' in told and f'"{kind}"' in tests, kind


def test_a_decision_that_is_kept_is_told():
    host = Sick()
    path = host.write(f"{host.state}/groups/group1.json", '{"group":"group1","decision":"commit","time":1700000000}')
    assert host.kinds() == [], "it is young"
    os.utime(path, (time.time() - 100000,) * 2)
    status, found = host.findings("--fix")
    assert status == CLEAN and [f["kind"] for f in found] == ["group-open"] and os.path.exists(path), found
    host.end()


def test_the_key_of_a_move_that_is_over_goes():
    host = Sick()
    path = host.write(f"{host.env['SXM_RUN_DIR']}/journeys/1234-abcd/key", "1234-abcd:00112233\n")
    assert host.kinds() == [], "it is young"
    os.utime(path, (time.time() - 100000,) * 2)
    status, found = host.findings("--fix")
    assert status == REPAIRED and [f["kind"] for f in found] == ["key-left"] and not os.path.exists(os.path.dirname(path)), found
    host.end()


def test_a_broker_of_xen_guests_is_missed():
    host = Sick()
    lock = host.write(f"{host.env['SXM_RUN_DIR']}/xenbus/qdisk.lock", "")
    with open(lock, encoding="utf-8") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        assert host.kinds() == [], "it runs"
    status, found = host.findings("--fix")
    assert status == LEFT and [f["kind"] for f in found] == ["broker-down"] and "not any more" in found[0]["what"], found
    os.unlink(lock)
    host.start("5")
    assert host.kinds("--alive", "5") == [], "this is no Xen host"
    host.env["SXM_PROC_XEN"] = os.path.dirname(host.write(f"{host.dir}/xen/capabilities", "control_d\n"))
    status, found = host.findings("--alive", "5")
    assert status == LEFT and [f["kind"] for f in found] == ["broker-down"] and "over NBD alone" in found[0]["what"], found
    for verb in ("Datapath.deactivate", "Datapath.detach"):
        host.call(verb, uri=host.uri, domain="5")
    assert host.kinds() == [], "no guest waits"
    host.end()


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
