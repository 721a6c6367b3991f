#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""sxm fsck: what a person may do to an SR's files is found, and put right when asked to; nothing is changed unasked, no byte of an
image is lost, and what is in use is left as it is."""
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import SR_UUID, Host, say, skip  # noqa: E402

SXM = os.path.join(os.environ["SXM_BUILDDIR"], "sxm")
CLEAN, REPAIRED, LEFT, NOT_DONE, USAGE = 0, 1, 4, 8, 16
ASIDE = "sxm-lost+found"
NEW_KEY = "00000000-aaaa-bbbb-cccc-dddddddddddd"
host = Host()
memory = host.in_memory("memory")
if os.geteuid() != 0:
    skip("only root can do this")


def fsck(*args, text="", **options):
    return subprocess.run([SXM, "fsck", *args], input=text, capture_output=True, text=True, env=host.env, timeout=60, **options)


class Sr:
    """An SR with two volumes, and files outside it that nobody may touch."""

    def __init__(self, name):
        self.dir = os.path.join(memory, name)
        self.handle = host.make_sr("memory/" + name)
        self.keys = []
        for i in range(2):
            key = host.call("Volume.create", sr=self.handle, name=f"disk {i}", description="d", size=65536, sharable=False)["key"]
            with open(self.path(key, ".raw"), "r+b") as f:
                f.write(bytes([i + 1]) * 4096)
            host.call("Volume.set", sr=self.handle, key=key, k="vdi-type", v="user")
            self.keys.append(key)
        self.outside = os.path.join(memory, name + "-outside")
        with open(self.outside, "wb") as f:
            f.write(b"o" * 65536)

    def path(self, name, suffix=""):
        return os.path.join(self.dir, name + suffix)

    def files(self):
        """Every file: its bytes, mode and time; links are not followed."""
        found = {}
        for directory, names, more in os.walk(self.dir):
            for name in names + more:
                path = os.path.join(directory, name)
                st = os.lstat(path)
                found[path] = (st.st_mode, st.st_uid, self.digest(path) if os.path.isfile(path) and not os.path.islink(path) else "")
        return found

    @staticmethod
    def digest(path):
        with open(path, "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()

    def volumes(self):
        return {v["key"]: v for v in host.call("SR.ls", sr=self.handle)}

    def edit(self, **members):
        """A member of the first volume's record is changed by hand."""
        path = self.path(self.keys[0], ".json")
        with open(path) as f:
            record = json.load(f)
        record.update(members)
        with open(path, "w") as f:
            json.dump(record, f)


def write(path, text=""):
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o600)


def cut(path):
    with open(path) as f:
        text = f.read()
    write(path, text[:text.index('"keys"') + 3])


def replace_by_link(sr, path):
    os.unlink(path)
    os.symlink(sr.outside, path)


# --- what is planted: (what the report says, plant, what holds after the repair)

def still_both(sr, before):
    assert set(sr.volumes()) == set(sr.keys), sr.volumes()


def with_its_name(sr, before):
    still_both(sr, before)
    v = sr.volumes()[sr.keys[0]]
    assert (v["name"], v["uuid"], v["virtual_size"], v["read_write"]) == ("disk 0", sr.keys[0], 65536, True), v
    assert v["keys"]["content_id"], v


def without_its_name(sr, before):
    still_both(sr, before)
    assert sr.volumes()[sr.keys[0]]["virtual_size"] == 65536


def only_the_other(sr, before):
    assert set(sr.volumes()) == {sr.keys[1]}, sr.volumes()


def has_a_third(sr, before):
    assert set(sr.volumes()) == {*sr.keys, NEW_KEY}, sr.volumes()
    v = sr.volumes()[NEW_KEY]
    assert v["virtual_size"] % 512 == 0 and v["virtual_size"] >= 4096, v


def is_named(sr, before):
    still_both(sr, before)
    stat = host.call("SR.stat", sr=sr.handle)
    assert (stat["uuid"], stat["name"]) == (SR_UUID, "n"), stat


def is_itself(sr, before):
    still_both(sr, before)
    assert host.call("SR.stat", sr=sr.handle)["uuid"] == SR_UUID


