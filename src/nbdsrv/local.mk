noinst_LTLIBRARIES += libnbdsrv.la
libnbdsrv_la_SOURCES = \
	src/nbdsrv/conn.c src/nbdsrv/conn.h \
	src/nbdsrv/handshake.c \
	src/nbdsrv/listen.c src/nbdsrv/nbdsrv.h \
	src/nbdsrv/context.c \
	src/nbdsrv/link.c src/nbdsrv/link.h \
	src/nbdsrv/receive.c \
	src/nbdsrv/reply.c \
	src/nbdsrv/transmit.c \
	src/nbdsrv/wire.h \
	src/nbdsrv/wire-build.c src/nbdsrv/wire-build.h \
	src/nbdsrv/wire-parse.c src/nbdsrv/wire-parse.h \
	src/nbdsrv/wire-xsxm.c src/nbdsrv/wire-xsxm.h
libnbdsrv_la_LIBADD = libblock.la
EXTRA_DIST += src/nbdsrv/README
