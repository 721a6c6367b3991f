#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Volumes in an SR of each type: no volume is lost from sight, none is half made or half gone, calls at the same time do not undo one
another, and the verbs' files work however xapi, its observer and static-vdis start them."""
import concurrent.futures
import contextlib
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smapi import SR_UUID, VOLUME, Host, check, say  # noqa: E402

host = Host()
sr = host.make_sr()
sr_dir = os.path.join(host.dir, "sr")


def keys_of(handle=None):
    return {v["key"] for v in host.call("SR.ls", sr=handle or sr)}


def path(key, suffix):
    return os.path.join(sr_dir, key + suffix)


def no_leftovers():
    names = {n.split(".")[0] for n in os.listdir(sr_dir)} - keys_of() - {"sxm-sr", "lost+found"}
    assert not names, f"left behind: {names}"


def test_every_name_stays_as_it_was():
    text = 'q"\\/\n\té€\u2028\U0001f600'
    v = host.call("Volume.create", sr=sr, name=text, description=text, size=1, sharable=True)
    assert (v["name"], v["description"], v["sharable"], v["virtual_size"], v["physical_utilisation"]) == (text, text, True, 512, 0), v
    assert v["keys"]["content_id"] not in ("", v["key"]) and v["key"] == v["uuid"] and v["read_write"], v
    for key, value in ((text, text), ("", ""), ("is_a_snapshot", "true"), ("content_id", ""), ("tagsa", "a")):
        host.call("Volume.set", sr=sr, key=v["key"], k=key, v=value)
        host.call("Volume.set", sr=sr, key=v["key"], k=key, v=value)
    # What is stored is returned, but an empty content_id, which would make it like every other disk that has none.
    want = {text: text, "": "", "is_a_snapshot": "true", "content_id": v["key"], "tagsa": "a"}
    assert host.call("Volume.stat", sr=sr, key=v["key"])["keys"] == want
    for _ in range(2):
        host.call("Volume.unset", sr=sr, key=v["key"], k=text)
    del want[text]
    host.call("Volume.set_name", sr=sr, key=v["key"], new_name="n2")
    host.call("Volume.set_description", sr=sr, key=v["key"], new_description=text)
    after = host.call("Volume.stat", sr=sr, key=v["key"])
    assert (after["keys"], after["name"], after["description"], after["uri"]) == (want, "n2", text, v["uri"]), after
    host.call("SR.set_name", sr=sr, new_name=text)
    host.call("SR.set_description", sr=sr, new_description="d2")
    stat = host.call("SR.stat", sr=sr)
    assert (stat["name"], stat["description"], stat["uuid"], stat["health"]) == (text, "d2", SR_UUID, ["Healthy", ""]), stat
    assert 0 < stat["free_space"] <= stat["total_space"], stat


def test_a_volume_reads_as_zeros_and_takes_no_space():
    v = host.make_volume(sr, 64 << 20)
    with open(path(v["key"], ".raw"), "rb") as f:
        assert f.read() == bytes(64 << 20)
    assert os.stat(path(v["key"], ".raw")).st_mode & 0o777 == 0o600


def test_resize_grows_and_never_cuts():
    v = host.make_volume(sr, 1 << 20)
    for _ in range(2):
        host.call("Volume.resize", sr=sr, key=v["key"], new_size=(2 << 20) + 1)
    assert host.call("Volume.stat", sr=sr, key=v["key"])["virtual_size"] == (2 << 20) + 512
    host.refused("only grow", "Volume.resize", sr=sr, key=v["key"], new_size=1 << 20)
    host.refused("negative", "Volume.resize", sr=sr, key=v["key"], new_size=-1)
    host.refused("more than any", "Volume.resize", sr=sr, key=v["key"], new_size=2**63 - 1)
    assert host.call("Volume.stat", sr=sr, key=v["key"])["virtual_size"] == (2 << 20) + 512


def test_destroy_is_for_good_and_may_be_repeated():
    v = host.make_volume(sr)
    for _ in range(2):
        host.call("Volume.destroy", sr=sr, key=v["key"])
    host.refused("Volume_does_not_exist", "Volume.stat", sr=sr, key=v["key"])
    host.refused("Volume_does_not_exist", "Volume.set", sr=sr, key=v["key"], k="a", v="b")
    assert v["key"] not in keys_of()
    no_leftovers()


