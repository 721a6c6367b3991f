# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes wrong in stress.py, and how it is undone."""
import math
import os
import signal
import threading
import time

from stress_hosts import JOURNAL, MIB, Call, command, now, require


class Faults(threading.Thread):
    """What is wrong now, and until when. Kinds are the methods whose names begin with do_; each says how it is undone."""

    def __init__(self, rng, r):
        super().__init__(daemon=True)
        self.rng, self.r, self.is_over, self.calls = rng, r, False, []
        self.live = []          # (when it ends, name, undo)
        self.near = []          # [start, end] in which the guest may have to wait
        self.seen = set()
        self.lock = threading.RLock()
        self.start()

    def inject(self, kind, seconds=None):
        seconds = seconds or self.rng.choice([0.05, 0.2, 0.5, 1, 2]) * self.rng.uniform(0.5, 1.5)
        with self.lock:
            if any(name == kind for _, name, _ in self.live):
                return
            self.seen.add(kind)
        JOURNAL.add(f"FAULT {kind} {seconds:.2f} s")
        undo = getattr(self, "do_" + kind)(seconds)
        if undo:
            with self.lock:
                self.live.append((now() + seconds, kind, undo))

    def run(self):
        while not self.is_over:
            self.undo_due(now())
            time.sleep(0.005)

    def undo_due(self, at):
        with self.lock:
            for entry in [e for e in self.live if e[0] <= at]:
                entry[2]()
                self.live.remove(entry)
                JOURNAL.add("over: " + entry[1])

    def heal(self):
        """Nothing is wrong when this returns."""
        self.undo_due(math.inf)
        for call in self.calls:
            call.wait()
            require(not call.error, f"{call.name}: {call.error}")
        self.calls = []

    def in_background(self, name, what):
        """Verbs that are part of a fault: they may have to wait for the end of another."""
        self.calls.append(Call(what))
        self.calls[-1].name = name

    def excuse(self, seconds):
        self.near.append([now() - 0.05, now() + seconds])

    # the far side's process

    def do_kill_far(self, seconds):
        self.r.far.kill(signal.SIGKILL)

    def do_kill_far_again(self, seconds):
        end = now() + seconds
        while now() < end:
            self.r.far.kill(signal.SIGKILL)
            time.sleep(self.rng.uniform(0.01, 0.3))

    def do_kill_far_and_keeper(self, seconds):
        self.r.far.kill(signal.SIGKILL, "sxm-keeper")
        self.r.far.kill(signal.SIGKILL)
        far = self.r.far
        return lambda: self.in_background("attach again", lambda: far.attach("MIR000001"))  # as any verb: starts it

    def pause(self):
        """Long enough for something to be under way."""
        time.sleep(math.exp(self.rng.uniform(math.log(0.002), math.log(0.2))))

    def do_stop_then_kill_far(self, seconds):
        """What it was sent meanwhile, it never read."""
        self.r.far.kill(signal.SIGSTOP)
        self.pause()
        self.r.far.kill(signal.SIGKILL)

    def do_stop_far_then_kill_near(self, seconds):
        """Both sides do not know of what is between them."""
        pid = self.r.far.kill(signal.SIGSTOP)
        self.pause()
        self.do_kill_near(seconds)
        return lambda: self.cont(pid)

    def do_stop_far(self, seconds):
        pid = self.r.far.kill(signal.SIGSTOP)
        return lambda: self.cont(pid)

    @staticmethod
    def cont(pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except (ProcessLookupError, TypeError):
            pass

    def do_full(self, seconds):
        path = f"{self.r.b.dir}/sr/filler"
        free = os.statvfs(os.path.dirname(path))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(fd, 0, max(free.f_bavail * free.f_frsize, 4096))
        except OSError:
            pass
        try:
            os.lseek(fd, 0, os.SEEK_END)
            while True:
                os.write(fd, bytes(4096))
        except OSError:
            pass
        os.close(fd)
        return lambda: os.path.exists(path) and os.unlink(path)

    # the path between

    def do_link_down(self, seconds):
        net = self.rng.choice([self.r.a, self.r.b]).net
        command(*net, "ip", "link", "set", "veth", "down")
        return lambda: command(*net, "ip", "link", "set", "veth", "up")

    def tell_relay(self, line):
        self.r.relay.tell(line)
        return lambda: self.r.relay.tell("pass")

    def do_relay_cut(self, seconds):
        self.r.relay.tell("cut")

    def do_relay_stall_then_cut(self, seconds):
        self.r.relay.tell("stall")
        self.pause()
        self.r.relay.tell("cut")
        self.r.relay.tell("pass")

    def do_relay_cut_after(self, seconds):
        n = int(math.exp(self.rng.uniform(0, math.log(4 * MIB))))
        direction = self.rng.choice(["up", "down"])
        JOURNAL.add(f"... {n} {direction}")
        return self.tell_relay(f"cut-after {n} {direction}")

    def do_relay_stall(self, seconds):
        return self.tell_relay("stall")

    def do_relay_refuse(self, seconds):
        return self.tell_relay("refuse")

    def do_relay_hang(self, seconds):
        self.r.relay.tell("cut")
        self.r.relay.tell("hang")

        def undo():
            self.r.relay.tell("cut")
            self.r.relay.tell("pass")
        return undo

    def do_relay_rate(self, seconds):
        return self.tell_relay(f"rate {self.rng.choice([20000, 200000, 2000000])}")

    # what is no fault, but comes at a bad time

    def do_verify(self, seconds):
        rate = self.rng.choice([0, 20, 200]) * MIB
        threading.Thread(target=self.r.near.try_ask, args=("verify.start",), kwargs={"rate_bytes": rate}, daemon=True).start()

    def do_mode(self, seconds):
        if self.r.operation:
            mode = self.rng.choice(["sync", "lag"])
            self.r.near.try_ask("mirror.mode", id=self.r.operation[1], mode=mode)
            JOURNAL.add("... " + mode)

    def do_dom0(self, seconds):
        near, domain = self.r.near, f"u0_stress_{self.rng.randrange(1 << 30)}"

        def visit():
            near.attach(domain)
            near.datapath("activate_readonly", domain)
            time.sleep(seconds)
            near.datapath("deactivate", domain)
            near.datapath("detach", domain)
        self.in_background("a reader in dom0", visit)

    # the guest's own side

    def do_stop_near(self, seconds):
        pid = self.r.near.kill(signal.SIGSTOP)
        self.excuse(seconds + 2)
        return lambda: self.cont(pid)

    def do_kill_near(self, seconds):
        self.excuse(4)
        self.r.near.kill(signal.SIGKILL)


FAR_KINDS = ["kill_far", "kill_far_again", "kill_far_and_keeper", "stop_far", "stop_then_kill_far", "stop_then_kill_far"]
LINK_KINDS = ["link_down"]
RELAY_KINDS = ["relay_cut", "relay_stall_then_cut", "relay_stall_then_cut", "relay_cut_after", "relay_cut_after", "relay_stall", "relay_refuse", "relay_hang", "relay_rate"]
ODD_KINDS = ["verify", "mode", "dom0"]
KILLS_NEAR = ["kill_near", "stop_far_then_kill_near"]
NEAR_KINDS = ["stop_near", "kill_near", "kill_near", "stop_far_then_kill_near", "stop_far_then_kill_near"]
