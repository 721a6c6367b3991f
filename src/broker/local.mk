# The room, and what stands for xenstore: a program links one of the latter, tests their own.
noinst_LTLIBRARIES += libbroker.la libstore.la
libbroker_la_SOURCES = \
	src/broker/asking.c src/broker/asking.h \
	src/broker/broker.c src/broker/broker.h src/broker/broker-plan.c src/broker/broker-private.h \
	src/broker/driver.c src/broker/driver.h src/broker/driver-ask.c src/broker/driver-private.h src/broker/driver-verb.c \
	src/broker/facts.c src/broker/facts.h \
	src/broker/dm-qmp.c src/broker/dm-qmp.h \
	src/broker/running.c src/broker/running.h \
	src/broker/store.h \
	src/broker/watching.c
libbroker_la_LIBADD = libloop.la libjson.la
libstore_la_CFLAGS = $(AM_CFLAGS) $(XEN_CFLAGS)
libstore_la_LIBADD = $(XEN_LIBS)
if HAVE_XEN
libstore_la_SOURCES = src/broker/store-lib.c
else
libstore_la_SOURCES = src/broker/store-none.c
endif
EXTRA_DIST += src/broker/README
sxmlibexec_PROGRAMS += sxm-xenbus
sxm_xenbus_SOURCES = src/main-xenbus.c
sxm_xenbus_LDADD = libbroker.la libstore.la
sxmlibexec_PROGRAMS += sxm-xl-dm
sxm_xl_dm_SOURCES = src/main-xl-dm.c
sxm_xl_dm_LDADD = libstore.la libbroker.la
if HAVE_POD2MAN
man8_MANS += src/sxm-xenbus.8
endif
EXTRA_DIST += src/sxm-xenbus.pod src/sxm-xenbus.service.in
CLEANFILES += src/sxm-xenbus.8 src/sxm-xenbus.service
