#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""sxm export and import: a disk through a pipe, whole or what changed in it since a snapshot, raw or as a qcow2 image that qemu reads,
comes out as the same bytes, there and back; a stream that is cut at any place, changed, or goes on, leaves nothing; so does one whose base is not here."""
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests/lib"))
from terminal import Terminal  # noqa: E402
from smapi import ActiveDisk, Host, chain_stays, say, skip, times, until_true  # noqa: E402

SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
for tool in ("qemu-img", "qemu-io"):
    if not shutil.which(tool):
        skip("this needs: " + tool)
MIB = 1 << 20
SIZE = 24 * MIB
here, there = Host(), Host()
TRACED = {**here.env, "ASAN_OPTIONS": "detect_leaks=0:" + here.env.get("ASAN_OPTIONS", "")}
work = here.in_memory("work")


def sxm(*args, host=here, status=0, stdin=None, stdout=subprocess.PIPE):
    done = subprocess.run([SXM, *args], stdin=stdin or subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, env=host.env, timeout=90)
    assert done.returncode == status, (args, done.returncode, done.stderr)
    return done


def path(name):
    return os.path.join(work, name)


def export(*args, to="stream", status=0, host=here):
    with open(path(to), "wb") as f:
        done = sxm("export", *args, stdout=f, status=status, host=host)
    return path(to), done.stderr.decode()


def take_in(sr, stream, *args, status=0, host=there):
    """Through a pipe. The key of what was made."""
    with open(stream, "rb") as f:
        cat = subprocess.Popen(["cat"], stdin=f, stdout=subprocess.PIPE)
        done = sxm("import", *args, sr, host=host, stdin=cat.stdout, status=status)
        cat.stdout.close()
        cat.wait()
    return done.stdout.decode().strip().rsplit("/", 1)[-1] if status == 0 else done.stderr.decode()


def image_of(host, sr, key):
    return host.call("Volume.stat", sr=sr, key=key)["uri"][0].removeprefix("sxm://")


def content(host, sr, key):
    image = image_of(host, sr, key)
    if image.endswith(".qcow2"):
        subprocess.run([*chain_stays(image), "qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", image, path("as raw")], check=True)
        image = path("as raw")
    with open(image, "rb") as f:
        return f.read()


def write(sr, key, *commands):
    """To a volume nobody has, through its datapath as a guest."""
    uri = here.call("Volume.stat", sr=sr, key=key)["uri"][0]
    out = sxm("serve", "--detach", uri).stdout.decode().strip()
    for command in commands:
        done = subprocess.run(["qemu-io", "-f", "raw", "-c", command, out], capture_output=True, text=True)
        assert done.returncode == 0 and "failed" not in done.stdout, done
    sxm("serve", "--stop", uri)


def unnoted(sr):
    """Of a medium that takes nothing it cannot be said that a volume is written to; then this host does not say what its content is, nor
    that it is what it was. Where other hosts would take it for that it is not activated."""
    key = here.make_volume(sr, MIB)["key"]
    write(sr, key, "write -P 1 0 64k")
    base = here.call("Volume.clone", sr=sr, key=key)["key"]
    directory = f"{work}/{os.path.basename(sr)}"
    uri = here.call("Volume.stat", sr=sr, key=base)["uri"][0]
    export("--base", base, f"{directory}/{key}")

    def activate(uri, directory, status):
        here.call("Datapath.attach", uri=uri, domain="1")
        crash = [os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/crash"), "-f", "-u", directory, "1"]
        done = subprocess.run([*crash, os.path.join(here.root, "datapath/sxm/Datapath.activate"), "--json"], env=TRACED, capture_output=True,
                              input=json.dumps({"dbg": "", "uri": uri, "domain": "1"}).encode(), timeout=60)
        assert done.returncode == status, done
        for verb in ("deactivate", "detach"):
            here.call("Datapath." + verb, uri=uri, domain="1")
        return done.stdout.decode()

    def content_id():
        return here.call("Volume.stat", sr=sr, key=base)["keys"]["content_id"]

    for settle in (lambda: write(sr, base), lambda: here.call("Volume.set_name", sr=sr, key=base, new_name="settled")):
        was = content_id()
        activate(uri, directory, 0)
        doubted = content_id()
        with open(f"{directory}/{base}.json") as f:
            assert was in f.read() and doubted != was
        assert "no content_id" in export("--base", base, f"{directory}/{key}", status=1)[1]
        settle()
        export("--base", base, f"{directory}/{key}")
        with open(f"{directory}/{base}.json") as f:
            assert content_id() in f.read() and content_id() != was
    for gone_key in (key, base):
        here.call("Volume.destroy", sr=sr, key=gone_key)
    os.mkdir(f"{work}/shared")
    shared = here.make_sr(uri=f"file://{work}/shared", shared="true", uuid="0a0b0c0d-1111-2222-3333-444455550011")
    v = here.make_volume(shared, MIB)
    assert "content_id cannot be changed" in activate(v["uri"][0], f"{work}/shared", 1)
    write(shared, v["key"])
    here.call("Volume.destroy", sr=shared, key=v["key"])


def not_durable(name):
    """The output's file system has no room when the stream is to be on the medium, which some say no earlier than that."""
    crash = [os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/crash"), "-o", path("changes"), "-u", path("kept")]
    os.mkdir(path("kept"))

    def run(full_from):
        with open(path("kept/stream"), "wb") as f:
            command = [*crash, *(["-f"] if full_from else []), str(full_from), SXM, "export", name]
            return subprocess.run(command, stdout=f, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=TRACED, timeout=90)

    assert run(0).returncode == 0
    with open(path("changes")) as f:
        (sync,) = [line.split()[0] for line in f if "fsync" in line and "kept" in line]
    done = run(int(sync))
    assert done.returncode == 1 and b"not whole" in done.stderr, done


def keys(host, sr):
    return sorted(v["key"] for v in host.call("SR.ls", sr=sr))


def whole(sr, far_sr):
    """qcow2, sound for qemu, and raw; a sparse disk stays so; the copy has the same content_id."""
    key = here.call("Volume.create", sr=sr, name="v", description="", size=SIZE, sharable=False)["key"]
    write(sr, key, "write -P 1 0 4096", "write -P 2 1M 3M", f"write -P 3 {SIZE - 512} 512", "write -z 8M 1M")
    name = f"{work}/{os.path.basename(sr)}/{key}"
    stream, _ = export(name)
    check = subprocess.run(["qemu-img", "check", "-f", "qcow2", stream], capture_output=True, text=True)
    assert check.returncode == 0 and "No errors" in check.stdout, check
    with open(path("raw"), "wb") as f:
        f.write(content(here, sr, key))
    subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", stream, path("raw")], check=True)
    assert os.path.getsize(stream) < 6 * MIB, os.path.getsize(stream)
    copy = take_in(far_sr, stream, "--name", "the copy")
    v = there.call("Volume.stat", sr=far_sr, key=copy)
    assert v["name"] == "the copy" and v["virtual_size"] == SIZE, v
    # a stream may say anything: by its word no two disks are the same
    assert v["keys"]["content_id"] != here.call("Volume.stat", sr=sr, key=key)["keys"]["content_id"]
    assert content(there, far_sr, copy) == content(here, sr, key)
    raw, _ = export("--format", "raw", name, to="whole raw")
    with open(raw, "rb") as f:
        assert f.read() == content(here, sr, key)
    assert os.stat(raw).st_blocks * 512 < 6 * MIB
    with open(path("appended"), "ab") as f:  # >>FILE: new, and nobody can leave a hole in it
        sxm("export", "--format", "raw", name, stdout=f)
    with open(path("appended"), "rb") as f:
        assert f.read() == content(here, sr, key)
    os.unlink(path("appended"))
    done = sxm("export", "--format", "raw", name)
    assert done.stdout == content(here, sr, key)
    again = take_in(far_sr, raw, "--format", "raw", "--size", str(SIZE))
    assert content(there, far_sr, again) == content(here, sr, key)
    assert "--size" in take_in(far_sr, raw, "--format", "raw", status=1)
    with open(raw, "rb") as f:
        third = sxm("import", "--format", "raw", far_sr, host=there, stdin=f).stdout.decode().strip().rsplit("/", 1)[1]
    assert content(there, far_sr, third) == content(here, sr, key)
    for other in (again, third):
        there.call("Volume.destroy", sr=far_sr, key=other)
    stream, _ = export("--from-format", "raw", raw)
    fourth = take_in(far_sr, stream)
    assert content(there, far_sr, fourth) == content(here, sr, key)
    there.call("Volume.destroy", sr=far_sr, key=fourth)
    return key, copy


def deltas(sr, far_sr, is_tracked):
    """What changed since a snapshot goes on top of the same snapshot there, and nowhere else; what became zeros is zeros; a disk that
    grew has grown."""
    key = here.call("Volume.create", sr=sr, name="v", description="", size=SIZE, sharable=False)["key"]
    if is_tracked:
        here.call("Volume.enable_cbt", sr=sr, key=key)
    write(sr, key, "write -P 1 0 6M", "write -P 2 10M 1M")
    base = here.call("Volume.snapshot", sr=sr, key=key)["key"]
    write(sr, key, "write -P 4 1M 64k", "write -z 2M 1M", "write -P 5 20M 100k")
    here.call("Volume.resize", sr=sr, key=key, new_size=SIZE + MIB + 512)
    write(sr, key, f"write -P 6 {SIZE + MIB} 512")
    directory = f"{work}/{os.path.basename(sr)}"
    delta, _ = export("--base", base, f"{directory}/{key}", to="delta")
    assert os.path.getsize(delta) < 2 * MIB, os.path.getsize(delta)
    there_before = keys(there, far_sr)
    assert "import that first" in take_in(far_sr, delta, status=1) and keys(there, far_sr) == there_before
    far_base = take_in(far_sr, export(f"{directory}/{base}")[0])
    got = take_in(far_sr, delta, "--name", "changed")
    assert content(there, far_sr, got) == content(here, sr, key)
    assert there.call("Volume.stat", sr=far_sr, key=got)["name"] == "changed"
    back, _ = export("--base", far_base, f"{work}/{os.path.basename(far_sr)}/{got}", to="back", host=there)
    assert os.path.getsize(back) < 2 * MIB, os.path.getsize(back)
    assert content(here, sr, take_in(sr, back, host=here)) == content(here, sr, key)
    got = take_in(far_sr, delta, "--base", far_base)
    assert content(there, far_sr, got) == content(here, sr, key)
    assert "is not what the stream stands on" in take_in(far_sr, delta, "--base", got, status=1)
    # qemu finds the same above the base, where that is told
    with open(path("base raw"), "wb") as f:
        f.write(content(here, sr, base))
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", path("base raw"), delta], check=True)
    assert subprocess.run(["qemu-img", "check", "-f", "qcow2", delta], capture_output=True).returncode == 0
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", delta, path("composed")], check=True)
    with open(path("composed"), "rb") as f:
        assert f.read() == content(here, sr, key)
    # it is written to: not that content any more
    far_uri = there.call("Volume.stat", sr=far_sr, key=far_base)["uri"][0]
    sxm("serve", "--detach", far_uri, host=there)
    sxm("serve", "--stop", far_uri, host=there)
    assert "import that first" in take_in(far_sr, export("--base", base, f"{directory}/{key}", to="delta")[0], status=1)


def raced(sr):
    """A base that somebody writes to while it is compared with is not what the delta says it stands on."""
    key = here.make_volume(sr, MIB)["key"]
    write(sr, key, "write -P 1 0 64k")
    base = here.call("Volume.clone", sr=sr, key=key)["key"]
    directory = f"{work}/{os.path.basename(sr)}"
    command = [SXM, "export", "--base", base, f"{directory}/{key}"]
    with open(f"{directory}/sxm-sr.lock", "r+") as lock, open(f"{directory}/{base}.json", "r+") as record:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=here.env)

        def waits():
            with open("/proc/locks") as f:
                return [line for line in f if "-> FLOCK" in line and f" {process.pid} " in line]

        until_true("it asks what changed", waits)
        text = record.read()
        at = text.index('"', text.index('"content_id"') + len('"content_id"')) + 1
        record.seek(at)
        record.write("00000000")
        record.flush()
        fcntl.flock(lock, fcntl.LOCK_UN)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and b"was written to" in err, err
    for gone_key in (key, base):
        here.call("Volume.destroy", sr=sr, key=gone_key)


