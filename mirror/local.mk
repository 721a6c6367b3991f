# The pure half, which knows only base/: what the simulation links.
noinst_LTLIBRARIES += libcore.la libcommit.la libmirror.la
libcore_la_SOURCES = \
	mirror/claim.c mirror/claim.h \
	mirror/core.c mirror/core.h mirror/core-mask.h mirror/core-private.h \
	mirror/core-copy.c mirror/core-debt.c mirror/core-far.c mirror/core-limit.c mirror/core-reading.c mirror/core-write.c \
	mirror/core-map.c mirror/core-map.h mirror/core-status.c mirror/core-sync.c \
	mirror/core-marks.c mirror/core-shadow.c \
	mirror/least.h mirror/pace.c mirror/pace.h
libcore_la_LIBADD = libbase.la
libcommit_la_SOURCES = mirror/commit.c mirror/commit-far.c mirror/commit-source.c mirror/commit.h mirror/commit-private.h
libcommit_la_LIBADD = libbase.la
libmirror_la_SOURCES = \
	mirror/copy-memory.c mirror/copy-memory.h \
	mirror/mirror-end.c \
	mirror/mirror-layer.c mirror/mirror.h \
	mirror/mirror-link.c mirror/mirror-private.h mirror/mirror-map.c mirror/mirror-sweep.c \
	mirror/persist.c mirror/persist.h \
	mirror/persist-file.c mirror/persist-file.h \
	mirror/persist-header.c mirror/persist-header.h \
	mirror/persist-map.c mirror/persist-map.h \
	mirror/persist-marks.c mirror/persist-marks.h \
	mirror/persist-open.c mirror/persist-private.h \
	mirror/remote-answer.c mirror/remote-ask.c mirror/remote-private.h \
	mirror/remote-connect.c mirror/remote-connect.h \
	mirror/remote-nbd.c mirror/remote.h \
	mirror/remote-probe.c mirror/remote-probe.h \
	mirror/remote-up.c \
	mirror/remote-uri.c mirror/remote-uri.h \
	mirror/verify.c mirror/verify.h \
	mirror/verify-plan.c mirror/verify-plan.h
libmirror_la_CFLAGS = $(AM_CFLAGS) $(NBD_CFLAGS)
libmirror_la_LIBADD = libcore.la libcommit.la libblock.la $(NBD_LIBS)
EXTRA_DIST += mirror/PROTOCOL.x-sxm mirror/README mirror/THEORY
