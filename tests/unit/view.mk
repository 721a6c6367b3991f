UNIT_TESTS += tests/unit/test-view
tests_unit_test_view_SOURCES = tests/unit/test-view.c
tests_unit_test_view_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_view_LDADD = libview.la $(UNIT_LIBS)
UNIT_TESTS += tests/unit/test-history
tests_unit_test_history_SOURCES = tests/unit/test-history.c
tests_unit_test_history_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_history_LDADD = libview.la $(UNIT_LIBS)
