UNIT_TESTS += \
	tests/unit/test-bitmap \
	tests/unit/test-bytes \
	tests/unit/test-error \
	tests/unit/test-histogram \
	tests/unit/test-iobuf \
	tests/unit/test-jsonspec \
	tests/unit/test-jsonspec-scan \
	tests/unit/test-jsonspec-wire \
	tests/unit/test-lease \
	tests/unit/test-log-limit \
	tests/unit/test-printable \
	tests/unit/test-range \
	tests/unit/test-size
tests_unit_test_bitmap_SOURCES = tests/unit/test-bitmap.c
tests_unit_test_bitmap_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_bitmap_LDADD = libbase.la $(UNIT_LIBS)
tests_unit_test_histogram_SOURCES = tests/unit/test-histogram.c
tests_unit_test_histogram_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_histogram_LDADD = libbase.la $(UNIT_LIBS)
tests_unit_test_printable_SOURCES = tests/unit/test-printable.c
tests_unit_test_printable_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_printable_LDADD = libbase.la $(UNIT_LIBS)
tests_unit_test_size_SOURCES = tests/unit/test-size.c
tests_unit_test_size_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_size_LDADD = libbase.la $(UNIT_LIBS)
tests_unit_test_bytes_SOURCES = tests/unit/test-bytes.c
tests_unit_test_bytes_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_bytes_LDADD = libbase.la $(UNIT_LIBS)
tests_unit_test_jsonspec_SOURCES = tests/unit/test-jsonspec.c
tests_unit_test_jsonspec_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_jsonspec_LDADD = libjson.la libbase.la $(UNIT_LIBS)
tests_unit_test_range_SOURCES = tests/unit/test-range.c
tests_unit_test_range_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_range_LDADD = libbase.la $(UNIT_LIBS)
tests_unit_test_jsonspec_scan_SOURCES = tests/unit/test-jsonspec-scan.c
tests_unit_test_jsonspec_scan_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_jsonspec_scan_LDADD = libjson.la libbase.la $(UNIT_LIBS)
tests_unit_test_jsonspec_wire_SOURCES = tests/unit/test-jsonspec-wire.c
tests_unit_test_jsonspec_wire_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_jsonspec_wire_LDADD = libjson.la libbase.la $(UNIT_LIBS)
tests_unit_test_error_SOURCES = tests/unit/test-error.c
tests_unit_test_error_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_error_LDADD = libbase.la $(UNIT_LIBS)
tests_unit_test_iobuf_SOURCES = tests/unit/test-iobuf.c
tests_unit_test_iobuf_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_iobuf_LDADD = libbase.la $(UNIT_LIBS)
tests_unit_test_log_limit_SOURCES = tests/unit/test-log-limit.c
tests_unit_test_log_limit_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_log_limit_LDADD = libbase.la $(UNIT_LIBS)
UNIT_TESTS += tests/unit/test-slots
tests_unit_test_slots_SOURCES = tests/unit/test-slots.c
tests_unit_test_slots_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_slots_LDADD = libbase.la $(UNIT_LIBS)
UNIT_TESTS += tests/unit/test-decision
tests_unit_test_decision_SOURCES = tests/unit/test-decision.c
tests_unit_test_decision_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_decision_LDADD = libjson.la libbase.la $(UNIT_LIBS)
tests_unit_test_lease_SOURCES = tests/unit/test-lease.c
tests_unit_test_lease_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_lease_LDADD = libbase.la $(UNIT_LIBS)
