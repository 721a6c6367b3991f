# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program on a terminal of its own, and what a person would see there: just so much of a terminal as sxm asks for. Whatever else
it is sent is a failed test, as is a line that the terminal had to cut."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unicodedata


def width(char):
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1


class Screen:
    """Rows of characters; a wide one is followed by an empty string."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.lines, self.row, self.column, self.wraps = [[]], 0, 0, True
        self.colours = 0

    def resize(self, rows, columns):
        """As most terminals do it: what is longer than a line now goes on in the next."""
        folded, row = [], 0
        for i, line in enumerate(self.lines):
            if i == self.row:
                row = len(folded) + self.column // columns
            folded += [line[at:at + columns] for at in range(0, max(len(line), 1), columns)]
        self.rows, self.columns = rows, columns
        self.lines, self.row, self.column = folded, row, self.column % columns

    def put(self, char):
        wide = width(char)
        if not wide:
            return
        if self.column + wide > self.columns:
            assert self.wraps is False or self.column <= self.columns, "beyond the end"
            assert self.wraps, f"a line is cut at {char!r}: {self.text()[self.row]!r}"
            self.row, self.column = self.row + 1, 0
        while len(self.lines) <= self.row:
            self.lines.append([])
        line = self.lines[self.row]
        line += " " * (self.column - len(line))
        line[self.column:self.column + wide] = [char] + [""] * (wide - 1)
        self.column += wide

    def control(self, number, what):
        if what == "A":
            assert self.row - int(number or 1) >= 0, "above the top"
            self.row -= int(number or 1)
        elif what == "K":
            del self.lines[self.row][self.column:]
        elif what == "J":
            del self.lines[self.row][self.column:], self.lines[self.row + 1:]
        elif what == "m":
            self.colours += 1
        elif (number, what) in (("?7", "l"), ("?7", "h")):
            self.wraps = what == "h"
        else:
            raise AssertionError(f"a terminal was sent ESC [ {number} {what}")

    def feed(self, text):
        for control, number, what, char in re.findall(r"(\x1b\[([?0-9;]*)([A-Za-z]))|(.)", text, re.S):
            if control:
                self.control(number, what)
            elif char == "\r":
                self.column = 0
            elif char == "\n":
                self.row += 1
                while len(self.lines) <= self.row:
                    self.lines.append([])
            else:
                assert char >= " " and not "\x7f" <= char < "\xa0", f"a terminal was sent {char!r}"
                self.put(char)

    def text(self):
        return ["".join(line).rstrip() for line in self.lines]


class Terminal:
    """A program on it."""

    def __init__(self, command, rows=24, columns=100, env=None, **more):
        self.master, slave = pty.openpty()
        self.screen = Screen(rows, columns)
        self.set_size(rows, columns)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.raw = b""
        self.at = 0
        self.process = subprocess.Popen(command, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0), env=env, **more)
        os.close(slave)

    def set_size(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows, columns):
        self.look()
        self.screen.resize(rows, columns)
        self.set_size(rows, columns)

    def look(self, seconds=0):
        """What there is by now, as lines."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                break
            if not data:
                break
            self.raw += data
            seconds = 0
        text = self.raw[self.at:].decode(errors="ignore")
        whole = text if not re.search(r"\x1b\[?[?0-9;]*$", text) else text[:text.rindex("\x1b")]
        self.screen.feed(whole)
        self.at += len(whole.encode())
        return self.screen.text()

    def until(self, what, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition(self.look(0.05)):
            assert time.monotonic() < end, f"waited in vain for: {what}\n" + "\n".join(self.screen.text())
        return self.screen.text()

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self, seconds=60):
        """Its exit status; all that it said is on the screen."""
        try:
            end = time.monotonic() + seconds
            while self.process.poll() is None:
                self.look(0.05)
                assert time.monotonic() < end, "it does not end"
        finally:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
        self.look(0.05)
        os.close(self.master)
        return self.process.returncode
