# SPDX-License-Identifier: LGPL-2.1-or-later
"""What runs in a host's dom0 and reads or writes disks: sparse_dd, and a backup by changed blocks."""
import base64
import os

from guest import Wrong
from nbd import Client

PIECE = 2 << 20
ZEROS = bytes(PIECE)
HOLE_AND_ZERO = 3


def client(backend, is_structured=False):
    return Client.at(backend["host"].outside(backend["socket"]), backend["export"], is_structured)


def copy_data(source, write):
    """Calls write(offset, data) with all that base:allocation does not promise to be zeros, and is none. The bytes."""
    copied = 0
    for start, length, flags in list(source.extents()):
        if flags & 2:  # reads as zero: believed, as sparse_dd believes it
            continue
        for at in range(start, start + length, PIECE):
            data = source.read(at, min(PIECE, start + length - at))
            if data != ZEROS[:len(data)]:
                write(at, data)
                copied += len(data)
    return copied


def copy_changes(source, base, write):
    """The same with all in which it differs from the base."""
    copied = 0
    for at in range(0, source.size, PIECE):
        length = min(PIECE, source.size - at)
        data = source.read(at, length)
        if data != base.read(at, length):
            write(at, data)
            copied += length
    base.close()
    return copied


def sparse_dd(source_backend, target, base_backend=None):
    source = client(source_backend, True)
    if base_backend:
        copied = copy_changes(source, client(base_backend), target.write)
    else:
        copied = copy_data(source, target.write)
    source.close()
    target.close()
    return copied


def backup_full(backend, path):
    source = client(backend, True)
    with open(path, "wb") as image:
        image.truncate(source.size)

        def write(at, data):
            image.seek(at)
            image.write(data)
        copy_data(source, write)
    source.close()


def backup_changes(backend, path, changed):
    """Into the image goes what changed, and nothing else; the number of blocks."""
    source, size = client(backend), changed["granularity"]
    bits, count = base64.b64decode(changed["bitmap"], validate=True), 0
    with open(path, "r+b") as image:
        image.truncate(source.size)
        for block in range(-(-source.size // size)):
            if block // 8 >= len(bits):
                raise Wrong(f"the bitmap ends at {len(bits)} bytes; the volume has {source.size}")
            if bits[block // 8] >> (7 - block % 8) & 1:
                image.seek(block * size)
                image.write(source.read(block * size, min(size, source.size - block * size)))
                count += 1
    source.close()
    return count


def backup_compare(backend, path):
    source = client(backend)
    if os.path.getsize(path) != source.size:
        raise Wrong(f"the backup has {os.path.getsize(path)} bytes, the volume {source.size}")
    with open(path, "rb") as image:
        for at in range(0, source.size, PIECE):
            length = min(PIECE, source.size - at)
            if image.read(length) != source.read(at, length):
                raise Wrong(f"the backup differs from the volume within {length} bytes at {at}")
    source.close()
