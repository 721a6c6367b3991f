# Two real Xen hosts, emulated (README): what runs in their machines; ./check.sh --xen plays it. Not with the sanitizers.
check_PROGRAMS += tests/xen/wire tests/xen/worker tests/xen/pulse tests/xen/pledge tests/xen/kexec
tests_xen_wire_SOURCES = tests/xen/wire.c
tests_xen_wire_CFLAGS = $(WARN_CFLAGS)
tests_xen_wire_LDFLAGS =
tests_xen_worker_SOURCES = tests/xen/worker.c
tests_xen_worker_CFLAGS = $(WARN_CFLAGS)
tests_xen_worker_LDFLAGS =
tests_xen_pulse_SOURCES = tests/xen/pulse.c
tests_xen_pulse_CFLAGS = $(WARN_CFLAGS)
tests_xen_pulse_LDFLAGS =
tests_xen_pledge_SOURCES = tests/xen/pledge.c
tests_xen_pledge_CFLAGS = $(WARN_CFLAGS)
tests_xen_pledge_LDFLAGS =
tests_xen_kexec_SOURCES = tests/xen/kexec.c
tests_xen_kexec_CFLAGS = $(WARN_CFLAGS)
tests_xen_kexec_LDFLAGS =
EXTRA_DIST += tests/xen/README tests/xen/image.py tests/xen/bed.py tests/xen/moving.py tests/xen/plugged.py tests/xen/xl_guest.py \
	tests/xen/dom0-init tests/xen/dom0-start tests/xen/guest-init tests/xen/in-guest tests/xen/bench-pause.py \
	tests/xen/test-xen-again.py tests/xen/test-xen-broker.py tests/xen/test-xen-hostile.py tests/xen/test-xen-kexec.py \
	tests/xen/test-xen-life.py tests/xen/test-xen-migrate.py tests/xen/test-xen-power.py tests/xen/test-xen-smoke.py \
	tests/xen/test-xen-storm.py tests/xen/test-xen-unplug.py tests/xen/test-xen-xl.py \
	tests/xen/test-xen-xl-migrate.py
if HAVE_XEN
check_PROGRAMS += tests/xen/hostile tests/xen/reset tests/xen/tables
tests_xen_hostile_SOURCES = tests/xen/hostile.c tests/lib/blk-front.c tests/lib/blk-front.h
tests_xen_hostile_CFLAGS = $(WARN_CFLAGS) $(XEN_CFLAGS) -D__XEN_INTERFACE_VERSION__=__XEN_LATEST_INTERFACE_VERSION__
tests_xen_hostile_LDFLAGS =
tests_xen_hostile_LDADD = $(XEN_LIBS)
tests_xen_reset_SOURCES = tests/xen/reset.c
tests_xen_reset_CFLAGS = $(WARN_CFLAGS) $(XEN_CFLAGS)
tests_xen_reset_LDFLAGS =
tests_xen_reset_LDADD = $(XEN_LIBS) -lxenctrl # comes with them
tests_xen_tables_SOURCES = tests/xen/tables.c
tests_xen_tables_CFLAGS = $(WARN_CFLAGS) $(XEN_CFLAGS)
tests_xen_tables_LDFLAGS =
tests_xen_tables_LDADD = -lxenforeignmemory # as well
endif
