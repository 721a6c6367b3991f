UNIT_TESTS += \
	tests/unit/test-child \
	tests/unit/test-client \
	tests/unit/test-coalesce \
	tests/unit/test-decode-vectors \
	tests/unit/test-meta \
	tests/unit/test-mount-table \
	tests/unit/test-nfs-options \
	tests/unit/test-uri
EXTRA_DIST += tests/unit/decode-vectors.json
tests_unit_test_client_SOURCES = tests/unit/test-client.c
tests_unit_test_client_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_client_LDADD = libclient.la $(UNIT_LIBS)
tests_unit_test_decode_vectors_SOURCES = tests/unit/test-decode-vectors.c
tests_unit_test_decode_vectors_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_decode_vectors_LDADD = libplugins.la $(UNIT_LIBS)
tests_unit_test_coalesce_SOURCES = tests/unit/test-coalesce.c
tests_unit_test_coalesce_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_coalesce_LDADD = libplugins.la $(UNIT_LIBS)
tests_unit_test_meta_SOURCES = tests/unit/test-meta.c
tests_unit_test_meta_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_meta_LDADD = libplugins.la $(UNIT_LIBS)
tests_unit_test_uri_SOURCES = tests/unit/test-uri.c
tests_unit_test_uri_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_uri_LDADD = libplugins.la $(UNIT_LIBS)
tests_unit_test_child_SOURCES = tests/unit/test-child.c
tests_unit_test_child_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_child_LDADD = libplugins.la $(UNIT_LIBS)
tests_unit_test_mount_table_SOURCES = tests/unit/test-mount-table.c
tests_unit_test_mount_table_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_mount_table_LDADD = libplugins.la $(UNIT_LIBS)
tests_unit_test_nfs_options_SOURCES = tests/unit/test-nfs-options.c
tests_unit_test_nfs_options_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_nfs_options_LDADD = libplugins.la $(UNIT_LIBS)
