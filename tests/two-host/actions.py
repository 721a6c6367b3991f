# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the stage does besides verbs: the guest, the relay, the faults, and what is to be so afterwards. Each is a function of the
player, the line and its scope; the README lists them."""
import json
import os
import socket
import subprocess
import zlib

import dom0
import rrd
from guest import HEADER, RECORD, Wrong
from hosts import at_once, until_true
from nbd import Client
from sequence import Unreadable
from verbs import Aborted, Failed, nbd_of


def texts(player, line, scope, *names):
    """The arguments of those names, None where one is not given; others are a mistake."""
    for key in line.args:
        if key not in names:
            raise Unreadable(f"{line.where}: {line.name} takes {', '.join(names) or 'nothing'}, and no {key}")
    return [player.value(line.args[n][0], scope, line) if n in line.args else None for n in names]


def disks_of(player, scope):
    return [scope.disk] if scope.disk else player.disks


def nbd_uri(backend):
    return f"nbd+unix:///{backend['export']}?socket={backend['host'].outside(backend['socket'])}"


# --- names and values

def let(player, line, scope):
    return texts(player, line, scope, "value")[0]


def domain_create(player, line, scope):
    texts(player, line, scope)
    return str(next(player.domids))


def name_of(player, line, scope):
    """MIR and CP: 24 bits of a hash, as xapi makes them."""
    kind, volume = texts(player, line, scope, "kind", "volume")
    record = player.volume(volume, scope, line)
    return f"{kind}{zlib.crc32((record['sr'] + record['key']).encode()) & 0xffffff:06x}"


# --- the guest

def vbd_plug(player, line, scope):
    """The disk's backend is there; the guest uses it when it runs. Its process hears which device of which VM it is."""
    backend, disk = texts(player, line, scope, "backend")[0], scope.disk
    disk.variables["plugged"], disk.variables["plug_mark"] = backend, disk.guest.bytes_logged()
    rrd.say_whose(player, disk, backend)


def guest_run(player, line, scope):
    """The guest runs, on the backends that were plugged, and each of its disks takes writes."""
    texts(player, line, scope)
    for disk in player.disks:
        disk.guest.point(nbd_uri(disk.variables["plugged"]))
    for disk in player.disks:
        if not disk.guest.process:
            disk.guest.start()
    at_once([disk.guest.until_it_writes for disk in player.disks])


def guest_pause(player, line, scope):
    """What is in flight may still be answered; when its connections are cut the guest finds no backend."""
    texts(player, line, scope)
    for disk in player.disks:
        if player.setup.suspend:
            disk.guest.suspend()
        else:
            disk.guest.point("")


def guest_stop(player, line, scope):
    """The guest shuts down: it waits for what it sent. It may be run again."""
    texts(player, line, scope)
    at_once([disk.guest.rest for disk in player.disks])


def guest_writes(player, line, scope):
    texts(player, line, scope)
    at_once([disk.guest.until_it_writes for disk in disks_of(player, scope)])


def guest_prompt(player, line, scope):
    """The guest has stopped, and so has all answers; none took longer than that, but for those to what it sent again elsewhere."""
    limit, = texts(player, line, scope, "ms")
    for disk in disks_of(player, scope):
        took = disk.guest.slowest_ms()
        player.remark(f"      disk{disk.number}: no answer took longer than {max(took, 5)} ms")
        if took > int(limit):
            raise Wrong(f"{line.where}: the guest waited {took} ms for an answer of disk{disk.number}; {limit} were allowed")


