noinst_LTLIBRARIES += libblock.la
libblock_la_SOURCES = \
	src/block/digest.c src/block/digest.h \
	src/block/extents.c src/block/extents.h \
	src/block/gate.c src/block/gate.h \
	src/block/layer.c src/block/layer.h \
	src/block/point.c src/block/point.h \
	src/block/req.c src/block/req.h \
	src/block/watch.c src/block/watch.h
libblock_la_CFLAGS = $(AM_CFLAGS) $(XXHASH_CFLAGS)
libblock_la_LIBADD = libloop.la $(XXHASH_LIBS)
EXTRA_DIST += src/block/README
