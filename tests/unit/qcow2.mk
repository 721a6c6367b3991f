# qcow2
UNIT_TESTS += tests/unit/test-qcow2
tests_unit_test_qcow2_SOURCES = tests/unit/test-qcow2.c
tests_unit_test_qcow2_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_qcow2_LDADD = libqcow2.la $(UNIT_LIBS)
UNIT_TESTS += tests/unit/test-qcow2-stream
tests_unit_test_qcow2_stream_SOURCES = tests/unit/test-qcow2-stream.c
tests_unit_test_qcow2_stream_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_qcow2_stream_LDADD = libqcow2.la $(UNIT_LIBS)
