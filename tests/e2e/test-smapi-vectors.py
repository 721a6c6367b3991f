#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every request in vectors.json, byte for byte as xapi's client sends it but for the names of things, is answered by one value
of the right type, or refused by the right report; and the sequence of xapi's own self-test of a plugin works."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import DATAPATH, SR_UUID, VOLUME, Host, check, nbd_of, say  # noqa: E402

host = Host()
count = 0


def prepare(row):
    """What the request presupposes, as text for its placeholders."""
    global count
    count += 1
    name, verb = f"sr{count}", row["verb"]
    words = {"DIR": f"{host.dir}/{name}", "NOWHERE": f"{host.dir}/nowhere"}
    if verb == "SR.create" or (verb == "SR.probe" and not row.get("with_sr")):
        return words
    words["SR"] = host.make_sr(name)
    volume = host.make_volume(words["SR"], 4194304)
    words["KEY"], words["URI"] = volume["key"], volume["uri"][0]
    if "@KEY2@" in row["stdin"]:
        words["KEY2"] = host.make_volume(words["SR"], 4194304)["key"]
    if verb.startswith(("Datapath.activate", "Datapath.de")):
        for domain in ("3", "u0_7f6e5d4c_aaaa_bbbb_cccc_ddddeeee0000"):
            host.call("Datapath.attach", uri=words["URI"], domain=domain)
    if verb == "SR.destroy":
        host.call("Volume.destroy", sr=words["SR"], key=words["KEY"])
    if verb in ("Data.copy", "Data.mirror", "Data.stat", "Data.ls"):
        far = host.make_volume(words["SR"], 4194304)["uri"][0]
        backend = host.call("Datapath.attach", uri=far, domain="MIRabcdef")
        host.call("Datapath.activate", uri=far, domain="MIRabcdef")
        words["REMOTE"] = [a["uri"] for t, a in backend["implementations"] if t == "Nbd"][0]
        host.call("Datapath.attach", uri=words["URI"], domain="3")
        host.call("Datapath.activate", uri=words["URI"], domain="3")
    if verb in ("Data.stat", "Data.ls"):
        words["OPERATION"] = host.call("Data.mirror", uri=words["URI"], domain="3", remote=words["REMOTE"])[1]
    return words


def expect(row, words, done):
    if "refused" in row or ("or_refused" in row and done.returncode):
        assert done.returncode == 1, f"exit {done.returncode}: {done.stdout}"
        report = json.loads(done.stdout)
        check("error_report", report)
        assert row.get("refused", row.get("or_refused")).lower() in " ".join(report["params"]).lower(), report
        return
    assert done.returncode == 0, done.stdout
    result = json.loads(done.stdout)
    check(row["stdout"], result)
    if row["verb"] in ("Volume.snapshot", "Volume.clone", "Volume.copy"):
        assert result["key"] != words["KEY"] and result["read_write"] == (row["verb"] != "Volume.snapshot"), result
    if row["verb"] == "Datapath.attach":
        nbd_of(result)
    if row["verb"] == "SR.attach":
        assert result == words["SR"], result
    if row["verb"] == "SR.create":
        assert result["sr_uuid"] == json.loads(row["stdin"])["uuid"] and result["uri"].startswith("file:///"), result
    if row["verb"] == "SR.probe":
        assert ["sr" in r for r in result] == [bool(row.get("with_sr"))] and result[0]["complete"], result
    if row["verb"] == "Volume.create":
        sent = json.loads(row["stdin"])
        assert all(result[k] == sent[k] for k in ("name", "description", "sharable")) and result["virtual_size"] == sent["size"], result
    if row["case"] == "Data.ls":
        assert ["MirrorV1", words["OPERATION"]] in result, result


def run_row(row):
    words = prepare(row)
    stdin = row["stdin"]
    for name, value in words.items():
        stdin = stdin.replace(f"@{name}@", value)
    assert "@" not in stdin, stdin
    plugin = DATAPATH if row["verb"].startswith("Data") or row.get("plugin") == "datapath" else VOLUME
    verb = "Plugin.Query" if row["verb"] == "Plugin.query" else row["verb"]  # the file's one name; xapi looks without regard to case
    done = host.run(f"{plugin}/{verb}", stdin)
    try:
        expect(row, words, done)
        assert done.stderr == b"", done.stderr
    except Exception as e:
        raise AssertionError(f"{row['case']}: {stdin}: {e}") from e


def self_test():
    """What xapi does to a plugin it tests: an SR that has no UUID, a volume of no size."""
    check("query_result", host.call("Plugin.Query"))
    check("string", host.call("Plugin.diagnostics"))
    configuration = host.call("SR.create", uuid="dummySR", name="dummy name", description="dummy description",
                              configuration={"uri": f"file://{host.dir}/dummy"})
    sr = host.call("SR.attach", configuration=configuration)
    check("sr_stat", host.call("SR.stat", sr=sr))
    volume = host.call("Volume.create", sr=sr, name="vdi name", description="vdi description", size=0, sharable=False)
    host.call("Volume.set", sr=sr, key=volume["key"], k="vdi-type", v="redolog")
    assert host.call("Volume.stat", sr=sr, key=volume["key"])["keys"]["vdi-type"] == "redolog"
    host.call("Volume.destroy", sr=sr, key=volume["key"])
    check("sr_stat", host.call("SR.stat", sr=sr))
    assert host.call("SR.ls", sr=sr) == []
    check("list<probe_result>", host.call("SR.probe", configuration=configuration))


with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "vectors.json"), encoding="utf-8") as f:
    rows = json.load(f)
say(f"{len(rows)} recorded requests")
for r in rows:
    run_row(r)
say("the self-test's sequence")
self_test()
for side, directory in (("volume", VOLUME), ("datapath", DATAPATH)):
    query = host.call("Plugin.Query") if side == "volume" else json.loads(host.run(f"{DATAPATH}/Plugin.Query", '{"dbg":"register"}').stdout)
    assert query["plugin"] == directory.rsplit("/", 1)[1].removeprefix("org.xen.xapi.storage."), query
    assert query["required_api_version"] == "5.0", query
assert SR_UUID
