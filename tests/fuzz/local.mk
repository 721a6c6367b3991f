# A target with the driver is a test of its own; one file each in tests/fuzz/corpus/<target>/ for what it must survive.
FUZZ_TESTS = tests/fuzz/fuzz-jsonspec
tests_fuzz_fuzz_jsonspec_SOURCES = tests/fuzz/fuzz-jsonspec.c tests/fuzz/driver.c
tests_fuzz_fuzz_jsonspec_LDADD = libjson.la libbase.la
FUZZ_TESTS += tests/fuzz/fuzz-nbd-parse tests/fuzz/fuzz-nbdsrv
tests_fuzz_fuzz_nbd_parse_SOURCES = tests/fuzz/fuzz-nbd-parse.c tests/fuzz/driver.c
tests_fuzz_fuzz_nbd_parse_LDADD = libnbdsrv.la
tests_fuzz_fuzz_nbdsrv_SOURCES = tests/fuzz/fuzz-nbdsrv.c tests/fuzz/driver.c tests/lib/memory-layer.c tests/lib/memory-layer.h
tests_fuzz_fuzz_nbdsrv_LDADD = libnbdsrv.la
FUZZ_TESTS += tests/fuzz/fuzz-persist-header
tests_fuzz_fuzz_persist_header_SOURCES = tests/fuzz/fuzz-persist-header.c tests/fuzz/driver.c
tests_fuzz_fuzz_persist_header_LDADD = libmirror.la
check_PROGRAMS += $(FUZZ_TESTS)
TESTS += $(FUZZ_TESTS)
EXTRA_DIST += tests/fuzz/corpus
CLEANFILES += *.crash
