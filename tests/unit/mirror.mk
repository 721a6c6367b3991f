# mirror
UNIT_TESTS += tests/unit/test-remote-uri tests/unit/test-remote-nbd
tests_unit_test_remote_uri_SOURCES = tests/unit/test-remote-uri.c
tests_unit_test_remote_uri_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_remote_uri_LDADD = libmirror.la $(UNIT_LIBS)
tests_unit_test_remote_nbd_SOURCES = tests/unit/test-remote-nbd.c tests/lib/fake-nbd.c tests/lib/fake-nbd.h
tests_unit_test_remote_nbd_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_remote_nbd_LDADD = libmirror.la $(UNIT_LIBS) -lpthread
UNIT_TESTS += tests/unit/test-mirror-layer
tests_unit_test_mirror_layer_SOURCES = tests/unit/test-mirror-layer.c tests/lib/fake-nbd.c tests/lib/fake-nbd.h
tests_unit_test_mirror_layer_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_mirror_layer_LDADD = libmirror.la $(UNIT_LIBS) -lpthread
