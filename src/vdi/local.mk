noinst_LTLIBRARIES += libvdi.la
libvdi_la_SOURCES = \
	src/vdi/domains.c src/vdi/domains.h \
	src/vdi/handover.c \
	src/vdi/operation.c \
	src/vdi/vdi.c src/vdi/vdi.h src/vdi/vdi-private.h
libvdi_la_LIBADD = libmirror.la libdisk.la libnbdsrv.la libjson.la
