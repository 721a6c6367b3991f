noinst_LTLIBRARIES += libcontrol.la libclient.la
libcontrol_la_SOURCES = \
	src/control/dispatch.c src/control/dispatch-mirror.c src/control/dispatch.h src/control/dispatch-private.h \
	src/control/report.c src/control/report.h \
	src/control/server.c src/control/server.h
libcontrol_la_LIBADD = libvdi.la
libclient_la_SOURCES = src/control/client.c src/control/client.h
libclient_la_LIBADD = libjson.la
EXTRA_DIST += src/PROTOCOL.control src/control/README
