#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A qcow2 image as a disk: it is served through a qemu of its own, which outlives the datapath and is replaced when it dies; mirrored
# from and to; ended when nobody needs it. What an image names and must not is refused with a sentence, and nothing is opened.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdinfo --version
requires qemu-img --version
requires qemu-io --version
[ -x /usr/bin/qemu-storage-daemon ] || [ -x /usr/bin/qemu-nbd ] || skip "this needs qemu-storage-daemon or qemu-nbd"

one_host
dir=$(make_tmp)
size=64M

# make_chain NAME DEPTH: NAME.qcow2 on DEPTH bases.
make_chain() {
	local i

	qemu-img create -q -f qcow2 "$dir/$1-0.base.qcow2" $size
	for ((i = 1; i < $2; i++)); do
		qemu-img create -q -f qcow2 -u -b "$1-$((i - 1)).base.qcow2" -F qcow2 "$dir/$1-$i.base.qcow2" $size
	done
	qemu-img create -q -f qcow2 -u -b "$1-$(($2 - 1)).base.qcow2" -F qcow2 "$dir/$1.qcow2" $size
}
# use IMAGE [DOMAIN]: sets what start_disk sets.
use() {
	image=$1
	uri=sxm://$image
	read -r sock export <<<"$(attach "$uri" "${2-1}")"
	activate "$uri" "${2-1}"
	nbd=$(nbd_uri "$sock" "$export")
	socket_dir=$(dirname "$sock")
}
server() { json pid <"$socket_dir/qcow2.json"; }
io() { qemu-io -f raw "$@" "$nbd" >/dev/null; }
log_grew() { [ "$(stat -c %s "$dir/log" 2>/dev/null || echo 0)" -gt $((log_before + 24000)) ]; }
wait_for_writes() {
	log_before=$(stat -c %s "$dir/log" 2>/dev/null || echo 0)
	until_true 20 log_grew
}

say "it is served: its size, and what is data, zero and hole through the whole chain"
make_chain a 3
qemu-io -c 'write -P 1 1M 64k' "$dir/a-0.base.qcow2" >/dev/null
qemu-io -c 'write -P 2 2M 64k' -c 'write -z 1M 64k' "$dir/a-1.base.qcow2" >/dev/null
use "$dir/a.qcow2"
[ "$(nbdinfo --size "$nbd")" = $((64 << 20)) ]
io -c 'write -P 3 3M 64k' -c 'read -P 0 1M 64k' -c 'read -P 2 2M 64k' -c 'read -P 3 3M 64k' -c flush
nbdinfo --map "$nbd" | awk '{ print $1, $2, $4 }' >"$dir/map"
printf '%s\n' '0 2097152 hole,zero' '2097152 65536 data' '2162688 983040 hole,zero' '3145728 65536 data' '3211264 63897600 hole,zero' >"$dir/want"
diff "$dir/want" "$dir/map" || die "its map"
io -c 'write -z -u 2M 64k' -c 'read -P 0 2M 64k' -c 'discard 3M 64k' -c 'read -P 0 3M 64k'
pid=$(server)
tr '\0' ' ' <"/proc/$pid/cmdline" >"$dir/command"
! grep -q "$dir" "$dir/command" || die "it opens files by name: $(cat "$dir/command")"

say "nobody else gets it, by hand either"
flock --nonblock "$image" true && die "the image is not locked"
must_fail qemu-img check "$image" >/dev/null 2>&1

say "closed, its server has ended, and stored everything"
stop_disk
until_true 5 is_gone "$pid"
until_true 5 test ! -e "$socket_dir"
qemu-img check -q "$image"
qemu-io -c 'read -P 0 1M 64k' -c 'read -P 0 2M 64k' "$image" >/dev/null

say "several readers; then one of them writes"
use "$dir/a.qcow2" r1
stop_disk r1
read -r sock export <<<"$(attach "$uri" r1)"
activate_readonly "$uri" r1
first=$(nbd_uri "$sock" "$export")
read -r sock export <<<"$(attach "$uri" r2)"
activate_readonly "$uri" r2
second=$(nbd_uri "$sock" "$export")
qemu-io -r -f raw -c 'read -P 0 0 64k' "$first" >/dev/null
must_fail qemu-io -f raw -c 'write 0 64k' "$second" >/dev/null 2>&1
(
	SXM_RUN_DIR=$(make_tmp) # another host, with the same directory
	read -r sock export <<<"$(attach "$uri" r3)"
	activate_readonly "$uri" r3
	qemu-io -r -f raw -c 'read -P 0 0 64k' "$(nbd_uri "$sock" "$export")" >/dev/null
	stop_disk r3
)
read -r sock export <<<"$(attach "$uri" w)"
activate "$uri" w
nbd=$(nbd_uri "$sock" "$export")
io -c 'write -P 7 0 64k' -c flush
qemu-io -r -f raw -c 'read -P 7 0 64k' "$first" >/dev/null
for domain in w r1 r2; do stop_disk $domain; done

