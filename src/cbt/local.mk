# The logs as files, which the verbs know, too; and the layer that keeps one.
noinst_LTLIBRARIES += libcbtlog.la libcbt.la
libcbtlog_la_SOURCES = src/cbt/cbt-log.c src/cbt/cbt-log-file.c src/cbt/cbt-log.h \
	src/cbt/cbt-moved.c src/cbt/cbt-moved-file.c src/cbt/cbt-moved.h
libcbtlog_la_LIBADD = libbase.la
libcbt_la_SOURCES = \
	src/cbt/cbt-layer.c src/cbt/cbt-layer.h \
	src/cbt/cbt-live.c src/cbt/cbt-live.h
libcbt_la_LIBADD = libcbtlog.la libblock.la
EXTRA_DIST += src/cbt/README
