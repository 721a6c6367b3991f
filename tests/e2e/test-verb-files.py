#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every verb's file, started in each of the three manners there are: as a program; as Python source by `python3 -m observer FILE --json`,
as xapi does when it traces; and by static-vdis at boot, with arguments instead of JSON. What comes out is the same, byte for byte."""
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import DATAPATH, SR_UUID, VOLUME, Host, check, nbd_of, say, until_true  # noqa: E402

host = Host()
# What xapi's module does with a file, and no more: it is source, run as the main program, with the rest of the command line as it was.
OBSERVER = """
import os, runpy, sys
assert os.environ["TRACEPARENT"] and os.environ["OBSERVER_CONFIG_DIR"] and os.environ["PYTHONPATH"]
sys.argv = sys.argv[1:]
script = sys.argv[0]
sys.path[0] = os.path.dirname(script)
runpy.run_path(script, run_name="__main__")
"""
os.mkdir(os.path.join(host.dir, "modules"))
with open(os.path.join(host.dir, "modules", "observer.py"), "w") as f:
    f.write(OBSERVER)
TRACED = {"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "OBSERVER_CONFIG_DIR": "/etc/xensource/observer/smapi/enabled"}
DBG = 'task\n{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","baggage":[]}'


def traced(verb, **args):
    """The verb as xapi runs it when it traces."""
    file = os.path.join(host.root, verb)
    env = {**host.env, **TRACED, "PYTHONPATH": os.path.dirname(file) + ":" + os.path.join(host.dir, "modules")}
    text = json.dumps({"dbg": DBG, **args}, separators=(",", ":")).encode()
    done = subprocess.run(["/usr/bin/python3", "-m", "observer", file, "--json"], input=text, capture_output=True, env=env, cwd="/", timeout=60)
    assert done.returncode >= 0 and done.stderr == b"", done
    return done


def result(done):
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_every_file_is_a_verb_in_both_manners():
    count = 0
    for directory in sorted(os.listdir(os.path.join(host.root, "volume"))):
        count += check_directory("volume/" + directory)
    count += check_directory(DATAPATH)
    say(f"  {count} files")


def check_directory(directory):
    """Without parameters each says which is missing, or answers; the same whoever runs it."""
    names = sorted(os.listdir(os.path.join(host.root, directory)))
    for name in names if directory in (VOLUME, DATAPATH) else ["Plugin.Query", "SR.attach"]:
        want = host.run(f"{directory}/{name}", json.dumps({"dbg": DBG}))
        done = traced(f"{directory}/{name}")
        assert (done.returncode, done.stdout) == (want.returncode, want.stdout), (name, done, want)
        if want.returncode:
            check("error_report", json.loads(want.stdout))
    return len(names)


def test_a_disk_is_moved_while_xapi_traces():
    sr = host.make_sr()
    made = result(traced(f"{VOLUME}/Volume.create", sr=sr, name="n", description="d", size=1 << 20, sharable=False))
    far = host.make_volume(sr)
    check("volume", made)
    uri, remote = made["uri"][0], nbd_of(result(traced(f"{DATAPATH}/Datapath.attach", uri=far["uri"][0], domain="MIRaaaaaa")))
    assert result(traced(f"{DATAPATH}/Datapath.activate", uri=far["uri"][0], domain="MIRaaaaaa")) is None
    check("backend", result(traced(f"{DATAPATH}/Datapath.attach", uri=uri, domain="1")))  # starts a process: it must keep none of Python's pipes
    assert result(traced(f"{DATAPATH}/Datapath.activate", uri=uri, domain="1")) is None
    operation = result(traced(f"{DATAPATH}/Data.mirror", uri=uri, domain="1", remote=f"nbd+unix:///{remote[1]}?socket={remote[0]}"))
    while not (status := result(traced(f"{DATAPATH}/Data.stat", operation=operation)))["complete"]:
        assert not status["failed"], status
    for verb, where, domain in (("deactivate", uri, "1"), ("detach", uri, "1"), ("deactivate", far["uri"][0], "MIRaaaaaa"), ("detach", far["uri"][0], "MIRaaaaaa")):
        assert result(traced(f"{DATAPATH}/Datapath.{verb}", uri=where, domain=domain)) is None
    refused = traced(f"{VOLUME}/Volume.stat", sr=sr, key="nobody")
    assert refused.returncode == 1
    check("error_report", json.loads(refused.stdout))
    large = traced(f"{VOLUME}/Volume.set", sr=sr, key=made["key"], k="k", v="x" * 300000)  # more than a pipe holds
    assert result(large) is None and result(traced(f"{VOLUME}/Volume.stat", sr=sr, key=made["key"]))["keys"]["k"] == "x" * 300000


def static(verb, *args):
    """As static-vdis calls it: no JSON goes in, "static-vdis" is the first argument, there is no xapi yet."""
    return host.run(verb, "", args=("static-vdis", *args))


def test_the_kind_of_a_guests_backend_is_the_hosts_to_say():
    sr = host.make_sr("kind")
    uri = host.make_volume(sr)["uri"][0]

    def kind(said):
        path = os.path.join(host.run_dir, "backend-kind")
        if said is not None:
            with open(path, "w") as f:
                f.write(said)
        backend = host.call("Datapath.attach", uri=uri, domain="7")
        return [a["backend_type"] for tag, a in backend["implementations"] if tag == "XenDisk"]

    assert kind(None) == ["qdisk"]
    assert kind("vbd3\n") == ["vbd3"]
    assert kind("../../0\n") == ["qdisk"]
    assert host.call("Datapath.detach", uri=uri, domain="7") is None


def test_static_vdis_attaches_a_disk_at_boot_and_lets_it_go():
    sr = host.make_sr("boot")
    v = host.make_volume(sr)
    query = result(static(f"{VOLUME}/Plugin.Query"))
    check("query_result", query)
    assert result(static(f"{VOLUME}/SR.attach", "--configuration", "uri", sr, "--configuration", "sr_uuid", SR_UUID)) == sr
    found = result(static(f"{VOLUME}/Volume.stat", sr, v["key"]))
    uri = found["uri"][0]
    backend = result(static(f"{DATAPATH}/Datapath.attach", uri, "0"))
    first = [kind for kind, _ in backend["implementations"] if kind in ("BlockDevice", "File", "Nbd")][0]
    assert first == "Nbd", backend
    assert result(static(f"{DATAPATH}/Datapath.activate", uri, "0")) is None
    sock, export = nbd_of(backend)
    size = subprocess.run(["nbdinfo", "--size", f"nbd+unix:///{export}?socket={sock}"], capture_output=True, text=True, check=True).stdout
    assert int(size) == found["virtual_size"], size
    for verb in ("deactivate", "detach"):
        assert result(static(f"{DATAPATH}/Datapath.{verb}", uri, "0")) is None
    for args in ((uri,), (uri, "0", "1"), ("nonsense", "0")):
        done = static(f"{DATAPATH}/Datapath.attach", *args)
        assert done.returncode != 0 and done.stdout == b"" and len(done.stderr) > 10, done


def nice_of(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        return int(f.read().rsplit(")", 1)[1].split()[16])


def test_a_verb_is_in_a_hurry_and_what_it_starts_is_not():
    sr = host.make_sr("hurry")
    v = host.make_volume(sr)
    args = {"uri": v["uri"][0], "domain": "1"}
    host.call("Datapath.attach", **args)
    host.call("Datapath.activate", **args)
    pid, usual = host.control(v["key"], "hello")["ok"]["pid"], os.getpriority(os.PRIO_PROCESS, 0)
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        keeper = int(f.read().rsplit(")", 1)[1].split()[1])
    assert nice_of(pid) == usual and nice_of(keeper) == usual, (nice_of(pid), nice_of(keeper))
    os.kill(pid, signal.SIGSTOP)  # so that the verb is seen while it waits
    with subprocess.Popen([os.path.join(host.root, DATAPATH, "Datapath.detach"), "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=host.env) as verb:
        try:
            verb.stdin.write(json.dumps({"dbg": "", **args}).encode())
            verb.stdin.close()
            hurried = max(usual - 10, -20)
            until_true("it comes before others", lambda: nice_of(verb.pid) == hurried or os.geteuid() != 0)
        finally:  # else it would be waited for without an end
            os.kill(pid, signal.SIGCONT)
        assert verb.stdout.read() == b"null\n"


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