def begin_export(sr, key):
    """One whose reader has read something, and no more."""
    command = [SXM, "export", "--format", "raw", f"{work}/{os.path.basename(sr)}/{key}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=here.env)
    assert process.stdout.read(10)
    return process


def killed(sr, key):
    """The snapshot that an export took for itself is nobody's when it was killed: the doctor knows it, and no other."""
    def doctor(*args):
        done = subprocess.run([SXM, "doctor", "--json", "--alive", "1", *args], capture_output=True, env=here.env, timeout=60)
        return [f for f in json.loads(done.stdout)["findings"] if f["kind"] == "snapshot-left"]

    persons = here.call("Volume.snapshot", sr=sr, key=key)["key"]
    was = keys(here, sr)
    process = begin_export(sr, key)
    (taken,) = set(keys(here, sr)) - set(was)
    clone = here.call("Volume.clone", sr=sr, key=taken)["key"]
    assert doctor() == []
    process.kill()
    process.communicate()
    (found,) = doctor("--fix")
    assert taken in found["subject"] and found["fixed"], found
    assert keys(here, sr) == sorted(was + [clone]) and doctor() == []
    for other in (clone, persons):
        here.call("Volume.destroy", sr=sr, key=other)


def live(sr, far_sr):
    """A disk that a guest writes to: as it was at one moment, from a snapshot that goes again; where none can be taken, refused."""
    disk = ActiveDisk(here, sr, 64 * MIB).start()
    directory = f"{work}/{os.path.basename(sr)}"
    before = disk.bytes_logged()
    was = keys(here, sr)
    stream, _ = export(f"{directory}/{disk.key}")
    after = disk.bytes_logged()
    assert keys(here, sr) == was
    gone(sr, disk.key, True)
    killed(sr, disk.key)
    disk.stop()
    got = take_in(sr, stream, host=here)
    disk.verify(got, before, after)
    disk.deactivate()
    raw = here.make_sr("work/raw2", uuid="0a0b0c0d-1111-2222-3333-444455550009")
    busy = ActiveDisk(here, raw, MIB)
    err = export(f"{work}/raw2/{busy.key}", status=1)[1]
    assert "snapshot of it cannot be taken" in err, err
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 1 0 64k", busy.nbd], check=True, stdout=subprocess.DEVNULL)
    # its image is closed while its files are changed: nobody has the lock, and its guest waits
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(os.path.dirname(busy.socket), "control"))
        s.sendall(b'{"id":1,"verb":"pause","args":{}}\n')
        assert b'"ok"' in s.makefile("rb").readline()
        err = export(f"{work}/raw2/{busy.key}", status=1)[1]
    assert "snapshot of it cannot be taken" in err, err
    busy.deactivate()


