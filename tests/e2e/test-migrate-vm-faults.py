#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may go wrong while a VM moves with its disks (test-migrate-vm.py has the moves): a QEMU dies, the link is cut, a hook fails, a QMP
socket says nothing or nonsense, the guest shuts down or crashes, a person takes disks back by force. The guest is unharmed, or it is said
where it is; the move can be gone on with, or given up. SXM_LONG: all of it."""
import os
import signal
import socket
import subprocess
import threading

from vm_hosts import LONG_S, Qemu, SXM, play, until_true


def give_up(m):
    """The VM runs here, as if nothing had been."""
    out = m.run(m.command("--abort", m.record()["id"]))
    assert "its guests go on here" in out, out
    m.stays()
    m.owned("owned")


def boot_here(m):
    for uri in m.uris:
        m.here.call("Datapath.detach", uri=uri, domain="7")
    vm = Qemu.on(m.here, m.uris)
    vm.goes_on()
    return m.here, vm, m.uris


def nothing_is_there(m):
    until_true("the QEMU there is ended", m.waiting.is_over, LONG_S)
    assert not m.waiting.rounds(), m.waiting.said()


# --- QEMUs that die

def a_qemu_there_dies(m, place):
    """Before the decision: the VM goes on here, and the move can be resumed, or given up."""
    p = m.start_memory() if place == "memory" else m.start_until(place, m.new())
    m.waiting.kill()
    out = m.end(p, expect=3)
    assert "--resume" in out, out
    m.stays()
    give_up(m)


def a_qemu_there_dies_with_the_vm(m):
    """After the decision: the disks have moved, whole, and it is said that the VM has to be booted."""
    m.run_until("decided", m.new())
    m.waiting.kill()
    out = m.run(m.command("--resume", m.record()["id"]), expect=4)
    assert "boot the VM there" in out, out
    assert m.vm.status() == "postmigrate"
    m.vm.kill()
    for uri in m.uris:
        m.here.call("Datapath.detach", uri=uri, domain="7")
    vm = Qemu.on(m.there, m.far_uris())
    vm.goes_on()
    return m.there, vm, m.far_uris()


def a_qemu_here_dies(m, place):
    """Before the decision: there is no VM any more, and the disks stay."""
    p = m.start_memory() if place == "memory" else m.start_until(place, m.new())
    m.vm.kill()
    out = m.end(p, expect=3)
    assert "here has ended" in out and "go on here" not in out, out
    nothing_is_there(m)
    out = m.run(m.command("--abort", m.record()["id"]))
    assert "where the VM's QEMU has ended" in out and "go on here" not in out, out
    m.owned("owned")
    return boot_here(m)


def a_qemu_here_dies_after_the_decision(m):
    p = m.start_until("decided", m.new())
    m.vm.kill()
    m.end(p, expect=0)
    return m.moved()


# --- the link

def the_link_is_cut(m, place):
    """The VM runs on, or again; what is there is of no use, and it is said."""
    p = m.start_memory() if place == "memory" else m.start_until(place, m.new())
    subprocess.run(["ip", "-n", m.there.space, "link", "set", "veth", "down"], check=True)
    p.send_signal(signal.SIGCONT)
    m.vm.goes_on()
    out = m.end(p, expect=3)
    assert "its guests go on here" in out, out
    m.vm.goes_on()
    subprocess.run(["ip", "-n", m.there.space, "link", "set", "veth", "up"], check=True)
    m.waiting.kill()
    give_up(m)


# --- hooks

def a_hook_fails(m):
    """The one that pauses: nothing moves. The one that resumes: what has moved has moved, and it is said."""
    out = m.run(m.new("--on-pause", "/bin/false"), expect=3)
    assert "--on-pause" in out, out
    give_up(m)
    out = m.run(m.new("--on-resume", "/bin/false"))
    assert "--on-resume" in out, out
    return m.moved()


# --- QMP

class Sick:
    """Stands between whoever drives the move and a QEMU's QMP socket; what follows a command is not an answer any more, until it is cured."""

    def __init__(self, path, command, how):
        self.path, self.real, self.command, self.how, self.is_sick = path, path + ".real", command.encode(), how, False
        os.rename(path, self.real)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.carry, args=(client,), daemon=True).start()

    def be_sick(self, client):
        try:
            while self.how == "endless":
                client.sendall(b" " * 65536)
            if self.how == "rubbish":
                client.sendall(b"\xff{]}\n" * 10)
            while self.how != "hung up" and client.recv(4096):
                pass
        except OSError:
            pass
        client.close()

    def carry(self, client):
        if self.is_sick:
            self.be_sick(client)
            return
        qemu = socket.socket(socket.AF_UNIX)
        qemu.connect(self.real)
        threading.Thread(target=self.answer, args=(qemu, client), daemon=True).start()
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(client, 65536, 4)
            except OSError:
                data, fds = b"", []
            if data and b'"' + self.command + b'"' in data:
                for fd in fds:
                    os.close(fd)
                self.is_sick = True
                qemu.shutdown(socket.SHUT_RDWR)
                self.be_sick(client)
                return
            if not data:
                qemu.shutdown(socket.SHUT_RDWR)
                return
            socket.send_fds(qemu, [data], fds)
            for fd in fds:
                os.close(fd)

    def answer(self, qemu, client):
        try:
            while data := qemu.recv(65536):
                client.sendall(data)
            if not self.is_sick:
                client.close()
        except OSError:
            pass
        qemu.close()

    def cure(self):
        os.rename(self.real, self.path)
        self.server.close()


