# What is seen of a move, and how it is shown. Apart from those who make it, who are not needed to look at it.
noinst_LTLIBRARIES += libview.la
libview_la_SOURCES = \
	migrate/bar.c migrate/bar.h \
	migrate/chart.c migrate/chart.h \
	migrate/columns.c migrate/columns.h \
	migrate/deadline.c migrate/deadline.h \
	migrate/eta.c migrate/eta.h \
	migrate/history.c migrate/history.h \
	migrate/progress.c migrate/progress.h \
	migrate/picture.c migrate/picture.h \
	migrate/screen.c migrate/screen.h \
	migrate/view-json.c migrate/view-json.h \
	migrate/view.c migrate/view.h
libview_la_LIBADD = libjson.la