def full():
    """A full SR, a damaged record: who writes to the volume may, and its content is not taken for what it was before."""
    place = os.path.join(here.dir, "small")
    os.mkdir(place)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", place], stderr=subprocess.DEVNULL).returncode:
        say("no file system can be made full here")
        return
    sr = here.make_sr("small", uuid="0a0b0c0d-1111-2222-3333-444455550010")
    key = here.make_volume(sr, MIB)["key"]
    record = os.path.join(place, key + ".json")

    def content_id():
        with open(record) as f:
            return f.read().split('"content_id"')[1].split('"')[1]

    write(sr, key, "write -P 1 0 1M")
    before = content_id()
    with open(os.path.join(place, "filling"), "wb", buffering=0) as f:
        try:
            while f.write(bytes(4096)):
                pass
        except OSError:
            pass
    write(sr, key, "write -P 2 0 1M")
    assert len(content_id()) == 36 and content_id() != before
    assert here.call("Volume.stat", sr=sr, key=key)["keys"]["content_id"] == content_id()
    before = content_id()
    with open(record, "r+") as f:
        f.truncate(os.path.getsize(record) - 2)
    uri = f"sxm://{place}/{key}.raw"
    for verb in ("attach", "activate", "deactivate", "detach"):
        here.call("Datapath." + verb, uri=uri, domain="1")
    assert len(content_id()) == 36 and content_id() != before


