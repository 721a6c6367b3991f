#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""sxm ls: every volume of every SR that is attached, with its size, its parent, who has it, on which host, and what its mirror does; one
JSON object that says the same; and nothing that a name, a parent or a damaged record says can disturb the terminal or the list."""
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import Host, nbd_of, say, skip, until_true  # noqa: E402

SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
UUIDS = ["0a0b0c0d-1111-2222-3333-44445555000" + n for n in "12"]
HOSTILE = "a\x1b[2J\x07b\nc\\d\u009b31m\u202e\x7f e\u0301\u4e2d"
if not shutil.which("qemu-img") or not (shutil.which("qemu-storage-daemon") or shutil.which("qemu-nbd")):
    skip("this needs qemu-img and qemu-storage-daemon or qemu-nbd")
host = Host()
memory = host.in_memory("memory")


def ls(*args, status=0):
    done = subprocess.run([SXM, "ls", *args], capture_output=True, env=host.env, timeout=60)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout.decode(), done.stderr.decode()


def listed(*args, status=0):
    """What --json says: {directory: SR}, with {key: volume} of each."""
    out, _ = ls("--json", *args, status=status)
    assert out.count("\n") == 1 and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out), out
    srs = json.loads(out)["srs"]
    return {sr["dir"]: {**sr, "volumes": {v["key"]: v for v in sr["volumes"]}} for sr in srs}


def line_of(out, key):
    lines = [line for line in out.splitlines() if key in line]
    assert len(lines) == 1, (key, out)
    return lines[0]


def nothing():
    assert "no SR" in ls()[0]
    assert listed() == {}
    assert "usage" in ls("--wrong", status=2)[1]
    assert "no SR nowhere is attached" in ls("nowhere", status=1)[1]


def make():
    raw = host.make_sr("memory/raw", uuid=UUIDS[0])
    qcow2 = host.make_sr(uri=f"file://{memory}/qcow2", format="qcow2", uuid=UUIDS[1])
    return raw, qcow2


def plain(raw, qcow2):
    """Two SRs, named or not, as directories, URIs or uuids; sizes, names."""
    a = host.call("Volume.create", sr=raw, name="disk a", description="its text", size=3 << 20, sharable=False)
    with open(a["uri"][0].removeprefix("sxm://"), "r+b") as f:
        f.write(b"x" * 65536)
    all_of = listed()
    assert sorted(all_of) == [f"{memory}/qcow2", f"{memory}/raw"], all_of
    sr = all_of[f"{memory}/raw"]
    assert (sr["uuid"], sr["name"], sr["format"], sr["shared"]) == (UUIDS[0], "n", "raw", False), sr
    v = sr["volumes"][a["key"]]
    assert (v["name"], v["description"], v["format"], v["size_bytes"], v["read_write"], v["snapshot"], v["uri"]) == \
        ("disk a", "its text", "raw", 3 << 20, True, False, a["uri"][0]), v
    assert 65536 <= v["allocated_bytes"] < 3 << 20, v
    assert v["domains"] == [] and v["mirrors"] == [], v
    for name in (UUIDS[0], f"{memory}/raw", raw):
        assert list(listed(name)) == [f"{memory}/raw"], name
    out, _ = ls()
    assert out.count("SR ") == 2 and UUIDS[0] in out and UUIDS[1] in out, out
    line = line_of(out, a["key"])
    assert "3.0 MiB" in line and "raw" in line and line.endswith("disk a"), line
    return a


def tree(qcow2):
    """Snapshots below what they are of, the oldest first; a circle, and a volume that is its own parent, are all shown once."""
    v = host.make_volume(qcow2)
    snapshots = [host.call("Volume.snapshot", sr=qcow2, key=v["key"])["key"] for _ in range(3)]
    for i, key in enumerate(snapshots):
        host.call("Volume.set", sr=qcow2, key=key, k="snapshot_time", v=f"2020010{3 - i}T00:00:00Z")
    sr = listed(qcow2)[f"{memory}/qcow2"]
    assert all(sr["volumes"][k]["snapshot_of"] == v["key"] and sr["volumes"][k]["snapshot"] and not sr["volumes"][k]["read_write"]
               for k in snapshots), sr
    out, _ = ls(qcow2)
    order = [key for key in re.findall("[0-9a-f]{8}-[0-9a-f-]{27}", out) if key in snapshots + [v["key"]]]
    assert order == [v["key"]] + snapshots[::-1], (out, order)
    assert all("`-" in line_of(out, key) for key in snapshots) and "`-" not in line_of(out, v["key"])
    clone = host.call("Volume.clone", sr=qcow2, key=snapshots[0])["key"]
    assert listed(qcow2)[f"{memory}/qcow2"]["volumes"][clone]["family"] == v["key"]
    for key, parent in zip(snapshots, snapshots[1:] + snapshots[:1]):
        host.call("Volume.set", sr=qcow2, key=key, k="snapshot_of", v=parent)
    host.call("Volume.set", sr=qcow2, key=v["key"], k="snapshot_of", v=v["key"])
    out, _ = ls(qcow2)
    for key in snapshots + [v["key"], clone]:
        line_of(out, key)


def hostile(raw):
    """A name that would clear the screen, end the line or turn it is shown harmless; in JSON it is what it was."""
    v = host.call("Volume.create", sr=raw, name=HOSTILE, description="\x1b]0;x\x07", size=1 << 20, sharable=False)
    out, _ = ls(raw)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out), out
    assert line_of(out, v["key"]).endswith(r"a\x1b[2J\x07b\x0ac\\d\xc2\x9b31m\xe2\x80\xae\x7f e" + "\u0301\u4e2d"), out
    assert listed(raw)[f"{memory}/raw"]["volumes"][v["key"]]["name"] == HOSTILE
    record = f"{memory}/raw/{v['key']}.json"
    with open(record, "wb") as f:
        f.write(b"\x1b[2J\xff{")
    shown = listed(raw)[f"{memory}/raw"]["volumes"][v["key"]]
    assert "damaged" in shown["trouble"], shown
    host.call("Volume.destroy", sr=raw, key=v["key"])


def users(raw, a):
    """Who has it attached, reads or writes; a mirror under way, and its far side; a process that does not answer."""
    b = host.make_volume(raw, 3 << 20)
    nbd_of(host.call("Datapath.attach", uri=a["uri"][0], domain="7"))
    assert " 7 attached" in line_of(ls(raw)[0], a["key"])
    host.call("Datapath.activate", uri=a["uri"][0], domain="7")
    assert " 7 writes" in line_of(ls(raw)[0], a["key"])
    host.call("Datapath.attach", uri=a["uri"][0], domain="u0_x")
    assert " 7 writes +1" in line_of(ls(raw)[0], a["key"])
    sock, export = nbd_of(host.call("Datapath.attach", uri=b["uri"][0], domain="MIR123456"))
    host.call("Datapath.activate", uri=b["uri"][0], domain="MIR123456")
    operation = host.call("Data.mirror", uri=a["uri"][0], domain="7", remote=f"nbd+unix:///{export}?socket={sock}")
    until_true("in sync", lambda: host.call("Data.stat", operation=operation)["complete"])
    volumes = listed(raw)[f"{memory}/raw"]["volumes"]
    users_of_a = {u["domain"]: (u["active"], u["read_only"]) for u in volumes[a["key"]]["domains"]}
    assert users_of_a["7"] == (True, False) and not users_of_a["u0_x"][0], users_of_a
    (mirror,) = volumes[a["key"]]["mirrors"]
    assert (mirror["id"], mirror["copy"], mirror["state"], mirror["complete"]) == (operation[1], False, "synced", True), mirror
    assert volumes[b["key"]]["owner"] == "receiving", volumes[b["key"]]
    out, _ = ls(raw)
    assert "synced 100%" in line_of(out, a["key"]) and "receiving" in line_of(out, b["key"]), out
    host.call("Datapath.deactivate", uri=b["uri"][0], domain="MIR123456")
    host.call("Datapath.detach", uri=b["uri"][0], domain="MIR123456")
    until_true("its process ends", lambda: not listed(raw)[f"{memory}/raw"]["volumes"][b["key"]]["domains"])
    until_true("it is incomplete", lambda: listed(raw)[f"{memory}/raw"]["volumes"][b["key"]].get("owner") == "incomplete")
    for domain in ("7", "u0_x"):
        try:
            host.call("Datapath.deactivate", uri=a["uri"][0], domain=domain)
        except Exception:  # a mirror that ended may be said once
            host.call("Datapath.deactivate", uri=a["uri"][0], domain=domain)
        host.call("Datapath.detach", uri=a["uri"][0], domain=domain)
    assert listed(raw)[f"{memory}/raw"]["volumes"][a["key"]]["domains"] == []


def elsewhere(raw, a):
    """A volume of an SR that hosts share is active on another one."""
    lease = f"{memory}/raw/{a['key']}.raw.lease"
    os.mkdir(lease)
    open(lease + "/1.0.00000000000000aa.other-host", "w").close()
    assert listed(raw)[f"{memory}/raw"]["volumes"][a["key"]]["active_on_host"] == "other-host"
    assert "host other-host" in line_of(ls(raw)[0], a["key"])
    shutil.rmtree(lease)


def gone():
    """An SR whose directory is not there is said to be so, and the others are listed."""
    os.rename(f"{memory}/qcow2", f"{memory}/away")
    found = listed(status=1)
    assert found[f"{memory}/qcow2"]["trouble"] and found[f"{memory}/qcow2"]["volumes"] == {}, found
    assert found[f"{memory}/raw"]["volumes"]
    os.rename(f"{memory}/away", f"{memory}/qcow2")


nothing()
RAW, QCOW2 = make()
A = plain(RAW, QCOW2)
tree(QCOW2)
hostile(RAW)
users(RAW, A)
elsewhere(RAW, A)
gone()
say("all SRs and volumes were listed, whatever their files said")
