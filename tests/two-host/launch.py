# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs a host's verbs through launchers (launch.c), which are small and say when a verb began and ended: what Python takes to start
several at once, with one lock for all its threads, is no part of a verb, and would take the processors from those that run."""
import socket
import subprocess
import threading


class Done:
    """A program that has ended; began, ended: of time.monotonic()."""

    def __init__(self, returncode, began, ended, stdout, stderr):
        self.returncode, self.began, self.ended, self.stdout, self.stderr = returncode, began / 1e9, ended / 1e9, stdout, stderr


class Launcher:
    """One process on a host, for one program at a time."""

    def __init__(self, host, program):
        self.socket, its = socket.socketpair()
        with its:
            self.process = host.run(subprocess.Popen, [program], stdin=its, stdout=subprocess.DEVNULL, env=host.environment, cwd="/",
                                    restore_signals=False)
        self.answers = self.socket.makefile("rb")

    def send(self, words, text):
        args = b"".join(word.encode() + b"\0" for word in words)
        self.socket.sendall(b"%d %d\n" % (len(args), len(text)) + args + text)

    def receive(self):
        """None: it was killed."""
        try:
            line = self.answers.readline().split()
            status, began, ended, out, err = map(int, line)
            return Done(status, began, ended, self.answers.read(out), self.answers.read(err))
        except (ConnectionError, ValueError):
            return None

    def end(self):
        self.answers.close()
        self.socket.close()
        self.process.wait()


class Launchers:
    """As many as run at once."""

    def __init__(self, host, program):
        self.host, self.program, self.idle, self.lock = host, program, [], threading.Lock()

    def get(self, words, text):
        """One that has been told to run it. Those that were killed since, with all that ran on their host, are passed over."""
        while True:
            with self.lock:
                launcher = self.idle.pop() if self.idle else None
            launcher = launcher or Launcher(self.host, self.program)
            try:
                launcher.send(words, text)
                return launcher
            except ConnectionError:
                launcher.end()

    def run(self, words, text):
        """Done; None: it was killed with all that ran there."""
        launcher = self.get(words, text)
        done = launcher.receive()
        if done:
            with self.lock:
                self.idle.append(launcher)
        else:
            launcher.end()
        return done

    def pids(self):
        with self.lock:
            return {launcher.process.pid for launcher in self.idle}

    def end(self):
        while self.idle:
            self.idle.pop().end()
