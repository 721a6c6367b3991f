#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Runs every test: ./check.sh, as root (without root the end-to-end tests skip themselves). Some 24 minutes on two cores.
#
#       1. what is missing is installed          4. the same build with ASan and UBSan, its tests, brief
#       2. build-check/: build, warnings are errors   5. make distcheck: the tarball builds, installs, uninstalls
#       3. unit, simulation, lint, end to end        (with a part of the tests, and all files in it)
#
# --long: the soaks: ten times as many random schedules, fifty times as many mutated inputs, a bigger disk, faults again and again.
# --xen: nothing but the build and what is played on real Xen hosts, which are emulated (tests/xen/README); 3. has a first look at one.
set -euo pipefail
cd "$(dirname "$0")"
top=$PWD
is_long=no is_xen=no
case ${1-} in
'') ;;
--long) is_long=yes ;;
--xen) is_xen=yes ;;
*) echo "usage: $0 [--long | --xen]" >&2; exit 2 ;;
esac
jobs=$(nproc)
waiting=$((jobs * 2)) # tests at once: half of their time they wait, for a disk or a limit of time
brief=(SXM_BRIEF=1) # what tries again and again tries less (tests/README)
briefer=(SXM_BRIEF=2 SIM_SCHEDULES="${SIM_SCHEDULES:-10000}" FUZZ_RUNS="${FUZZ_RUNS:-5000}")
[ "$is_long" = no ] || brief=() briefer=()
[ "$is_long" = no ] || export SIM_SCHEDULES=${SIM_SCHEDULES:-1000000} SIM_LEASES=${SIM_LEASES:-100000} FUZZ_RUNS=${FUZZ_RUNS:-1000000}

# "  41 passed, 2 skipped" of a log of make check.
counts() { awk '/^# PASS: / { p += $3 } /^# SKIP: / { s += $3 } END { if (p) printf "  %d passed, %d skipped", p, s }' "$1"; }

# step NAME COMMAND...: one line; when it fails, the log of the test that failed, or else the end of what it said.
step() {
	local name=$1 start=$SECONDS log

	shift
	printf '%-58s' "$name"
	log=$top/build-check/step.log
	if "$@" >"$log" 2>&1; then
		printf '  ok  %4d s%s%s\n' $((SECONDS - start)) "$(counts "$log")" "$(sed -n 's/.* SKIPPED: /  SKIPPED: /p' "$log")"
		return
	fi
	printf '  FAILED\n'
	show_failure "$log"
	exit 1
}

show_failure() {
	local failed test

	failed=$(sed -n 's/^\(FAIL\|ERROR\): \([^ ]*\)$/\2/p' "$1")
	for test in $failed; do
		printf '\n===== %s\n' "$test"
		find "$top" -path "*/${test%.sh}.log" -newer "$top/build-check/started" -exec tail -n 100 {} +
	done
	[ -n "$failed" ] || tail -n 100 "$1"
}