say "a qemu that cannot do what it is asked for is asked for less"
make_chain u 1
cat >"$dir/qemu-storage-daemon" <<'EOF'
#!/bin/sh
case "$*" in *io_uring*) echo "Parameter 'aio' does not accept value 'io_uring'" >&2; exec 3>&- 4>&- 5>&- 6>&- 7>&-; sleep 0.2; exit 1 ;; esac
exec /usr/bin/qemu-storage-daemon "$@"
EOF
chmod +x "$dir/qemu-storage-daemon"
if [ -x /usr/bin/qemu-storage-daemon ]; then
	export SXM_QCOW2_SERVER=$dir/qemu-storage-daemon
	use "$dir/u.qcow2"
	unset SXM_QCOW2_SERVER
	io -c 'write -P 9 1M 64k' -c flush
	tr '\\0' ' ' <"/proc/$(server)/cmdline" | grep -q io_uring && die "it still asks for it"
	stop_disk
fi

say "the datapath is killed under a writing guest: its successor goes on with the same server, and nothing is lost"
make_chain b 2
use "$dir/b.qcow2"
mkfifo "$dir/next"
"$guest" write --uri "$nbd" --log "$dir/log" --then "$dir/next" --depth 16 --zero-percent 5 --overlap >"$dir/guest" &
writer=$!
at_exit stop "$writer"
pid=$(server)
for _round in 1 2 3; do
	wait_for_writes
	kill -9 "$(control --get pid "$socket_dir/control" hello)"
	activate "$uri" 1
	[ "$(server)" = "$pid" ] || die "another server"
	echo "$nbd" >"$dir/next"
done
wait_for_writes
kill "$writer"
wait "$writer" || die "the guest saw an error: $(cat "$dir/guest")"
"$guest" verify --uri "$nbd" --log "$dir/log"
io -c flush

say "the datapath and its server are killed: what was not flushed may be lost, and a flush says so"
io -c 'write -P 5 0 64k' -c flush
"$guest" write --uri "$nbd" --log "$dir/log2" --region 1M:8M --count 50 >/dev/null
kill -9 "$(control --get pid "$socket_dir/control" hello)" "$(server)"
activate "$uri" 1
must_fail qemu-io -f raw -c 'read -P 5 0 64k' -c 'write 0 4k' -c flush "$nbd" >"$dir/out" 2>&1
stop_disk || :

say "the datapath is killed, and later the server: its successor owes the flush that the dead one owed"
use "$dir/b.qcow2"
"$guest" write --uri "$nbd" --log "$dir/log4" --region 1M:8M --count 50 >/dev/null
kill -9 "$(control --get pid "$socket_dir/control" hello)"
activate "$uri" 1
kill -9 "$(server)"
must_fail qemu-io -f raw -c 'write 0 4k' -c flush "$nbd" >"$dir/out" 2>&1
stop_disk || :

say "the server is killed: a new one is started, what was flushed is there, and no flush lies"
use "$dir/b.qcow2"
io -c 'write -P 6 0 64k' -c flush
kill -9 "$(server)"
io -c 'read -P 6 0 64k' -c flush
"$guest" write --uri "$nbd" --log "$dir/log3" --region 1M:8M --count 50 >/dev/null
kill -9 "$(server)"
must_fail qemu-io -f raw -c 'read -P 6 0 64k' -c 'write 0 4k' -c flush "$nbd" >"$dir/out" 2>&1
stop_disk || :
qemu-img check -q "$image" || [ $? = 3 ] # lost clusters are no damage

say "what nobody needs any more is swept"
use "$dir/b.qcow2"
pid=$(server)
kill -9 "$(control --get pid "$socket_dir/control" hello)"
stop_disk || :
until_true 10 is_gone "$pid"

