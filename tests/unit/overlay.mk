# overlay
UNIT_TESTS += tests/unit/test-overlay
tests_unit_test_overlay_SOURCES = tests/unit/test-overlay.c tests/lib/memory-layer.c tests/lib/memory-layer.h
tests_unit_test_overlay_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_overlay_LDADD = liboverlay.la $(UNIT_LIBS)
