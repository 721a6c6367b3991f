noinst_LTLIBRARIES += libbase.la libjson.la
libbase_la_SOURCES = \
	src/base/backend-kind.c src/base/backend-kind.h \
	src/base/beside.c src/base/beside.h \
	src/base/bitmap.c src/base/bitmap.h \
	src/base/bytes.c src/base/bytes.h \
	src/base/cleanup.h src/base/compiler.h \
	src/base/error.c src/base/error.h \
	src/base/guid.h \
	src/base/histogram.h \
	src/base/host-id.c src/base/host-id.h \
	src/base/iobuf.c src/base/iobuf.h \
	src/base/lease.c src/base/lease.h \
	src/base/log.c src/base/log.h \
	src/base/printable.c src/base/printable.h \
	src/base/proc.c src/base/proc.h \
	src/base/range.h \
	src/base/size.c src/base/size.h \
	src/base/slots.c src/base/slots.h \
	src/base/tenure.c src/base/tenure.h src/base/tenure-plant.h \
	src/base/uri.c src/base/uri.h
# Apart, so that a program without JSON does not link json-c.
libjson_la_SOURCES = \
	src/base/decision.c src/base/decision.h \
	src/base/jsonspec.c src/base/jsonspec.h src/base/jsonspec-private.h \
	src/base/jsonspec-decode.c \
	src/base/jsonspec-encode.c \
	src/base/jsonspec-scan.c src/base/jsonspec-scan.h
libjson_la_CFLAGS = $(AM_CFLAGS) $(JSONC_CFLAGS)
libjson_la_LIBADD = libbase.la $(JSONC_LIBS)
EXTRA_DIST += src/base/README
