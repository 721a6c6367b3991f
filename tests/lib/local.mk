# The guest of the end-to-end tests: writes stamps through NBD, goes on elsewhere, verifies.
check_PROGRAMS += tests/lib/guest
tests_lib_guest_SOURCES = tests/lib/guest.c tests/lib/guest.h tests/lib/guest-verify.c
tests_lib_guest_CFLAGS = $(AM_CFLAGS) $(NBD_CFLAGS)
tests_lib_guest_LDADD = libbase.la $(NBD_LIBS)
EXTRA_DIST += tests/lib/control.py