def bad(stream, far_sr):
    """Cut, changed, longer, of another kind: nothing is left, and it is said why."""
    was = keys(there, far_sr)
    with open(stream, "rb") as f:
        good = f.read()

    def refused(data, word, *args):
        with open(path("bad"), "wb") as f:
            f.write(data)
        err = take_in(far_sr, path("bad"), *args, status=1)
        assert word in err and "nothing was imported" in err, (word, err)
        assert keys(there, far_sr) == was

    for cut in [0, 1, 511, 65536, len(good) - 65536, len(good) - 1] + [random.randrange(len(good)) for _ in range(times(8))]:
        refused(good[:cut], "cut off")
    refused(good + b"x", "goes on after the end")
    refused(b"x" * MIB, "no stream of")
    refused(good[:4] + struct.pack(">I", 2) + good[8:], "no stream of")
    refused(good[:24] + struct.pack(">Q", 1 << 60) + good[32:], "too large")
    with open(path("other.qcow2"), "wb"):
        pass
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path("other.qcow2"), "1M"], check=True)
    with open(path("other.qcow2"), "rb") as f:
        refused(f.read(), "sxm copy")
    refused(bytes(MIB), "cut off", "--format", "raw", "--size", "2MiB")
    refused(bytes(MIB), "goes on", "--format", "raw", "--size", "65536")
    sxm("import", far_sr + "/nothing", host=there, status=1)
    sxm("import", status=2)
    sxm("import", "--size", "1M", far_sr, status=2)
    # Ctrl-C, and a killed one: what is left says that it is not whole
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen([SXM, "import", "--name", "n", far_sr], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=there.env)
        process.stdin.write(good[:len(good) - 65536])
        process.stdin.flush()
        until_true("it fills the volume", lambda: len(keys(there, far_sr)) > len(was))
        process.send_signal(number)
        process.wait(30)
        process.stdin.close()
        assert process.returncode == (1 if number == signal.SIGINT else -9), process.stderr.read()
        process.stderr.close()
        if number == signal.SIGINT:
            assert keys(there, far_sr) == was
    (left,) = [v for v in there.call("SR.ls", sr=far_sr) if v["key"] not in was]
    assert left["name"] == "n (incomplete)", left


