#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is wrong is said in a sentence, with an exit status of its own, in the form xapi can decode, and nothing stays behind.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdkit --version

tmp=$(make_tmp)
one_host
volume_dir=$plugin_root/volume/org.xen.xapi.storage.filebased
datapath_dir=$plugin_root/datapath/sxm
start_disk $((16 << 20))

# refuses WORD FILE STDIN: exit 1..127; stdout is one error report whose params hold WORD.
refuses() {
	local status=0

	printf '%s' "$3" | env SXM_RUN_DIR="$SXM_RUN_DIR" "$2" --json >"$tmp/out" 2>"$tmp/err" || status=$?
	[ "$status" -gt 0 ] && [ "$status" -lt 128 ] || die "$2 $3: exit $status: $(cat "$tmp/out")"
	python3 - "$1" "$tmp/out" <<-'P' || die "$2 $3: a bad report: $(cat "$tmp/out")"
		import json, sys
		report = json.load(open(sys.argv[2]))
		b = report["backtrace"]
		good = (isinstance(report["code"], str) and all(isinstance(p, str) for p in report["params"])
		        and isinstance(b["error"], str) and isinstance(b["files"], list) and isinstance(b["lines"], list))
		sys.exit(0 if good and sys.argv[1].lower() in " ".join([report["code"]] + report["params"]).lower() else 1)
	P
}
u="\"uri\":\"$uri\""

say "broken JSON, missing and wrong members"
for bad in '' '{' '[]' 'null' '{"dbg":1}' '{"dbg":"","uri":7,"domain":"1"}' "{\"dbg\":\"\",$u}" "{\"dbg\":\"\",$u,\"domain\":null}" \
	'{"dbg":"","uri":"sxm:///nowhere/at/all.raw","domain":"1"}' '{"dbg":"","uri":"other:///x","domain":"1"}' "$(printf '\377\376')"; do
	refuses '' "$datapath_dir/Datapath.attach" "$bad"
done
python3 -c 'print("[" * 100000)' >"$tmp/deep"
refuses '' "$datapath_dir/Datapath.attach" "$(cat "$tmp/deep")"
head -c 40000000 /dev/zero | tr '\0' ' ' >"$tmp/huge"
status=0
env SXM_RUN_DIR="$SXM_RUN_DIR" "$datapath_dir/Datapath.attach" --json <"$tmp/huge" >"$tmp/out" 2>/dev/null || status=$?
[ "$status" -gt 0 ] && [ "$status" -lt 128 ] || die "a huge request: exit $status"

say "volumes"
create() { printf '{"dbg":"","sr":"%s","name":"x","description":"","size":%s,"sharable":false}' "$sr" "$1"; }
refuses '' "$volume_dir/Volume.create" "$(create -1)"
refuses '' "$volume_dir/Volume.create" "$(create 9223372036854775807)"
refuses '' "$volume_dir/Volume.create" "$(create 1.5)"
refuses '' "$volume_dir/Volume.create" "$(create '"much"')"
refuses 'does_not_exist' "$volume_dir/Volume.stat" "{\"dbg\":\"\",\"sr\":\"$sr\",\"key\":\"nobody\"}"
refuses '' "$volume_dir/Volume.stat" "{\"dbg\":\"\",\"sr\":\"$sr\",\"key\":\"../../etc/passwd\"}"
refuses '' "$volume_dir/SR.attach" '{"dbg":"","configuration":{"uri":"file:///nowhere/at/all"}}'
refuses '' "$volume_dir/SR.attach" '{"dbg":"","configuration":{}}'
before=$(volume_verb SR.ls "\"sr\":\"$sr\"")
[ "$(printf '%s' "$before" | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))')" = 1 ] || die "something was made: $before"
volume_verb Volume.create "\"sr\":\"$sr\",\"name\":\"empty\",\"description\":\"\",\"size\":0,\"sharable\":false" >/dev/null

say "mirrors that cannot be"
m() { printf '{"dbg":"",%s,"domain":"%s","remote":"%s"}' "$u" "$1" "$2"; }
truncate -s 8M "$tmp/small"
start_nbdkit "$tmp/small.sock" file "$tmp/small"
refuses 'small' "$datapath_dir/Data.mirror" "$(m 1 "nbd+unix:///?socket=$tmp/small.sock")"
refuses '' "$datapath_dir/Data.mirror" "$(m 1 "nbd+unix:///?socket=$tmp/nobody.sock")"
refuses '' "$datapath_dir/Data.mirror" "$(m 1 'gopher://x')"
refuses '' "$datapath_dir/Data.mirror" "$(m 1 '')"
truncate -s 16M "$tmp/big"
start_nbdkit "$tmp/big.sock" file "$tmp/big"
operation=$(mirror "$uri" 1 "nbd+unix:///?socket=$tmp/big.sock")
refuses '' "$datapath_dir/Data.mirror" "$(m 1 "nbd+unix:///?socket=$tmp/big.sock")"
wait_complete "$operation"
deactivate "$uri" 1

say "the control socket"
must_fail control "$socket_dir/control" nonsense
must_fail control "$socket_dir/control" attach '{}'
must_fail control "$socket_dir/control" attach '{"domain":7}'
control "$socket_dir/control" hello >/dev/null

detach "$uri" 1
gone() { [ -z "$(processes_of "$SXM_RUN_DIR")" ]; }
until_true 5 gone