may_skip() { local status=0; "$@" || status=$?; [ "$status" = 0 ] || [ "$status" = 77 ]; }
repeat() { local i; for ((i = 0; i < $1; i++)); do "${@:2}" || return; done; }
# Both in a shell of their own: each step starts at the top.
in_dir() ( cd "$1" && shift && "$@" )
# What tests/e2e/machine.sh's machine needs, as far as it is to be had; the tests skip themselves where it is not. The server's programs
# are unpacked beside the kernel, not installed: this host is to serve nothing.
fetch_machine() {
	local kernel

	apt-get --version >/dev/null || return 0
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends qemu-system-x86 busybox-static || :
	[ ! -d kernel ] || return 0
	kernel=$(apt-cache depends --no-recommends --no-suggests linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p') || :
	unpack_packages kernel "$kernel" || :
	unpack_packages kernel nfs-kernel-server nfs-common rpcbind libtirpc3 libwrap0 libnfsidmap1 || :
}
# What tests/xen's hosts need; they fetch Xen itself.
fetch_xen() {
	apt-get --version >/dev/null || return 0
	apt-cache show xen-system-amd64 >/dev/null 2>&1 || apt-get -q update || :
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends qemu-system-x86 busybox-static || :
}
play_xen() { step "Xen: $1" in_dir build-check may_skip ./run "../tests/xen/test-xen-$1.py"; }
unpack_packages() {
	local dir=$PWD/$1 package

	mkdir -p packages
	(cd packages && apt-get -q download "${@:2}") && mkdir -p "$dir" &&
		for package in packages/*.deb; do dpkg-deb -x "$package" "$dir" || break; done
	rm -rf packages
}
# What distcheck does not see, as it runs a part of the tests only.
tarball_is_whole() {
	local missing

	git rev-parse --git-dir >/dev/null 2>&1 || return 0 # this is a tarball
	missing=$(comm -23 <(git ls-files | grep -v '^\.' | sort) <(tar tf build-check/sxm-*.tar.xz | sed 's,^[^/]*/,,' | sort))
	[ -z "$missing" ] || { printf 'not in EXTRA_DIST:\n%s\n' "$missing"; return 1; }
}
configured() ( mkdir -p "$1" && cd "$1" && shift && { [ -f Makefile ] || "$top/configure" "$@"; } )

mkdir -p build-check
touch build-check/started
./install-deps.sh
step "bootstrap" ./bootstrap
step "configure" configured build-check --enable-werror
step "build, warnings are errors" in_dir build-check make -j"$jobs"
if [ "$is_xen" = yes ]; then
	step "what runs in the machines" in_dir build-check make -j"$jobs" check TESTS=
	step "machines to be emulated" fetch_xen
	for scenario in tests/xen/test-xen-*.py; do
		scenario=${scenario#tests/xen/test-xen-}
		play_xen "${scenario%.py}"
	done
	exit
fi
step "unit, simulation, lint, end to end" in_dir build-check env "${brief[@]}" make -j"$waiting" check
step "machines to be emulated" fetch_xen
play_xen smoke
step "a VM moves with its disks" in_dir build-check may_skip env SXM_TEST_KERNEL="$top/build-check/xen/unpacked" \
	./run ../tests/e2e/test-migrate-vm.py whole decided
step "configure with ASan and UBSan" configured build-check-asan --enable-werror --enable-asan
step "build with ASan and UBSan" in_dir build-check-asan make -j"$jobs"
step "the tests again, brief, with ASan and UBSan" in_dir build-check-asan env "${briefer[@]}" make -j"$waiting" check
step "make distcheck" in_dir build-check env "${briefer[@]}" make -j"$waiting" distcheck 'TESTS=$(TARBALL_TESTS)' \
	'check_PROGRAMS=$(TARBALL_BUILT) tests/lib/guest' DISTCHECK_CONFIGURE_FLAGS=--enable-werror
step "all files are in the tarball" tarball_is_whole
if [ "$is_long" = yes ]; then
	step "long: a disk of 3 GiB moves" in_dir build-check env SXM_DEMO_MB=2048 ./run ../tests/e2e/test-demo.sh
	step "long: killed under load, twenty times" in_dir build-check repeat 20 ./run ../tests/e2e/test-life-kill.sh
	step "long: branches of the core that are tested" in_dir build-check ./run ../tests/sim/coverage.sh
	step "long: a disk moves while everything goes wrong, 200 times" in_dir build-check ./run ../tests/e2e/stress.py --rounds 200
	step "long: verbs killed at every change of a device" in_dir build-check env SXM_CRASH_LONG=1 SXM_CROWD_ROUNDS=50 \
		bash -c './run ../tests/e2e/test-sr-device.py && ./run ../tests/e2e/test-crash-verbs.py && ./run ../tests/e2e/test-sr-crowd.py'
	step "long: xapi's sequences, all formats, disks, snapshots" in_dir build-check env SXM_LONG=1 \
		bash -c './run ../tests/two-host/test-stage.py && ./run ../tests/two-host/test-stage-faults.py'
	step "long: what xapi does wrong, without end, and many" in_dir build-check env SXM_LONG=1 bash -c 'for t in xapi-weak-points \
		many-mirrors many-stats snapshot-group cbt-moves; do ./run ../tests/e2e/test-$t.py || exit; done'
	step "long: mirrors under faults, twenty times" in_dir build-check repeat 20 ./run ../tests/e2e/test-mirror-faults.sh
	step "long: disks lose what they had not flushed, ten times" in_dir build-check env SXM_POWER_ROUNDS=10 \
		./run ../tests/e2e/test-power-loss.sh
	step "long: a machine to be emulated" in_dir build-check fetch_machine
	[ ! -d build-check/kernel ] || export SXM_TEST_KERNEL=$top/build-check/kernel
	step "long: an emulated machine loses its power" in_dir build-check may_skip ./run ../tests/e2e/test-power.sh
	step "long: disks on an NFS server, in an emulated machine" in_dir build-check may_skip ./run ../tests/e2e/test-nfs.sh
	step "long: a VM moves with its disks" in_dir build-check may_skip env SXM_LONG=1 ./run ../tests/e2e/test-migrate-vm.py
	step "long: ... and what may go wrong" in_dir build-check may_skip env SXM_LONG=1 ./run ../tests/e2e/test-migrate-vm-faults.py
fi
echo "everything passed in $((SECONDS / 60)) min $((SECONDS % 60)) s"
