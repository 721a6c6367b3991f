#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# install-deps.sh against package managers that only record: which family it takes, what it switches on for which system, that a
# package nobody has stops nothing but its own tests, that a second run asks nobody, and what it says.
#
#       world/system      os-release        world/on, off     "REPOSITORY PACKAGE" a line
#       world/calls       what was run      world/installed   a package a line
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"

tmp=$(make_tmp)
world=$tmp/world
mkdir "$tmp/bin"
export world PATH="$tmp/bin:$PATH" OS_RELEASE="$world/system"

cat >"$tmp/bin/manager" <<'END'
#!/bin/bash
# dnf, apt-get and subscription-manager: PROGRAM [-OPTION...] COMMAND [ARGUMENT...]
program=${0##*/} words=()
for word in "$@"; do [[ $word == -?* && $word != --set-enabled && $word != --enable ]] || words+=("$word"); done
set -- "${words[@]}"
echo "$program $*" >>"$world/calls"
switch_on() { grep -q "^$1 " "$world/off" || exit 1; grep "^$1 " "$world/off" >>"$world/on"; }
has() { grep -qx "$1" "$world/installed"; }
case $program:$1 in
dnf:install|apt-get:install)
	for package in "${@:2}"; do
		grep -q " $package\$" "$world/on" || { echo "Error: Unable to find a match: $package" >&2; exit 1; }
	done
	printf '%s\n' "${@:2}" >>"$world/installed"
	[[ " $* " != *epel-release* ]] || grep '^epel ' "$world/off" >>"$world/on"
	;;
