noinst_LTLIBRARIES += libnbdsrv.la
libnbdsrv_la_SOURCES = \
	src/nbdsrv/conn.c src/nbdsrv/conn.h \
	src/nbdsrv/handshake.c \
	src/nbdsrv/listen.c src/nbdsrv/nbdsrv.h \
	src/nbdsrv/context.c \
	src/nbdsrv/link.c src/nbdsrv/link.h \
	src/nbdsrv/receive.c \
	src/nbdsrv/reply.c \
	src/nbdsrv/stream.c src/nbdsrv/stream.h \
	src/nbdsrv/tls.h \
	src/nbdsrv/transmit.c \
	src/nbdsrv/wire.h \
	src/nbdsrv/wire-build.c src/nbdsrv/wire-build.h \
	src/nbdsrv/wire-parse.c src/nbdsrv/wire-parse.h \
	src/nbdsrv/wire-xsxm.c src/nbdsrv/wire-xsxm.h
libnbdsrv_la_CFLAGS = $(AM_CFLAGS) $(GNUTLS_CFLAGS)
libnbdsrv_la_LIBADD = libblock.la $(GNUTLS_LIBS)
if HAVE_GNUTLS
libnbdsrv_la_SOURCES += src/nbdsrv/tls.c src/nbdsrv/tls-keys.c
else
libnbdsrv_la_SOURCES += src/nbdsrv/tls-none.c
endif
EXTRA_DIST += src/nbdsrv/README
