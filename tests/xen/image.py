# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the bed boots, made of Debian's packages and this build.

      packages/          as downloaded; asked for again when Debian has others         kept in BUILD/xen
      unpacked/          ... unpacked
      xen  vmlinux       the hypervisor; dom0's kernel, decompressed here, which is faster than in emulation
      dom0.initramfs     loads modules, mounts the root
      guest.vmlinuz  guest.initramfs
      root.img           dom0's root: Xen's tools, this build, what both need of this machine
"""
import fcntl
import glob
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ["SXM_BUILDDIR"]
CACHE = os.path.join(BUILD, "xen")
UNPACKED = os.path.join(CACHE, "unpacked")
STAGE = os.path.join(BUILD, "stage")
lock = None  # held until we end
LIBRARIES = [os.path.join(UNPACKED, directory, "x86_64-linux-gnu") for directory in ("usr/lib", "lib")]

TOOLS = ("xl", "xenstored", "xenconsoled", "xen-init-dom0", "libxl-save-helper", "lsevtchn")
XENSTORE = ("ls", "read", "write", "rm", "list", "exists", "chmod", "watch")
PROGRAMS = ("bash", "sha256sum", "cmp", "mkfs.ext4", "e2fsck", "stat", "flock", "losetup", "dd", "timeout")
DOM0_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "crc32c_generic", "ext4", "xen-privcmd", "xen-evtchn", "xen-gntdev",
                "xen-gntalloc", "xenfs", "xen-blkback", "loop", "9p", "9pnet_virtio")
GUEST_MODULES = ("xen-blkfront", "xen-evtchn", "xen-gntalloc", "xenfs", "crc32c_generic", "ext4")
GUEST_PROGRAMS = ("worker", "pulse", "pledge", "hostile", "kexec")
BED_PROGRAMS = ("wire", "reset", "tables")


class Missing(Exception):
    """This bed cannot be made here."""


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise Missing(f"{' '.join(command[:4])}...: {done.stderr.strip()[-300:]}")
    return done.stdout


def is_older(path, parts):
    return not os.path.exists(path) or any(os.path.getmtime(part) > os.path.getmtime(path) for part in parts)


def depends(package):
    words = run("apt-cache", "depends", "--no-recommends", "--no-suggests", package)
    return [name for name in re.findall(r"Depends: (\S+)", words) if not name.startswith("<")]


def wanted():
    """Packages, by their metapackages: a kernel or Xen of another number is found as well."""
    xen = [name for name in depends("xen-system-amd64") if name != "xen-hypervisor-common"]
    kernels = [name for meta in ("linux-image-amd64", "linux-image-cloud-amd64") for name in depends(meta)]
    if not xen or len(kernels) != 2:
        raise Missing("apt knows no xen-system-amd64, linux-image-amd64 and linux-image-cloud-amd64")
    libraries = {name for package in (*xen, "libxenmisc4.17") for name in depends(package) if name.startswith(("libxen", "libyajl"))}
    return sorted({*xen, *kernels, *libraries, "xenstore-utils", "xen-utils-common"})


def fetch():
    """Downloads what is not there, by name and version; without a network what was downloaded is used. True: there is something new."""
    packages, mark = os.path.join(CACHE, "packages"), os.path.join(CACHE, "complete")
    if not is_older(mark, glob.glob("/var/lib/apt/lists")):
        return False  # apt was told nothing since
    os.makedirs(packages, exist_ok=True)
    try:
        names = run("apt-get", "download", "--print-uris", *wanted(), cwd=packages)
    except (Missing, FileNotFoundError):
        if os.path.exists(mark):
            return False
        raise
    files = re.findall(r"' (\S+\.deb) ", names)
    if os.path.exists(mark) and all(os.path.exists(os.path.join(packages, file)) for file in files):
        os.utime(mark)
        return False
    shutil.rmtree(CACHE)
    os.makedirs(packages)
    run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *wanted(), cwd=packages)
    for file in sorted(os.listdir(packages)):
        run("dpkg-deb", "-x", os.path.join(packages, file), UNPACKED)
    return True


# --- kernels

def kernel_versions():
    """dom0's, and the guests'."""
    versions = [os.path.basename(path).removeprefix("vmlinuz-") for path in glob.glob(f"{UNPACKED}/boot/vmlinuz-*")]
    return min(v for v in versions if "cloud" not in v), min(v for v in versions if "cloud" in v)


def decompress(vmlinuz, to):
    """The ELF file in a bzImage; where it is stands in the boot protocol's header."""
    with open(vmlinuz, "rb") as f:
        image = f.read()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    with open(to, "wb") as f:
        f.write(lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(image[start:start + length]))


