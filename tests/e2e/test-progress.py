#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A move is shown: a bar for each disk on a terminal, whatever its size and whatever the disks are called; lines elsewhere, when something
changes and each ten percent; JSON for programs. No byte that others chose controls the terminal."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests/lib"))
from terminal import Terminal, width  # noqa: E402

TRY = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/progress-try")
ENV = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LC_ALL", "LC_CTYPE")} | {"TERM": "xterm", "LANG": "C", "TZ": "UTC"}
GIB = 1 << 30


def say(text):
    print("test-progress: " + text, flush=True)


def disk(name="root", done=0, total=10 * GIB, **more):
    return {"name": name, "state": "syncing", "linked": True, "total_bytes": total, "done_bytes": done, "dirty_bytes": total - done,
            "lag_bytes": 1 << 20, "rate_bytes": 112 << 20, "guest_rate_bytes": 0, "guest_latency_us": 310, "guest_p99_us": 900,
            "eta_ms": 72000, "downtime_ms": 12} | more


def view(*disks, phase="mirroring", time=60000, **more):
    return {"time": time, "id": "m1", "phase": phase, "started": 1000, "eta_ms": 72000, "downtime_ms": 12, "disks": list(disks)} | more


class Show:
    """Fed with what is seen; returns when that is drawn."""

    def __init__(self, rows=24, columns=100, env=ENV):
        answers, theirs = os.pipe()
        os.set_inheritable(theirs, True)
        self.terminal = Terminal(["bash", "-c", f"exec 3>&{theirs}; exec {TRY}"], rows, columns, env, stdin=subprocess.PIPE, pass_fds=(theirs,))
        os.close(theirs)
        self.answers = os.fdopen(answers)

    def __call__(self, thing):
        line = thing if isinstance(thing, str) else json.dumps(thing)
        self.terminal.process.stdin.write(line.encode() + b"\n")
        self.terminal.process.stdin.flush()
        assert self.answers.readline() == "done\n"
        return self.terminal.look()

    def resize(self, rows, columns):
        self.terminal.resize(rows, columns)
        assert self.answers.readline() == "drawn\n"
        return self.terminal.look()

    def end(self):
        self.terminal.process.stdin.close()
        status = self.terminal.end()
        self.answers.close()
        assert status == 0, status
        return self.terminal.screen.text()


def lines_of(thing, kind="--lines", env=ENV):
    done = subprocess.run(["bash", "-c", f"exec 3>/dev/null; exec {TRY} {kind}"], capture_output=True, env=env, timeout=30,
                          input="".join((t if isinstance(t, str) else json.dumps(t)) + "\n" for t in thing).encode())
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def is_drawn_in_place():
    show = Show()
    show(view(disk(done=GIB), disk("data", done=2 * GIB)))
    text = show(view(disk(done=5 * GIB), disk("data", done=6 * GIB)))
    assert len([t for t in text if t]) == 3, text
    assert text[0].startswith("root  50% [====") and "5.0/10.0 GiB" in text[0] and "112.0 MiB/s" in text[0], text
    assert "1m12s left" in text[0] and text[1].startswith("data  60%"), text
    assert text[0].index("[") == text[1].index("[") and text[0].index("left") == text[1].index("left"), text
    assert "mirroring, 59s so far" in text[2] and "1m12s left" in text[2], text
    text = show(view(disk(done=5 * GIB, why="the far side takes fewer writes than guests make"), disk("data", done=6 * GIB)))
    assert text[1] == "  waits: the far side takes fewer writes than guests make", text
    text = show(view(disk(done=5 * GIB), disk("data", done=6 * GIB)))
    assert len([t for t in text if t]) == 3, text  # the reason has gone again
    text = show("say the switchover is at 12:00")
    assert text[0] == "the switchover is at 12:00", text
    text = show(view(disk(done=10 * GIB, state="synced", complete=True, eta_ms=0), eta_ms=0))
    assert text[0] == "the switchover is at 12:00" and text[1].startswith("root 100%") and "in sync" in text[1], text
    assert "about 12 ms" in text[2], text
    assert show.end()[0:2] == text[0:2]


