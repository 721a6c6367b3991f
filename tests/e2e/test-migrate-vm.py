#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""`sxm migrate --qemu-qmp`: a real VM moves whole, with its two disks, between two hosts, and back, while it writes files to both and checks
their sums. Whoever drives the move dies in the middle: it runs in one place, and it never goes back in time; its memory is there what it was
here, page by page. test-migrate-vm-faults.py has what else may go wrong."""
import os

from vm_hosts import MiB, Qemu, SIZES, play


def memory_is_the_same(m):
    """Both stand still."""
    older = [n for n, (here, there) in enumerate(zip(m.vm.pages(), m.waiting.pages())) if here != there]
    assert not older, f"{len(older)} pages are there what they were before: {older[:20]}"


def there_whole_and_back(m):
    p = m.start_until("decided", m.new())
    memory_is_the_same(m)
    m.end(p, expect=0)
    return m.moved()


def what_is_refused_harms_nobody(m):
    """Before anything is begun."""
    wrong = Qemu.waiting(m.there, (SIZES[0], SIZES[1] - MiB))
    out = m.run(m.between(m.vm.qmp, wrong.qmp), expect=1)
    assert str(SIZES[1]) in out, out
    wrong.kill()
    out = m.run(m.between(m.vm.qmp, wrong.qmp), expect=1)
    assert "-incoming defer" in out, out
    m.run(m.between(m.vm.qmp + "x", wrong.qmp), expect=1)
    wrong = Qemu.waiting(m.there, SIZES[:1])
    out = m.run(m.between(m.vm.qmp, wrong.qmp), expect=1)
    assert "/vd1/" in out, out
    out = m.run(m.command("--qemu-qmp", m.vm.qmp, "--qemu-dest", wrong.qmp, m.uris[0], f"far:{m.there.sr_dir}"), expect=1)
    assert "another disk" in out, out
    wrong.kill()
    m.vm.goes_on()


def what_is_to_be_feared_is_said(m):
    """Of QEMU itself, which may lose what the guest writes; not of the memory this VM has."""
    waiting = Qemu.waiting(m.there)
    plan = m.between(m.vm.qmp, waiting.qmp, "--plan")
    out = m.run(plan)
    assert "emulated" not in out, out
    m.vm.ask("object-add", **{"qom-type": "memory-backend-ram", "id": "whole-words", "size": 256 << 10})
    out = m.run(plan)
    is_old = m.vm.ask("query-version")["qemu"]["major"] < 9
    assert ("note: the VM is emulated" in out) == is_old, out
    m.vm.ask("object-del", id="whole-words")
    waiting.kill()


def killed_and_aborted(m, place):
    m.run_until(place, m.new())
    m.run(m.command("--abort", m.record()["id"]))
    m.stays()
    m.owned("owned")


def killed_and_resumed(m, place):
    """Before the decision: the VM goes on, and wants another QEMU there. After it: it is there."""
    m.run_until(place, m.new())
    record = m.record()
    if place not in ("decided", "committed", "moved"):
        out = m.run(m.command("--resume", record["id"]), expect=3)
        m.stays()
        assert "-incoming defer" in out, out
        again = Qemu.waiting(m.there)
        os.rename(again.qmp, m.waiting.qmp)
        again.qmp, m.waiting = m.waiting.qmp, again
    m.run(m.command("--resume", record["id"]))
    return m.moved()


STEPS = [("refused", what_is_refused_harms_nobody), ("to be feared", what_is_to_be_feared_is_said),
         ("whole", there_whole_and_back), ("killed still", killed_and_aborted, "still"),
         ("killed decided", killed_and_resumed, "decided")]
if os.environ.get("SXM_LONG"):
    STEPS[3:3] = [(f"{do.__name__} {place}", do, place) for do, places in
                  ((killed_and_aborted, ("begun", "prepared")), (killed_and_resumed, ("still", "prepared", "committed", "moved")))
                  for place in places]
play(STEPS)
