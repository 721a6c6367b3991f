UNIT_TESTS += tests/unit/test-nbd-parse tests/unit/test-nbdsrv
tests_unit_test_nbd_parse_SOURCES = tests/unit/test-nbd-parse.c
tests_unit_test_nbd_parse_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_nbd_parse_LDADD = libnbdsrv.la $(UNIT_LIBS)
tests_unit_test_nbdsrv_SOURCES = tests/unit/test-nbdsrv.c tests/lib/memory-layer.c tests/lib/memory-layer.h
tests_unit_test_nbdsrv_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_nbdsrv_LDADD = libnbdsrv.la $(UNIT_LIBS)