PLANTS = [
    ("a record cut off", "damaged", lambda sr: cut(sr.path(sr.keys[0], ".json")), with_its_name),
    ("a record that is empty", "damaged", lambda sr: write(sr.path(sr.keys[0], ".json")), without_its_name),
    ("a record of another shape", "damaged", lambda sr: write(sr.path(sr.keys[0], ".json"), '{"uuid":7}'), without_its_name),
    ("a record that is a link", "symbolic link", lambda sr: replace_by_link(sr, sr.path(sr.keys[0], ".json")), without_its_name),
    ("a record that is a directory", "a directory",
     lambda sr: (os.unlink(sr.path(sr.keys[0], ".json")), os.mkdir(sr.path(sr.keys[0], ".json"))), without_its_name),
    ("a record without image", "has no image", lambda sr: os.unlink(sr.path(sr.keys[0], ".raw")), only_the_other),
    ("a damaged record without image", "has no image",
     lambda sr: (os.unlink(sr.path(sr.keys[0], ".raw")), cut(sr.path(sr.keys[0], ".json"))), only_the_other),
    ("an image without record", "has no record", lambda sr: write(sr.path(NEW_KEY, ".raw"), "z" * 4096), has_a_third),
    ("an image of no whole sectors", "whole sectors", lambda sr: write(sr.path(NEW_KEY, ".raw"), "z" * 4100), has_a_third),
    ("an image that is a link", "symbolic link", lambda sr: replace_by_link(sr, sr.path(sr.keys[0], ".raw")), only_the_other),
    ("an image that others may read", "mode 0644", lambda sr: os.chmod(sr.path(sr.keys[0], ".raw"), 0o644), with_its_name),
    ("an image that is somebody else's", "user 12345", lambda sr: os.chown(sr.path(sr.keys[0], ".raw"), 12345, -1), with_its_name),
    ("a record that others may write", "mode 0666", lambda sr: os.chmod(sr.path(sr.keys[0], ".json"), 0o666), with_its_name),
    ("a directory that others may write", "mode 0777", lambda sr: os.chmod(sr.dir, 0o777), with_its_name),
    ("another uuid", "uuid is other", lambda sr: sr.edit(uuid="other"), with_its_name),
    ("a uuid twice", "uuid is", lambda sr: sr.edit(uuid=sr.keys[1]), with_its_name),
    ("another format", "format is vhd", lambda sr: sr.edit(format="vhd"), with_its_name),
    ("another size", "says that the disk has 7 bytes", lambda sr: sr.edit(virtual_size=7), with_its_name),
    ("no content_id", "no content_id", lambda sr: sr.edit(keys={}), with_its_name),
    ("marks without image", "beside an image", lambda sr: write(sr.path(NEW_KEY, ".raw.marks"), "m"), still_both),
    ("an owner without image", "beside an image", lambda sr: write(sr.path(NEW_KEY, ".raw.owner"), "m"), still_both),
    ("a journal that is a link", "symbolic link", lambda sr: os.symlink(sr.outside, sr.path(sr.keys[0], ".raw.mirror")), with_its_name),
    ("a passing name", "belongs to no volume", lambda sr: write(sr.path("." + NEW_KEY, ".raw.new"), "p"), still_both),
    ("a passing name of a whole volume", "belongs to no volume",
     lambda sr: os.link(sr.path(sr.keys[0], ".raw"), sr.path("." + sr.keys[0], ".raw.new")), with_its_name),
    ("a passing name that is a link", "belongs to no volume", lambda sr: os.symlink(sr.outside, sr.path("." + NEW_KEY, ".raw.new")), still_both),
    ("an old half-written record", "half written",
     lambda sr: (write(sr.path(NEW_KEY, ".json.7.tmp")), os.utime(sr.path(NEW_KEY, ".json.7.tmp"), (1, 1))), still_both),
    ("a group's half-written file", "half written",
     lambda sr: write(sr.path(f"sxm-sr.group.{NEW_KEY}.AbCdEf.tmp"), '{"sr"'), still_both),
    ("a group's half-written file that is a link", "half written",
     lambda sr: os.symlink(sr.outside, sr.path(f"sxm-sr.group.{NEW_KEY}.AbCdEf.tmp")), still_both),
    ("a record that was damaged", "was damaged", lambda sr: write(sr.path(sr.keys[0], ".json.damaged"), "{"), with_its_name),
    ("the SR's record cut off", "sxm-sr.json is damaged", lambda sr: write(sr.path("sxm-sr.json"), sr_record(sr)[:-5]), is_named),
    ("a lock that is a link", "symbolic link", lambda sr: replace_by_link(sr, sr.path("sxm-sr.lock")), still_both),
]


def sr_record(sr):
    with open(sr.path("sxm-sr.json")) as f:
        return f.read()


