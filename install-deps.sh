#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Installs what sxm needs to be built and tested, with apt or dnf. Only what is missing: a second run does nothing, offline too.
#
#       ./install-deps.sh                   everything ./demo.sh and ./check.sh need
#       ./install-deps.sh --build-only      only what `make` needs
#
# Three lists for each family: needed (it fails without), optional (configure does without), tests (they skip themselves).
set -eu

with_tests=yes
case ${1-} in
'') ;;
--build-only) with_tests=no ;;
--help) sed -n 's/^# \{0,1\}//; 3,8p' "$0"; exit 0 ;;
*) echo "usage: $0 [--build-only]" >&2; exit 2 ;;
esac
ID='' ID_LIKE='' VERSION_ID=''
# shellcheck disable=SC1090,SC1091 # the system's
[ ! -r "${OS_RELEASE:=/etc/os-release}" ] || . "$OS_RELEASE"
say() { echo "install-deps.sh: $*"; }
die() { say "$*" >&2; exit 1; }

# --- Debian, Ubuntu

lists_for_apt() {
	needed="gcc libc6-dev make autoconf automake libtool pkg-config perl libnbd-dev libuv1-dev libjson-c-dev uuid-dev libblkid-dev libxxhash-dev"
	optional="liburing-dev libssh2-1-dev libgnutls28-dev libzstd-dev libxen-dev"
	tests="libcmocka-dev libnbd-bin nbdkit qemu-utils fio e2fsprogs xfsprogs mount iproute2 python3 valgrind procps util-linux xz-utils systemd spin
	       openssh-client openssh-server openssl"
	# What serves qcow2 images; qemu-nbd does, too (qemu-utils). Its package has another name where qemu is older or newer than
	# Debian 12's.
	[ -x /usr/bin/qemu-storage-daemon ] || tests="$tests qemu-system-common"
}
is_there_apt() {
	case $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) in
	ii*|hi*) ;;
	*) dpkg-query -W -f '${Provides}\n' 2>/dev/null | grep -qw -- "$1" ;;
	esac
}
prepare_apt() { apt-get update -q; }
install_apt() { DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; }

# --- Fedora, and the RHEL family

lists_for_dnf() {
	needed="gcc make autoconf automake libtool pkgconf-pkg-config libnbd-devel libuv-devel json-c-devel libuuid-devel libblkid-devel xxhash-devel"
	optional="perl-podlators liburing-devel libssh2-devel gnutls-devel libzstd-devel"
	[ "$ID" != fedora ] || optional="$optional xen-devel" # the RHEL family has no Xen
	tests="libcmocka-devel libasan libubsan libnbd nbdkit nbdkit-nbd-plugin qemu-img /usr/bin/qemu-storage-daemon fio e2fsprogs xfsprogs
	       iproute iproute-tc python3 valgrind procps-ng util-linux diffutils findutils gawk tar xz systemd
	       openssh-clients openssh-server openssl"
}
is_there_dnf() { rpm -q --quiet --whatprovides "$1" >/dev/null 2>&1; }
install_dnf() { dnf -q -y install "$@"; }
# Of the RHEL family's, most -devel packages are in a repository that is there but off: CRB (9, 10) or PowerTools (8), on Red Hat's
# and Oracle's systems under a longer name; 8 has libnbd's in a module. libssh2, and some on 8, are in EPEL. What cannot be
# switched on shows as a missing package.
prepare_dnf() {
	case " $ID $ID_LIKE " in
	*' rhel '*|*' ol '*) ;;
	*) return 0 ;;
	esac
	major=${VERSION_ID%%.*}
	is_there_dnf dnf-plugins-core || install_dnf dnf-plugins-core || :
	case $ID in
	rhel) subscription-manager repos --enable "codeready-builder-for-rhel-$major-$(uname -m)-rpms" ;;
	ol) set_enabled "ol${major}_codeready_builder"; install_dnf "oracle-epel-release-el$major" ;;
	*) set_enabled crb || set_enabled powertools; is_there_dnf epel-release || install_dnf epel-release ;;
	esac || say "not every extra repository could be switched on; going on"
	[ "$major" != 8 ] || dnf -q -y module enable virt-devel || :
}
set_enabled() { dnf -q config-manager --set-enabled "$1" >/dev/null 2>&1; }

# --- what both do

missing() { for package in $1; do "is_there_$family" "$package" || printf ' %s' "$package"; done; }

# install_some PACKAGES: where one of them does not exist, the others all the same.
install_some() {
	# shellcheck disable=SC2086 # a list
	[ -z "$1" ] || "install_$family" $1 || for package in $1; do "install_$family" "$package" || :; done
}

install_all() {
	[ $with_tests = yes ] || tests=
	want=$(missing "$needed $optional $tests")
	[ -n "$want" ] || return 0
	[ "$(id -u)" = 0 ] || die "only root can install:$want"
	say "installing$want"
	"prepare_$family"
	want=$(missing "$needed")
	# shellcheck disable=SC2086 # a list
	[ -z "$want" ] || "install_$family" $want ||
		die "sxm cannot be built without these; what is said above is why they were not installed:$want"
	install_some "$(missing "$optional $tests")"
	want=$(missing "$optional $tests")
	[ -z "$want" ] || say "not to be had here:$want. sxm is built without them, and tests that want them skip themselves"
}

family=
! command -v dnf >/dev/null || family=dnf
# Either family may have the other's program, too.
case " $ID $ID_LIKE " in
*' rhel '*|*' fedora '*) ;;
*) ! command -v apt-get >/dev/null || family=apt ;;
esac
[ -n "$family" ] || die "neither apt-get nor dnf is here; install-deps.sh itself lists, by their names there, the packages sxm needs"
"lists_for_$family"
install_all
