#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk's process: started once however many ask, kept by nobody's pipes or process group, found again by verbs that come
late, and gone when nobody is left. Operations are answered for in every state."""
import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import DATAPATH, Host, check, nbd_of, say, until_true  # noqa: E402

host = Host()
sr = host.make_sr()


def disk(size=4 << 20):
    v = host.make_volume(sr, size)
    return v["uri"][0], v["key"]


def attach(uri, domain="1"):
    return host.call("Datapath.attach", uri=uri, domain=domain)


def control(backend, verb, args=None):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(os.path.dirname(nbd_of(backend)[0]), "control"))
        s.sendall(json.dumps({"id": 1, "verb": verb, "args": args or {}}).encode() + b"\n")
        return json.loads(s.makefile().readline())["ok"]


def is_served(backend):
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(nbd_of(backend)[0])
            s.settimeout(60)
            return s.recv(8) == b"NBDMAGIC"
        except OSError:
            return False


def let_go(uri, *domains):
    for domain in domains:
        for verb in ("Datapath.deactivate", "Datapath.detach", "Datapath.deactivate", "Datapath.detach"):
            host.call(verb, uri=uri, domain=domain)


def nobody_left():
    until_true("the processes to end", lambda: not host.processes())
    kept = [n for n in os.listdir(host.run_dir) if not n.endswith(".lock") and n not in ("srs", "state")]
    assert not kept, kept


def test_many_at_once_start_one_process():
    uri, _ = disk()
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = {json.dumps(c.result()) for c in [pool.submit(attach, uri) for _ in range(32)]}
    assert len(answers) == 1, answers
    pids = {control(json.loads(a), "hello")["pid"] for a in answers}
    assert len(pids) == 1 and len(host.processes()) <= 2, host.processes()  # it and its keeper
    assert attach(uri) == json.loads(answers.pop())
    let_go(uri, "1")
    nobody_left()


def test_letting_go_of_what_is_not_there_succeeds_and_starts_nothing():
    uri, key = disk()
    for domain in ("1", "", "u0_x", "-1"):
        let_go(uri, domain)
    host.call("Volume.destroy", sr=sr, key=key)
    let_go(uri, "1")
    let_go("sxm:///nowhere/at/all.raw", "1")
    nobody_left()


def test_a_guest_keeps_its_disk_when_the_verbs_group_is_killed():
    uri, _ = disk()
    backend = attach(uri)
    run = subprocess.Popen([os.path.join(host.root, DATAPATH, "Datapath.activate"), "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, env=host.env, start_new_session=True)
    out, err = run.communicate(json.dumps({"uri": uri, "domain": "1", "dbg": ""}).encode(), timeout=60)  # the pipes' ends came
    assert (out, err) == (b"null\n", b""), (out, err)
    try:
        os.killpg(run.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    assert is_served(backend)
    for pid in host.processes():
        assert all(os.readlink(f"/proc/{pid}/fd/{n}") == "/dev/null" for n in (0, 1, 2)), pid
        with open(f"/proc/{pid}/stat") as f:
            assert int(f.read().rsplit(")", 1)[1].split()[2]) != os.getpgrp()
    let_go(uri, "1")
    nobody_left()


def test_a_killed_process_comes_back_and_barriers_still_answer():
    uri, _ = disk()
    backend = attach(uri)
    host.call("Datapath.activate", uri=uri, domain="1")
    os.kill(control(backend, "hello")["pid"], signal.SIGKILL)
    assert attach(uri) == backend
    until_true("service again", lambda: is_served(backend))
    os.kill(control(backend, "hello")["pid"], signal.SIGKILL)
    let_go(uri, "1")
    nobody_left()


def test_the_next_verb_takes_up_what_a_whole_family_killed_left():
    uri, key = disk()
    backend = attach(uri)
    host.call("Datapath.activate", uri=uri, domain="1")
    for pid in host.processes():
        os.kill(pid, signal.SIGSTOP)
    for pid in host.processes():
        os.kill(pid, signal.SIGKILL)
    until_true("their end", lambda: not host.processes())
    host.refused("active for domain 1", "Volume.destroy", sr=sr, key=key)
    assert attach(uri) == backend
    until_true("service again", lambda: is_served(backend))
    let_go(uri, "1")
    nobody_left()


def test_a_volume_in_use_is_not_destroyed_and_grows():
    uri, key = disk()
    attach(uri)
    host.refused("attached for domain 1", "Volume.destroy", sr=sr, key=key)
    host.call("Datapath.activate", uri=uri, domain="1")
    host.refused("active for domain 1", "Volume.destroy", sr=sr, key=key)
    host.call("Volume.resize", sr=sr, key=key, new_size=6 << 20)
    assert host.call("Volume.stat", sr=sr, key=key)["virtual_size"] == 6 << 20
    host.call("Volume.set", sr=sr, key=key, k="a", v="b")
    host.call("Datapath.deactivate", uri=uri, domain="1")
    host.call("Volume.resize", sr=sr, key=key, new_size=8 << 20)
    host.call("Datapath.detach", uri=uri, domain="1")
    host.call("Volume.destroy", sr=sr, key=key)
    nobody_left()


def test_what_a_failed_move_left_attached_does_not_keep_a_volume():
    uri, key = disk()
    attach(uri, "MIR12ab34")
    host.call("Datapath.activate", uri=uri, domain="MIR12ab34")
    host.call("Volume.destroy", sr=sr, key=key)
    nobody_left()


def test_an_attach_that_cannot_be_leaves_nothing():
    uri, key = disk()
    host.refused("No such file", "Datapath.attach", uri="sxm:///nowhere/at/all.raw", domain="1")
    host.refused("neither a file", "Datapath.attach", uri=f"sxm://{host.dir}", domain="1")
    host.refused("sxm:///", "Datapath.attach", uri="other:///x", domain="1")
    good = host.run_dir
    for word, run_dir in (("too long", host.dir + "/" + "r" * 80), ("colon", host.dir + "/a:b"), ("absolute", "relative-run")):
        host.env["SXM_RUN_DIR"] = run_dir
        host.refused("SXM_RUN_DIR", "Datapath.attach", uri=uri, domain="1")
        host.refused(word, "Datapath.attach", uri=uri, domain="1")
        assert not os.path.exists(run_dir), run_dir
    host.env["SXM_RUN_DIR"] = good
    host.call("Volume.destroy", sr=sr, key=key)
    nobody_left()


def test_operations_are_answered_for_in_every_state():
    uri, _ = disk()
    far, _ = disk()
    remote = nbd_of(attach(far, "MIR000001"))
    host.call("Datapath.activate", uri=far, domain="MIR000001")
    attach(uri)
    host.call("Datapath.activate", uri=uri, domain="1")
    operation = host.call("Data.mirror", uri=uri, domain="1", remote=f"nbd+unix:///{remote[1]}?socket={remote[0]}")
    assert operation[0] == "MirrorV1"

    def status(of=operation):
        answer = host.call("Data.stat", operation=of)
        check("status", answer)
        return answer["failed"], answer["complete"]
    until_true("the mirror", lambda: status() == (False, True))
    assert median_ms("Data.stat", operation=operation) < 900  # there is news: it must not wait its second
    assert host.call("Data.ls") == [operation]
    host.refused("", "Data.mirror", uri=uri, domain="1", remote=f"nbd+unix:///x?socket={remote[0]}")
    host.call("Datapath.deactivate", uri=uri, domain="1")
    assert status() == (False, True)
    host.call("Datapath.detach", uri=uri, domain="1")
    let_go(far, "MIR000001")
    attach(far, "2")  # taken: the link that was kept for it goes
    host.call("Datapath.activate", uri=far, domain="2")
    let_go(far, "2")
    nobody_left()
    assert status() == (False, True) and host.call("Data.ls") == [operation]
    host.call("Data.cancel", operation=operation)
    for _ in range(2):
        host.call("Data.destroy", operation=operation)
    assert host.call("Data.ls") == [] and status() == (True, False)
    for nonsense in ("", "x", "../../../etc/passwd.1", operation[1] + "/../x.1", "a-12345678.1", "\n"):
        for tag in ("MirrorV1", "CopyV1"):
            assert status([tag, nonsense]) == (True, False)
            host.call("Data.cancel", operation=[tag, nonsense])
            host.call("Data.destroy", operation=[tag, nonsense])


def test_a_halted_guests_disk_is_copied_without_any_domain():
    uri, _ = disk()
    far, _ = disk()
    remote = nbd_of(attach(far, "MIR000002"))
    host.call("Datapath.activate", uri=far, domain="MIR000002")
    operation = host.call("Data.mirror", uri=uri, domain="-1", remote=f"nbd:unix:{remote[0]}:exportname={remote[1]}")
    until_true("the mirror", lambda: host.call("Data.stat", operation=operation)["complete"])
    let_go(uri, "-1")
    host.call("Data.cancel", operation=operation)
    assert host.call("Data.stat", operation=operation)["complete"]  # it was handed over: too late
    let_go(far, "MIR000002")
    attach(far, "2")
    host.call("Datapath.activate", uri=far, domain="2")
    let_go(far, "2")
    nobody_left()


def median_ms(verb, **args):
    times = []
    for _ in range(21):
        start = time.monotonic()
        host.run(f"{DATAPATH}/{verb}", json.dumps({**args, "dbg": ""}))
        times.append(time.monotonic() - start)
    say(f"  {verb}: median {sorted(times)[10] * 1000:.1f} ms")
    return sorted(times)[10] * 1000


def test_a_verb_that_only_asks_is_quick():
    uri, _ = disk()
    attach(uri)
    assert median_ms("Datapath.attach", uri=uri, domain="1") < 900  # a loaded machine is no failure; a wait in the path is
    let_go(uri, "1")
    nobody_left()


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