def read_back(player, line, scope, disk, volume, logs):
    """Through dom0: attached, active for reading, verified, let go."""
    guest = disk.guest or disk.of.guest
    if "backend" in volume:
        for log, moment in logs:
            guest.verify(nbd_uri(volume["backend"]), log, moment)
        return
    host = player.host(line)
    domain = {"domain": "u0_check"}
    answer = player.of_volume(host, "Datapath.attach", volume, domain, scope, line)
    try:
        verb = "Datapath.activate_readonly" if player.verbs[host].has("Datapath.activate_readonly") else "Datapath.activate"
        player.of_volume(host, verb, volume, domain, scope, line)
        path, export = nbd_of(answer)
        uri = nbd_uri({"host": host, "socket": path, "export": export})
        for log, moment in logs:
            guest.verify(uri, log, moment)
    finally:
        player.of_volume(host, "Datapath.deactivate", volume, domain, scope, line)
        player.of_volume(host, "Datapath.detach", volume, domain, scope, line)


def guest_verify(player, line, scope):
    """Every acknowledged write is on the volume, none torn, none elsewhere. The guest is stopped. A snapshot: all that was there then."""
    texts(player, line, scope)
    for disk in disks_of(player, scope):
        if disk.guest and disk.guest.process and not disk.guest.is_resting:
            raise Unreadable(f"{line.where}: the guest runs: its disks are verified after guest.stop()")
        inner = type(scope)(disk, scope.window)
        volume = player.volume(line.first or "disk", inner, line)
        logs = [log for log in [*([disk.guest.log] if disk.guest else []), *disk.logs] if os.path.exists(log)]
        read_back(player, line, inner, disk, volume, [(log, None) for log in logs])
        writes = sum((os.path.getsize(log) - HEADER) // RECORD // 2 for log in logs)
        player.remark(f"      disk{disk.number} on {player.host(line).name}: verified, {writes} writes")


def snapshot_mark(player, line, scope):
    """How far the guest's log is: before and after a snapshot."""
    texts(player, line, scope)
    return scope.disk.guest.bytes_logged()


def snapshot_verify(player, line, scope):
    """The volume is the guest's disk at one moment between two marks."""
    before, after = texts(player, line, scope, "after", "before")
    volume = player.volume(line.first, scope, line)
    cut = scope.disk.guest.log + ".cut"
    with open(scope.disk.guest.log, "rb") as f, open(cut, "wb") as to:
        to.write(f.read(after))
    read_back(player, line, scope, scope.disk, volume, [(cut, before), *((log, None) for log in scope.disk.logs)])


# --- dom0

def sparse_dd(player, line, scope):
    """A copy by what base:allocation says is there: to=: a backend of this host, or mir=, on=, volume=, export=: through xapi.
    base=: a backend that has what the target has already: what differs is written, zeros too."""
    source, to, mir, there, volume, export, base = texts(player, line, scope, "from", "to", "mir", "on", "volume", "export", "base")
    if to:
        target = dom0.client(to)
    else:
        here, host, record = player.host(line), player.roles[there], player.volume(volume, scope, line)
        player.relays[host].targets[mir] = Target(player, host, record, mir, scope, line)
        target = Client(player.relays[here].put_or_fail(player.relays[host], import_path(mir, record)), export)
    copied = dom0.sparse_dd(source, target, base)
    player.remark(f"      sparse_dd: {copied} bytes")
    return copied


def backup_full(player, line, scope):
    path = os.path.join(player.machine.dir, f"backup{scope.disk.number if scope.disk else ''}")
    dom0.backup_full(texts(player, line, scope, "from")[0], path)
    return path


def backup_changes(player, line, scope):
    source, path, changed = texts(player, line, scope, "from", "image", "changed")
    count = dom0.backup_changes(source, path, changed)
    player.remark(f"      {count} blocks changed")
    return count


def backup_compare(player, line, scope):
    dom0.backup_compare(*texts(player, line, scope, "from", "image"))


# --- the relay

def import_path(mir, record):
    """Where a connection becomes one to what has been attached under that name."""
    return f"/services/SM/nbdproxy/import/{mir}/{record['sr']}/{record['key']}/{mir}?session_id=OpaqueRef:stage"


def relay_export(player, line, scope):
    """xapi's listener for one mirror, and what the other host does when the bytes come. The socket's path."""
    mir, to, volume, seconds = texts(player, line, scope, "mir", "to", "volume", "late_seconds")
    here, there = player.host(line), player.roles[to]
    record = player.volume(volume, scope, line)
    player.relays[there].targets[mir] = Target(player, there, record, mir, scope, line)
    return player.relays[here].export(mir, player.relays[there], import_path(mir, record), float(seconds or 0))


class Target:
    """Who is meant by a name in an HTTP request: what xapi asks the plugin of the host when it comes."""

    def __init__(self, player, host, volume, domain, scope, line):
        self.player, self.host, self.volume, self.domain = player, host, volume, domain
        self.scope, self.line = type(scope)(scope.disk), line

    def ask(self, verb):
        return self.player.of_volume(self.host, verb, self.volume, {"domain": self.domain}, self.scope, self.line)

    def attach(self):
        return self.volume["answer"] if "backend" in self.volume else self.ask("Datapath.attach")

    def import_activate(self):
        return self.ask("Datapath.import_activate")


def relay_limit(player, line, scope):
    """Of the relays that begin on this host from now on: cut or held after so many bytes, so many bytes a second; nothing: no limit."""
    cut, hold, rate = texts(player, line, scope, "cut", "hold", "rate")
    player.relays[player.host(line)].limits = {"cut": cut, "hold": hold, "rate": rate}


def relay_cut(player, line, scope):
    texts(player, line, scope)
    player.relays[player.host(line)].cut()


# --- faults

def fail(player, line, scope):
    """The next runs of a verb on this host: refused, or done and the answer lost."""
    verb, how, times = texts(player, line, scope, "verb", "how", "times")
    if how not in (None, "refuse", "lose"):
        raise Unreadable(f"{line.where}: how={how}: it is refuse (not run) or lose (run, and its answer lost)")
    player.verbs[player.host(line)].plant(verb, how or "refuse", int(times or 1))


def kill(player, line, scope):
    """kill -9 of what runs on this host; word: of what has that in its command line."""
    word = texts(player, line, scope, "word")[0]
    if not player.host(line).kill(str(word or "")) and word:
        raise Unreadable(f"{line.where}: no process of host {line.host} has {word} in its command line")


def host_reboot(player, line, scope):
    """The host dies and comes back; its SRs are attached again."""
    texts(player, line, scope)
    host = player.host(line)
    player.relays[host].cut()
    host.reboot()
    for disk in player.disks:
        if disk.variables.get("plugged", {}).get("host") is host:
            disk.guest.has_lost_power = True
            disk.guest.point("")
    for (sr, where), _ in list(player.handles.items()):
        if where is host:
            player.handles[sr, host] = player.verbs[host].call("SR.attach", {"configuration": player.configurations[sr]})


# --- what is to be so

def keys_of(player, line, scope, volume):
    host = player.host(line)
    return {v["key"] for v in player.run(host, "SR.ls", {"sr": player.handle(volume["sr"], host, line)}, scope, line)}


def listed(player, line, scope):
    texts(player, line, scope)
    volume = player.volume(line.first, scope, line)
    if volume["key"] not in keys_of(player, line, scope, volume):
        raise Wrong(f"{line.where}: SR.ls on host {line.host} does not have {volume['key']}")


def absent(player, line, scope):
    texts(player, line, scope)
    volume = player.volume(line.first, scope, line)
    if volume["key"] in keys_of(player, line, scope, volume):
        raise Wrong(f"{line.where}: SR.ls on host {line.host} still has {volume['key']}")


def idle(player, line, scope):
    """No process of the plugins' is left on this host."""
    texts(player, line, scope)
    host = player.host(line)

    def left():
        return [command for _, command in host.processes() if not any(own in command for own in ("sxm-stage-pump", "sxm-stage-launch", "tapdisk_"))]
    try:
        until_true("the plugins' processes end", lambda: not left())
    except TimeoutError:
        raise Wrong(f"{line.where}: still running on host {host.name}: {'; '.join(left())}") from None


def apart(player, line, scope):
    """No process of the plugins' would go with whoever runs verbs: not of its process group or session, nor its child."""
    texts(player, line, scope)
    host = player.host(line)
    runners = {os.getpid(), *player.verbs[host].launchers.pids()}
    for pid, what in host.processes():
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            parent, group, session = map(int, f.read().rsplit(")", 1)[1].split()[1:4])
        if "sxm-stage-" not in what and (parent in runners or group == os.getpgrp() or session == os.getsid(0)):
            raise Wrong(f"{line.where}: on host {line.host} this would end with the daemon that runs verbs: {what}")


def sxm_control(player, line, scope):
    """A word to the volume's own process, on the control socket that only sxm has; it is started where it does not run."""
    verb = texts(player, line, scope, "verb")[0]
    host, volume = player.host(line), player.volume(line.first, scope, line)
    player.of_volume(host, "Datapath.attach", volume, {"domain": "u0_admin"}, scope, line)
    place = host.outside("/run/sxm")
    found = [n for n in os.listdir(place) if n.startswith(volume["key"][:36]) and os.path.exists(f"{place}/{n}/control")]
    answer = {}
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(f"{place}/{found[0]}/control")
        s.sendall(json.dumps({"id": 1, "verb": verb, "args": {}}).encode() + b"\n")
        answer = json.loads(s.makefile("rb").readline())
    player.of_volume(host, "Datapath.detach", volume, {"domain": "u0_admin"}, scope, line)
    if "ok" not in answer:
        raise Failed(verb, answer["error"]["code"], [answer["error"]["text"]])
    return answer["ok"]


def run_command(player, line, words, wanted="0"):
    host = player.host(line)
    environment = {**host.environment, "PATH": player.setup.tools + ":" + host.environment["PATH"]}
    done = host.run(subprocess.run, words, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False)
    if str(done.returncode) not in wanted.split():
        raise Wrong(f"{line.where}: {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def command(player, line, scope):
    """A program, run on this host; status: what it may end with (0)."""
    words, wanted = texts(player, line, scope, "words", "status")
    return run_command(player, line, words.split(), wanted or "0")


def doctor_obeyed(player, line, scope):
    """sxm doctor tells of the volume, and its sentence for a person ends with a command, which is run."""
    wanted, = texts(player, line, scope, "command")
    volume = player.volume(line.first, scope, line)
    found = json.loads(run_command(player, line, ["sxm", "doctor", "--json"], "4"))["findings"]
    advice = [f.get("advice", "") for f in found if volume["key"] in f["subject"]]
    commands = [a[a.index(wanted):] for a in advice if wanted in a]
    if len(commands) != 1:
        raise Wrong(f"{line.where}: sxm doctor does not say of {volume['key']}, once, that {wanted} helps: {found}")
    player.remark(f"      {commands[0]}")
    return run_command(player, line, commands[0].split())


def abort(player, line, scope):
    """The end of what xapi was doing, with itself: nothing is cleaned up."""
    raise Aborted("xapi", "ABORTED", texts(player, line, scope, "why"))


ACTIONS = {
    "let": let, "domain.create": domain_create, "name.of": name_of, "vbd.plug": vbd_plug, "guest.run": guest_run, "guest.pause": guest_pause,
    "guest.stop": guest_stop, "guest.writes": guest_writes, "guest.prompt": guest_prompt, "guest.verify": guest_verify, "snapshot.mark": snapshot_mark,
    "snapshot.verify": snapshot_verify, "relay.export": relay_export, "relay.limit": relay_limit, "relay.cut": relay_cut, "fail": fail,
    "sparse_dd": sparse_dd, "backup.full": backup_full, "backup.changes": backup_changes, "backup.compare": backup_compare, "kill": kill, "host.reboot": host_reboot, "listed": listed, "absent": absent, "sxm.control": sxm_control, "idle": idle, "apart": apart, "command": command, "doctor.obeyed": doctor_obeyed,
    "abort": abort,
}
