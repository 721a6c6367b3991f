# cbt
UNIT_TESTS += tests/unit/test-cbt-log tests/unit/test-cbt-moved tests/unit/test-cbt-layer
tests_unit_test_cbt_moved_SOURCES = tests/unit/test-cbt-moved.c
tests_unit_test_cbt_moved_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_cbt_moved_LDADD = libcbtlog.la $(UNIT_LIBS)
tests_unit_test_cbt_log_SOURCES = tests/unit/test-cbt-log.c
tests_unit_test_cbt_log_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_cbt_log_LDADD = libcbtlog.la $(UNIT_LIBS)
tests_unit_test_cbt_layer_SOURCES = tests/unit/test-cbt-layer.c
tests_unit_test_cbt_layer_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_cbt_layer_LDADD = libcbt.la $(UNIT_LIBS)
