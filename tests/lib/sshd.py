# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real sshd for the tests: its own host keys, configuration and port, in a directory; nothing of the system's is changed.

As root it runs in a mount namespace of its own, with the directory that sshd wants in /run, and with an /etc/shadow in which
root has the password that the test gives. Whoever logs in finds `path` as PATH.
"""
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def why_not():
    """Why there can be no sshd here; None: there can."""
    if not SSHD or not shutil.which("ssh-keygen"):
        return "this needs sshd and ssh-keygen"
    if os.getuid() != 0:
        return "only root can start an sshd that lets in"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        return "this needs unshare -m"
    return None


def make_key(path, passphrase="", kind="ed25519"):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path], check=True, stdin=subprocess.DEVNULL)
    return path


def _descendants(pid):
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as f:
                parents[int(entry)] = int(f.read().rpartition(")")[2].split()[1])
        except OSError:
            pass
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


class Sshd:
    def __init__(self, directory, path, password=None, more="", asks=False, address="127.0.0.1", prefix=()):
        """password: root's; asks: it is asked for as a question of PAM's, not as a password. prefix: a command that runs another
        in the network where the address is."""
        self.address, self.prefix = address, prefix
        self.dir, self.process, self.log_path = directory, None, os.path.join(directory, "sshd.log")
        os.makedirs(directory, mode=0o700)
        self.host_key = make_key(self.file("host_key"))
        self.key = make_key(self.file("id"))
        self.authorize(self.key)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.config = f"""
ListenAddress {address}
Port {self.port}
HostKey {self.file('host_key')}
PidFile {self.file('pid')}
AuthorizedKeysFile {self.file('authorized_keys')}
StrictModes no
UsePAM {'yes' if asks else 'no'}
PermitRootLogin yes
PasswordAuthentication {'yes' if password and not asks else 'no'}
KbdInteractiveAuthentication {'yes' if asks else 'no'}
SetEnv PATH={path}
{more}
"""
        self.shadow, self.pam = self.file("shadow"), self.file("pam")
        if asks:
            with open(self.pam, "w") as f:
                f.write("auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n")
        if password:
            hashed = subprocess.run(["openssl", "passwd", "-6", password], check=True, capture_output=True, text=True).stdout.strip()
            with open("/etc/shadow") as f, open(self.shadow, "w") as own:
                own.writelines(f"root:{hashed}:19000:0:99999:7:::\n" if line.startswith("root:") else line for line in f)
            os.chmod(self.shadow, 0o600)

    def file(self, name):
        return os.path.join(self.dir, name)

    def authorize(self, key):
        shutil.copy(key + ".pub", self.file("authorized_keys"))

    def start(self):
        with open(self.file("sshd_config"), "w") as f:
            f.write(self.config)
        script = 'mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && ' \
            '{ [ ! -e "$2" ] || mount --bind "$2" /etc/shadow; } && { [ ! -e "$4" ] || mount --bind "$4" /etc/pam.d/sshd; } && ' \
            'exec "$1" -D -e -f "$3"'
        self.process = subprocess.Popen([*self.prefix, "unshare", "-m", "sh", "-c", script, "sh", SSHD, self.shadow, self.file("sshd_config"),
                                         self.pam],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.log_path, "a"))
        end = time.monotonic() + 60
        while "Server listening" not in self.log():
            assert self.process.poll() is None and time.monotonic() < end, "sshd does not start: " + self.log()
            time.sleep(0.02)
        return self

    def log(self):
        with open(self.log_path) as f:
            return f.read()

    def stop(self):
        """With all its sessions."""
        if not self.process:
            return
        for pid in reversed(_descendants(self.process.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self.process = None

    def known_hosts_line(self, key=None, port=None):
        with open((key or self.host_key) + ".pub") as f:
            return f"[{self.address}]:{port or self.port} {' '.join(f.read().split()[:2])}\n"

    def write_client_config(self, name="config", is_known=True, key=None, port=None, more=""):
        """An ssh_config for the host "far"; its path. The known hosts are in the file `name`.known."""
        known = self.file(name + ".known")
        with open(known, "w") as f:
            f.write(self.known_hosts_line(port=port) if is_known else "")
        with open(self.file(name), "w") as f:
            f.write(f"""{more}
Host far
    HostName {self.address}
    Port {port or self.port}
    User root
    IdentityFile {key or self.key}
    IdentitiesOnly yes
    UserKnownHostsFile {known}
    GlobalKnownHostsFile none
""")
        return self.file(name)


class Cut:
    """A port before another: after `limit` bytes from the client the connection is cut: closed, or (freeze) it hangs, both ways.
    limit None: nothing is cut; what begins later passes, too."""

    def __init__(self, port, limit=None, freeze=False):
        self.to, self.limit, self.freeze, self.count, self.has_cut = port, limit, freeze, 0, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client):
        is_cut = False
        with client, socket.create_connection(("127.0.0.1", self.to)) as server:
            while True:
                for source in select.select([client, server] if not is_cut else [], [], [], None if not is_cut else 3600)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    (server if source is client else client).sendall(data)
                    self.count += len(data) if source is client else 0
                if self.limit is not None and self.count >= self.limit:
                    self.limit = None
                    self.has_cut.set()
                    if not self.freeze:
                        return
                    is_cut = True


class Terminal:
    """A command on a terminal of its own: a new session, whose standard input, output and error it is too, unless said otherwise."""

    def __init__(self, argv, env=None, stdin=None, stdout=None):
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored, and inherited so, where all tests run in the background
                for fd, file in ((0, stdin), (1, stdout)):
                    if file is not None:
                        os.dup2(file, fd)
                os.execvpe(argv[0], argv, env or os.environ)
            finally:
                os._exit(127)

    def expect(self, pattern, seconds=60):
        """Reads until the pattern is there; what came until then is taken away."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert select.select([self.fd], [], [], max(0, end - time.monotonic()))[0], f"no {pattern!r} in {self.text!r}"
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            assert data, f"ended without {pattern!r}: {self.text!r}"
            self.text += data.decode(errors="replace")
        found = re.search(pattern, self.text)
        before, self.text = self.text[:found.end()], self.text[found.end():]
        return before

    def has_echo(self):
        import termios
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def type(self, line):
        os.write(self.fd, line.encode() + b"\n")

    def end(self):
        """Reads to the end; (exit status, all that was not taken)."""
        while True:
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                break
            if not data:
                break
            self.text += data.decode(errors="replace")
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.text
