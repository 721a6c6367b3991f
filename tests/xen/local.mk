# Two real Xen hosts, emulated (README): what runs in their machines; ./check.sh --xen plays it. Not with the sanitizers.
check_PROGRAMS += tests/xen/wire tests/xen/worker
tests_xen_wire_SOURCES = tests/xen/wire.c
tests_xen_wire_CFLAGS = $(WARN_CFLAGS)
tests_xen_wire_LDFLAGS =
tests_xen_worker_SOURCES = tests/xen/worker.c
tests_xen_worker_CFLAGS = $(WARN_CFLAGS)
tests_xen_worker_LDFLAGS =
EXTRA_DIST += tests/xen/README tests/xen/image.py tests/xen/bed.py tests/xen/dom0-init tests/xen/dom0-start tests/xen/guest-init tests/xen/in-guest \
	tests/xen/test-xen-life.py tests/xen/test-xen-migrate.py tests/xen/test-xen-smoke.py \
	tests/xen/test-xen-unplug.py
