#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How bytes come to `sxm relay` on another host, with a real sshd: the ssh program and libssh2. Who is let in and who is not, what is
asked on a terminal, whose host key it is, what is said when there is no sxm over there, and what happens when the network is cut."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.environ["SXM_SRCDIR"], "tests", "lib"))
import sshd  # noqa: E402
from smapi import IS_BRIEF, say, skip, until_true  # noqa: E402

if sshd.why_not():
    skip(sshd.why_not())
TRY = os.path.join(os.environ["SXM_BUILDDIR"], "tests/lib/carrier-try")
MIB = 1 << 20
dir = tempfile.mkdtemp(prefix="sxm.", dir="/tmp")
far_bin = os.path.join(dir, "bin")
env = {**os.environ, "SXM_RUN_DIR": os.path.join(dir, "run")}
env.pop("SSH_AUTH_SOCK", None)


def far_sxm(script="exec cat"):
    """What the far host has for an sxm."""
    os.makedirs(far_bin, exist_ok=True)
    path = os.path.join(far_bin, "sxm")
    with open(path, "w") as f:
        f.write(f'#!/bin/sh\n[ "$*" = relay ] || exit 9\n{script}\n')
    os.chmod(path, 0o755)
    return path


class Talk:
    """carrier-try, told what to do line by line; without a terminal."""
    def __init__(self, kind, config, more=(), **variables):
        self.process = subprocess.Popen([TRY, "--kind", kind, "--config", config, *more, "far", "talk"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                                        env={**env, **variables})
        self.is_ready = self.process.stdout.readline() == "ready\n"

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def open(self):
        answer = self.ask("open")
        assert answer.isdigit(), answer
        return answer

    def end(self):
        """(exit status, standard error)"""
        _, err = self.process.communicate()
        return self.process.returncode, err


def refused(kind, config, *words, **variables):
    talk = Talk(kind, config, **variables)
    assert not talk.is_ready
    status, err = talk.end()
    assert status == 1 and all(word in err for word in words), err
    return err


def on_terminal(kind, config, **variables):
    """carrier-try on a terminal; its standard input and output are a channel's."""
    data, result = os.path.join(dir, "data"), os.path.join(dir, "result")
    with open(data, "w") as f:
        f.write("through\n")
    with open(data) as stdin, open(result, "w") as stdout:
        return sshd.Terminal([TRY, "--kind", kind, "--config", config, "far", "pump"], {**env, **variables}, stdin.fileno(),
                             stdout.fileno())


def came_through(terminal):
    status, text = terminal.end()
    with open(os.path.join(dir, "result")) as f:
        return status == 0 and f.read() == "through\n", text


def processes_of(pattern):
    return subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False).stdout.split()


def leaves_nothing():
    left = os.listdir(env["SXM_RUN_DIR"]) if os.path.isdir(env["SXM_RUN_DIR"]) else []
    assert not left, left


# --- each test has the carriers' kind, and an sshd that runs

def test_bytes_go_both_ways_whole_while_keys_are_exchanged_anew(kind, far):
    data, result = os.path.join(dir, "in"), os.path.join(dir, "out")
    with open(data, "wb") as f:
        f.write(os.urandom(MIB) * (8 if IS_BRIEF else 32))
    with open(data, "rb") as stdin, open(result, "wb") as stdout:
        subprocess.run([TRY, "--kind", kind, "--config", far.write_client_config(), "far", "pump"], stdin=stdin, stdout=stdout,
                       check=True, env=env, start_new_session=True, timeout=60)
    with open(data, "rb") as a, open(result, "rb") as b:
        assert a.read() == b.read()


def test_several_channels_are_each_a_relay_of_its_own(kind, far):
    talk = Talk(kind, far.write_client_config())
    channels = [talk.open() for _ in range(4)]
    assert [talk.ask(f"say {c} for {c}") for c in channels] == [f"for {c}" for c in channels]
    talk.ask(f"close {channels[1]}")
    assert talk.ask(f"say {channels[2]} still") == "still"
    assert talk.end()[0] == 0
    leaves_nothing()


def test_more_channels_than_the_host_allows_on_one_connection(kind, far):
    talk = Talk(kind, far.write_client_config())
    channels = [talk.open() for _ in range(13)]
    assert all(talk.ask(f"say {c} x{c}") == f"x{c}" for c in channels)
    assert talk.end()[0] == 0