def test_hostile_keys_reach_no_file():
    victim = os.path.join(os.path.dirname(sr_dir), "victim.raw")
    open(victim, "w").close()
    for key in ("../victim", "..", ".", "", "sxm-sr", "a/b", "x" * 300, "a\x01b"):
        host.refused("Volume_does_not_exist", "Volume.stat", sr=sr, key=key)
        host.refused("Volume_does_not_exist", "Volume.resize", sr=sr, key=key, new_size=1 << 30)
        host.call("Volume.destroy", sr=sr, key=key)
    assert os.stat(victim).st_size == 0
    os.unlink(victim)
    host.call("SR.stat", sr=sr)


def test_a_damaged_record_hides_no_volume():
    good, bad = host.make_volume(sr, 1 << 20), host.make_volume(sr, 2 << 20)
    with open(path(bad["key"], ".json"), "w") as f:
        f.write('{"uuid":')
    seen = {v["key"]: v for v in host.call("SR.ls", sr=sr)}
    assert good["key"] in seen and seen[bad["key"]]["virtual_size"] == 2 << 20, seen
    assert seen[bad["key"]]["uri"] == bad["uri"] and seen[bad["key"]]["uuid"] == bad["uuid"], seen
    host.call("Volume.set", sr=sr, key=bad["key"], k="vdi-type", v="user")
    assert host.call("Volume.stat", sr=sr, key=bad["key"])["keys"]["vdi-type"] == "user"
    os.unlink(path(good["key"], ".raw"))
    assert host.call("Volume.stat", sr=sr, key=good["key"])["virtual_size"] == 1 << 20
    for v in (good, bad):
        host.call("Volume.destroy", sr=sr, key=v["key"])
    os.unlink(path(bad["key"], ".json.damaged"))


def test_an_sr_that_cannot_be_seen_is_not_an_empty_one():
    other = host.make_sr("gone")
    host.make_volume(other)
    os.rename(os.path.join(host.dir, "gone"), os.path.join(host.dir, "hidden"))
    for _ in range(2):  # not there; then there, but not mounted
        host.refused("SR_does_not_exist", "SR.ls", sr=other)
        host.refused("SR_does_not_exist", "Volume.create", sr=other, name="", description="", size=0, sharable=False)
        stat = host.call("SR.stat", sr=other)
        check("sr_stat", stat)
        assert stat["health"][0] == "Unreachable", stat
        host.refused("SR_does_not_exist", "SR.attach", configuration={"uri": f"file://{host.dir}/gone"})
        os.makedirs(os.path.join(host.dir, "gone"), exist_ok=True)
    assert os.listdir(os.path.join(host.dir, "gone")) == []


def test_what_a_killed_verb_left_is_no_volume_and_is_reported():
    key = "00000000-aaaa-bbbb-cccc-dddddddddddd"
    left = [f"{key}.raw", f".{key}.raw.new", f"{key}.json.123.tmp"]
    for name in left:
        open(os.path.join(sr_dir, name), "w").close()
    assert key not in keys_of()
    report = host.call("Plugin.diagnostics")
    assert all(name in report for name in left), report
    for name in left:
        os.unlink(os.path.join(sr_dir, name))


def test_calls_at_once_do_not_undo_one_another():
    v = host.make_volume(sr)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(host.call, "Volume.set", sr=sr, key=v["key"], k=f"k{i}", v=str(i)) for i in range(24)]
        calls += [pool.submit(host.call, "SR.ls", sr=sr) for _ in range(12)]
        made = [pool.submit(host.make_volume, sr) for _ in range(12)]
        for c in calls:
            c.result()
        keys = {c.result()["key"] for c in made}
    got = host.call("Volume.stat", sr=sr, key=v["key"])["keys"]
    assert all(got.get(f"k{i}") == str(i) for i in range(24)), got
    assert len(keys) == 12 and keys <= keys_of()
    no_leftovers()


