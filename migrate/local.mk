noinst_LTLIBRARIES += libmigrate.la
libmigrate_la_SOURCES = \
	migrate/carrier-exec.c \
	migrate/carrier.c migrate/carrier.h
libmigrate_la_LIBADD = libview.la libjson.la
EXTRA_DIST += migrate/README
include $(srcdir)/migrate/view.mk