def test_what_is_planted_is_found_and_put_right():
    for i, (name, word, plant, holds) in enumerate(PLANTS):
        sr = Sr(f"sr{i}")
        assert fsck(sr.dir).returncode == CLEAN, fsck(sr.dir)
        plant(sr)
        before = sr.files()
        bytes_before = {digest for path, (_, _, digest) in before.items() if path.endswith((".raw", ".new"))}
        for args in ((), ("-n",)):
            done = fsck(*args, sr.dir)
            assert done.returncode == LEFT and word in done.stdout, (name, done)
            assert sr.files() == before, f"{name}: changed without being asked"
        done = fsck("-y", sr.dir)
        assert done.returncode == REPAIRED and word in done.stdout, (name, done)
        holds(sr, before)
        after = fsck(sr.dir)
        assert after.returncode == CLEAN, (name, done, after)
        have = {digest for _, _, digest in sr.files().values()}
        lengthened = {Sr.digest(sr.path(NEW_KEY, ".raw"))} if "whole sectors" in name else set()
        assert bytes_before <= have or lengthened, f"{name}: bytes are lost"
        assert Sr.digest(sr.outside) == hashlib.sha256(b"o" * 65536).hexdigest(), f"{name}: a file outside was touched"
        st = os.lstat(sr.outside)
        assert st.st_size == 65536 and st.st_mode & 0o777 == 0o644, name
        shutil.rmtree(sr.dir)
    say(f"  {len(PLANTS)} of them")


def test_much_at_once():
    sr = Sr("much")
    for name, _, plant, _ in PLANTS:
        if name in ("a record cut off", "marks without image", "a passing name", "a lock that is a link", "an old half-written record"):
            plant(sr)
    assert fsck("-y", sr.dir).returncode == REPAIRED
    assert fsck(sr.dir).returncode == CLEAN
    assert len(os.listdir(sr.path(ASIDE))) == 5, os.listdir(sr.path(ASIDE))
    plant(sr)
    cut(sr.path(sr.keys[0], ".json"))  # a second time: both are kept
    assert fsck("-y", sr.dir).returncode == REPAIRED and len(os.listdir(sr.path(ASIDE))) == 7, os.listdir(sr.path(ASIDE))


class Chain:
    """A qcow2 volume with a snapshot, whose changes are tracked."""

    def __init__(self, name):
        self.dir = os.path.join(memory, name)
        self.handle = host.make_sr("memory/" + name, uri=f"file://{self.dir}", format="qcow2")
        self.key = host.call("Volume.create", sr=self.handle, name="d", description="", size=1 << 20, sharable=False)["key"]
        host.call("Volume.enable_cbt", sr=self.handle, key=self.key)
        self.leaf, self.log = os.path.join(self.dir, self.key + ".qcow2"), os.path.join(self.dir, self.key + ".cbt")
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", self.leaf], check=True, stdout=subprocess.DEVNULL)
        host.call("Volume.snapshot", sr=self.handle, key=self.key)
        self.base = [os.path.join(self.dir, n) for n in os.listdir(self.dir) if n.endswith(".base.qcow2")][0]
        assert fsck(self.dir).returncode == CLEAN, fsck(self.dir)

    def told(self, word, code=LEFT, *args):
        done = fsck(*args, self.dir)
        assert done.returncode == code and word in done.stdout, (word, done)


def test_chains_are_followed():
    if not shutil.which("qemu-io"):
        say("  skipped: this needs qemu-io")
        return
    sr = Chain("chain")
    aside = os.path.join(sr.dir, ASIDE)
    os.rename(sr.base, sr.base + ".away")
    sr.told("which is not there; put it back")
    sr.told("which is not there; put it back", LEFT, "-y")
    os.makedirs(aside, exist_ok=True)
    os.rename(sr.base + ".away", os.path.join(aside, os.path.basename(sr.base)))
    sr.told("which is not there")
    sr.told("which is not there", REPAIRED, "-y")
    sr.told("", CLEAN)
    subprocess.run(["qemu-io", "-r", "-f", "qcow2", "-c", "read -P 1 0 64k", sr.leaf], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["qemu-img", "resize", "-q", sr.base, "2M"], check=True)
    sr.told("less than")
    subprocess.run(["qemu-img", "resize", "-q", "--shrink", sr.base, "1M"], check=True)
    os.link(sr.base, os.path.join(sr.dir, NEW_KEY + ".qcow2"))
    sr.told("is one file with " + NEW_KEY)
    os.unlink(os.path.join(sr.dir, NEW_KEY + ".qcow2"))
    subprocess.run(["qemu-img", "rebase", "-q", "-u", "-b", os.path.basename(sr.base), "-F", "qcow2", sr.base], check=True)
    sr.told("they stand on each other")
    subprocess.run(["qemu-img", "rebase", "-q", "-u", "-b", "/etc/passwd", "-F", "raw", sr.base], check=True)
    sr.told("only a plain name")
    subprocess.run(["qemu-img", "rebase", "-q", "-u", "-b", "", sr.base], check=True)
    sr.told("", CLEAN)


