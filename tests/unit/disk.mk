# disk
UNIT_TESTS += tests/unit/test-disk-order tests/unit/test-disk-race
tests_unit_test_disk_order_SOURCES = tests/unit/test-disk-order.c
tests_unit_test_disk_order_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_order_LDADD = libdisk.la $(UNIT_LIBS)

tests_unit_test_disk_race_SOURCES = tests/unit/test-disk-race.c tests/unit/disk-rig.c tests/unit/disk-rig.h
tests_unit_test_disk_race_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_race_LDADD = libdisk.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test-disk-model
tests_unit_test_disk_model_SOURCES = tests/unit/test-disk-model.c tests/unit/disk-rig.c tests/unit/disk-rig.h \
	tests/lib/fake-nbd.c tests/lib/fake-nbd.h
tests_unit_test_disk_model_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_model_LDADD = libdisk.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test-disk-open
tests_unit_test_disk_open_SOURCES = tests/unit/test-disk-open.c tests/unit/disk-rig.c tests/unit/disk-rig.h
tests_unit_test_disk_open_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_open_LDADD = libdisk.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test-disk-cache
tests_unit_test_disk_cache_SOURCES = tests/unit/test-disk-cache.c tests/unit/disk-rig.c tests/unit/disk-rig.h
tests_unit_test_disk_cache_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_cache_LDADD = libdisk.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test-disk-nbd
tests_unit_test_disk_nbd_SOURCES = tests/unit/test-disk-nbd.c tests/unit/nbd-disk-rig.c tests/unit/nbd-disk-rig.h \
	tests/unit/disk-rig.c tests/unit/disk-rig.h tests/lib/fake-nbd.c tests/lib/fake-nbd.h
tests_unit_test_disk_nbd_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_nbd_LDADD = libdisk.la $(UNIT_LIBS)
UNIT_TESTS += tests/unit/test-disk-nbd-loss
tests_unit_test_disk_nbd_loss_SOURCES = tests/unit/test-disk-nbd-loss.c tests/unit/nbd-disk-rig.c tests/unit/nbd-disk-rig.h \
	tests/unit/disk-rig.c tests/unit/disk-rig.h tests/lib/fake-nbd.c tests/lib/fake-nbd.h
tests_unit_test_disk_nbd_loss_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_nbd_loss_LDADD = libdisk.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test-disk-qcow2
tests_unit_test_disk_qcow2_SOURCES = tests/unit/test-disk-qcow2.c tests/unit/disk-rig.c tests/unit/disk-rig.h \
	tests/lib/fake-nbd.c tests/lib/fake-nbd.h
tests_unit_test_disk_qcow2_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_qcow2_LDADD = libdisk.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test-disk-qcow2-lock
tests_unit_test_disk_qcow2_lock_SOURCES = tests/unit/test-disk-qcow2-lock.c
tests_unit_test_disk_qcow2_lock_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_qcow2_lock_LDADD = libdisk.la $(UNIT_LIBS)

UNIT_TESTS += tests/unit/test-disk-lease
tests_unit_test_disk_lease_SOURCES = tests/unit/test-disk-lease.c tests/unit/disk-rig.c tests/unit/disk-rig.h
tests_unit_test_disk_lease_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_disk_lease_LDADD = libdisk.la $(UNIT_LIBS)
