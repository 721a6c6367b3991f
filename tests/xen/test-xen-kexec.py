#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest at work on its disk goes to another kernel by kexec, twice: in order, and that one out of a panic. The domain, the disk's process
and what it knows of its domains stay; the toolstack does as xenopsd does it (reset.c), and tells nobody. In order the ring is let go of
before; out of a panic the dead kernel's is still there when the next one begins. What was flushed is there each time, and the disk works."""
import bed

KERNEL = "bs=1M skip=16"  # where it is on the disk; worker has the first 8 MiB
PLEDGE = "bs=1M count=4"  # behind these
CRASH = "crashkernel=96M"
LINE = "console=hvc0 quiet mitigations=off rdinit=/init"


class Machine(bed.Guest):
    """Its kernels, by number."""

    def __init__(self, host, disk):
        super().__init__(host, "k", kind="pvh", memory_mib=256, extra=f"{CRASH} bed.kernel=1", more='on_soft_reset="preserve"')
        self.disk, self.number = disk, 1

    def begin(self):
        self.create()
        self.host.sh(f"/bed/tables keep {self.domid} /run/tables")
        self.disk.attach(self.domid)
        self.disk.activate(self.domid)
        self.plug(params=self.disk.params, **{"hotplug-status": "connected"})
        self.start()
        self.connected()
        self.known = self.what_is_known()

    def what_is_known(self):
        """Of the disk's process: which one it is, and on record for the next."""
        return self.disk.pid(), self.host.sh(f"cat /run/sxm/{self.disk.export}/domains.json")

    def pledge(self):
        """What must be there from now on."""
        self.sh(f"dd if=/dev/urandom of=/dev/xvda seek=8 {PLEDGE} conv=fsync")
        self.pledged = self.kept()

    def kept(self):
        return self.sh(f"dd if=/dev/xvda iflag=direct skip=8 {PLEDGE} 2>/dev/null | sha256sum").split()[0]

    def kexec(self, how, more=""):
        """The command. The next kernel is on the disk; it is not begun through PVH's entry, so nobody but its line says where the tables are."""
        self.sh(f"cd /run && dd if=/dev/xvda {KERNEL} 2>/dev/null | tar x")
        tables = self.sh("dmesg | sed -n 's/.*ACPI: RSDP \\(0x[0-9A-Fa-f]*\\).*/\\1/p'")
        line = f"{LINE} bed.kernel={self.number + 1} acpi_rsdp={tables} {more}"
        return f"kexec {how} /run/guest.vmlinuz /run/guest.initramfs '{line}'"

    def asks_for_reset(self, command):
        """At work. Its domain shuts down for that, and for nothing else: S."""
        self.work()
        self.try_sh(command, 0)
        self.host.until(f"xl list {self.domid} | grep -F -- '---sS-'", 60)

    def is_left(self, state, is_connected):
        """By the kernel that is gone."""
        self.host.until(f"[ $(xenstore-read {self.backend['xvda']}/state) = {state} ]")
        assert self.state() == [state, state] and self.disk.status(self.domid)["connected"] == is_connected, self.state()

    def is_reset(self):
        """Nobody's disk is touched by that, nor its process."""
        held, state = self.disk.sum(), self.state()
        self.host.sh(f"/bed/reset {self.domid} && /bed/tables put {self.domid} /run/tables")
        assert self.disk.sum() == held and self.state() == state, self.state()

    def next_begins(self):
        self.number += 1
        self.host.sh(f"xl unpause {self.domid}")
        self.host.until(f"[ $(grep -c '^=end hello' /var/log/xen/guest-{self.name}.log) = {self.number} ]", 120)
        assert f"bed.kernel={self.number} " in self.sh("cat /proc/cmdline")
        self.connected()
        bed.say(f"kernel {self.number} is up, {self.sh('cut -d. -f1 /proc/uptime')} s of its own")

    def works(self):
        assert self.what_is_known() == self.known
        assert self.kept() == self.pledged, "what the guest had flushed is not there"
        self.work()
        self.end_work()


def in_order(guest):
    guest.pledge()
    guest.asks_for_reset(guest.kexec("now", CRASH))
    guest.is_left("6", is_connected=False)
    guest.is_reset()
    guest.next_begins()
    guest.works()
    bed.say("another kernel took its place")


def out_of_a_panic(guest):
    guest.pledge()
    guest.sh(guest.kexec("crash"))
    guest.asks_for_reset("echo c >/proc/sysrq-trigger")
    guest.is_left("4", is_connected=True)
    guest.is_reset()
    guest.next_begins()
    guest.works()
    bed.say("another kernel took the place of one that had panicked")


def kexec():
    host = bed.host().boot()
    host.make_sr()
    host.start_broker()
    disk = bed.Disk(host, mib=40)
    host.sh(f"tar c -C /bed guest.vmlinuz guest.initramfs | dd of={disk.file} bs=1M seek=16 conv=notrunc")
    guest = Machine(host, disk)
    guest.begin()
    in_order(guest)
    out_of_a_panic(guest)
    inside = guest.sum()
    guest.destroy()
    disk.take_from(guest.domid)
    assert inside == disk.sum(), "the guest reads something else than what is in the image"


bed.play(kexec)