def gone(sr, key, is_in_use):
    """The reader goes away: it ends, and says so; a snapshot that was taken for it goes."""
    was = keys(here, sr)
    process = begin_export(sr, key)
    assert len(keys(here, sr)) == len(was) + is_in_use
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(30) == 1 and b"not whole" in err, err
    process.stderr.close()
    assert keys(here, sr) == was


def shown(sr, key):
    """On a terminal a bar, one of several programs' in a pipe; elsewhere lines, if they are asked for; and never on standard output."""
    env = {**here.env, "TERM": "xterm", "LANG": "C"}
    name = f"{work}/{os.path.basename(sr)}/{key}"
    fifo = path("slow")
    os.mkfifo(fifo)
    terminal = Terminal(["sh", "-c", 'exec "$@" >"$0"', fifo, SXM, "export", "--format", "raw", name], env=env)
    with open(fifo, "rb") as f:
        data = f.read(MIB)

        def has_bar(lines):
            nonlocal data
            data += f.read(64 * 1024)
            return any("%" in line and "[" in line for line in lines) and any(line.startswith("exporting") for line in lines)
        terminal.until("there is a bar", has_bar)
        data += f.read()
    assert terminal.end() == 0
    lines = terminal.screen.text()
    assert len(data) == SIZE and any("100%" in line and "done" in line for line in lines), lines
    both = Terminal(["sh", "-c", f"{SXM} export {name} | (sleep 1; cat) | {SXM} import {FAR_RAW} >/dev/null"], env=env)
    assert both.end() == 0
    lines = [line for line in both.screen.text() if line]
    assert sum("ing, " in line for line in lines) <= 1, lines
    for args, wanted in (((), False), (("--progress",), True), (("--progress", "--quiet"), False)):
        done = export(*args, name)[1]
        assert ("100 %" in done) == wanted and (wanted or not done), done
        with open(path("stream"), "rb") as f:
            done = sxm("import", *args, FAR_RAW, host=there, stdin=f)
        assert (b"100 %" in done.stderr) == wanted and done.stdout.count(b"\n") == 1, done


SR = here.make_sr(uri=f"file://{work}/qcow2", format="qcow2")
RAW = here.make_sr(uri=f"file://{work}/raw1", format="raw", uuid="0a0b0c0d-1111-2222-3333-444455550007")
FAR = there.make_sr(uri=f"file://{work}/far-qcow2", format="qcow2", uuid="0a0b0c0d-1111-2222-3333-444455550001")
FAR_RAW = there.make_sr(uri=f"file://{work}/far-raw", format="raw", uuid="0a0b0c0d-1111-2222-3333-444455550002")
KEY, _ = whole(SR, FAR_RAW)
whole(RAW, FAR)
deltas(SR, FAR, False)
deltas(SR, FAR_RAW, True)
raced(SR)
live(SR, FAR)
gone(SR, KEY, False)
shown(SR, KEY)
full()
unnoted(SR)
not_durable(f"{work}/qcow2/{KEY}")
bad(export(f"{work}/qcow2/{KEY}")[0], FAR_RAW)
say("what came out was what went in, and nothing else came out")
