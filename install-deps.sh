#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Installs what sxm needs to be built and tested, with apt or dnf. Only what is missing: a second run does nothing, offline too.
#
#       ./install-deps.sh                   everything ./demo.sh and ./check.sh need
#       ./install-deps.sh --build-only      only what `make` needs
set -eu

tests=yes
case ${1-} in
'') ;;
--build-only) tests=no ;;
*) echo "usage: $0 [--build-only]" >&2; exit 2 ;;
esac

need_root() {
	[ "$(id -u)" = 0 ] || { echo "install-deps.sh: only root can install:$*" >&2; exit 1; }
}

with_apt() {
	want="gcc libc6-dev make autoconf automake libtool pkg-config perl
	      libnbd-dev libuv1-dev libjson-c-dev uuid-dev libxxhash-dev liburing-dev libssh2-1-dev"
	[ $tests = no ] || want="$want libcmocka-dev libnbd-bin nbdkit qemu-utils fio e2fsprogs iproute2 python3 valgrind
	      procps util-linux xz-utils systemd"
	# Its package has another name where qemu is older or newer than Debian 12's.
	[ $tests = no ] || [ -x /usr/bin/qemu-storage-daemon ] || want="$want qemu-system-common"
	missing=
	for package in $want; do
		case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
		ii*|hi*) ;;
		*) dpkg-query -W -f '${Provides}\n' 2>/dev/null | grep -qw -- "$package" || missing="$missing $package" ;;
		esac
	done
	[ -n "$missing" ] || return 0
	need_root "$missing"
	echo "install-deps.sh: installing$missing"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	# shellcheck disable=SC2086 # a list
	apt-get install -q -y --no-install-recommends $missing
}

# EL 8 and 9: the -devel packages are in CRB (PowerTools on 8); cmocka, fio and nbdkit's and libnbd's are there or in EPEL.
with_dnf() {
	want="gcc make autoconf automake libtool pkgconf-pkg-config perl-podlators
	      libnbd-devel libuv-devel json-c-devel libuuid-devel xxhash-devel liburing-devel libssh2-devel"
	[ $tests = no ] || want="$want libcmocka-devel libnbd nbdkit qemu-img fio e2fsprogs iproute python3 valgrind procps-ng
	      util-linux diffutils xz"
	missing=
	for package in $want; do
		rpm -q --quiet --whatprovides "$package" || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	need_root "$missing"
	echo "install-deps.sh: installing$missing"
	if grep -q '^ID="*\(rhel\|centos\|rocky\|almalinux\|ol\)' /etc/os-release; then
		dnf -q -y install epel-release dnf-plugins-core || :
		dnf -q config-manager --set-enabled crb || dnf -q config-manager --set-enabled powertools || :
	fi
	# shellcheck disable=SC2086 # a list
	dnf -q -y install $missing
	[ $tests = no ] || command -v qemu-storage-daemon >/dev/null || dnf -q -y install qemu-storage-daemon ||
		dnf -q -y install qemu-kvm-core || echo "install-deps.sh: no qemu-storage-daemon: tests that want it skip themselves"
}

if command -v apt-get >/dev/null; then
	with_apt
elif command -v dnf >/dev/null; then
	with_dnf
else
	echo "install-deps.sh: neither apt-get nor dnf is here; README.md lists what to install" >&2
	exit 1
fi
