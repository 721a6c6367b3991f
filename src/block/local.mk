noinst_LTLIBRARIES += libblock.la
libblock_la_SOURCES = \
	src/block/extents.c src/block/extents.h \
	src/block/gate.c src/block/gate.h \
	src/block/layer.c src/block/layer.h \
	src/block/req.c src/block/req.h
libblock_la_LIBADD = libloop.la
EXTRA_DIST += src/block/README
