# A target with the driver is a test of its own; one file each in tests/fuzz/corpus/<target>/ for what it must survive.
FUZZ_TESTS = tests/fuzz/fuzz-jsonspec
tests_fuzz_fuzz_jsonspec_SOURCES = tests/fuzz/fuzz-jsonspec.c tests/fuzz/driver.c
tests_fuzz_fuzz_jsonspec_LDADD = libjson.la libbase.la
check_PROGRAMS += $(FUZZ_TESTS)
TESTS += $(FUZZ_TESTS)
EXTRA_DIST += tests/fuzz/corpus
CLEANFILES += *.crash
