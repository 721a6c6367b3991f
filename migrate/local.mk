noinst_LTLIBRARIES += libmigrate.la
libmigrate_la_SOURCES = \
	migrate/carrier-exec.c \
	migrate/carrier.c migrate/carrier.h \
	migrate/peer.c migrate/peer.h \
	migrate/pump.c migrate/pump.h \
	migrate/relay.c migrate/relay.h \
	migrate/tunnel.c migrate/tunnel.h
libmigrate_la_LIBADD = libview.la libjson.la
EXTRA_DIST += migrate/README migrate/PROTOCOL.relay
include $(srcdir)/migrate/view.mk
include $(srcdir)/migrate/carrier.mk
