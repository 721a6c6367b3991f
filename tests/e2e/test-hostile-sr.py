#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What others may put into an SR or into a request: links where files should be, names that are no names. Nothing outside the SR is
touched, the other volumes stay, what is wrong is said in a sentence, and the log stays a log."""
import contextlib
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import DATAPATH, Host, Refused, check, say  # noqa: E402

host = Host()
memory = host.in_memory("memory")
SIZE = 65536
HOSTILE = {
    "NUL": "a\0b", "newline": "a\nb\r\n", "escapes": "\x1b[2J\x1b]0;evil\x07\x9b31m", "64 KiB": "x" * 65536, "right to left": "\u202egnp.exe\u2066",
    "quotes": '"}],{"\\', "format": "%n%s%99999999d", "separators": "\u2028\u2029", "not a character": "\uffff\U0010ffff", "path": "../../etc/passwd",
}


class Sr:
    def __init__(self, name):
        self.dir = os.path.join(memory, name)
        self.handle = host.make_sr("memory/" + name)
        self.key, self.other = (host.make_volume(self.handle, SIZE)["key"] for _ in range(2))
        self.outside = os.path.join(memory, name + "-outside")
        with open(self.outside, "wb") as f:
            f.write(b"o" * SIZE)
        os.chmod(self.outside, 0o640)
        os.utime(self.outside, (1, 1))

    def path(self, name):
        return os.path.join(self.dir, name)

    def is_outside_untouched(self):
        st = os.lstat(self.outside)
        with open(self.outside, "rb") as f:
            return (st.st_mode & 0o777, st.st_size, st.st_mtime, f.read()) == (0o640, SIZE, 1, b"o" * SIZE)

    def verbs(self):
        """Everything that can be asked of a volume; each may be refused, in a sentence."""
        uri = f"sxm://{self.dir}/{self.key}.raw"
        volume = {"sr": self.handle, "key": self.key}
        yield from (("SR.attach", {"configuration": {"uri": self.handle}}), ("SR.stat", {"sr": self.handle}),
                    ("SR.set_name", {"sr": self.handle, "new_name": "x"}), ("Volume.stat", volume),
                    ("Volume.set", {**volume, "k": "k", "v": "v"}), ("Volume.set_name", {**volume, "new_name": "x"}),
                    ("Volume.resize", {**volume, "new_size": 2 * SIZE}), ("Volume.snapshot", volume), ("Volume.clone", volume),
                    ("Volume.copy", {**volume, "dest_sr": self.handle}), ("Volume.similar_content", volume),
                    ("Volume.compare", {**volume, "key2": self.other}), ("Volume.revert", {"sr": self.handle, "snapshot": self.other, "key": self.key}))
        for verb in ("attach", "activate", "deactivate", "detach"):
            yield "Datapath." + verb, {"uri": uri, "domain": "1"}
        yield "Volume.destroy", volume


def plants(sr):
    """What may lie there instead of a file of the SR's: name of the file -> how it is put there."""
    kinds = {"link": lambda path: os.symlink(sr.outside, path), "dangling link": lambda path: os.symlink(sr.outside + "-none", path),
             "directory": os.mkdir, "FIFO": os.mkfifo}
    for file in (f"{sr.key}.json", f"{sr.key}.raw", f"{sr.key}.raw.owner", f"{sr.key}.raw.marks", f"{sr.key}.raw.mirror", "sxm-sr.lock", "sxm-sr.json",
                 f".{sr.key}.raw.new"):
        for kind, put in kinds.items():
            yield f"{kind} as {file.replace(sr.key, 'KEY')}", file, put


def test_what_is_planted_in_an_sr_leads_nowhere():
    count = len(list(plants(Sr("none"))))
    for i in range(count):
        sr = Sr(f"planted{i}")
        name, file, put = list(plants(sr))[i]
        path = sr.path(file)
        if os.path.lexists(path):
            os.unlink(path)
        put(path)
        refused = []
        for verb, args in sr.verbs():
            try:
                host.call(verb, **args)
            except Refused as e:
                said = e.report["backtrace"]["error"] or e.params[-1]
                assert len(said) > 20, f"{name}: {verb}: {e}"
                refused.append(verb)
            assert sr.is_outside_untouched() and not os.path.lexists(sr.outside + "-none"), f"{name}: {verb} reached what is outside"
            if file != "sxm-sr.json":
                assert sr.other in {v["key"] for v in host.call("SR.ls", sr=sr.handle)}, f"{name}: after {verb}, the other volume is hidden"
        if file != "sxm-sr.json":
            host.call("Volume.set", sr=sr.handle, key=sr.other, k="k", v="v")
        if file == sr.key + ".raw":
            assert "Datapath.attach" in refused and "Volume.resize" in refused, (name, refused)
    say(f"  {count} of them")


