#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of an SR and its volumes, every verb of it, for each type of SR and format: what was written is there at each step.

What works is printed as the table that README.md has between its two marks; a table that differs fails. SXM_TABLE=write puts it there."""
import base64
import os
import re
import shutil
import socket
import subprocess
import sys
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests", "lib"))
import tapdisk_client  # noqa: E402
from smapi import IS_BRIEF, Host, Refused, check, nbd_of, say, skip  # noqa: E402

if os.geteuid() != 0:
    skip("only root can mount")
for tool in ("qemu-img", "qemu-io", "qemu-storage-daemon", "mkfs.xfs", "mkfs.ext4"):
    if not shutil.which(tool):
        skip("this needs: " + tool)
MIB = 1 << 20
SIZE = 8 * MIB
NO = "-"
README = os.path.join(os.environ["SXM_SRCDIR"], "README.md")
BEGIN, END = "<!-- every verb: begin -->", "<!-- every verb: end -->"


class Life:
    """One type of SR with one format: the verbs that did what they should, and those that were refused with a sentence."""

    def __init__(self, kind, fmt, configuration):
        self.host, self.format, self.configuration, self.did = Host(), fmt, configuration, {}
        self.host.volume = "volume/org.xen.xapi.storage." + kind
        self.sr = self.attached = None

    def call(self, verb, kind=None, **args):
        result = self.host.call(verb, **args)
        if kind:
            check(kind, result)
        self.did[verb] = True
        return result

    def of(self, verb, key, kind=None, **args):
        return self.call(verb, kind, sr=self.sr, key=key, **args)

    def may(self, verb, key, word, **args):
        """None: refused, and the sentence has that word."""
        try:
            return self.of(verb, key, **args)
        except Refused as e:
            assert word in str(e), e
            self.did[verb] = False
            return None

    # --- what a guest does

    def begin(self, key, verb="Datapath.activate"):
        uri = self.of("Volume.stat", key, "volume")["uri"][0]
        path, export = nbd_of(self.call("Datapath.attach", "backend", uri=uri, domain="1"))
        self.call(verb, uri=uri, domain="1")
        return uri, f"nbd+unix:///{export}?socket={path}"

    def end(self, uri):
        self.call("Datapath.deactivate", uri=uri, domain="1")
        self.call("Datapath.detach", uri=uri, domain="1")

    def io(self, nbd, *commands):
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(["qemu-io", "-f", "raw", *words, nbd], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "failed" not in said and "error" not in said.lower(), said

    def holds(self, key, *pieces):
        """(first MiB, MiBs, byte)"""
        uri, nbd = self.begin(key, "Datapath.activate_readonly")
        words = [word for at, count, byte in pieces for word in ("-c", f"read -P {byte} {at}M {count}M")]
        done = subprocess.run(["qemu-io", "-r", "-f", "raw", *words, nbd], capture_output=True, text=True, check=False)
        self.end(uri)
        assert done.returncode == 0 and "failed" not in done.stdout, (key, done.stdout + done.stderr)

    # --- the life

    def make(self):
        sr_uuid = str(uuid.uuid4())
        made = self.call("SR.create", "map", uuid=sr_uuid, name="n", description="d",
                         configuration={**self.configuration, "format": self.format})
        self.attached = made
        self.sr = self.call("SR.attach", "string", configuration=made)
        self.call("SR.set_name", sr=self.sr, new_name="name")
        self.call("SR.set_description", sr=self.sr, new_description="description")
        said = self.call("SR.stat", "sr_stat", sr=self.sr)
        assert (said["name"], said["description"], said["uuid"], said["health"][0]) == ("name", "description", sr_uuid, "Healthy"), said
        found = self.call("SR.probe", "list<probe_result>", configuration=self.configuration)
        assert any(f["configuration"].get("sr_uuid") == sr_uuid or f.get("sr") for f in found), found

    def name(self, key):
        self.of("Volume.set", key, k="vdi-type", v="user")
        self.of("Volume.set", key, k="x", v="y")
        self.of("Volume.unset", key, k="x")
        self.of("Volume.set_name", key, new_name="neu")
        self.of("Volume.set_description", key, new_description="é")
        v = self.of("Volume.stat", key, "volume")
        assert (v["name"], v["description"], v["keys"]["vdi-type"], "x" in v["keys"]) == ("neu", "é", "user", False), v

    def changed(self, one, other):
        said = self.of("Volume.list_changed_blocks", one, "changed_blocks", key2=other, offset=0, length=-1)
        bits = base64.b64decode(said["bitmap"])
        return [i for i in range(len(bits) * 8) if bits[i // 8] >> (7 - i % 8) & 1]

    def live(self):
        """In use: the volume, and its snapshot or None."""
        v = self.call("Volume.create", "volume", sr=self.sr, name="v", description="", size=SIZE, sharable=False)["key"]
        self.name(v)
        self.of("Volume.enable_cbt", v)
        uri, nbd = self.begin(v)
        self.io(nbd, "write -P 1 0 4M", "flush")
        snapshot = self.may("Volume.snapshot", v, "share blocks")
        self.io(nbd, "write -P 2 1M 1M", "flush")
        clone = self.may("Volume.clone", v, "share blocks")
        self.of("Volume.resize", v, new_size=2 * SIZE)
        self.io(nbd, "write -P 3 12M 1M", "flush")
        self.end(uri)
        assert self.of("Volume.stat", v)["virtual_size"] == 2 * SIZE
        self.holds(v, (0, 1, 1), (1, 1, 2), (2, 2, 1), (4, 8, 0), (12, 1, 3))
        if clone:
            self.holds(clone["key"], (0, 1, 1), (1, 1, 2), (2, 2, 1), (4, 4, 0))
        if snapshot:
            self.holds(snapshot["key"], (0, 4, 1), (4, 4, 0))
        return v, snapshot

    def look(self, v, snapshot):
        """At rest. snapshot: of when it was in use."""
        first = self.may("Volume.snapshot", v, "share blocks")
        if snapshot:
            blocks = self.changed(snapshot["key"], first["key"])
            assert blocks == [*range(16, 32), *range(128, 256)], blocks  # what was written, and what it grew by
        copy = self.call("Volume.copy", "volume", sr=self.sr, key=v, dest_sr=self.sr)["key"]
        same = self.of("Volume.similar_content", v, "list<string>")
        assert copy in same, same
        uri, nbd = self.begin(v)
        self.io(nbd, "write -P 4 5M 1M", "flush")
        self.end(uri)
        said = self.of("Volume.compare", copy, "blocklist", key2=v)
        size = said["blocksize"]
        assert {at * size // MIB for start, count in said["ranges"] for at in range(start, start + count)} == {5}, said
        if first:
            second = self.of("Volume.snapshot", v, "volume")["key"]
            blocks = self.changed(first["key"], second)
            assert blocks == list(range(80, 96)), blocks
            self.of("Volume.data_destroy", first["key"])
            assert self.changed(first["key"], second) == blocks
            self.of("Volume.destroy", second)
        else:
            self.did["Volume.list_changed_blocks"] = self.did["Volume.data_destroy"] = False
        self.of("Volume.disable_cbt", v)
        self.call("Volume.revert", sr=self.sr, snapshot=copy, key=v)
        self.holds(v, (0, 1, 1), (1, 1, 2), (5, 1, 0), (12, 1, 3))

    def compose(self):
        parent, child = (self.call("Volume.create", sr=self.sr, name="c", description="", size=SIZE, sharable=False)["key"] for _ in range(2))
        uri, nbd = self.begin(parent)
        self.io(nbd, "write -P 5 0M 1M", "flush")
        self.end(uri)
        self.mirror_to(child, MIB, b"\6" * MIB)
        self.of("Volume.compose", child, key2=parent)
        self.holds(child, (0, 1, 5), (1, 1, 6), (2, 6, 0))

    def mirror_to(self, key, offset, data):
        """As a SMAPIv1 host does."""
        uri = self.of("Volume.stat", key, "volume")["uri"][0]
        self.call("Datapath.attach", uri=uri, domain="MIR1")
        self.call("Datapath.activate", uri=uri, domain="MIR1")
        ours, theirs = socket.socketpair()
        tapdisk_client.pass_socket(self.call("Datapath.import_activate", "string", uri=uri, domain="MIR1"), theirs, "dp")
        source = tapdisk_client.Client(ours, SIZE)
        source.open()
        source.write(offset, data)
        source.pause()
        self.call("Datapath.deactivate", uri=uri, domain="MIR1")
        self.call("Datapath.detach", uri=uri, domain="MIR1")

    def over(self):
        for v in self.call("SR.ls", "list<volume>", sr=self.sr):
            self.of("Volume.destroy", v["key"])
        assert self.call("SR.ls", sr=self.sr) == []
        self.call("SR.detach", sr=self.sr)
        self.call("SR.attach", configuration=self.attached)
        self.call("SR.destroy", sr=self.sr)  # attached, as xapi has it then

    def whole(self):
        try:
            self.make()
            self.look(*self.live())
            self.compose()
            self.over()
        finally:
            self.host.end()
        return self.did


# --- the types

def on_directory(fmt):
    life = Life("filebased", fmt, {})
    life.configuration = {"uri": f"file://{life.host.dir}/sr"}
    return life


def on_device(kind, fmt):
    life = Life(kind, fmt, {})
    life.configuration = {"device": life.host.make_device()}
    return life


def on_server(fmt):
    """The server is a directory of this host: mount(8) has a stand-in, as the kernel here may know no NFS (test-nfs.sh has real ones)."""
    life = Life("nfs-ng", fmt, {"server": "filer.example", "serverpath": "/srv/a"})
    top = life.host.dir
    for name in ("bin", "lower", "export", "work"):
        os.mkdir(os.path.join(top, name))
    program = os.path.join(top, "bin", "mount")
    with open(program, "w", encoding="ascii") as f:
        f.write(f"""#!{sys.executable}
