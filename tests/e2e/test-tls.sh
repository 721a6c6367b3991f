#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# NBD over TLS, both ends: a mirror under a writing guest, by key and by certificate, to another sxm and to a foreign server; a link
# that is cut, a far side that is killed; foreign clients of ours. A wrong key, no TLS over there, a stranger's certificate and one
# whose time is over are sentences, and nothing is ever plain instead.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires nbdinfo --version
requires nbdcopy --version
requires nbdkit --version
requires openssl version

tmp=$(make_tmp)
export SXM_RUN_DIR=$tmp/run
datapath=$SXM_LIBEXECDIR/sxm/sxm-datapath
at_exit end_datapaths "$SXM_RUN_DIR"

a() { control "$SXM_RUN_DIR/a/control" "$@"; }
b() { control "$SXM_RUN_DIR/b/control" "$@"; }
get() { control --get "$1" "$SXM_RUN_DIR/$2/control" "${@:3}"; }
begin() {
	truncate -s 48M "$tmp/$1"
	"$datapath" --id "$1" --path "$tmp/$1" --keep
	control "$SXM_RUN_DIR/$1/control" activate "{\"domain\":\"$2\"}" >/dev/null
}
says() {
	must_fail "${@:2}" 2>"$tmp/said" >/dev/null
	grep -q "$1" "$tmp/said" || die "$(cat "$tmp/said") does not say $1"
}
start_mirror() { op=$(get id a mirror.start "{\"domain\":\"3\",\"remote\":\"$1\"}"); }
is_complete() { [ "$(get complete a mirror.stat "{\"id\":\"$op\",\"wait_ms\":500}")" = true ]; }
# refuses REGEX URI: no mirror there, and such a sentence.
refuses() {
	local text

	text=$(a mirror.start "{\"domain\":\"3\",\"remote\":\"$2\"}" 2>&1 >/dev/null) && die "there is a mirror to $2"
	[[ $text =~ $1 ]] || die "'$text' does not say $1"
}

umask 077
echo "sxm:00112233445566778899aabbccddeeff" >"$tmp/psk"
echo "sxm:ff112233445566778899aabbccddeeff" >"$tmp/other"
make_ca() {
	mkdir -p "$1"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1/ca-key.pem" -out "$1/ca-cert.pem" \
		-subj "/CN=CA of $(basename "$1")" -days 30 2>/dev/null
}
# sign DIR CA-DIR NAME WHICH DAYS: a key and a certificate that the CA has signed.
sign() {
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1/$4-key.pem" -out "$1/$4.csr" -subj "/CN=$3" 2>/dev/null
	openssl x509 -req -in "$1/$4.csr" -CA "$2/ca-cert.pem" -CAkey "$2/ca-key.pem" -CAcreateserial -out "$1/$4-cert.pem" \
		-days "$5" -extfile <(printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\n') 2>/dev/null
}
make_ca "$tmp/pki"
sign "$tmp/pki" "$tmp/pki" localhost server 30
sign "$tmp/pki" "$tmp/pki" guest client 30
make_ca "$tmp/strange"
sign "$tmp/strange" "$tmp/strange" guest client 30
mkdir "$tmp/over"
cp "$tmp/pki"/ca-* "$tmp/over"
sign "$tmp/over" "$tmp/pki" localhost server -1

begin a 3
begin b MIR1
nbd="nbd+unix:///a?socket=$(get socket a attach '{"domain":"3"}')"
listen="{\"domain\":\"MIR1\",\"host\":\"127.0.0.1\",\"tls\":"
port=$(get port b listen "$listen{\"psk_username\":\"sxm\",\"psk_file\":\"$tmp/psk\"}}") || {
	b listen "$listen{\"psk_username\":\"sxm\",\"psk_file\":\"$tmp/psk\"}}" 2>&1 | grep -q NOTSUP && skip "built without GnuTLS"
	die "does not listen"
}
[ "$port" = "$(get port b listen "$listen{\"psk_username\":\"sxm\",\"psk_file\":\"$tmp/psk\"}}")" ] || die "listens twice"
certified=$(get port b listen "$listen{\"certificates\":\"$tmp/pki\"}}")
by_key="nbds://sxm@127.0.0.1:$port/b?tls-psk-file=$tmp/psk"
by_cert="nbds://localhost:$certified/b?tls-certificates=$tmp/pki"

say "keys that are not to be had"
says expired b listen "$listen{\"certificates\":\"$tmp/over\"}}"
says ENOENT b listen "$listen{\"psk_username\":\"sxm\",\"psk_file\":\"$tmp/none\"}}"
says either b listen "$listen{}}"

chmod o+w "$tmp/pki/ca-cert.pem"
says 'written by everybody' b listen "$listen{\"certificates\":\"$tmp/pki\"}}"
refuses 'written by everybody' "$by_cert"
chmod o-w "$tmp/pki/ca-cert.pem"
mkdir "$tmp/trustless"
cp "$tmp/pki"/client-* "$tmp/trustless"
refuses 'ca-cert.pem' "nbds://localhost:$certified/b?tls-certificates=$tmp/trustless"

say "files are read again by the same listener, when it is said; who is there stays"
start_mirror "$by_key"
until_true 30 is_complete
listen_again() { b listen "$listen{\"psk_username\":\"sxm\",\"psk_file\":\"$tmp/psk\"}}"; }
cp "$tmp/psk" "$tmp/psk.old"
echo "sxm:short" >"$tmp/psk"
says 'hexadecimal' listen_again
nbdinfo --size "nbds://sxm@127.0.0.1:$port/?tls-psk-file=$tmp/psk.old" >/dev/null
cp "$tmp/other" "$tmp/psk"
listen_again | grep -q "$port"
must_fail nbdinfo --size "nbds://sxm@127.0.0.1:$port/?tls-psk-file=$tmp/psk.old" 2>/dev/null
nbdinfo --size "nbds://sxm@127.0.0.1:$port/?tls-psk-file=$tmp/psk" >/dev/null
is_complete || die "the mirror's link is gone"
cp "$tmp/psk.old" "$tmp/psk"
listen_again >/dev/null
a mirror.cancel "{\"id\":\"$op\"}" >/dev/null

say "who does nothing keeps nobody out"
silent=()
for _ in {1..70}; do
	exec {fd}<>"/dev/tcp/127.0.0.1/$port" # the first of them are cut
	silent+=("$fd")
done
nbdinfo --size "nbds://sxm@127.0.0.1:$port/?tls-psk-file=$tmp/psk" >/dev/null || die "nobody else is let in"
for fd in "${silent[@]}"; do exec {fd}>&-; done

say "wrong keys, strangers, and no TLS: sentences, and never plain"
refuses 'another key' "nbds://sxm@127.0.0.1:$port/b?tls-psk-file=$tmp/other"
refuses 'TLS' "nbd://127.0.0.1:$port/b"
refuses 'not signed by' "nbds://localhost:$certified/b?tls-certificates=$tmp/strange"
cp "$tmp/pki/ca-cert.pem" "$tmp/strange/" # it believes us now, and we do not believe it
refuses 'does not accept our certificate' "nbds://localhost:$certified/b?tls-certificates=$tmp/strange"
start_nbdkit "$tmp/plain.sock" memory 48M
refuses 'no TLS' "nbds+unix://sxm@/?socket=$tmp/plain.sock&tls-psk-file=$tmp/psk"
refuses 'absolute' "nbds://127.0.0.1:$port/b?tls-psk-file=psk"
says 'requires TLS' nbdinfo --size "nbd://127.0.0.1:$port/"
says . nbdinfo --size "nbds://sxm@127.0.0.1:$port/?tls-psk-file=$tmp/other"
says . nbdinfo --size "nbds://localhost:$certified/?tls-certificates=$tmp/strange"

say "foreign clients of ours: what they write they read, in large pieces and in small"
head -c 24M /dev/urandom >"$tmp/data"
for uri in "$by_key" "$by_cert"; do
	nbdcopy --request-size=4096 "$tmp/data" "$uri"
	nbdcopy "$uri" "$tmp/back"
	cmp -n $((24 << 20)) "$tmp/data" "$tmp/back" || die "not what was written by $uri"
done
! qemu-img --version >/dev/null 2>&1 ||
	qemu-img info --image-opts "driver=nbd,host=127.0.0.1,port=$certified,tls-creds=t,tls-hostname=localhost" \
		--object "tls-creds-x509,id=t,endpoint=client,dir=$tmp/pki" >/dev/null || die "qemu cannot read it"

say "a mirror by key under a writing guest; the link is cut, then the far side killed; verified over TLS"
start "$guest" write --uri "$nbd" --log "$tmp/log" --region 0:16777216 --depth 8 --iops 3000 --flush-every 200
writer=$started
start_mirror "$by_key"
until_true 30 is_complete
ss -K dport = "$port" >/dev/null 2>&1 || say "ss -K is not to be had: no cut"
until_true 30 is_complete
pid=$(get pid b hello)
kill -9 "$pid"
until_true 10 is_gone "$pid"
until_true 30 is_complete
id=$(get id a verify.start '{}')
is_over() { [ "$(get state a verify.stat "{\"id\":\"$id\",\"wait_ms\":1000}")" != running ]; }
until_true 60 is_over
[ "$(get verified a verify.stat "{\"id\":\"$id\"}")" = true ] || die "not the same: $(a verify.stat "{\"id\":\"$id\"}")"
is_alive "$writer" || die "the guest has ended"
must_fail nbdinfo --size "nbd://127.0.0.1:$port/" 2>/dev/null
stop "$writer"
a mirror.cancel "{\"id\":\"$op\"}" >/dev/null

say "to a foreign server that demands TLS"
truncate -s 48M "$tmp/far"
foreign="nbds+unix://sxm@/?socket=$tmp/tls.sock&tls-psk-file=$tmp/psk"
start nbdkit -f -U "$tmp/tls.sock" --tls=require --tls-psk="$tmp/psk" file "$tmp/far"
until_true 10 nbdinfo --size "$foreign"
start_mirror "$foreign"
until_true 30 is_complete
a deactivate '{"domain":"3"}' >/dev/null
cmp "$tmp/a" "$tmp/far" || die "the far side is another"
