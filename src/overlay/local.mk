# The files, which the verbs know, too; and the layer that uses them.
noinst_LTLIBRARIES += liboverlayfile.la liboverlay.la
liboverlayfile_la_SOURCES = src/overlay/overlay-file.c src/overlay/overlay-file.h
liboverlayfile_la_LIBADD = libbase.la
liboverlay_la_SOURCES = src/overlay/overlay-layer.c src/overlay/overlay-layer.h src/overlay/overlay-merge.c \
	src/overlay/overlay-private.h
liboverlay_la_LIBADD = liboverlayfile.la libblock.la
EXTRA_DIST += src/overlay/README
