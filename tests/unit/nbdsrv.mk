UNIT_TESTS += tests/unit/test-nbd-parse tests/unit/test-nbdsrv tests/unit/test-nbdsrv-ends \
	tests/unit/test-nbdsrv-links tests/unit/test-nbdsrv-passed tests/unit/test-nbdsrv-tls
tests_unit_test_nbd_parse_SOURCES = tests/unit/test-nbd-parse.c
tests_unit_test_nbd_parse_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_nbd_parse_LDADD = libnbdsrv.la $(UNIT_LIBS)
NBD_TALK = tests/lib/nbd-talk.c tests/lib/nbd-talk.h tests/lib/memory-layer.c tests/lib/memory-layer.h
tests_unit_test_nbdsrv_SOURCES = tests/unit/test-nbdsrv.c $(NBD_TALK)
tests_unit_test_nbdsrv_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_nbdsrv_LDADD = libnbdsrv.la $(UNIT_LIBS)
tests_unit_test_nbdsrv_ends_SOURCES = tests/unit/test-nbdsrv-ends.c $(NBD_TALK)
tests_unit_test_nbdsrv_ends_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_nbdsrv_ends_LDADD = libnbdsrv.la $(UNIT_LIBS)
tests_unit_test_nbdsrv_links_SOURCES = tests/unit/test-nbdsrv-links.c $(NBD_TALK)
tests_unit_test_nbdsrv_links_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_nbdsrv_links_LDADD = libnbdsrv.la $(UNIT_LIBS)
tests_unit_test_nbdsrv_passed_SOURCES = tests/unit/test-nbdsrv-passed.c $(NBD_TALK)
tests_unit_test_nbdsrv_passed_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_nbdsrv_passed_LDADD = libnbdsrv.la $(UNIT_LIBS)
tests_unit_test_nbdsrv_tls_SOURCES = tests/unit/test-nbdsrv-tls.c $(NBD_TALK)
tests_unit_test_nbdsrv_tls_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_nbdsrv_tls_LDADD = libnbdsrv.la $(UNIT_LIBS)
if HAVE_GNUTLS
UNIT_TESTS += tests/unit/test-nbdsrv-tls-held
tests_unit_test_nbdsrv_tls_held_SOURCES = tests/unit/test-nbdsrv-tls-held.c $(NBD_TALK)
tests_unit_test_nbdsrv_tls_held_CFLAGS = $(UNIT_CFLAGS) $(GNUTLS_CFLAGS)
tests_unit_test_nbdsrv_tls_held_LDADD = libnbdsrv.la $(UNIT_LIBS) $(GNUTLS_LIBS)
endif
