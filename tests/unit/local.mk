# One cmocka program per pure file: UNIT_TESTS += tests/unit/test-X, with its sources and LDADD.
UNIT_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
UNIT_LIBS = $(CMOCKA_LIBS)
UNIT_TESTS =
include $(srcdir)/tests/unit/base.mk
include $(srcdir)/tests/unit/loop.mk
include $(srcdir)/tests/unit/qcow2.mk
include $(srcdir)/tests/unit/disk.mk
include $(srcdir)/tests/unit/cbt.mk
include $(srcdir)/tests/unit/overlay.mk
include $(srcdir)/tests/unit/nbdsrv.mk
include $(srcdir)/tests/unit/vbd.mk
include $(srcdir)/tests/unit/mirror.mk
include $(srcdir)/tests/unit/vdi.mk
include $(srcdir)/tests/unit/broker.mk
include $(srcdir)/tests/unit/plugins.mk
include $(srcdir)/tests/unit/carrier.mk
include $(srcdir)/tests/unit/view.mk
include $(srcdir)/tests/unit/migrate.mk
check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
