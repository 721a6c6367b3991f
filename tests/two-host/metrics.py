# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a plugin of xcp-rrdd's leaves for it in a file (protocol 2), taken apart as its reader does it."""
import json
import struct
import zlib


def parse(data):
    """({data source: value}, {owner}, when it was written)"""
    assert data[:11] == b"DATASOURCES", data[:11]
    data_crc, metadata_crc, count = struct.unpack_from(">III", data, 11)
    assert data_crc == zlib.crc32(data[23:31 + 8 * count]), "the data's CRC"
    at = 31 + 8 * count
    length, = struct.unpack_from(">I", data, at)
    text = data[at + 4:]
    assert len(text) == length and zlib.crc32(text) == metadata_crc, "the metadata's CRC"
    found, owners = {}, set()
    for i, (name, about) in enumerate(json.loads(text)["datasources"].items()):
        found[name], = struct.unpack_from({"int64": ">q", "float": ">d"}[about["value_type"]], data, 31 + 8 * i)
        owners.add(about["owner"])
    assert len(found) == count
    return found, owners, struct.unpack_from(">d", data, 23)[0]
