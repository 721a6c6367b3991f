noinst_LTLIBRARIES += libmigrate.la
libmigrate_la_SOURCES = migrate/carrier.c migrate/carrier.h migrate/carrier-exec.c
libmigrate_la_LIBADD = libjson.la
EXTRA_DIST += migrate/README