def find_module(version, name):
    names = {name.replace("-", "_"), name.replace("_", "-")}
    for directory, _, files in os.walk(f"{UNPACKED}/lib/modules/{version}/kernel"):
        for file in files:
            if file.removesuffix(".ko") in names:
                return os.path.join(directory, file)
    return None  # built in


def modules_in_order(version, names, order):
    """What each one needs stands in it, and comes before it."""
    for name in names:
        path = find_module(version, name)
        if not path or path in order:
            continue
        with open(path, "rb") as f:
            needs = re.search(rb"\0depends=([^\0]*)\0", f.read()).group(1).decode()
        modules_in_order(version, [n for n in needs.split(",") if n], order)
        order.append(path)
    return order


# --- file trees

def libraries_of(program):
    found = subprocess.run(["ldd", program], capture_output=True, text=True, env={**os.environ, "LD_LIBRARY_PATH": ":".join(LIBRARIES)})
    return re.findall(r"(/\S+\.so\S*)", found.stdout)


def copy_program(root, source, path):
    """With its libraries, which all come to the one place where they are looked for."""
    to = os.path.join(root, path)
    os.makedirs(os.path.dirname(to), exist_ok=True)
    if not os.path.exists(to):
        shutil.copy(source, to)
    for library in libraries_of(source):
        place = "lib64" if os.path.basename(library).startswith("ld-linux") else "usr/lib/x86_64-linux-gnu"
        to = os.path.join(root, place, os.path.basename(library))
        if not os.path.exists(to):
            shutil.copy(library, to)


def make_tree(root):
    shutil.rmtree(root, ignore_errors=True)
    for directory in ("bin", "dev", "proc", "sys", "run", "tmp", "modules", "lib64", "usr/lib/x86_64-linux-gnu"):
        os.makedirs(os.path.join(root, directory))
    os.symlink("usr/lib", os.path.join(root, "lib"))
    shutil.copy(shutil.which("busybox"), os.path.join(root, "bin/busybox"))
    for name in run("busybox", "--list").split():
        os.symlink("busybox", os.path.join(root, "bin", name)) if name != "busybox" else None


def make_initramfs(name, version, modules, init, programs=()):
    root = os.path.join(CACHE, name + ".tree")
    make_tree(root)
    with open(os.path.join(root, "modules/order"), "w") as order:
        for path in modules_in_order(version, modules, []):
            shutil.copy(path, os.path.join(root, "modules"))
            order.write(os.path.basename(path) + "\n")
    shutil.copy(os.path.join(HERE, init), os.path.join(root, "init"))
    for program in programs:
        copy_program(root, os.path.join(BUILD, "tests/xen", program), "bin/" + program)
    if "xenstore" not in programs:
        copy_program(root, f"{UNPACKED}/usr/bin/xenstore", "bin/xenstore")
        for word in XENSTORE:
            os.symlink("xenstore", os.path.join(root, "bin/xenstore-" + word))
    run("sh", "-c", f"cd {root} && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >{CACHE}/{name}.initramfs")
    shutil.rmtree(root)