def qmp_is_sick_here(m, command, how):
    """At the worst moment: the VM stands still, and cannot be told to go on until the socket is good again."""
    sick = Sick(m.vm.qmp, command, how)
    out = m.run(m.new(), expect=3)
    assert "may stand still here" in out and m.vm.qmp in out, out
    sick.cure()
    give_up(m)


def qmp_is_sick_there(m, command, how):
    """It is no QEMU to send a VM to: it goes on here."""
    command_line = m.new()
    sick = Sick(m.waiting.qmp, command, how)
    out = m.run(command_line, expect=3)
    assert m.waiting.qmp in out, out
    m.vm.goes_on()
    sick.cure()
    m.waiting.kill()
    give_up(m)


def what_is_no_qmp_is_refused(m):
    for how in ("silent", "rubbish", "endless"):
        sick = Sick(m.vm.qmp, "qmp_capabilities", how)
        out = m.run(m.new(), expect=1)
        assert m.vm.qmp in out, out
        sick.cure()
        m.waiting.kill()
    m.vm.goes_on()


# --- the guest

def the_guest_shuts_down(m, stays):
    """While its memory goes: it has not moved. stays: its QEMU, which was told to keep what has shut down."""
    if stays:
        m.vm.ask("set-action", shutdown="pause")
    p = m.start_memory()
    m.vm.tell("poweroff")
    out = m.end(p, expect=3)
    assert ("shut down" if stays else "here has ended") in out, out
    nothing_is_there(m)
    m.run(m.command("--abort", m.record()["id"]))
    m.owned("owned")
    assert m.vm.is_over() or m.vm.status() == "shutdown"
    m.vm.kill()
    return boot_here(m)


def the_guest_crashes(m):
    """... and boots again, on the way: it moves."""
    p = m.start_memory("24MiB")
    boot = m.vm.rounds()[-1][0]
    m.vm.tell("crash")
    m.end(p, expect=0)
    moved = m.moved(has_rebooted=True)
    until_true("it has booted", lambda: m.waiting.rounds() and m.waiting.rounds()[-1][0] != boot, LONG_S)
    m.waiting.goes_on()
    return moved


# --- a person

def take_back(m, *uris):
    for uri in uris:
        subprocess.run([SXM, "epoch", "take", "--force", uri], env=m.here.env, check=True, stdout=subprocess.DEVNULL)