def test_an_sr_is_made_once_and_removed_when_empty():
    uri = f"file://{host.dir}/o%20ne"
    made = host.call("SR.create", uuid="u1", name="", description="", configuration={"file-uri": uri, "format": "auto"})
    assert made == {"uri": uri, "format": "auto", "sr_uuid": "u1"}, made
    assert host.call("SR.create", uuid="u1", name="", description="", configuration=made) == made
    host.refused("already holds", "SR.create", uuid="u2", name="", description="", configuration={"uri": uri})
    host.refused("holds SR u1", "SR.attach", configuration={"uri": uri, "sr_uuid": "u2"})
    handle = host.call("SR.attach", configuration=made)
    assert handle == uri and handle in host.call("Plugin.ls")
    os.symlink("o ne", os.path.join(host.dir, "link"))
    assert host.call("SR.attach", configuration={"uri": f"file:{host.dir}/./link/"}) == handle
    v = host.make_volume(handle)
    assert v["uri"] == [f"sxm://{host.dir}/o%20ne/{v['key']}.{v['uri'][0].rsplit('.', 1)[1]}"], v
    host.refused("still has 1 volume", "SR.destroy", sr=handle)
    host.call("Volume.destroy", sr=handle, key=v["key"])
    for _ in range(2):
        host.call("SR.destroy", sr=handle)
    assert os.listdir(os.path.join(host.dir, "o ne")) == [] and handle not in host.call("Plugin.ls")
    for _ in range(2):
        host.call("SR.detach", sr=handle)


def test_bad_configurations_make_nothing():
    before = sorted(os.listdir(host.dir))
    open(os.path.join(host.dir, "file"), "w").close()
    for word, configuration in (("uri is missing", {}), ("not a directory", {"uri": "file:///dev/null"}), ("not a directory", {"uri": f"file://{host.dir}/file"}),
                                ("No such file", {"uri": f"file://{host.dir}/no/such"}), ("file:///", {"uri": "nfs://host/x"}),
                                ("not known", {"uri": f"file://{host.dir}/q", "format": "vhd"}), ("query", {"uri": f"file://{host.dir}/q?x"})):
        host.refused(word, "SR.create", uuid="u", name="", description="", configuration=configuration)
    os.unlink(os.path.join(host.dir, "file"))
    assert sorted(os.listdir(host.dir)) == before
    assert host.call("SR.probe", configuration={}) == [{"configuration": {}, "complete": False, "extra_info": {}}]
    assert host.call("SR.probe", configuration={"uri": f"file://{host.dir}/no/such"}) == []


def test_a_full_disk_is_said_and_leaves_nothing():
    if os.geteuid() != 0:
        return say("  not as root: no small file system to fill")
    small = os.path.join(host.dir, "small")
    os.mkdir(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], stderr=subprocess.DEVNULL).returncode:
        return say("  no tmpfs can be mounted here")
    try:
        handle = host.make_sr("small")
        with contextlib.suppress(OSError), open(os.path.join(small, "filling"), "wb", buffering=0) as f:
            while f.write(bytes(4096)):
                f.flush()
        before = sorted(os.listdir(small))
        e = host.refused("insufficient space", "Volume.create", sr=handle, name="x", description="", size=1 << 30, sharable=False)
        assert e.report["code"] == "SR_BACKEND_FAILURE_44", e.report
        assert sorted(os.listdir(small)) == before, os.listdir(small)
        assert host.call("SR.stat", sr=handle)["free_space"] == 0
    finally:
        subprocess.run(["umount", small], check=True)


def test_requests_that_are_none_are_refused_in_a_sentence():
    stat = f"{VOLUME}/Volume.stat"
    for stdin in ("", "{", "[]", "null", "7", '{"dbg":"x"}', '{"sr":"%s","key":7,"dbg":""}' % sr, '{"sr":"%s","key":null,"dbg":""}' % sr,
                  '{"sr":"%s","key":"a","dbg":""} x' % sr, "[" * 100000, " " * (20 << 20), '{"dbg":"' + "x" * (17 << 20) + '"}'):
        done = host.run(stat, stdin)
        assert done.returncode == 1, stdin[:60]
        report = json.loads(done.stdout)
        check("error_report", report)
        assert len(report["params"][2]) > 10, report
    done = host.run(stat, "x", args=("--json", "--json"))
    assert done.returncode == 1 and check("error_report", json.loads(done.stdout)) is None


