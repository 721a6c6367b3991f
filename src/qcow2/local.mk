noinst_LTLIBRARIES += libqcow2.la
libqcow2_la_SOURCES = \
	src/qcow2/qcow2-chain.c src/qcow2/qcow2-chain.h \
	src/qcow2/qcow2-header.c src/qcow2/qcow2-header.h \
	src/qcow2/qcow2-stream.c src/qcow2/qcow2-stream.h
libqcow2_la_LIBADD = libbase.la
EXTRA_DIST += src/qcow2/README
