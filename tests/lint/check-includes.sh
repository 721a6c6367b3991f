#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The dependency law (HACKING.md): which room may include which, and which file may know which library.
#
#       base <- loop <- block <- { disk, cbt, overlay, mirror, nbdsrv, vbd } <- vdi <- control/server, dispatch <- main-datapath.c
#       base <- { control/client, cbt/cbt-log, overlay/overlay-file } <- plugins <- cmd
#       base <- loop <- broker <- main-xenbus.c
#       base <- control/client <- migrate <- cmd
#       base <- qcow2 <- { disk, plugins, cmd }
set -euo pipefail
cd "${SXM_SRCDIR:?start me with ./run}"
broken=0
complain() { echo "$*" >&2; broken=1; }

sources() { find src mirror migrate plugins cmd -name '*.[ch]' | sort; }

# The room of a source, and the rooms it may include besides its own.
allowed() {
	case $1 in
	mirror/core*|mirror/claim.*|mirror/commit*|mirror/pace.*|mirror/least.h) echo mirror base ;;
	src/base/*)            echo base ;;
	src/loop/*)            echo loop base ;;
	src/block/*)           echo block loop base ;;
	src/qcow2/*)           echo qcow2 base ;;
	src/disk/*)            echo disk qcow2 block loop base ;;
	src/nbdsrv/*)          echo nbdsrv block loop base ;;
	src/vbd/*)             echo vbd block loop base ;;
	src/broker/broker*|src/broker/facts*) echo broker base ;;
	src/broker/*)          echo broker loop base ;;
	src/main-xenbus.c|src/main-xl-dm.c) echo broker loop base ;;
	mirror/*)              echo mirror block loop base ;;
	src/vdi/*)             echo vdi disk cbt overlay nbdsrv vbd mirror block loop base ;;
	src/control/client.*)  echo control base ;;
	src/control/*)         echo control vdi mirror block loop base ;;
	src/keeper.*)          echo keeper.h base ;;
	src/main-datapath.c)   echo keeper.h control vdi block loop base ;;
	plugins/*)             echo plugins control cbt overlay qcow2 base ;;
	migrate/*)             echo migrate control base ;;
	cmd/*)                 echo cmd qcow2 migrate plugins base ;;
	src/cbt/cbt-log*)      echo cbt base ;;
	src/cbt/*)             echo cbt block loop base ;;
	src/overlay/overlay-file*) echo overlay base ;;
	src/overlay/*)         echo overlay block loop base ;;
	*) return 1 ;;
	esac
}

check_rooms() {
	local file=$1 include room rooms

	rooms=$(allowed "$file") || { complain "$file: belongs to no room"; return; }
	while read -r include; do
		[ -n "$include" ] && [ "$include" != config.h ] || continue
		room=${include%%/*}
		[[ " $rooms " == *" $room "* ]] || complain "$file: must not include \"$include\" (may: $rooms)"
		case $file:$include in
		src/control/client.*:control/client.h) ;;
		src/control/client.*:control/*) complain "$file: must not include \"$include\"" ;;
		plugins/*:control/client.h|migrate/*:control/client.h) ;;
		plugins/*:cbt/cbt-log.h|src/cbt/cbt-log*:cbt/cbt-log.h) ;;
		plugins/*:cbt/*|src/cbt/cbt-log*:cbt/*) complain "$file: of cbt/ only cbt-log.h, not \"$include\"" ;;
		plugins/*:overlay/overlay-file.h|src/overlay/overlay-file*:overlay/overlay-file.h) ;;
		plugins/*:overlay/*) complain "$file: of overlay/ only overlay-file.h, not \"$include\"" ;;
		plugins/*:control/*|migrate/*:control/*) complain "$file: of control/ only client.h, not \"$include\"" ;;
		mirror/core*:mirror/core*|mirror/core*:mirror/claim.h|mirror/core*:mirror/pace.h|mirror/core*:mirror/least.h) ;;
		mirror/claim.*:mirror/claim.h|mirror/commit*:mirror/commit*|mirror/pace.*:mirror/pace.h|mirror/pace.*:mirror/least.h) ;;
		mirror/core*:mirror/*|mirror/claim.*:mirror/*|mirror/commit*:mirror/*|mirror/pace.*:mirror/*) complain "$file: the pure half must not include \"$include\"" ;;
		esac
	done < <(sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/p' "$file")
}

# only HEADER-PATTERN FILE-PATTERN: nobody else includes it.
only() {
	local file

	while read -r file; do
		# shellcheck disable=SC2053 # a pattern
		[[ $file == $2 ]] || complain "$file: must not include <$1>"
	done < <(sources | xargs grep -lE "^[ \t]*#[ \t]*include[ \t]*<$1>" || :)
}

shopt -s extglob
while read -r file; do check_rooms "$file"; done < <(sources)
only 'libnbd\.h' '@(mirror/remote-*.c|src/disk/disk-nbd*.c)'
only 'liburing\.h' 'src/disk/engine-uring.c'
only 'json-c/.*' 'src/base/jsonspec-@(decode|encode).c'
only 'uv\.h' '@(src/loop/*.@(c|h)|src/disk/engine-pool.c)'
only 'pthread\.h' '@(src/loop/offload.c|src/disk/engine-pool.c)'
only 'libssh2.*\.h' 'migrate/carrier-ssh2*.c'
only 'uuid/.*' 'plugins/*.c'
only 'blkid.*\.h' 'plugins/device.c'
only 'gnutls/.*' 'src/nbdsrv/tls*.c'
only 'xxhash\.h' 'src/block/digest.c'
only 'xen.*\.h' '@(src/vbd/xen-lib.c|src/broker/store-lib.c|cmd/xenstore-lib.c)'

# Base names are unique, so that a stack trace names one file.
twice=$(sources | sed 's|.*/||' | sort | uniq -d)
[ -z "$twice" ] || complain "two files are called: $twice"
exit $broken
