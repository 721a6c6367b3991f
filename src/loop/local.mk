noinst_LTLIBRARIES += libloop.la
libloop_la_SOURCES = \
	src/loop/loop.c src/loop/loop.h \
	src/loop/offload.c src/loop/offload.h src/loop/uv-loop.h
libloop_la_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS)
libloop_la_LIBADD = libbase.la $(UV_LIBS)
EXTRA_DIST += src/loop/README
