# SPDX-License-Identifier: LGPL-2.1-or-later
"""A round of stress.py: a disk, its guest, its mirror, the barrier, and what must hold then."""
import math
import random
import re
import threading
import time

import control as control_client
from smapi import Refused
from stress_faults import FAR_KINDS, KILLS_NEAR, LINK_KINDS, NEAR_KINDS, ODD_KINDS, RELAY_KINDS, Faults
from stress_hosts import BOUND_MS, COMPLETE_S, HEARTBEAT, JOURNAL, MIB, VERB_S, Call, Disk, Failed, Guest, Relay, now, require


class Poller(threading.Thread):
    """xapi's Data.stat loop."""

    def __init__(self, site, operation):
        super().__init__(daemon=True)
        self.site, self.operation = site, operation
        self.status, self.error, self.is_over = {}, None, False
        self.start()

    def run(self):
        while not self.is_over:
            try:
                status = self.site.call("Data.stat", operation=self.operation)
            except Exception as e:  # noqa: BLE001
                self.error = e
                return
            if [status.get(k) for k in ("complete", "failed")] != [self.status.get(k) for k in ("complete", "failed")]:
                JOURNAL.add(f"Data.stat {status}")
            self.status = status
            time.sleep(0.02)

    def stop(self):
        self.is_over = True
        self.join(VERB_S)
        require(not self.error, f"Data.stat raised: {self.error}")