dnf:config-manager) has dnf-plugins-core && switch_on "$3" ;;
dnf:module) [ "$2 $3" = "enable virt-devel" ] && switch_on virt-devel ;;
subscription-manager:repos) switch_on "$3" ;;
apt-get:update) ;;
*) exit 1 ;;
esac
END
for program in dnf apt-get subscription-manager; do ln -s manager "$tmp/bin/$program"; done
cat >"$tmp/bin/rpm" <<'END'
#!/bin/bash
grep -qx -- "${*: -1}" "$world/installed"
END
cat >"$tmp/bin/dpkg-query" <<'END'
#!/bin/bash
[ "$3" != '${Provides}\n' ] || exit 0
grep -qx -- "${*: -1}" "$world/installed" && echo 'ii '
END
cat >"$tmp/bin/id" <<'END'
#!/bin/bash
echo "${uid:-0}"
END
chmod +x "$tmp/bin"/*

# system 'OS-RELEASE' REPOSITORY... : a new one; the first is on.
system() {
	rm -rf "$world"
	mkdir "$world"
	touch "$world/on" "$world/off" "$world/calls" "$world/installed"
	printf '%b' "$1" >"$world/system"
	in_on $2 $base
	for repository in "${@:3}"; do
		case $repository in
		epel) in_off epel libssh2-devel ;;
		virt-devel) in_off virt-devel libnbd-devel ;;
		*) in_off "$repository" $devel ;;
		esac
	done
}
in_on() { printf "$1 %s\n" "${@:2}" >>"$world/on"; }
in_off() { printf "$1 %s\n" "${@:2}" >>"$world/off"; }
without() { sed -i "/ $1\$/d" "$world/on" "$world/off"; }
base="gcc make autoconf automake libtool pkgconf-pkg-config libuuid-devel libblkid-devel perl-podlators libzstd-devel libasan libubsan libnbd nbdkit nbdkit-nbd-plugin
      qemu-img /usr/bin/qemu-storage-daemon fio e2fsprogs xfsprogs iproute iproute-tc python3 valgrind procps-ng util-linux diffutils findutils gawk tar xz openssh-clients openssh-server openssl
      systemd dnf-plugins-core epel-release"
devel="libnbd-devel libuv-devel json-c-devel xxhash-devel liburing-devel libcmocka-devel gnutls-devel"

# install STATUS [ARGUMENT...]: $said is what it said.
install() {
	local status=0

	said=$("$SXM_SRCDIR/install-deps.sh" "${@:2}" 2>&1) || status=$?
	[ "$status" = "$1" ] || die "ended with $status, not $1: $said"
}
has() { for package in "$@"; do grep -qx -- "$package" "$world/installed" || die "$package was not installed: $said"; done; }
has_not() { ! grep -qx -- "$1" "$world/installed" || die "$1 was installed"; }
called() { grep -qxF -- "$1" "$world/calls" || die "never called: $1; but: $(cat "$world/calls")"; }
never() { ! grep -q -- "$1" "$world/calls" || die "called: $(grep -- "$1" "$world/calls")"; }
says() { grep -q -- "$1" <<<"$said" || die "should say '$1', said: $said"; }
asks_nobody() {
	: >"$world/calls"
	install 0
	[ ! -s "$world/calls" ] && [ -z "$said" ] || die "a second run did something: $said"
}
rocky='ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'

say "Rocky 9: CRB and EPEL are switched on, everything is installed, once"
system "$rocky" appstream crb epel
install 0
has $devel libssh2-devel fio /usr/bin/qemu-storage-daemon
called 'dnf config-manager --set-enabled crb'
never apt-get
asks_nobody

say "the build only"
system "$rocky" appstream crb epel
install 0 --build-only
has libnbd-devel liburing-devel
has_not fio
has_not libcmocka-devel

say "Alma 8: PowerTools, and libnbd's module"
system 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.10"\n' appstream powertools epel virt-devel
sed -i '/^powertools libnbd-devel/d' "$world/off"
install 0
has $devel libssh2-devel

say "RHEL 9: by its own program"
system 'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n' appstream "codeready-builder-for-rhel-9-$(uname -m)-rpms"
install 0
has $devel
says 'not to be had here: libssh2-devel\.'

say "Oracle 9"
system 'ID="ol"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n' appstream ol9_codeready_builder epel
in_on appstream oracle-epel-release-el9
install 0
has $devel libssh2-devel

say "Fedora has it all: nothing is switched on (its config-manager knows other words)"
system 'ID=fedora\nVERSION_ID=41\n' fedora
in_on fedora $devel libssh2-devel xen-devel
install 0
has $devel libssh2-devel xen-devel fio
never 'config-manager\|epel\|module'
asks_nobody

say "what only tests and options want, and nobody has, is named and stops nothing"
system "$rocky" appstream crb epel
for package in liburing-devel fio nbdkit; do without $package; done
install 0
has libnbd-devel libcmocka-devel valgrind
says 'not to be had here: liburing-devel nbdkit fio\.'

say "what the build wants, and nobody has, is an error"
system "$rocky" appstream crb epel
without libuv-devel
install 1
says 'Unable to find a match: libuv-devel'
says 'cannot be built without these.*libuv-devel'

say "no CRB, no EPEL: what cannot be switched on shows as a missing package"
system "$rocky" appstream
without epel-release
install 1
says 'cannot be built without these.*libnbd-devel'

say "only root can install; nothing is to be done for anybody else where all is there"
system "$rocky" appstream crb epel
uid=1000
export uid
install 1
says 'only root can install: gcc'
printf '%s\n' $base $devel libssh2-devel >"$world/installed"
asks_nobody
unset uid

say "Debian, with a dnf beside its apt-get"
system 'ID=debian\nVERSION_ID="12"\n' main
in_on main gcc libc6-dev make autoconf automake libtool pkg-config perl libnbd-dev libuv1-dev libjson-c-dev uuid-dev libblkid-dev libxxhash-dev \
	liburing-dev libssh2-1-dev libgnutls28-dev libzstd-dev libxen-dev libcmocka-dev libnbd-bin nbdkit qemu-utils qemu-system-common fio e2fsprogs xfsprogs mount iproute2 python3 valgrind procps \
	util-linux xz-utils systemd spin openssh-client openssh-server openssl
without fio
install 0
has libnbd-dev liburing-dev libxen-dev nbdkit
says 'not to be had here: fio\.'
never dnf

say "neither"
must_fail env PATH=/nowhere OS_RELEASE=/nowhere /bin/sh "$SXM_SRCDIR/install-deps.sh" 2>"$tmp/said"
grep -q 'neither apt-get nor dnf is here' "$tmp/said" || die "said: $(cat "$tmp/said")"