def test_a_key_that_is_not_authorized(kind, far):
    stranger = sshd.make_key(far.file(f"stranger-{kind}"))
    err = refused(kind, far.write_client_config(key=stranger), "EACCES")
    if kind == "ssh2":
        assert "it wants publickey" in err and stranger in err, err
    else:
        assert err.count("Permission denied") == 1, err  # ssh's sentence, in ours


def test_the_agents_keys_are_tried(kind, far):
    lines = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    found = dict(part.split("=", 1) for part in lines.replace("\n", ";").split(";") if part.startswith("SSH_"))
    try:
        subprocess.run(["ssh-add", "-q", far.key], check=True, env={**env, **found}, stdin=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        config = far.write_client_config(key=far.file("absent"), more="IdentitiesOnly no")
        talk = Talk(kind, config, SSH_AUTH_SOCK=found["SSH_AUTH_SOCK"])
        assert talk.is_ready and talk.ask(f"say {talk.open()} agent") == "agent", talk.end()
        talk.end()
        refused(kind, config, "EACCES")
    finally:
        subprocess.run(["kill", found["SSH_AGENT_PID"]], check=False)


def test_an_agent_that_says_nothing_is_given_up(kind, far):
    if kind != "ssh2":
        return  # ssh's own affair
    path = os.path.join(dir, "silent-agent")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        talk = Talk(kind, far.write_client_config(more="IdentitiesOnly no"), SSH_AUTH_SOCK=path, SXM_SSH_AGENT_MS="200")
        assert talk.is_ready and talk.ask(f"say {talk.open()} key") == "key", talk.end()
        talk.end()
        silent.accept()[0].close()  # it was asked


def test_an_unknown_host_without_a_terminal(kind, far):
    config = far.write_client_config(is_known=False)
    refused(kind, config, "EKEYREJECTED")
    assert open(config + ".known").read() == ""


def test_an_unknown_host_is_asked_about_and_kept(kind, far):
    config = far.write_client_config(is_known=False, more="StrictHostKeyChecking no")
    shown = subprocess.run(["ssh-keygen", "-lf", far.host_key + ".pub"], capture_output=True, text=True, check=True).stdout.split()[1]
    terminal = on_terminal(kind, config)
    assert shown in terminal.expect(r"\(yes/no[^)]*\)\??"), "the fingerprint is not shown"
    terminal.type("no")
    assert not came_through(terminal)[0] and open(config + ".known").read() == ""
    terminal = on_terminal(kind, config)
    terminal.expect(r"\(yes/no[^)]*\)\??")
    terminal.type("yes")
    came, text = came_through(terminal)
    assert came, text
    assert " ".join(far.known_hosts_line().split()[1:]) in open(config + ".known").read()
    talk = Talk(kind, config)
    assert talk.is_ready and talk.end()[0] == 0  # and now it is known


def test_an_unknown_host_where_the_config_forbids_to_ask(kind, far):
    terminal = on_terminal(kind, far.write_client_config(is_known=False, more="StrictHostKeyChecking yes"))
    came, text = came_through(terminal)
    assert not came and "yes/no" not in text, text


def test_a_host_with_another_key_than_the_known_one(kind, far):
    other = sshd.make_key(far.file(f"other-{kind}"))
    config = far.write_client_config(more="StrictHostKeyChecking no")
    before = "# a comment\n" + far.known_hosts_line(other)
    with open(config + ".known", "w") as f:
        f.write(before)
    err = refused(kind, config, "EKEYREJECTED")
    assert kind == "ssh" or f"{config}.known, line 2" in err, err
    came, _ = came_through(on_terminal(kind, config))
    assert not came and open(config + ".known").read() == before


def test_a_revoked_key(kind, far):
    config = far.write_client_config()
    with open(config + ".known", "a") as f:
        f.write("@revoked * " + " ".join(far.known_hosts_line().split()[1:]) + "\n")
    refused(kind, config, "EKEYREJECTED")


def test_a_host_that_is_known_by_a_hashed_name(kind, far):
    config = far.write_client_config()
    with open(config + ".known", "a") as f:
        f.write("other.example " + " ".join(far.known_hosts_line().split()[1:]) + "\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", config + ".known"], check=True, capture_output=True)
    assert "127.0.0.1" not in open(config + ".known").read()
    talk = Talk(kind, config)
    assert talk.is_ready, talk.end()
    talk.end()


