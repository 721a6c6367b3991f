UNIT_TESTS += tests/unit/test-loop tests/unit/test-layer
tests_unit_test_loop_SOURCES = tests/unit/test-loop.c
tests_unit_test_loop_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_loop_LDADD = libloop.la $(UNIT_LIBS)
tests_unit_test_layer_SOURCES = tests/unit/test-layer.c
tests_unit_test_layer_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_layer_LDADD = libblock.la $(UNIT_LIBS)