def test_a_file_of_no_verb_says_so():
    stub = os.path.join(host.root, VOLUME, "Volume.stat")
    root = os.path.join(host.dir, "libexec")
    os.makedirs(os.path.join(root, "xapi-storage-script", VOLUME))
    os.symlink(os.path.join(os.path.dirname(host.root), "sxm"), os.path.join(root, "sxm"))
    for name in ("Volume.frob", "Volume.shrink", "Datapath.attach", "x"):
        copy = shutil.copy(stub, os.path.join(root, "xapi-storage-script", VOLUME, name))
        done = subprocess.run([copy, "--json"], input=b'{"dbg":""}' + b" " * (1 << 20), capture_output=True, env=host.env)
        report = json.loads(done.stdout)
        check("error_report", report)
        assert done.returncode == 1 and report["params"] == ["Unimplemented", name], report


def test_the_file_is_shell_and_python():
    v = host.make_volume(sr)
    stub = os.path.join(host.root, VOLUME, "Volume.stat")
    request = json.dumps({"dbg": "x", "sr": sr, "key": v["key"]}).encode()
    want = host.run(f"{VOLUME}/Volume.stat", request.decode()).stdout
    run = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    with open(stub, "rb") as f:  # no shell for a verb: it names the program itself
        assert f.readline().strip() == b"#!" + os.fsencode(os.path.join(os.path.dirname(host.root), "sxm", "sxm-smapi"))
    for command in (["sh", stub, "--json"], [sys.executable, "-c", run, stub, "--json"], [sys.executable, stub, "--json"]):
        done = subprocess.run(command, input=request, capture_output=True, env=host.env, check=True)
        assert done.stdout == want, (command, done)
    there = os.path.join(host.dir, "linked")
    os.symlink(os.path.join(host.root, VOLUME), there)
    assert subprocess.run([os.path.join(there, "Volume.stat"), "--json"], input=request, capture_output=True, env=host.env).stdout == want
    assert subprocess.run(["./Volume.stat", "--json"], input=request, capture_output=True, env=host.env, cwd=there).stdout == want


def test_static_vdis_gives_its_parameters_as_arguments():
    v = host.make_volume(sr)
    done = host.run(f"{VOLUME}/SR.attach", "", args=("static-vdis", "--configuration", "uri", sr, "--configuration", "sr_uuid", SR_UUID))
    assert json.loads(done.stdout) == sr, done
    done = host.run(f"{VOLUME}/Volume.stat", "", args=("static-vdis", sr, v["key"]))
    assert json.loads(done.stdout) == host.call("Volume.stat", sr=sr, key=v["key"])
    done = host.run(f"{VOLUME}/Plugin.Query", "", args=("static-vdis",))
    check("query_result", json.loads(done.stdout))
    done = host.run(f"{VOLUME}/Volume.create", "", args=("d", sr, 'na"me', "", "512", "true"))
    assert json.loads(done.stdout)["name"] == 'na"me'
    for args in (("static-vdis", sr), ("static-vdis", sr, v["key"], "more"), ("static-vdis", sr, "nobody"), ("d", "--configuration", "a")):
        done = host.run(f"{VOLUME}/Volume.stat", "", args=args)
        assert done.returncode != 0 and done.stdout == b"" and len(done.stderr) > 10, done


# What is about the directory itself, or about the verbs' files.
filebased_only = {test_an_sr_that_cannot_be_seen_is_not_an_empty_one, test_an_sr_is_made_once_and_removed_when_empty,
                  test_bad_configurations_make_nothing, test_a_full_disk_is_said_and_leaves_nothing, test_a_file_of_no_verb_says_so,
                  test_the_file_is_shell_and_python, test_static_vdis_gives_its_parameters_as_arguments,
                  test_requests_that_are_none_are_refused_in_a_sentence}
for sr_type in ("filebased", "ext4-ng", "xfs-ng"):
    if sr_type != "filebased":
        if os.geteuid() != 0 or not shutil.which("mkfs." + sr_type[:-3]) or not shutil.which("losetup"):
            say(f"{sr_type}: left out, this needs root, losetup and mkfs.{sr_type[:-3]}")
            continue
        host.call("SR.detach", sr=sr)
        host.volume = "volume/org.xen.xapi.storage." + sr_type
        sr = host.make_sr(device=host.make_device(sr_type), uuid=SR_UUID)
        sr_dir = os.path.join(host.run_dir, "mnt", SR_UUID)
    for name, test in list(globals().items()):
        if name.startswith("test_") and (sr_type == "filebased" or test not in filebased_only):
            say(f"{sr_type}: {name[5:].replace('_', ' ')}")
            test()
host.runs_nothing_soon()
