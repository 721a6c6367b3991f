# The verbs' binary links neither libnbd, GnuTLS nor libssh2: it starts in a millisecond.
noinst_LTLIBRARIES += libplugins.la
libplugins_la_SOURCES = \
	plugins/data.c plugins/datapath.c plugins/image.c plugins/image.h plugins/lock.c plugins/lock.h \
	plugins/meta.c plugins/meta.h plugins/plugin.c plugins/smapi.h plugins/spawn.c plugins/spawn.h \
	plugins/sr.c plugins/sr.h plugins/sr-filebased.c plugins/types.c plugins/types.h \
	plugins/verb.c plugins/verb.h plugins/volume.c
libplugins_la_CFLAGS = $(AM_CFLAGS) $(UUID_CFLAGS)
libplugins_la_LIBADD = libclient.la $(UUID_LIBS)
sxmlibexec_PROGRAMS += sxm-smapi
sxm_smapi_SOURCES = plugins/main-smapi.c
sxm_smapi_LDADD = libplugins.la
