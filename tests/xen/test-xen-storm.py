#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest writes rubbish to its keys, states and ring as fast as it can (hostile.c), under the broker: another guest's devices come and go
meanwhile, and who works there goes on."""
import bed
from plugged import attach, detach, plug


def storm(host, guest, victim, calm):
    """A guest whose keys and states change as fast as it can, with a part of a processor: devices of another's come and go meanwhile."""
    bad = bed.Guest(host, "bad", extra="bed.frontend=none").create()
    disk = plug(host, bad, "xvda", **{"hotplug-status": "connected"})
    bad.start()
    host.sh(f"xl sched-credit2 -d {bad.domid} -c 40")
    bad.sh(f"(while :; do hostile 5 {8 * 2048}; done) >/run/hostile.out 2>&1 & sleep 1")
    log = int(host.sh("stat -c %s /var/log/broker"))
    took = []
    for _ in range(2):
        took.append(attach(host, guest, victim, "xvdc"))
        guest.sh("dd if=/dev/urandom of=/dev/xvdc bs=64k count=4 conv=fsync")
        detach(host, guest, victim, "xvdc")
    status = disk.status(bad.domid)
    log = int(host.sh("stat -c %s /var/log/broker")) - log
    bed.say(f"a storm of a guest's ({status['ring_errors']} requests refused): attached meanwhile in {[round(t, 1) for t in took]} s; "
            f"the broker's log has {log} bytes more")
    assert max(took) < 8 * calm + 10 and log < 20000, host.sh("tail -n 20 /var/log/broker")
    guest.goes_on()
    bad.destroy()
    disk.take_from(bad.domid)


def quiet_and_storm():
    host = bed.host().boot()
    host.make_sr()
    host.start_broker()
    guest = bed.Guest(host, "g").create()
    disk = plug(host, guest, "xvda", **{"hotplug-status": "connected"})
    guest.start()
    guest.connected()
    victim = bed.Disk(host, mib=8)
    calm = attach(host, guest, victim, "xvdc")
    detach(host, guest, victim, "xvdc")
    bed.say(f"without a storm: attached in {calm:.1f} s")
    guest.work()
    storm(host, guest, victim, calm)
    guest.end_work()
    guest.destroy()
    disk.take_from(guest.domid)


bed.play(quiet_and_storm)
