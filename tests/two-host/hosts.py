# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hosts on one machine: each has namespaces of its own (network, mounts, processes, its name), an empty /run, a directory that
outlives it, and an address where the others reach it.

      +------- host S -------+                     +------- host D -------+
      | veth 10.83.0.1       |=====================| veth 10.83.0.2       |
      | /run, a tmpfs        |                     | /run, a tmpfs        |
      | DIR/S: disks, state  |                     | DIR/D: disks, state  |
      +----------------------+                     +----------------------+

A process that holds a host's namespaces is their process 1: when it ends, for whatever reason, the kernel ends all others there.
What runs in a host is started by threads that have joined it."""
import concurrent.futures
import ctypes
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time

CLONE_FS = 0x200
JOINED = ("mnt", "uts", "net", "pid_for_children")
LIBC = ctypes.CDLL(None, use_errno=True)
HOLD = """mount --make-rprivate / && mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/sxm /run/nbdproxy/export /run/nonpersistent /run/metrics &&
    hostname {name} && ip link set lo up && trap '' CHLD && echo ready && exec cat"""


class Unusable(Exception):
    """The stage cannot be had on this machine, and why."""


class Host:
    def __init__(self, name, directory, environment):
        self.name, self.dir = name, os.path.join(directory, name)
        os.makedirs(os.path.join(self.dir, "state"), exist_ok=True)
        self.address = None
        self.environment = {k: v for k, v in os.environ.items() if k not in ("SXM_LOG", "NOTIFY_SOCKET")}
        self.environment.update(SXM_RUN_DIR="/run/sxm", SXM_STATE_DIR=os.path.join(self.dir, "state"), SXM_HOST_ID="host-" + name,
                                SXM_METRICS_DIR="/run/metrics", **environment)
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", HOLD.format(name=name)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        if self.holder.stdout.readline() != "ready\n":
            raise Unusable(f"no namespaces for a host can be made here: {self.holder.stderr.read().strip()}")
        self.namespaces = {n: os.open(f"/proc/{self.holder.pid}/ns/{n}", os.O_RDONLY) for n in JOINED}
        self.here = threading.local()
        self.pool = concurrent.futures.ThreadPoolExecutor(64, thread_name_prefix=name, initializer=self.join)

    def join(self):
        """The calling thread is in this host from now on, and what it starts; threads it cannot start any more."""
        if LIBC.unshare(CLONE_FS) == -1:
            raise OSError(ctypes.get_errno(), "unshare")
        for name, fd in self.namespaces.items():
            if LIBC.setns(fd, 0) == -1:
                raise OSError(ctypes.get_errno(), f"join the namespace {name} of host {self.name}")
        self.here.joined = True

    def run(self, function, *args, **options):
        """What function() gives, in this host."""
        if getattr(self.here, "joined", False):
            return function(*args, **options)
        return self.pool.submit(function, *args, **options).result()

    def command(self, *words):
        """Runs a program in this host; its output."""
        done = self.run(subprocess.run, words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unusable(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def outside(self, path):
        """A path of this host's as everybody on the machine may use it."""
        return path if not path.startswith(("/run/", "/var/run/")) else f"/proc/{self.holder.pid}/root{path}"

    def processes(self):
        """[(pid, command line)] of what runs here, but for the holder."""
        found, mine = [], os.fstat(self.namespaces["pid_for_children"]).st_ino
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{pid}/ns/pid").st_ino != mine:
                    continue
                with open(f"/proc/{pid}/cmdline", "rb") as f, open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as s:
                    command, state = f.read().replace(b"\0", b" ").decode(errors="replace"), s.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if state[0] != "Z" and int(state[1]) != self.holder.pid:
                found.append((int(pid), command.strip()))
        return found

    def kill(self, word=""):
        """kill -9 of all processes here whose command line has that word; how many."""
        victims = [pid for pid, command in self.processes() if word in command]
        for pid in victims:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        return len(victims)

    def reboot(self):
        """All processes die at once, and what is in /run with them; the disks' page cache stays (it is one machine)."""
        while self.kill():
            time.sleep(0.01)
        self.command("sh", "-c", "umount -R -n /run/sxm/mnt/* 2>/dev/null; rm -rf /run/sxm /run/nonpersistent /run/nbdproxy /run/metrics; "
                                 "mkdir -p /run/sxm /run/nbdproxy/export /run/nonpersistent /run/metrics")

    def end(self):
        self.kill()
        try:
            self.holder.stdin.close()
            self.holder.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.holder.kill()
        for fd in self.namespaces.values():
            os.close(fd)
        self.pool.shutdown(wait=False)


class Machine:
    """The hosts that a sequence plays on, joined by a link, and the directory with all they have."""

    def __init__(self, names, environment, keep=False):
        if os.geteuid() != 0:
            raise Unusable("only root can make hosts (namespaces) on a machine")
        for tool in ("unshare", "ip", "mount"):
            if not shutil.which(tool):
                raise Unusable(f"this needs the program {tool}")
        self.dir, self.keep = tempfile.mkdtemp(prefix="sxm-stage.", dir=os.environ.get("TMPDIR", "/var/tmp")), keep
        self.hosts, self.devices = {}, []
        try:
            for name in names:
                self.hosts[name] = Host(name, self.dir, environment)
            self.link(list(self.hosts.values()))
        except BaseException:
            self.end()
            raise

    @staticmethod
    def link(hosts):
        for number, host in enumerate(hosts):
            host.address = f"10.83.0.{number + 1}"
        if len(hosts) == 1:
            hosts[0].command("ip", "addr", "add", "10.83.0.1/24", "dev", "lo")
            return
        if len(hosts) != 2:
            raise Unusable("the stage has one host or two")
        here, there = hosts
        inner = open(f"/proc/{there.holder.pid}/task/{there.holder.pid}/children", encoding="ascii").read().split()[0]
        subprocess.run(["nsenter", f"--net=/proc/{here.holder.pid}/ns/net", "ip", "link", "add", "veth", "type", "veth", "peer", "name", "veth",
                        "netns", inner], check=True)
        for host in hosts:
            host.command("ip", "addr", "add", host.address + "/24", "dev", "veth")
            host.command("ip", "link", "set", "veth", "up")

    def make_device(self, name, size):
        """A loop device over a new file of that name."""
        path = os.path.join(self.dir, name)
        with open(path, "w", encoding="ascii") as f:
            f.truncate(size)
        done = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unusable(f"no loop device: {done.stderr.strip()}")
        self.devices.append(done.stdout.strip())
        return self.devices[-1]

    def end(self):
        for host in self.hosts.values():
            host.end()
        while self.devices:
            subprocess.run(["losetup", "-d", self.devices.pop()], check=False)
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)


def at_once(calls):
    """Runs all of them, each in a thread of its own; the first error when all have ended."""
    errors, threads = queue.SimpleQueue(), []

    def body(call):
        try:
            call()
        except BaseException as e:  # the caller's to raise again
            errors.put(e)
    for call in calls:
        threads.append(threading.Thread(target=body, args=(call,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    if not errors.empty():
        raise errors.get()


def in_background(function, *args):
    threading.Thread(target=function, args=args, daemon=True, name=function.__name__).start()


def until_true(what, condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain for {seconds} s: {what}")
        time.sleep(0.02)


def say(text):
    print(text, flush=True)


def complain(text):
    print(f"sxm-stage: {text}", file=sys.stderr, flush=True)
