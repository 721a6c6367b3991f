# What is seen of a move, and how it is shown. Apart from those who make it, who are not needed to look at it.
noinst_LTLIBRARIES += libview.la
libview_la_SOURCES = migrate/eta.c migrate/eta.h migrate/view.c migrate/view.h
libview_la_LIBADD = libjson.la