def make_root():
    """dom0's. Where `make stage` put the build, the verbs' first line names: dom0 makes that place, too."""
    root = os.path.join(CACHE, "root.tree")
    make_tree(root)
    for tool in TOOLS:
        copy_program(root, glob.glob(f"{UNPACKED}/usr/lib/xen-*/bin/{tool}")[0], "bin/" + tool)
    real = os.path.dirname(glob.glob(f"{UNPACKED}/usr/lib/xen-*/bin/xl")[0]).removeprefix(UNPACKED + "/")
    os.makedirs(os.path.join(root, os.path.dirname(real)))
    os.symlink("/bin", os.path.join(root, real)) # where they look for each other
    copy_program(root, f"{UNPACKED}/usr/bin/xenstore", "bin/xenstore")
    for word in XENSTORE:
        os.symlink("xenstore", os.path.join(root, "bin/xenstore-" + word))
    for program in PROGRAMS:
        if os.path.islink(os.path.join(root, "bin", program)):
            os.unlink(os.path.join(root, "bin", program))
        copy_program(root, shutil.which(program), "bin/" + program)
    shutil.copy("/lib/x86_64-linux-gnu/libgcc_s.so.1", os.path.join(root, "usr/lib/x86_64-linux-gnu")) # xl opens it when a thread ends
    shutil.copytree(f"{UNPACKED}/etc/xen", os.path.join(root, "etc/xen"))
    shutil.copytree(STAGE, root, symlinks=True, dirs_exist_ok=True)
    for program in glob.glob(f"{STAGE}/usr/*/libexec/sxm/sxm-*") + glob.glob(f"{STAGE}/usr/*/sbin/sxm*"):
        copy_program(root, program, os.path.relpath(program, STAGE))
    os.makedirs(os.path.join(root, "bed"))
    with open(os.path.join(root, "bed/stage"), "w") as f:
        f.write(STAGE)
    for file in ("dom0-start", "in-guest"):
        shutil.copy(os.path.join(HERE, file), os.path.join(root, "bed"))
    for program in BED_PROGRAMS:
        copy_program(root, os.path.join(BUILD, "tests/xen", program), "bed/" + program)
    for file in ("guest.vmlinuz", "guest.initramfs"):
        shutil.copy(os.path.join(CACHE, file), os.path.join(root, "bed"))
    for directory in ("sr", "var/log/xen", "var/lib/xen", "var/lib/xenstored", "root"):
        os.makedirs(os.path.join(root, directory), exist_ok=True)
    os.symlink("/run", os.path.join(root, "var/run"))
    for file, line in (("passwd", "root:x:0:0:root:/root:/bin/sh"), ("group", "root:x:0:"), ("hosts", "127.0.0.1 localhost")):
        with open(os.path.join(root, "etc", file), "w") as f:
            f.write(line + "\n")
    make_disk(os.path.join(CACHE, "root.img"), 300 << 20, "-d", root)
    shutil.rmtree(root)


def make_disk(path, size, *options):
    """An ext4, whole or not there."""
    with open(path + ".new", "w") as f:
        f.truncate(size)
    run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1", *options, path + ".new")
    os.replace(path + ".new", path)


def make_kernels(mark):
    dom0, guest = kernel_versions()
    run("sh", "-c", f"gunzip -c {UNPACKED}/boot/xen-*.gz >{CACHE}/xen")
    decompress(f"{UNPACKED}/boot/vmlinuz-{dom0}", f"{CACHE}/vmlinux")
    shutil.copy(f"{UNPACKED}/boot/vmlinuz-{guest}", f"{CACHE}/guest.vmlinuz")
    make_initramfs("dom0", dom0, DOM0_MODULES, "dom0-init")
    make_initramfs("guest", guest, GUEST_MODULES, "guest-init", GUEST_PROGRAMS)
    open(mark, "w").close()


def make():
    """All of it; what of it is there and not older than what it is made of is left. One bed at a time."""
    for program in ("qemu-system-x86_64", "busybox", "mkfs.ext4", "dpkg-deb"):
        if not shutil.which(program):
            raise Missing(f"no {program}")
    if not os.path.exists(os.path.join(BUILD, "tests/xen/hostile")):
        raise Missing("this build has no Xen libraries, or `make check TESTS=` was not run")
    global lock
    lock = open(os.path.join(BUILD, "xen.lock"), "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    ours = [os.path.join(HERE, name) for name in ("image.py", "dom0-init", "guest-init")]
    ours += [os.path.join(BUILD, "tests/xen", name) for name in GUEST_PROGRAMS]
    mark, root = os.path.join(CACHE, "complete"), os.path.join(CACHE, "root.img")
    if fetch() or is_older(mark, ours):
        make_kernels(mark)
    built = [path for pattern in ("libexec/sxm/*", "sbin/*") for path in glob.glob(f"{STAGE}/usr/*/{pattern}")]
    ours = [os.path.join(HERE, name) for name in ("dom0-start", "in-guest")]
    ours += [os.path.join(BUILD, "tests/xen", name) for name in BED_PROGRAMS]
    if is_older(root, [mark, *ours, *built]):
        make_root()


if __name__ == "__main__":
    try:
        make()
    except Missing as e:
        sys.exit(f"no bed: {e}")
