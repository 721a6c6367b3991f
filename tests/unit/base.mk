UNIT_TESTS += tests/unit/test-bitmap tests/unit/test-size
tests_unit_test_bitmap_SOURCES = tests/unit/test-bitmap.c
tests_unit_test_bitmap_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_bitmap_LDADD = libbase.la $(UNIT_LIBS)
tests_unit_test_size_SOURCES = tests/unit/test-size.c
tests_unit_test_size_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_size_LDADD = libbase.la $(UNIT_LIBS)