say "it is mirrored to a raw disk, and that back to another qcow2 image"
sr=$(make_sr "$(make_tmp)")
raw=$(make_volume "$sr" $((64 << 20)) | json uri.0)
far() { # far URI: the far side's NBD URI
	read -r sock export <<<"$(attach "$1" MIR1)"
	activate "$1" MIR1
	nbd_uri "$sock" "$export"
}
mirrored() { # mirrored FROM TO: under a writing guest, up to the switchover
	local to=$2 remote

	use "$1"
	remote=$(far "$to")
	read -r sock export <<<"$(attach "$uri" 1)"
	"$guest" write --uri "$nbd" --log "$dir/log-$3" --depth 4 --region 16M:16M --seed 9 >"$dir/guest" &
	writer=$!
	at_exit stop "$writer"
	operation=$(mirror "$uri" 1 "$remote")
	wait_complete "$operation"
	kill "$writer"
	wait "$writer" || die "the guest saw an error: $(cat "$dir/guest")"
	stop_disk
	deactivate "$to" MIR1
	detach "$to" MIR1
}
make_chain c 2
qemu-io -c 'write -P 1 0 8M' "$dir/c-0.base.qcow2" >/dev/null
qemu-io -c 'write -P 2 4M 8M' "$dir/c-1.base.qcow2" >/dev/null
mirrored "$dir/c.qcow2" "$raw" 1
qemu-img compare -U -f qcow2 -F raw "$dir/c.qcow2" "${raw#sxm://}" >/dev/null || die "the raw far side differs"
make_chain d 1
mirrored "${raw#sxm://}" "sxm://$dir/d.qcow2" 2
qemu-img compare -U -f raw -F qcow2 "${raw#sxm://}" "$dir/d.qcow2" >/dev/null || die "the qcow2 far side differs"
use "$dir/d.qcow2"
stop_disk

if [ -x /usr/bin/qemu-nbd ]; then
	say "qemu-nbd serves it, too"
	export SXM_QCOW2_SERVER=/usr/bin/qemu-nbd
	make_chain n 3
	use "$dir/n.qcow2"
	pid=$(server)
	[[ $(readlink "/proc/$pid/exe") == */qemu-nbd ]] || die "another program"
	io -c 'write -P 4 5M 64k' -c flush
	kill -9 "$(control --get pid "$socket_dir/control" hello)"
	activate "$uri" 1
	[ "$(server)" = "$pid" ] || die "another server"
	io -c flush
	kill -9 "$pid"
	io -c 'read -P 4 5M 64k' -c 'write -P 5 5M 64k' -c flush
	stop_disk
	qemu-io -c 'read -P 5 5M 64k' "$image" >/dev/null
	unset SXM_QCOW2_SERVER
fi

say "images that name what they must not are refused, each with a sentence"
refused() { # refused IMAGE WORDS
	local this=sxm://$dir/$1

	datapath_verb Datapath.attach "\"uri\":\"$this\",\"domain\":\"1\"" >/dev/null
	must_fail datapath_verb Datapath.activate "\"uri\":\"$this\",\"domain\":\"1\"" >"$dir/answer"
	grep -q "$2" "$dir/answer" || die "$1: $(cat "$dir/answer")"
	detach "$this" 1
}
create() { qemu-img create -q -f qcow2 "$@"; }
create -u -b /etc/shadow -F raw "$dir/h1.qcow2" 1M
refused h1.qcow2 'backing file is .*etc.*shadow'
create -u -b 'json:{"driver":"file","filename":"/etc/shadow"}' -F raw "$dir/h2.qcow2" 1M
refused h2.qcow2 'only a plain name'
create -o "data_file=$dir/h3.raw" "$dir/h3.qcow2" 1M
refused h3.qcow2 'data in another file'
create -u -b h4.base.qcow2 -F qcow2 "$dir/h4.qcow2" 1M
create -u -b h4b.base.qcow2 -F qcow2 "$dir/h4.base.qcow2" 1M
create -u -b h4.base.qcow2 -F qcow2 "$dir/h4b.base.qcow2" 1M
refused h4.qcow2 'of itself'
truncate -s 1M "$dir/h5.qcow2"
refused h5.qcow2 'no qcow2 image'
create -u -b h6.base.qcow2 -F qcow2 "$dir/h6.qcow2" 1M
ln -s /etc/shadow "$dir/h6.base.qcow2"
refused h6.qcow2 'symbolic link'
ln -s a.qcow2 "$dir/h7.qcow2"
refused h7.qcow2 'symbolic link'
create -u -b h8.base.qcow2 -F raw "$dir/h8.qcow2" 1M
create "$dir/h8.base.qcow2" 1M
refused h8.qcow2 'does not say that its backing file'
create -u -b gone.base.qcow2 -F qcow2 "$dir/h9.qcow2" 1M
refused h9.qcow2 'gone.base.qcow2'
create "$dir/h10.qcow2" 1M
printf '\0\0\0\0\0\0\0\1' | dd of="$dir/h10.qcow2" bs=1 seek=48 conv=notrunc status=none # its first table, beyond all bounds
refused h10.qcow2 'table'
[ -z "$(processes_of "$SXM_RUN_DIR" | xargs -r -I{} cat /proc/{}/comm 2>/dev/null | grep qemu || :)" ] || die "a server is left"
