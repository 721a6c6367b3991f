# SPDX-License-Identifier: LGPL-2.1-or-later
"""A sequence as text, one statement a line; README has the language. Read once, strictly: what is not understood is an error with its
line, and nothing is played.

      3b  D: Datapath.attach(far, domain=$mir) -> leaf
      |   |  |               |    |                '- the answer's name
      |   |  |               |    '- arguments by name; $: a variable, also in the midst of a word
      |   |  |               '- of a volume's verb, and a datapath's: the volume, first
      |   |  '- a verb (capital letter), or something the stage does (small letter)
      |   '- the host
      '- the step's number, for hooks and for people; may be left out

Blocks: "for each disk", "for each snapshot", "for all disks at once", "try" ... "on error" ..., "window", "if NAME" ... "else" ..., each to its "end"."""
import os
import re

STATEMENT = re.compile(r"(?:(?P<label>[0-9][0-9A-Za-z.]*)\s+)?(?:(?P<host>[A-Z][A-Za-z0-9]*)\s*:\s*)?(?P<name>[A-Za-z][A-Za-z_0-9]*(?:\.[A-Za-z_0-9]+)?)"
                       r"\((?P<args>.*)\)(?P<rest>[^()]*)")
ARGUMENT = re.compile(r"\s*(?:(?P<key>[a-z_][a-z_0-9]*)\s*=\s*)?(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^,\"]*?))\s*(?:,|$)")
REST = re.compile(r"\s*(?:->\s*(?P<into>[a-z_][a-z_0-9]*))?\s*(?:(?P<how>until complete|ignored|fails)(?:\s+\"(?P<words>[^\"]*)\")?)?\s*")
PLAY = re.compile(r"play\s+(?P<name>[a-z0-9-]+)(?:\s+(?P<fails>fails)(?:\s+\"(?P<words>[^\"]*)\")?)?")
HOOK = re.compile(r"(?P<when>at|after)\s+(?P<label>[0-9][0-9A-Za-z.]*)(?:\s+of\s+disk\s+(?P<disk>[0-9]+))?\s+(?P<statement>.+)")
HEADERS = {
    "title": re.compile(r"(?P<text>.+)"),
    "hosts": re.compile(r"(?P<hosts>[A-Z][A-Za-z0-9]*(?:=[A-Z][A-Za-z0-9]*)?(?:\s+[A-Z][A-Za-z0-9]*(?:=[A-Z][A-Za-z0-9]*)?)*)"),
    "sr": re.compile(r"(?P<name>[a-z]+)\s+on\s+(?P<hosts>[A-Z][A-Za-z0-9]*(?:\s+[A-Z][A-Za-z0-9]*)*)(?:\s+(?P<kind>shared|tapdisk))?"),
    "disks": re.compile(r"in\s+(?P<sr>[a-z]+)"),
    "set": re.compile(r"(?P<name>[a-z_]+)\s*=\s*(?P<value>.*)"),
}
BLOCKS = {"for each disk": "each", "for each snapshot": "snapshots", "for all disks at once": "all", "try": "try", "window": "window"}


class Unreadable(Exception):
    """What is wrong, where, and what would be right."""


class Line:
    """A statement or a block: kind, where it stands, and what its kind has."""

    def __init__(self, kind, where, **has):
        self.kind, self.where = kind, where
        self.__dict__.update(has)


class Sequence:
    def __init__(self, name):
        self.name, self.title, self.hosts, self.srs, self.disks_in, self.options, self.body = name, "", [], [], None, {}, []