def test_a_key_with_a_passphrase(kind, far):
    locked = sshd.make_key(far.file(f"locked-{kind}"), "open sesame")
    with open(locked + ".pub") as f, open(far.file("authorized_keys"), "a") as keys:
        keys.write(f.read())
    config = far.write_client_config(key=locked)
    terminal = on_terminal(kind, config)
    for phrase in ("wrong", "open sesame"):
        terminal.expect("(?i)passphrase")
        assert not terminal.has_echo()
        terminal.type(phrase)
    came, text = came_through(terminal)
    assert came and "sesame" not in text, text
    refused(kind, config, "EACCES")


def test_a_password_is_asked_for(kind, far):
    config = far.write_client_config(key=far.file("absent"))
    terminal = on_terminal(kind, config)
    for word in ("wrong", "correct horse"):
        terminal.expect("(?i)password")
        assert not terminal.has_echo()
        terminal.type(word)
    came, text = came_through(terminal)
    assert came and "horse" not in text, text


def test_a_question_of_the_hosts_is_asked(kind, far):
    config = far.write_client_config(key=far.file("absent"))
    terminal = on_terminal(kind, config)
    for word in ("wrong", "correct horse"):
        terminal.expect("(?i)password")
        assert not terminal.has_echo()
        terminal.type(word)
    came, text = came_through(terminal)
    assert came and "horse" not in text, text
    refused(kind, config, "EACCES")


def test_a_way_that_is_lost_is_made_anew_with_what_was_typed(kind, far):
    is_typed_again = kind == "ssh2"  # what was typed is not known to anybody but ssh
    cut = sshd.Cut(far.port)
    config = far.write_client_config(key=far.file("absent"), port=cut.port)
    with open(config + ".known", "a") as f:
        f.write(far.known_hosts_line(port=cut.port))
    script = f'exec "$0" --kind {kind} --config "$1" far talk <"$2" >"$3"'
    to, back = (os.path.join(dir, name + kind) for name in ("to-", "back-"))
    os.mkfifo(to), os.mkfifo(back)
    terminal = sshd.Terminal(["sh", "-c", script, TRY, config, to, back], env)
    with open(to, "w", buffering=1) as commands, open(back) as answers:
        def ask(line):
            commands.write(line + "\n")
            return answers.readline().rstrip("\n")
        terminal.expect("(?i)password")
        terminal.type("correct horse")
        assert answers.readline() == "ready\n"
        channel = ask("open")
        cut.limit = 0
        assert ask(f"say {channel} gone").startswith("ended ENOLINK"), "the cut was not seen"
        assert ask("alive") == "no"
        if is_typed_again:
            assert ask(f"say {ask('open')} again") == "again"
        else:
            cut.limit = None
            answer = ask("open")
            assert "EACCES" in answer and "without somebody who logs in" in answer and "--carrier ssh2" in answer, answer
    assert terminal.end()[0] == 0


def test_a_host_without_sxm(kind, far):
    os.rename(far_sxm(), os.path.join(far_bin, "away"))
    try:
        talk = Talk(kind, far.write_client_config())
        answer = talk.ask(f"say {talk.open()} x")
        assert answer.startswith("ended ENOENT: there is no sxm on far") and "not found" in answer, answer
        assert talk.ask("alive") == "yes"
        assert "far: " in talk.end()[1]
    finally:
        far_sxm()


def test_a_relay_that_ends_by_itself(kind, far):
    far_sxm("echo it hurts >&2; exit 3")
    try:
        talk = Talk(kind, far.write_client_config())
        assert talk.ask(f"say {talk.open()} x") == "ended EPIPE: the relay on far ended with status 3: it hurts"
        talk.end()
    finally:
        far_sxm()


def test_the_network_is_cut_at_some_byte(kind, far):
    for limit in (0, 30, 1500) if IS_BRIEF else (0, 10, 30, 700, 1500, 2500, 3500):
        cut = sshd.Cut(far.port, limit)
        config = far.write_client_config(port=cut.port)
        talk = Talk(kind, config)
        if not talk.is_ready:
            status, err = talk.end()
            assert status == 1 and err.count("\n") >= 1, (limit, err)
            continue
        answer = talk.ask("open")
        if answer.isdigit():
            for _ in range(40):
                answer = talk.ask(f"say {answer} {'x' * 100}") if answer.isdigit() else answer
        assert answer == "x" * 100 or "ended" in answer or "failed" in answer, (limit, answer)
        assert talk.ask(f"say {talk.open()} anew") == "anew", limit
        assert talk.end()[0] == 0


