# The guest of the end-to-end tests: writes stamps through NBD, goes on elsewhere, verifies.
check_PROGRAMS += tests/lib/guest
tests_lib_guest_SOURCES = tests/lib/guest.c tests/lib/guest.h tests/lib/guest-verify.c
tests_lib_guest_CFLAGS = $(AM_CFLAGS) $(NBD_CFLAGS)
tests_lib_guest_LDADD = libbase.la $(NBD_LIBS)
EXTRA_DIST += tests/lib/control.py tests/lib/xsxm.py tests/lib/relay.py tests/lib/sshd.py tests/lib/tapdisk_client.py tests/lib/tapdisk_server.py tests/lib/tapdisk_source.py
# The NBD server alone, over a disk in memory.
check_PROGRAMS += tests/lib/nbd-serve
tests_lib_nbd_serve_SOURCES = tests/lib/nbd-serve.c tests/lib/memory-layer.c tests/lib/memory-layer.h
tests_lib_nbd_serve_LDADD = libnbdsrv.la
# sxm-datapath over a Xen in a directory, and a guest and a toolstack there.
check_PROGRAMS += tests/lib/xen-datapath tests/lib/xen-guest
tests_lib_xen_datapath_SOURCES = src/main-datapath.c src/keeper.c src/keeper.h tests/lib/fake-xen.c tests/lib/fake-xen.h
tests_lib_xen_datapath_LDADD = libcontrol.la
check_PROGRAMS += tests/lib/xen-sxm
tests_lib_xen_sxm_SOURCES = cmd/main-sxm.c tests/lib/fake-xenstore.c tests/lib/fake-xen.c tests/lib/fake-xen.h
tests_lib_xen_sxm_LDADD = libcmd.la libvbd.la
tests_lib_xen_guest_SOURCES = tests/lib/xen-guest.c tests/lib/blk-front.c tests/lib/blk-front.h tests/lib/fake-xen.c tests/lib/fake-xen.h
tests_lib_xen_guest_LDADD = libvbd.la
# sxm-xenbus over the same.
check_PROGRAMS += tests/lib/xen-xenbus
tests_lib_xen_xenbus_SOURCES = src/main-xenbus.c tests/lib/fake-store.c tests/lib/fake-xen.c tests/lib/fake-xen.h
tests_lib_xen_xenbus_LDADD = libbroker.la libvbd.la
check_PROGRAMS += tests/lib/xen-xl-dm
tests_lib_xen_xl_dm_SOURCES = src/main-xl-dm.c tests/lib/fake-store.c tests/lib/fake-xen.c tests/lib/fake-xen.h
tests_lib_xen_xl_dm_LDADD = libbroker.la libvbd.la
# One mirror alone, with a guest in the same process: what the tests of the mirror run.
check_PROGRAMS += tests/lib/mirror-try
tests_lib_mirror_try_SOURCES = tests/lib/mirror-try.c
tests_lib_mirror_try_LDADD = libmirror.la libdisk.la
# Marks a second, on a directory.
check_PROGRAMS += tests/lib/persist-try
tests_lib_persist_try_SOURCES = tests/lib/persist-try.c
tests_lib_persist_try_LDADD = libmirror.la
# A disk with a write cache, that loses its power.
check_PROGRAMS += tests/lib/volatile-disk
tests_lib_volatile_disk_SOURCES = tests/lib/volatile-disk.c
tests_lib_volatile_disk_LDADD = libnbdsrv.la
# From a TCP port to a unix socket, for an emulated machine.
check_PROGRAMS += tests/lib/relay
tests_lib_relay_SOURCES = tests/lib/relay.c
tests_lib_relay_LDADD = libbase.la
# Kills a command at its n-th change of a file system.
check_PROGRAMS += tests/lib/crash
tests_lib_crash_SOURCES = tests/lib/crash.c
# A carrier, opened by hand.
check_PROGRAMS += tests/lib/carrier-try
tests_lib_carrier_try_SOURCES = tests/lib/carrier-try.c
tests_lib_carrier_try_LDADD = libmigrate.la
# Shows a move, for tests on a terminal.
check_PROGRAMS += tests/lib/progress-try
tests_lib_progress_try_SOURCES = tests/lib/progress-try.c
tests_lib_progress_try_LDADD = libview.la
EXTRA_DIST += tests/lib/terminal.py
# What a ring takes, beside a socket; run by hand (tests/bench/README).
check_PROGRAMS += tests/bench/ring-bench
tests_bench_ring_bench_SOURCES = tests/bench/ring-bench.c tests/lib/blk-front.c tests/lib/blk-front.h tests/lib/fake-xen.c tests/lib/fake-xen.h
tests_bench_ring_bench_LDADD = libvbd.la libnbdsrv.la libdisk.la
