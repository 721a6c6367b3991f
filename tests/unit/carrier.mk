UNIT_TESTS += tests/unit/test-known-hosts tests/unit/test-ssh-config
tests_unit_test_known_hosts_SOURCES = tests/unit/test-known-hosts.c
tests_unit_test_known_hosts_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_known_hosts_LDADD = libmigrate.la $(UNIT_LIBS)
tests_unit_test_ssh_config_SOURCES = tests/unit/test-ssh-config.c
tests_unit_test_ssh_config_CFLAGS = $(UNIT_CFLAGS)
tests_unit_test_ssh_config_LDADD = libmigrate.la $(UNIT_LIBS)