def test_hostile_text_is_kept_as_it_is_or_refused():
    sr = Sr("text")
    for what, text in HOSTILE.items():
        for verb, member in (("Volume.set_name", "new_name"), ("Volume.set_description", "new_description")):
            with contextlib.suppress(Refused):
                host.call(verb, sr=sr.handle, key=sr.key, **{member: text})
                v = host.call("Volume.stat", sr=sr.handle, key=sr.key)
                assert v[member.removeprefix("new_")] == text, (what, verb)
        with contextlib.suppress(Refused):
            host.call("Volume.set", sr=sr.handle, key=sr.key, k=text, v=text)
            assert host.call("Volume.stat", sr=sr.handle, key=sr.key)["keys"][text] == text, what
        with contextlib.suppress(Refused):
            host.call("SR.set_name", sr=sr.handle, new_name=text)
            assert host.call("SR.stat", sr=sr.handle)["name"] == text, what
        seen = host.call("SR.ls", sr=sr.handle)
        assert {v["key"] for v in seen} == {sr.key, sr.other}, what
        assert all(check("volume", v) is None for v in seen)


def test_a_record_does_not_grow_past_what_is_read():
    sr = Sr("long")
    for i in range(3):  # 400 KiB each
        try:
            host.call("Volume.set", sr=sr.handle, key=sr.key, k=f"k{i}", v="x" * 400000)
        except Refused as e:
            assert "too long" in str(e), e
    v = host.call("Volume.stat", sr=sr.handle, key=sr.key)
    assert v["name"] == "v" and "k0" in v["keys"] and "k2" not in v["keys"], v["keys"].keys()
    host.refused("too long", "SR.set_name", sr=sr.handle, new_name="x" * (1 << 20))
    assert host.call("SR.stat", sr=sr.handle)["name"] == "n"


def test_keys_and_handles_that_are_paths_reach_nothing():
    sr = Sr("paths")
    for key in ("../paths/" + sr.key, f"./{sr.key}", f"{sr.key}/", f"{sr.key}\0", f"{sr.key}.json/..", "/etc/passwd", "..", "%2e%2e", "x" * 65536):
        for verb, more in (("Volume.stat", {}), ("Volume.set", {"k": "a", "v": "b"}), ("Volume.resize", {"new_size": 1 << 20}), ("Volume.snapshot", {}),
                           ("Volume.copy", {"dest_sr": sr.handle}), ("Volume.revert", {"snapshot": sr.key})):
            host.refused("", verb, sr=sr.handle, key=key, **more)
        host.refused("", "Volume.revert", sr=sr.handle, key=sr.key, snapshot=key)
    for handle in ("", "file://", "file:///", "file:///proc/self", f"{sr.handle}/../nowhere", f"{sr.handle}?x", f"{sr.handle}%00", "http://x/", "x" * 65536):
        host.refused("", "SR.ls", sr=handle)
        host.refused("", "Volume.create", sr=handle, name="", description="", size=0, sharable=False)
    assert len(host.call("SR.ls", sr=sr.handle)) == 2


def test_the_log_is_text_whatever_is_asked():
    sr = Sr("log")
    env = {**host.env, "SXM_LOG": "stderr"}
    for text in HOSTILE.values():
        for verb, args in (("Volume.stat", {"sr": sr.handle, "key": text}), ("SR.ls", {"sr": text}), ("Volume.set", {"sr": sr.handle, "key": text, "k": text, "v": text}),
                           ("SR.attach", {"configuration": {"uri": text}})):
            done = host.run(f"{host.volume}/{verb}", json.dumps({**args, "dbg": text}), env=env)
            said = done.stderr.decode()  # also: it is UTF-8
            bad = [c for c in said if ord(c) < 32 and c != "\n" or 0x7f <= ord(c) < 0xa0 or c in "\u2028\u2029\u202e\u2066"]
            assert not bad and all(line.startswith("<") for line in said.splitlines()), said
    for raw in (b'{"dbg":"","sr":"\xff\xfe","key":"k"}', b'{"dbg":"","sr":"\xc0\xaf","key":"k"}', b'{"dbg":"\x9b","sr":"x","key":"k"}'):
        done = host.run(f"{host.volume}/Volume.stat", "", input=raw, env=env)
        check("error_report", json.loads(done.stdout))


for name, test in list(globals().items()):
    if name.startswith("test_"):
        say(name[5:].replace("_", " "))
        test()
host.runs_nothing_soon()
