# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's driver of one disk: a process that stamps what it writes, logs it, and goes on where its backend is next. At the end
the disk is held against the log: every acknowledged write is there, none torn, none elsewhere."""
import os
import re
import signal
import subprocess

from hosts import until_true

HEADER, RECORD = 32, 24


class Wrong(Exception):
    """The disk is not what the guest was promised, or the guest saw an error."""


class Guest:
    def __init__(self, program, directory, name, region, options):
        self.program, self.region, self.options = program, region, options
        self.log, self.uri, self.said = (os.path.join(directory, f"{name}.{what}") for what in ("log", "uri", "said"))
        self.process, self.is_resting, self.gaps, self.last_line = None, False, [], ""
        self.has_lost_power = False  # since it was pointed anywhere: what was not flushed is not promised
        self.point("")

    def point(self, uri):
        """Where its backend is; "": it has none just now."""
        self.is_resting = self.is_resting and not uri
        if uri and self.has_lost_power:
            uri, self.has_lost_power = "lost " + uri, False
        with open(self.uri + ".new", "w", encoding="ascii") as f:
            f.write(uri + "\n")
        os.rename(self.uri + ".new", self.uri)

    def start(self):
        with open(self.said, "w", encoding="ascii") as said:
            self.process = subprocess.Popen([self.program, "write", "--uri-file", self.uri, "--log", self.log, "--gaps", "--again", "1", "--slow", "5",
                                             "--region", f"{self.region[0]}:{self.region[1]}", *self.options], stdout=said, stderr=subprocess.STDOUT)

    def bytes_logged(self):
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def check(self):
        if self.process and self.process.poll() is not None:
            raise Wrong(f"the guest's driver ended: {self.read_said()}")

    def until_it_writes(self):
        """It has had answers since the call."""
        before = self.bytes_logged()

        def has_written():
            self.check()
            return self.bytes_logged() >= max(before, HEADER) + 40 * RECORD
        until_true("the guest writes", has_written, 30)

    def read_said(self):
        with open(self.said, encoding="ascii", errors="replace") as f:
            return f.read().strip()

    def slowest_ms(self):
        """The longest that an answer took, of those that take more than 5 ms, without what was sent again elsewhere."""
        times = re.findall(r"^slow at=([0-9.]+) ms=([0-9]+)", self.read_said(), re.MULTILINE)
        return max((int(ms) for at, ms in times if not any(a <= float(at) and float(at) - int(ms) / 1000 <= b for a, b in self.gaps_so_far())),
                   default=0)

    def gaps_so_far(self):
        return [(float(a), float(b)) for a, b in re.findall(r"^gap from=([0-9.]+) to=([0-9.]+)$", self.read_said(), re.MULTILINE)]

    def suspend(self):
        """It is given no time any more: it sends nothing new, and what is in flight is answered, or cut off and sent again where it is pointed next."""
        self.point("")
        if self.process and not self.is_resting:
            self.process.send_signal(signal.SIGUSR1)

    def rest(self):
        """Its system is shut down: what is in flight is waited for. It is started again when it is pointed somewhere."""
        if not self.process or self.is_resting:
            return
        self.point("")
        before = self.read_said().count("rest")
        self.process.send_signal(signal.SIGUSR1)

        def is_at_rest():
            self.check()
            return self.read_said().count("rest") > before
        until_true("the guest has answers to all it sent", is_at_rest, 60)
        self.is_resting = True

    def finish(self):
        """The driver ends; its last line is kept."""
        if not self.process:
            return
        self.process.terminate()
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Wrong("the guest's driver waits for an answer since 60 s") from None
        self.process, said = None, self.read_said()
        self.gaps = self.gaps_so_far()
        self.last_line = said.split("\n")[-1]
        if status or " errors=0 " not in self.last_line:
            raise Wrong(f"the guest saw an error: {said}")

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def fill(self, uri, region, count, log):
        """Something to copy: writes to the other part of the disk, with a log of their own."""
        done = subprocess.run([self.program, "write", "--uri", uri, "--log", log, "--region", f"{region[0]}:{region[1]}", "--depth", "8", "--seed", "77",
                               "--count", str(count)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Wrong(f"the disk could not be filled: {done.stdout}{done.stderr}")

    def verify(self, uri, log, moment=None):
        words = ["--moment", str(moment)] if moment is not None else []
        done = subprocess.run([self.program, "verify", *words, "--uri", uri, "--log", log], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Wrong(f"{uri} is not what was written: {done.stdout}{done.stderr}")
        return done.stdout.strip()