def fits_any_size():
    show = Show(24, 100)
    disks = [disk("disk %d" % i, done=i * GIB, why="x" * 200 if i == 1 else "") for i in range(5)]
    show(view(*disks))
    for columns in (160, 131, 80, 61, 40, 30, 20, 13, 8, 5, 2, 1, 300, 80):
        text = show.resize(24, columns)
        assert all(sum(map(width, t)) <= columns for t in text), (columns, text)
        if columns >= 8:
            assert len([t for t in text if t]) == 7, (columns, text)
        if columns >= 20:
            assert all("%d%%" % (10 * i) in "".join(text) for i in range(1, 5)), (columns, text)
    text = show.resize(4, 80)
    assert len([t for t in text if t]) == 3 and text[2] == "... and 5 lines more", text
    show.resize(24, 100)
    for _ in range(3):
        text = show(view(*disks))
    assert len([t for t in text if t]) == 7, text
    show.end()


def other_names_are_only_names():
    hostile = ["\x1b[2J\x1b[31mred", "tab\tand\nline", "\x9b2J", "turn\u202e\u2066ed", "\x07bell\x00".replace("\x00", ""), "wide \u5bbf\u4e3b\u673a\u78c1\u76d8\u955c\u50cf\u540d\u79f0\u5f88\u957f\u5f88\u957f"]
    disks = [disk(name, done=i * GIB, why=name, remote=name, state=name[:10]) for i, name in enumerate(hostile)]
    for columns in (100, 33, 9):
        show = Show(24, columns)
        show(view(*disks, phase=hostile[0], why=hostile[1]))  # Screen refuses what is no text
        show("say " + hostile[0])
        show(view(*disks, phase=hostile[0], why=hostile[1]))
        show.end()
    said = lines_of([view(*disks, phase=hostile[0], why=hostile[1]), "say " + hostile[0]])
    assert not set(said) - {"\n"} & set(map(chr, [*range(32), *range(127, 160), 0x202e, 0x2066])), said
    assert said.count("\n") == len(disks) + 2, said


def colours_can_be_left_out():
    for env, has_colours, has_bar in ((ENV, True, True), (ENV | {"NO_COLOR": "1"}, False, True), (ENV | {"NO_COLOR": ""}, True, True),
                                      (ENV | {"TERM": "dumb"}, False, False)):
        show = Show(env=env)
        text = show(view(disk(done=GIB)))
        assert bool(show.terminal.screen.colours) == has_colours, env.get("NO_COLOR")
        assert any("[=" in t for t in text) == has_bar, text
        show.end()
    show = Show(env=ENV | {"LANG": "C.UTF-8"})
    text = show(view(disk(done=5 * GIB)))
    assert "\u2588\u2588" in text[0], text
    show.end()


def lines_are_said_when_something_changes():
    moments = [view(disk(done=i * GIB // 10), time=1000 * i) for i in range(1, 45)]
    moments += [view(disk(done=45 * GIB // 10, state="broken", linked=False, why="the link to the far side is lost"), time=50000)] * 5
    moments += [view(disk(done=45 * GIB // 10, why=("a", "b")[i % 2]), time=60000 + i * 1000) for i in range(20)]
    moments += [view(disk(done=10 * GIB, state="synced", complete=True), time=90000, phase="in sync")] * 3
    said = lines_of(moments).splitlines()
    assert said[0] == "00:00:01 mirroring" and said[1].startswith("00:00:01 root: copying, 0 % (102.4 MiB of 10.0 GiB)"), said
    assert [s for s in said if " 10 %" in s][0].startswith("00:00:10 root: copying, 10 %"), said
    assert len([s for s in said if "link lost, 45 %" in s and s.endswith("waits: the link to the far side is lost")]) == 1, said
    assert len([s for s in said if "waits: a" in s or "waits: b" in s]) <= 3, said
    assert said[-2:] == ["00:01:30 in sync", "00:01:30 root: in sync, 100 % (10.0 GiB of 10.0 GiB), 112.0 MiB/s"], said
    assert len(said) <= 14, said


def programs_have_json():
    moments = [view(disk(done=i * GIB)) for i in range(3)]
    said = [json.loads(line) for line in lines_of(moments, "--json").splitlines()]
    assert [s["disks"][0]["done_bytes"] for s in said] == [0, GIB, 2 * GIB], said
    assert said[0]["phase"] == "mirroring" and said[0]["disks"][0]["guest_p99_us"] == 900, said


for test in (is_drawn_in_place, fits_any_size, other_names_are_only_names, colours_can_be_left_out, lines_are_said_when_something_changes,
             programs_have_json):
    test()
    say(test.__name__)