def stands_still(m):
    said = len(m.vm.rounds())
    assert m.vm.status() in ("postmigrate", "finish-migrate"), m.vm.status()
    assert len(m.vm.rounds()) == said


def all_are_taken_back(m):
    """It was decided, and the other host was thought to be lost: it goes on here, where it stopped."""
    m.run_until("committed", m.new())
    take_back(m, *m.uris)
    out = m.run(m.command("--resume", m.record()["id"]), expect=3)
    assert "taken back" in out and "--abort" in out, out
    m.stays()
    give_up(m)


def all_are_taken_back_by_force_in_doubt(m):
    """Decided, and nobody has followed yet."""
    m.run_until("decided", m.new())
    for uri in m.uris:
        os.kill(m.here.control(os.path.basename(uri), "status")["ok"]["pid"], signal.SIGKILL)
    take_back(m, *m.uris)
    give_up(m)


def taken_back_and_given_to_another_guest(m, is_over):
    """Its memory is of another time than its disks then, or another guest runs on them: it stands still, and it is said."""
    m.run_until("committed", m.new())
    take_back(m, *m.uris)
    m.here.start_disk(m.uris[1], "8")
    if is_over:
        m.here.end_disk(m.uris[1], "8")
    out = m.run(m.command("--resume", m.record()["id"]), expect=3)
    assert "is not let run" in out and ("somebody else" if is_over else "another guest (8)") in out, out
    stands_still(m)
    out = m.run(m.command("--abort", m.record()["id"]), expect=4)
    assert "is not let run" in out, out
    stands_still(m)
    nothing_is_there(m)
    m.owned("owned")
    m.vm.kill()
    if not is_over:
        m.here.end_disk(m.uris[1], "8")
    return boot_here(m)


def one_is_taken_back(m):
    """The VM has its disks on neither side then."""
    m.run_until("committed", m.new())
    take_back(m, m.uris[1])
    out = m.run(m.command("--resume", m.record()["id"]), expect=4)
    assert "taken back" in out and "End both QEMUs" in out, out
    m.owned("given", "owned")
    stands_still(m)
    assert m.waiting.status() == "paused" and not m.waiting.rounds(), m.waiting.said()
    m.waiting.kill()
    m.vm.kill()
    take_back(m, m.uris[0])
    return boot_here(m)


STEPS = [("hooks", a_hook_fails), ("taken back", all_are_taken_back), ("QMP here", qmp_is_sick_here, "migrate-continue", "rubbish"),
         ("guest crashes", the_guest_crashes)]
if os.environ.get("SXM_LONG"):
    STEPS += [("there dies", a_qemu_there_dies, "still"), ("QMP there", qmp_is_sick_there, "migrate-incoming", "rubbish"),
              ("there dies with memory", a_qemu_there_dies, "memory"), ("here dies with memory", a_qemu_here_dies, "memory"),
              ("here dies", a_qemu_here_dies, "still"), ("here dies, decided", a_qemu_here_dies_after_the_decision),
              ("there dies, decided", a_qemu_there_dies_with_the_vm), ("no QMP", what_is_no_qmp_is_refused),
              ("QMP silent here", qmp_is_sick_here, "migrate-continue", "silent"),
              ("QMP hangs up here", qmp_is_sick_here, "migrate-continue", "hung up"),
              ("QMP silent there", qmp_is_sick_there, "migrate-incoming", "silent"),
              ("guest shuts down", the_guest_shuts_down, False), ("guest shuts down, and is kept", the_guest_shuts_down, True),
              ("taken back in doubt", all_are_taken_back_by_force_in_doubt),
              ("taken back, another runs", taken_back_and_given_to_another_guest, False),
              ("taken back, another ran", taken_back_and_given_to_another_guest, True), ("one is taken back", one_is_taken_back),
              ("link cut with memory", the_link_is_cut, "memory"), ("link cut", the_link_is_cut, "still")]
play(STEPS)
