#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest at work on its disk goes to another kernel by kexec: in order, and out of a panic. Domain, disk's process and what it knows of its
domains stay; the toolstack does as xenopsd does it (reset.c), and tells nobody. In order the ring is let go of before; out of a panic
the dead kernel's is still there, until the next one closes what it finds. The next kernel is not begun here (README): what it says of
its devices, the bed says. What was flushed is there each time."""
import bed

KERNEL = "bs=1M skip=16"  # where it is on the disk; worker has the first 8 MiB
PLEDGE = "bs=1M count=4"  # behind these
LINE = "console=hvc0 quiet mitigations=off rdinit=/init"


class Machine(bed.Guest):
    def __init__(self, host, disk):
        super().__init__(host, "k", kind="pvh", memory_mib=256, extra="crashkernel=96M", more='on_soft_reset="preserve"')
        self.disk = disk

    def begin(self):
        self.host.sh(f"rm -f /var/log/xen/guest-{self.name}.log")  # what an earlier one of that name said
        self.create()
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
        self.pledged = self.sh(f"dd if=/dev/xvda iflag=direct skip=8 {PLEDGE} 2>/dev/null | sha256sum").split()[0]

    def kexec(self, how):
        """The command: the next kernel is on the disk."""
        self.sh(f"cd /run && dd if=/dev/xvda {KERNEL} 2>/dev/null | tar x")
        return f"kexec {how} /run/guest.vmlinuz /run/guest.initramfs '{LINE}'"

    def asks_for_reset(self, command):
        """At work. Its domain shuts down for that, and for nothing else: S."""
        self.work()
        self.try_sh(command, 0)
        self.host.until(f"xl list {self.domid} | grep -F -- '---sS-'", 60)

    def is_at(self, front, back):
        self.host.until(f"[ $(xenstore-read {self.front()})$(xenstore-read {self.backend['xvda']}/state) = {front}{back} ]")

    def front(self):
        return f"/local/domain/{self.domid}/device/vbd/{bed.DEVICES['xvda']}/state"

    def is_connected(self):
        return self.disk.status(self.domid)["connected"]

    def next_kernel_says(self, state, answer):
        """As Linux' xenbus does before it looks for devices."""
        self.host.sh(f"xenstore-write {self.front()} {state}")
        self.is_at(state, answer)

    def is_reset(self):
        """Nobody's disk is touched by that, nor its process."""
        held, state = self.disk.sum(), self.state()
        self.host.sh(f"/bed/reset {self.domid}")
        assert self.disk.sum() == held and self.state() == state, self.state()
        return held

    def is_as_before(self, held):
        assert self.what_is_known() == self.known
        assert self.disk.sum() == held, "something was written that no guest wrote"
        kept = self.host.sh(f"dd if={self.disk.file} iflag=direct skip=8 {PLEDGE} 2>/dev/null | sha256sum").split()[0]
        assert kept == self.pledged, "what the guest had flushed is not there"

    def end(self):
        before = self.domid
        self.destroy()
        self.host.until(f"! xl list | awk '{{ print $2 }}' | grep -qx {before}", 60)
        self.disk.take_from(before)


def in_order(guest):
    guest.pledge()
    guest.asks_for_reset(guest.kexec("now"))
    guest.is_at(6, 6)
    assert not guest.is_connected()
    held = guest.is_reset()
    guest.next_kernel_says(1, 2)
    guest.is_as_before(held)
    guest.end()
    bed.say("in order: let go of before, and offered to the next kernel")


def out_of_a_panic(guest):
    guest.pledge()
    guest.sh(guest.kexec("crash"))
    guest.asks_for_reset("echo c >/proc/sysrq-trigger")
    guest.is_at(4, 4)
    assert guest.is_connected()
    held = guest.is_reset()
    guest.next_kernel_says(5, 5)
    assert not guest.is_connected(), "the dead kernel's ring is still there"
    guest.next_kernel_says(6, 6)
    guest.next_kernel_says(1, 2)
    guest.is_as_before(held)
    guest.end()
    bed.say("out of a panic: the dead kernel's ring was let go of, and the disk offered to the next one")


def works_again(guest):
    """The same disk, with a domain of another number."""
    guest.work()
    guest.end_work()
    assert guest.sum() == guest.disk.sum(), "the guest reads something else than what is in the image"


def kexec():
    host = bed.host().boot()
    host.make_sr()
    host.start_broker()
    disk = bed.Disk(host, mib=40)
    host.sh(f"tar c -C /bed guest.vmlinuz guest.initramfs | dd of={disk.file} bs=1M seek=16 conv=notrunc")
    guest = Machine(host, disk)
    guest.begin()
    in_order(guest)
    guest.begin()
    works_again(guest)
    out_of_a_panic(guest)


bed.play(kexec)