def test_a_damaged_log_is_put_aside():
    if not shutil.which("qemu-io"):
        return
    sr = Chain("log")
    with open(sr.log, "r+b") as f:
        f.write(b"no log at all")
    with open(sr.leaf) as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        sr.told("", CLEAN)  # it is in use: nobody knows
    sr.told("is not known any more")
    sr.told("is not known any more", REPAIRED, "-y")
    sr.told("", CLEAN)
    assert not os.path.exists(sr.log) and not host.call("Volume.stat", sr=sr.handle, key=sr.key)["cbt_enabled"]


def test_what_is_in_use_is_left():
    sr = Sr("used")
    image, record = sr.path(sr.keys[0], ".raw"), sr.path(sr.keys[0], ".json")
    for path, plant in ((image, lambda: os.chmod(image, 0o644)), (image, lambda: cut(record)), (record, lambda: sr.edit(uuid="x")), (image, lambda: sr.edit(uuid="x")),
                        (sr.path(NEW_KEY, ".raw"), lambda: write(sr.path(NEW_KEY, ".raw"), "z" * 4096))):
        plant()
        before = {p: what for p, what in sr.files().items() if sr.keys[0] in p or p == path}
        with open(path, "r+b") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            done = fsck("-y", sr.dir)
        assert done.returncode & LEFT and "in use" in done.stdout, done
        assert {p: what for p, what in sr.files().items() if p in before} == before, (done, before)
        fsck("-y", sr.dir)
    assert fsck(sr.dir).returncode == CLEAN


def test_a_verb_that_makes_a_volume_is_waited_for():
    sr = Sr("busy")
    write(sr.path("." + NEW_KEY, ".raw.new"))
    with open(sr.path("sxm-sr.lock"), "r+b") as f:
        fcntl.flock(f, fcntl.LOCK_SH)
        child = subprocess.Popen([SXM, "fsck", "-y", sr.dir], stdout=subprocess.PIPE)
        try:
            child.wait(0.3)
            raise AssertionError("it did not wait")
        except subprocess.TimeoutExpired:
            pass
    assert child.wait(15) == REPAIRED, child.stdout.read()


def test_whose_a_disk_is_only_a_person_knows():
    sr = Sr("owner")
    write(sr.path(sr.keys[0], ".raw.owner"), "{")
    done = fsck("-y", sr.dir)
    assert done.returncode == LEFT and "only a person" in done.stdout, done
    assert os.path.exists(sr.path(sr.keys[0], ".raw.owner"))


def test_an_sr_is_named_in_three_ways():
    sr = Sr("named")
    for name in (sr.dir, sr.handle, SR_UUID):
        host.call("SR.detach", sr="file://" + os.path.join(memory, "named"))
        host.call("SR.attach", configuration={"uri": sr.handle})
        if name == SR_UUID:
            for other in host.call("Plugin.ls"):
                if other != sr.handle:
                    host.call("SR.detach", sr=other)
        assert fsck(name).stdout == f"{sr.dir}: clean\n", fsck(name)
    for name in ("/nowhere/at/all", host.dir, "file:///nowhere", "nobody", "file://x/y"):
        done = fsck(name)
        assert done.returncode == NOT_DONE and len(done.stderr) > 20, done
    for args in ((), (sr.dir, sr.dir), ("--frob", sr.dir)):
        assert fsck(*args).returncode == USAGE
    assert fsck("--help").returncode == 0


def test_an_sr_without_its_record_comes_back():
    sr = Sr("lost")
    os.unlink(sr.path("sxm-sr.json"))
    done = fsck("-y", sr.dir)
    assert done.returncode == LEFT and "--uuid" in done.stdout, done
    assert fsck("-y", "--uuid", SR_UUID, sr.dir).returncode == REPAIRED
    is_itself(sr, None)
    assert fsck(sr.dir).returncode == CLEAN


def test_nothing_is_made_unasked():
    sr = Sr("unasked")
    os.unlink(sr.path("sxm-sr.lock"))
    before = sr.files()
    assert fsck(sr.dir).returncode == CLEAN and sr.files() == before


def test_asking():
    sr = Sr("asked")
    os.chmod(sr.path(sr.keys[0], ".raw"), 0o644)
    assert fsck("-i", sr.dir, text="n\n").returncode == LEFT
    assert fsck("-i", sr.dir).returncode == LEFT
    assert fsck("-i", sr.dir, text="y\n").returncode == REPAIRED
    assert fsck(sr.dir).returncode == CLEAN


def test_hostile_names_are_shown_as_one_line():
    sr = Sr("hostile")
    sr.edit(uuid="\x1b[2J\n\x9bevil\u202e")
    done = fsck(sr.dir)
    assert done.returncode == LEFT and len(done.stdout.splitlines()) == 2, done
    assert not any(ord(c) < 32 and c != "\n" or 0x7f <= ord(c) < 0xa0 for c in done.stdout), repr(done.stdout)


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