def test_the_network_is_cut_and_nobody_says_so(kind, far):
    if kind == "ssh":
        return  # its own deadline is longer than a test should take
    cut = sshd.Cut(far.port, freeze=True)
    talk = Talk(kind, far.write_client_config(port=cut.port), SXM_SSH_DEAD_MS="3000")
    channel = talk.open()
    assert talk.ask(f"say {channel} yet") == "yet"
    cut.limit = 0
    start = time.monotonic()
    answer = talk.ask(f"say {channel} lost")
    assert answer.startswith("ended ENOLINK: the way to far was lost: nothing has come for 3 s"), answer
    assert time.monotonic() - start < 30
    assert talk.ask(f"say {talk.open()} anew") == "anew"
    talk.end()


def test_a_host_that_is_reached_over_another(kind, far):
    config = far.write_client_config(more="Host far\n    ProxyJump first")
    with open(config, "a") as f:
        f.write(f"Host first\n    HostName 127.0.0.1\n    Port {far.port}\n    User root\n    IdentityFile {far.key}\n"
                f"    UserKnownHostsFile {config}.known\n")
    accepted = far.log().count("Accepted publickey")
    talk = Talk(kind, config)
    assert talk.is_ready and talk.ask(f"say {talk.open()} over") == "over", talk.end()
    assert talk.end()[0] == 0
    until_true("it was logged in to twice", lambda: far.log().count("Accepted publickey") == accepted + 2, otherwise=far.log)


def test_what_cannot_be_followed_is_said(kind, far):
    if kind == "ssh2":
        refused(kind, far.write_client_config(more="ProxyCommand nc %h %p"), "line 1: ProxyCommand", "--carrier ssh")
        refused(kind, far.write_client_config(more="Ciphers chacha20-poly1305@openssh.com"), "Ciphers", "--carrier ssh")


def test_ctrl_c_while_a_password_is_asked_for(kind, far):
    terminal = on_terminal(kind, far.write_client_config(key=far.file("absent")))
    terminal.expect("(?i)password")
    os.write(terminal.fd, b"\x03")
    assert terminal.end()[0] != 0
    until_true("no process of it is left", lambda: not processes_of(dir + "/.* far pump"))
    leaves_nothing()


def main():
    far_sxm()
    servers, kinds = {}, ("ssh2", "ssh")
    if "called ssh2" in subprocess.run([TRY, "--kind", "ssh2", "far", "pump"], capture_output=True, text=True, env=env,
                                       stdin=subprocess.DEVNULL, start_new_session=True, check=False).stderr:
        say("built without libssh2: that half is left out")
        kinds = ("ssh",)
    passwords = ("test_a_password", "test_a_way_that_is_lost", "test_ctrl_c")

    def server_for(name):
        return servers["ask" if "question" in name else "word" if name.startswith(passwords) else "key"]
    try:
        servers["key"] = sshd.Sshd(os.path.join(dir, "key"), far_bin + ":/usr/bin:/bin", more="RekeyLimit 2M").start()
        servers["word"] = sshd.Sshd(os.path.join(dir, "word"), far_bin + ":/usr/bin:/bin", "correct horse").start()
        servers["ask"] = sshd.Sshd(os.path.join(dir, "ask"), far_bin + ":/usr/bin:/bin", "correct horse", asks=True).start()
        for name, test in list(globals().items()):
            if name.startswith("test_") and (len(sys.argv) < 2 or sys.argv[1] in name):
                for kind in kinds:
                    start = time.monotonic()
                    test(kind, server_for(name))
                    say(f"{name[5:].replace('_', ' ')}: {kind} ({time.monotonic() - start:.1f} s)")
    except BaseException:
        for server in servers.values():
            print("--- sshd said:", server.log()[-3000:], sep="\n", file=sys.stderr)
        raise
    finally:
        for server in servers.values():
            server.stop()
        shutil.rmtree(dir)


main()