class Round:
    def __init__(self, number, seed, options, sites, top):
        self.rng = random.Random(f"{seed}.{number}")
        self.number, self.options, self.top = number, options, top
        self.a, self.b = sites
        self.relay = self.near = self.far = self.guest = self.operation = self.poller = None
        self.faults = Faults(self.rng, self)
        self.domain, self.reclaims, self.failures, self.was_said = "1", 0, 0, False
        self.slowest_ms = 0

    # the parts

    def begin(self):
        rng = self.rng
        self.size = rng.choice([8, 16, 32, 64]) * MIB
        self.has_relay = rng.random() < 0.6
        self.rate = rng.choice([0, 8, 16, 32]) * MIB  # slow: something is under way at any time
        self.kinds = FAR_KINDS + ODD_KINDS + NEAR_KINDS + (RELAY_KINDS if self.has_relay else []) + LINK_KINDS
        if rng.random() < 0.3:
            self.kinds = self.kinds + ["full"] * 2
        if self.options.only:
            self.kinds = [k for k in self.kinds + ["full"] if k in self.options.only]
        self.a.begin(256 * MIB)
        self.b.begin(self.size + 2 * MIB)
        self.near = Disk(self.a, self.size)
        uri = self.near.attach(self.domain)
        self.near.datapath("activate", self.domain)
        filled = self.fill()
        self.guest = Guest(rng, self.top, (filled, self.size - filled))
        self.guest.move(uri)
        self.guest.start()
        self.guest.goes_on()
        JOURNAL.add(f"round {self.number}: {self.size // MIB} MiB, {filled // MIB} filled, "
                    f"{f'relay {self.rate}' if self.has_relay else 'direct'}")

    def fill(self):
        filled = self.rng.choice([0, 1, 4, self.size // MIB // 2]) * MIB
        filled = min(filled, self.size - 5 * MIB)
        with open(self.near.image, "r+b") as f:
            f.write(self.rng.randbytes(filled))
        return filled

    def new_far(self):
        self.far = Disk(self.b, self.size)
        self.far.attach("MIR000001")
        self.far.datapath("activate", "MIR000001")
        port = self.far.ask("listen", domain="MIR000001", host=self.b.address, port=10809)["port"]
        if self.has_relay:
            self.relay = Relay(10810, f"{self.b.address}:{port}")
            self.relay.tell(f"always {self.rate}")
        self.remote = f"nbd://{'127.0.0.1:10810' if self.has_relay else f'{self.b.address}:{port}'}/{self.far.id}"

    def end_far(self):
        if self.relay:
            self.relay.end()
            self.relay = None
        self.far.datapath("deactivate", "MIR000001")
        self.far.datapath("detach", "MIR000001")
        self.far.destroy()

    def mirror(self, is_disturbed):
        """Data.mirror; a fault in the middle of it may make it refuse, and then it is asked again when all is well."""
        fault = self.pick(FAR_KINDS + LINK_KINDS + RELAY_KINDS) if is_disturbed and self.rng.random() < 0.4 else None
        if fault and self.rng.random() < 0.5:
            self.faults.inject(fault)
            fault = None
        for _ in range(3):
            call = Call(lambda: self.a.call("Data.mirror", uri=self.near.uri, domain=self.domain, remote=self.remote))
            if fault:
                time.sleep(math.exp(self.rng.uniform(math.log(0.0005), math.log(0.3))))
                self.faults.inject(fault)
            call.wait()
            if not call.error:
                self.operation = call.result
                self.was_said = False
                self.poller = Poller(self.a, self.operation)
                return
            require(self.faults.seen and isinstance(call.error, Refused), f"Data.mirror: {call.error}")
            self.faults.heal()
            time.sleep(1)  # while the far side's keeper starts it
            fault = None
            if "has a mirror already" in str(call.error) or "receiv" in str(call.error):
                self.end_far()
                self.new_far()
        raise Failed(f"Data.mirror refuses: {call.error}")

    def pick(self, kinds):
        possible = [k for k in self.kinds if k in kinds]
        return self.rng.choice(possible) if possible else None

    def disturb(self):
        end = now() + self.options.seconds
        stops_at_once = self.rng.random() < 0.3
        while now() < end:
            time.sleep(self.rng.uniform(0.02, 1.2))
            if self.kinds:
                self.faults.inject(self.rng.choice(self.kinds))
            if self.poller.status.get("failed") or (stops_at_once and self.poller.status.get("complete")):
                break
        if self.rng.random() < 0.6:
            self.faults.heal()

    def reason(self):
        """Its process says, or its record, if that process is no more."""
        said = self.near.try_ask("mirror.stat", id=self.operation[1], wait_ms=0)
        if not said:
            try:
                with open(f"{self.a.run_dir}/state/operations/{self.operation[1]}.json", encoding="utf-8") as f:
                    said = control_client.json.load(f)
            except OSError:
                pass
        return (said or {}).get("text", "?")

    def wait_complete(self):
        """False: it failed, and a fault explains that."""
        end = None
        while not self.poller.status.get("complete"):
            require(self.guest.child.poll() is None, "the guest has ended: " + self.guest.said())
            require(not self.poller.error, f"Data.stat raised: {self.poller.error}")
            if self.poller.status.get("failed"):
                why = self.reason()
                JOURNAL.add("failed: " + why)
                require("full" in self.faults.seen and "o space" in why, "the mirror failed, and no fault explains it: " + why)
                return False
            end = end or (None if self.faults.live else now() + COMPLETE_S)
            if end and now() > end:
                raise Failed(f"not complete in {COMPLETE_S} s: " + str(self.near.try_ask("status")))
            time.sleep(0.01)
        self.was_said = True
        return True

    def mirrored(self):
        """Until one is complete."""
        self.new_far()
        self.mirror(True)
        self.disturb()
        while not self.wait_complete():
            self.again()

    def again(self):
        self.failures += 1
        require(self.failures < 4, "it fails again and again")
        self.poller.stop()
        self.faults.heal()
        self.faults.seen.discard("full")
        self.guest.goes_on()
        self.end_far()
        self.new_far()
        self.mirror(False)

    def barrier(self):
        """The deactivation at A, with a fault in it perhaps. False: it raised, for a reason."""
        kinds = FAR_KINDS + LINK_KINDS + RELAY_KINDS + NEAR_KINDS + ["full"]
        fault = self.pick(kinds) if self.rng.random() < 0.5 else None
        window = [now(), now() + VERB_S]
        self.faults.near.append(window)
        call = Call(lambda: self.near.datapath("deactivate", self.domain))
        if fault:
            time.sleep(math.exp(self.rng.uniform(math.log(0.0003), math.log(0.15))))
            self.faults.inject(fault)
        call.wait()
        window[1] = now()
        if not call.error:
            return True
        why = str(call.error)
        require(isinstance(call.error, Refused), f"deactivate: {why}")
        require(("o space" in why and "full" in self.faults.seen) or (self.failures and "has failed since" in why) or
                (fault in KILLS_NEAR and "was never handed over" in why), "the barrier raised: " + why)
        self.guest.goes_on(30)
        return False

    def handed_over(self):
        while not self.barrier():
            status = self.a.call("Data.stat", operation=self.operation)
            require(status["failed"], f"the barrier raised, and Data.stat says {status}")
            self.again()
            while not self.wait_complete():
                self.again()

    def reclaim(self):
        """The guest reboots at A after all."""
        self.reclaims += 1
        window = [now() - VERB_S, now() + VERB_S]
        self.faults.near.append(window)
        if self.rng.random() < 0.4 and self.pick(FAR_KINDS + LINK_KINDS + RELAY_KINDS):
            self.faults.inject(self.pick(FAR_KINDS + LINK_KINDS + RELAY_KINDS))
        self.near.datapath("detach", self.domain)
        self.domain = str(int(self.domain) + 1)
        self.guest.move(self.near.attach(self.domain))
        call = Call(lambda: self.near.datapath("activate", self.domain))
        call.wait()
        require(not call.error, f"the disk could not be had back: {call.error}")
        self.guest.goes_on(10)
        window[1] = now()
        if self.rng.random() < 0.5 and self.kinds:
            self.faults.inject(self.rng.choice(self.kinds))
            time.sleep(self.rng.uniform(0, 1))

    def compare(self):
        with open(self.near.image, "rb") as f, open(self.far.image, "rb") as g:
            different = [at for at in range(0, self.size, 4096) if f.read(4096) != g.read(4096)]
        require(not different, f"DIFFERENT after the barrier: {len(different)} chunks, the first at {different[:8]}")

    def go_on_there(self):
        is_early = self.rng.random() < 0.5
        window = [now() - VERB_S, now() + VERB_S]  # it is nowhere
        self.faults.near.append(window)
        self.faults.heal()
        uri = self.far.attach("7") if is_early else None
        if self.rng.random() < 0.2 and self.pick(FAR_KINDS):
            self.faults.inject(self.pick(FAR_KINDS))
        call = Call(lambda: (self.far.datapath("deactivate", "MIR000001"), self.far.datapath("detach", "MIR000001")))
        call.wait()
        require(not call.error, f"letting go at B: {call.error}")
        self.compare()
        uri = uri or self.far.attach("7")
        call = Call(lambda: self.far.datapath("activate", "7"))
        call.wait()
        require(not call.error, f"activate at B: {call.error}")
        self.guest.move(uri)
        self.guest.goes_on(15)
        window[1] = now()
        self.guest.stop()
        self.guest.verify(uri)

    def judge_waits(self):
        for start, end in self.guest.slow():
            own = sum(max(min(b, end) - max(a, start), 0) for a, b in self.faults.near)
            ms = (end - start - min(own, end - start)) * 1000
            ms -= HEARTBEAT.lost(start, end) * 1000 if ms > BOUND_MS else 0
            self.slowest_ms = max(ms, self.slowest_ms)
            require(ms <= BOUND_MS, f"the guest waited {ms:.0f} ms until {end - JOURNAL.start:.3f}, and its own side was well")

    def verified(self):
        status = self.near.try_ask("status") or {}
        for v in status.get("verifications", []):
            require(not v.get("different_bytes"), f"verify calls it different: {v}")
        return status

    def clean_up(self):
        self.near.datapath("detach", self.domain)
        end = now() + 10
        while True:
            try:
                self.near.destroy()
                break
            except Refused as e:
                require(now() < end, f"the source cannot be destroyed: {e}")
                time.sleep(0.1)
        self.far.datapath("deactivate", "7")
        self.far.datapath("detach", "7")
        self.far.destroy()
        end = now() + 10
        while left := self.a.processes() + self.b.processes():
            require(now() < end, f"processes stay: {left}")
            time.sleep(0.05)

    def judge_logs(self):
        """A process that dies by itself is started again, and nobody would know."""
        bad = re.findall(r".*(?:exited with|killed by signal (?!9 )|Sanitizer|runtime error|Assert|assert|this cannot be|"
                         r"DOES NOT HAVE).*", JOURNAL.text())
        require(not bad, "in the logs: " + "; ".join(bad[:3]))

    def play(self):
        self.begin()
        self.mirrored()
        self.handed_over()
        while self.rng.random() < 0.3 and self.reclaims < 3:
            self.reclaim()
            while not self.wait_complete_again():
                self.again()
            self.handed_over()
        self.verified()
        self.poller.stop()
        self.go_on_there()
        self.faults.heal()
        self.judge_waits()
        self.clean_up()
        self.judge_logs()

    def wait_complete_again(self):
        """Complete was said already; the mirror is in sync again when its state says so."""
        end = None
        while True:
            status = self.near.try_ask("status") or {}
            states = [o["state"] for o in status.get("operations", []) if o["id"] == self.operation[1]]
            if states == ["synced"] or self.rng.random() < 0.02:
                return self.wait_complete()
            if self.poller.status.get("failed"):
                return self.wait_complete()
            end = end or (None if self.faults.live else now() + COMPLETE_S)
            require(not end or now() < end, f"not in sync again: {status}")
            time.sleep(0.02)

    def end(self):
        if self.poller:
            self.poller.is_over = True
        self.faults.is_over = True
        self.faults.undo_due(math.inf)
        if self.guest and self.guest.child and self.guest.child.poll() is None:
            self.guest.child.kill()
            self.guest.child.wait()
        if self.relay:
            self.relay.end()