import os, sys
ro = ["-r"] if "ro" in sys.argv[4].split(",") else []
os.execv({shutil.which("mount")!r}, ["mount", *ro, "-t", "overlay", sys.argv[5], "-o",
         "lowerdir={top}/lower,upperdir={top}/export,workdir={top}/work", sys.argv[6]])
""")
    os.chmod(program, 0o755)
    life.host.env["PATH"] = os.path.join(top, "bin") + ":" + os.environ["PATH"]
    return life


COLUMNS = [(kind, fmt) for kind in ("filebased", "ext4-ng", "xfs-ng", "nfs-ng") for fmt in ("raw", "qcow2")]


def play(kind, fmt):
    life = on_directory(fmt) if kind == "filebased" else on_server(fmt) if kind == "nfs-ng" else on_device(kind, fmt)
    did = life.whole()
    say(f"{kind} {fmt}: " + (" ".join(sorted(verb for verb, has in did.items() if not has)) or "nothing") + " refused")
    return did


def table(columns):
    """Verbs of one kind that work in the same places share a line."""
    lines = {}
    for room in ("SR", "Volume", "Datapath"):
        for verb in sorted({verb for did in columns for verb in did if verb.startswith(room + ".")}):
            lines.setdefault((room, tuple("yes" if did.get(verb) else NO for did in columns)), []).append(verb.split(".")[1])
    rows = ["| | " + " | ".join(f"`{kind}` {fmt}" for kind, fmt in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for (room, cells), verbs in lines.items():
        rows.append(f"| {room}. {', '.join(verbs)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main():
    if IS_BRIEF:  # what the types share, and one that mounts
        return [play(*column) for column in COLUMNS if column in (("filebased", "raw"), ("ext4-ng", "qcow2"))]
    made = table([play(*column) for column in COLUMNS])
    print(made)
    with open(README, encoding="utf-8") as f:
        text = f.read()
    found = re.search(re.escape(BEGIN) + "\n(.*?)\n" + re.escape(END), text, re.DOTALL)
    assert found, f"{README} has no {BEGIN}"
    if os.environ.get("SXM_TABLE") == "write":
        with open(README, "w", encoding="utf-8") as f:
            f.write(text[:found.start(1)] + made + text[found.end(1):])
    else:
        assert found[1] == made, f"README.md's table is not this one: SXM_TABLE=write {sys.argv[0]}"


main()
