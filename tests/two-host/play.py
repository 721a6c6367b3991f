# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plays a sequence: xapi's part in it is here and in actions.py, the plugins' part is whatever the plugin root has.

A variable belongs to the disk where a block "for ... disk" is open, else to the whole play; a disk sees both. Every verb of a
datapath comes after a Volume.stat of its volume, whose URI it is given, as xapi-storage-script does it."""
import re
import time
import uuid

import actions
import rrd
import tapdisk
from hosts import at_once, complain, say
from relay import Relay
from sequence import Unreadable
from verbs import Aborted, Failed, Verbs, Volume, nbd_of, scheme_of

ACTIONS = {**actions.ACTIONS, **tapdisk.ACTIONS, **rrd.ACTIONS}

INTEGERS = {"size", "new_size", "offset", "length"}
BOOLEANS = {"sharable", "persistent"}
VARIABLE = re.compile(r"\$([a-z][a-z0-9]*(?:_[a-z0-9]+)*(?:\.[A-Za-z_0-9-]+)*)")
STAT_SECONDS = 600


class Unexpected(Exception):
    """The sequence says that something is so, and it is not."""


class Disk:
    """A disk of the guest's (or a snapshot of one: it has no guest): its variables, and its guest's driver."""

    def __init__(self, number, variables, guest=None):
        self.number, self.variables, self.guest = number, variables, guest
        self.logs = []  # other logs that hold of it


class Scope:
    """Where a statement stands: its disk or None, its window or None."""

    def __init__(self, disk=None, window=None):
        self.disk, self.window = disk, window


class Player:
    def __init__(self, machine, sequences, setup):
        """setup: root, sr_type, format, device_config, tools, is_python, is_quiet, suspend, options (variables)."""
        self.machine, self.sequences, self.setup = machine, sequences, setup
        self.main = next(iter(sequences.values()))
        self.roles = {role: machine.hosts[name] for role, name in self.main.hosts}
        self.verbs = {h: Verbs(h, setup.root, setup.sr_type, setup.tools + "/sxm-stage-launch", setup.is_python) for h in machine.hosts.values()}
        self.relays = {h: Relay(h, setup.tools + "/sxm-stage-pump") for h in machine.hosts.values()}
        self.handles, self.configurations = {}, {}   # (sr, host) -> handle, sr -> device-config
        self.variables, self.disks, self.snapshots = dict(setup.options), [], []
        self.tapdisks = {}  # an SR of tapdisk's -> its host
        self.hooks, self.windows, self.domids = [], [], iter(range(1, 1 << 20))
        self.vm = str(uuid.uuid4())
        self.began = time.monotonic()
        for verbs in self.verbs.values():
            verbs.on_run = self.show

    # --- what is said

    def show(self, run):
        if self.setup.is_quiet or run.label == "poll":
            return
        why = f"   {run.error}" if run.error else ""
        say(f"{run.started - self.began:9.3f} s  {run.label:>4}  {run.host:<3} {run.disk:<6} {run.verb:<28} {run.ms:8.1f} ms{why}")

    def remark(self, text):
        if not self.setup.is_quiet:
            say(f"{time.monotonic() - self.began:9.3f} s        {text}")

    # --- values

    def look_up(self, path, scope, line):
        name, *fields = path.split(".")
        if scope.disk and name in scope.disk.variables:
            value = scope.disk.variables[name]
        elif name in self.variables:
            value = self.variables[name]
        else:
            raise Unreadable(f"{line.where}: nothing is called {name} here")
        for field in fields:
            if not isinstance(value, dict) or field not in value:
                raise Unreadable(f"{line.where}: ${path}: there is no {field}")
            value = value[field]
        return value

    def value(self, text, scope, line):
        found = VARIABLE.fullmatch(text)
        if found:
            return self.look_up(found[1], scope, line)
        return VARIABLE.sub(lambda m: str(self.look_up(m[1], scope, line)), text)

    def argument(self, key, text, scope, line):
        value = self.value(text, scope, line)
        try:
            if key in INTEGERS:
                return int(value)
            if key in BOOLEANS and not isinstance(value, bool):
                return {"true": True, "false": False}[value]
        except (ValueError, KeyError):
            raise Unreadable(f"{line.where}: {key}={value}: it is {'a number' if key in INTEGERS else 'true or false'}") from None
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def put(self, name, value, scope):
        """What the whole play has already is changed there, also where a disk's block is open."""
        is_disks = scope.disk and name not in self.variables
        (scope.disk.variables if is_disks else self.variables)[name] = value

    def volume(self, name, scope, line):
        found = self.look_up(name, scope, line)
        if not isinstance(found, Volume):
            raise Unreadable(f"{line.where}: {name} is not a volume")
        return found

    def host(self, line):
        if line.host not in self.roles:
            raise Unreadable(f"{line.where}: there is no host {line.host}; hosts are {', '.join(self.roles)}")
        return self.roles[line.host]

    def handle(self, sr, host, line):
        if (sr, host) not in self.handles:
            raise Unreadable(f'{line.where}: host {host.name} has no SR "{sr}"')
        return self.handles[sr, host]

    # --- verbs

    def run(self, host, verb, args, scope, line, scheme="sxm"):
        disk = f"disk{scope.disk.number}" if scope.disk else ""
        label = "poll" if getattr(line, "how", None) == "until complete" else getattr(line, "label", "")
        runs = self.verbs[host]
        before = len(runs.log)
        try:
            return runs.call(verb, args, scheme, label, disk)
        finally:
            if scope.window is not None:
                scope.window.add(runs.log[before:], verb, disk)

    def of_volume(self, host, verb, volume, args, scope, line):
        """A verb of a volume; a datapath's after a Volume.stat."""
        place = {"sr": self.handle(volume["sr"], host, line), "key": volume["key"]}
        if not verb.startswith("Dat"):
            return self.run(host, verb, {**place, **args}, scope, line)
        uri, scheme = scheme_of(self.run(host, "Volume.stat", place, scope, line)["uri"])
        if verb != "Data.stat":
            args = {**args, "uri": uri}
        return self.run(host, verb, args, scope, line, scheme)

    def until_complete(self, host, volume, args, scope, line):
        end, polls = time.monotonic() + STAT_SECONDS, 0
        while time.monotonic() < end:
            status, polls = self.of_volume(host, "Data.stat", volume, args, scope, line), polls + 1
            if status["complete"]:
                self.remark(f"{line.label:>4}  complete, after {polls} times Data.stat")
                return status
            if status["failed"]:
                raise Failed("Data.stat", "Migration_mirror_failure", ["the mirror failed"])
        raise Failed("Data.stat", "TIMEOUT", [f"neither complete nor failed after {STAT_SECONDS} s"])

    def do_verb(self, line, scope):
        host, args = self.host(line), {k: self.argument(k, v[0], scope, line) for k, v in line.args.items()}
        if line.first is None and line.name not in ("Plugin.query", "Plugin.diagnostics", "Plugin.ls", "Data.ls"):
            raise Unreadable(f"{line.where}: {line.name} begins with an SR or a volume: {line.name}(disk, ...)")
        if line.name.startswith(("Plugin", "Data.ls")):
            return self.run(host, line.name, args, scope, line)
        if line.name.startswith("SR.") or line.name == "Volume.create":
            result = self.run(host, line.name, {"sr": self.handle(line.first, host, line), **args}, scope, line)
            if line.name == "SR.stat" and result["health"][0] != "Healthy":
                raise Failed("SR.stat", "Sr_unhealthy", result["health"])
            return Volume(line.first, result) if line.name == "Volume.create" else result
        volume = self.volume(line.first, scope, line)
        if line.how == "until complete":
            return self.until_complete(host, volume, args, scope, line)
        result = self.of_volume(host, line.name, volume, args, scope, line)
        if line.name in ("Volume.snapshot", "Volume.clone"):
            return Volume(volume["sr"], result)
        if line.name == "Volume.stat":
            return Volume(volume["sr"], result)
        if line.name == "Datapath.attach":
            path, export = nbd_of(result)
            return {"host": host, "socket": path, "export": export, "answer": result, "domain": args.get("domain")}
        return result

    # --- statements

    def do_statement(self, line, scope):
        if line.kind == "verb":
            result = self.do_verb(line, scope)
        elif line.name in ACTIONS:
            result = ACTIONS[line.name](self, line, scope)
        else:
            raise Unreadable(f"{line.where}: the stage does not know {line.name}; it does {', '.join(sorted(ACTIONS))}")
        if line.into:
            self.put(line.into, result, scope)

    def do_hooks(self, when, line, scope):
        number = scope.disk.number if scope.disk else 0
        for hook in list(self.hooks):
            if hook.when == when and hook.label == line.label and hook.disk in (0, number) and not hook.is_done:
                hook.is_done = True
                self.remark(f"      {hook.text}")
                self.do(hook.statement, scope)

    def do_one(self, line, scope):
        if line.label:
            self.do_hooks("at", line, scope)
        try:
            self.do_statement(line, scope)
        except Failed as e:
            if line.how == "ignored":
                complain(f"{line.where}: ignored: {e}")
            elif line.how != "fails":
                raise
            elif line.words.lower() not in str(e).lower():
                raise Unexpected(f'{line.where}: it failed, but without the words "{line.words}": {e}') from e
        else:
            if line.how == "fails":
                raise Unexpected(f"{line.where}: {line.text}: that succeeded")
        if line.label:
            self.do_hooks("after", line, scope)

    def do_try(self, line, scope):
        try:
            self.do_all(line.body, scope)
        except Aborted:
            raise
        except Failed as e:
            complain(f"{e}; what xapi does then:")
            self.do_all(line.other, scope)
            raise

    def do_play(self, line, scope):
        body = self.sequences[line.name].body
        try:
            self.do_all(body, scope)
        except Failed as e:
            if not line.fails:
                raise
            if line.words.lower() not in str(e).lower():
                raise Unexpected(f'{line.where}: {line.name} failed, but without the words "{line.words}": {e}') from e
            self.remark(f"      {line.name} failed, as it should: {e}")
        else:
            if line.fails:
                raise Unexpected(f"{line.where}: {line.name} succeeded")

    def do_if(self, line, scope):
        try:
            value = self.look_up(line.name, scope, line)
        except Unreadable:  # it was never made
            value = None
        self.do_all(line.body if (value not in (False, "", "false", "no", None)) != line.is_not else line.other, scope)

    def do_hook(self, line, _scope):
        line.is_done = False
        self.hooks.append(line)

    def do_window(self, line, scope):
        window = Window()
        self.windows.append(window)
        try:
            self.do_all(line.body, Scope(scope.disk, window))
        finally:
            window.ended = time.monotonic()

    def do(self, line, scope):
        {"verb": self.do_one, "action": self.do_one, "try": self.do_try, "play": self.do_play, "if": self.do_if, "hook": self.do_hook,
         "window": self.do_window, "each": self.do_each, "all": self.do_all_at_once, "snapshots": self.do_snapshots}[line.kind](line, scope)

    def do_each(self, line, scope):
        for disk in sorted(self.disks, key=lambda d: int(d.variables["size"])):
            self.do_all(line.body, Scope(disk, scope.window))

    def do_snapshots(self, line, scope):
        for snapshot in list(self.snapshots):
            self.do_all(line.body, Scope(snapshot, scope.window))

    def do_all_at_once(self, line, scope):
        at_once([lambda d=d: self.do_all(line.body, Scope(d, scope.window)) for d in self.disks])

    def do_all(self, body, scope):
        for line in body:
            self.do(line, scope)

    def play(self):
        self.do_all(self.main.body, Scope())
        for disk in self.disks:
            disk.guest.finish()
        for hook in self.hooks:
            if not hook.is_done:
                raise Unexpected(f'{hook.where}: "{hook.text}" was never reached')

    def end(self):
        for disk in self.disks:
            if disk.guest:
                disk.guest.end()
        for relay in self.relays.values():
            relay.end()
        for verbs in self.verbs.values():
            verbs.launchers.end()


class Window:
    """The time in which the guest has no disk: the verbs that ran in it."""

    def __init__(self):
        self.began, self.ended, self.runs = time.monotonic(), None, []

    def add(self, runs, verb, disk):
        for run in runs:
            if run.verb == verb and run.disk == disk and run.window is None:
                run.window = self
                self.runs.append(run)
