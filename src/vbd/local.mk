# The room, and what stands for Xen: a program links one of the latter, tests their own.
noinst_LTLIBRARIES += libvbd.la libxen.la
libvbd_la_SOURCES = \
	src/vbd/lane.c src/vbd/lane.h \
	src/vbd/ring.c src/vbd/ring.h \
	src/vbd/vbd.c src/vbd/vbd.h \
	src/vbd/xen.h \
	src/vbd/xenbus.c src/vbd/xenbus.h \
	src/vbd/xenbus-keys.c src/vbd/xenbus-keys.h
libvbd_la_LIBADD = libblock.la
libxen_la_CFLAGS = $(AM_CFLAGS) $(XEN_CFLAGS)
libxen_la_LIBADD = $(XEN_LIBS)
if HAVE_XEN
libxen_la_SOURCES = src/vbd/xen-lib.c
else
libxen_la_SOURCES = src/vbd/xen-none.c
endif
EXTRA_DIST += src/vbd/README src/vbd/THEORY