class Reader:
    def __init__(self, path):
        self.path, self.number = path, 0
        self.sequence = Sequence(os.path.basename(path).removesuffix(".seq"))
        self.open = []  # [(kind, line number, list to go on in)]

    def bad(self, what, number=None):
        return Unreadable(f"{self.path}:{number or self.number}: {what}")

    def read(self):
        target = self.sequence.body
        with open(self.path, encoding="utf-8") as f:
            for self.number, text in enumerate(f, 1):
                words = self.without_comment(text).strip()
                if words:
                    target = self.take(words, target)
        if self.open:
            raise self.bad(f'"{self.open[-1][0]}" has no "end"', self.open[-1][1])
        if not self.sequence.title:
            raise self.bad('a sequence has a line "title WHAT IT IS"', 1)
        return self.sequence

    @staticmethod
    def without_comment(text):
        """# begins one, at the line's beginning or after a space, but not inside quotes."""
        is_quoted = False
        for at, sign in enumerate(text):
            if sign == '"' and (at == 0 or text[at - 1] != "\\"):
                is_quoted = not is_quoted
            elif sign == "#" and not is_quoted and (at == 0 or text[at - 1].isspace()):
                return text[:at]
        return text

    def where(self):
        return f"{self.path}:{self.number}"

    def take(self, words, target):
        """Puts one line where it belongs; the list that the next one belongs to."""
        first = words.split()[0]
        if first in HEADERS and not words.startswith(first + "("):
            self.take_header(first, words[len(first):].strip())
        elif words in BLOCKS:
            block = Line(BLOCKS[words], self.where(), body=[], other=[], text=words)
            target.append(block)
            self.open.append((words, self.number, target, block))
            return block.body
        elif first == "if":
            if len(words.split()) not in (2, 3) or (len(words.split()) == 3 and words.split()[1] != "not"):
                raise self.bad('it is "if NAME" or "if not NAME"')
            block = Line("if", self.where(), name=words.split()[-1], is_not="not" in words.split(), body=[], other=[], text=words)
            target.append(block)
            self.open.append((words, self.number, target, block))
            return block.body
        elif words in ("on error", "else"):
            if not self.open or self.open[-1][3].kind != ("try" if words == "on error" else "if"):
                raise self.bad(f'"{words}" belongs into "{"try" if words == "on error" else "if NAME"}"')
            return self.open[-1][3].other
        elif words == "end":
            if not self.open:
                raise self.bad('"end" ends nothing')
            return self.open.pop()[2]
        elif HOOK.fullmatch(words):
            found = HOOK.fullmatch(words)
            target.append(Line("hook", self.where(), when=found["when"], label=found["label"], disk=int(found["disk"] or 0),
                               statement=self.statement(found["statement"]), text=words))
        else:
            target.append(self.statement(words))
        return target

    def take_header(self, first, words):
        found = HEADERS[first].fullmatch(words)
        s = self.sequence
        if not found:
            raise self.bad(f'"{first} {words}" is not understood; see the README of the stage for what {first} takes')
        if first == "title":
            s.title = found["text"]
        elif first == "hosts":
            s.hosts = [tuple(h.split("=")) if "=" in h else (h, h) for h in found["hosts"].split()]
        elif first == "sr":
            s.srs.append((found["name"], found["hosts"].split(), found["kind"]))
        elif first == "disks":
            s.disks_in = found["sr"]
        else:
            s.options[found["name"]] = found["value"]

    def statement(self, words):
        found = PLAY.fullmatch(words)
        if found:
            return Line("play", self.where(), name=found["name"], fails=bool(found["fails"]), words=found["words"] or "", text=words)
        found = STATEMENT.fullmatch(words)
        if not found:
            raise self.bad(f'"{words}" is neither a statement, HOST: NAME(ARGUMENTS), nor anything else of the language')
        rest = REST.fullmatch(found["rest"])
        if not rest or (rest["words"] is not None and rest["how"] != "fails"):
            raise self.bad(f'"{found["rest"].strip()}": after a statement may be: -> NAME, until complete, ignored, fails "WORDS"')
        is_verb = found["name"][0].isupper()
        if is_verb and not found["host"]:
            raise self.bad(f'{found["name"]} is a verb, and runs on a host: HOST: {found["name"]}(...)')
        first, args = self.arguments(found["args"])
        return Line("verb" if is_verb else "action", self.where(), label=found["label"] or "", host=found["host"], name=found["name"], first=first,
                    args=args, into=rest["into"], how=rest["how"], words=rest["words"] or "", text=words)

    def arguments(self, text):
        """(the first, which has no name, or None; the others)"""
        first, args, at = None, {}, 0
        while at < len(text.rstrip()):
            found = ARGUMENT.match(text, at)
            if not found:
                raise self.bad(f'"{text[at:]}" is not NAME=VALUE, ...')
            value = re.sub(r"\\(.)", r"\1", found["quoted"]) if found["quoted"] is not None else found["bare"]
            if found["key"]:
                if found["key"] in args:
                    raise self.bad(f'{found["key"]} is given twice')
                args[found["key"]] = (value, found["quoted"] is not None)
            elif at == 0:
                first = value
            else:
                raise self.bad(f'"{value}" has no name: NAME={value}')
            at = found.end()
        return first, args


def read(path):
    return Reader(path).read()


def find(name, places):
    """The file of a sequence: a path, or a name in one of the places."""
    if name.endswith(".seq"):
        return name
    for place in places:
        path = os.path.join(place, name + ".seq")
        if os.path.exists(path):
            return path
    raise Unreadable(f'there is no sequence "{name}" in {" or ".join(places)}')


def read_all(name, places):
    """{name: sequence} of it and all that it plays; the first is it."""
    path, found = find(name, places), {}
    todo = [(name, path)]
    while todo:
        name, path = todo.pop(0)
        if name in found:
            continue
        found[name] = read(path)
        todo += [(n, find(n, [os.path.dirname(path) or ".", *places])) for n in plays(found[name].body)]
    return found


def plays(body):
    for line in body:
        if line.kind == "play":
            yield line.name
        elif line.kind == "hook":
            yield from plays([line.statement])
        elif line.kind in ("each", "snapshots", "all", "try", "window", "if"):
            yield from plays(line.body)
            yield from plays(line.other)
