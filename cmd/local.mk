sbin_PROGRAMS = sxm
sxm_SOURCES = \
	cmd/cmd-doctor.c \
	cmd/cmd-fsck.c \
	cmd/cmd-snapshot.c \
	cmd/cmd.h \
	cmd/find.c cmd/find.h \
	cmd/main-sxm.c
sxm_LDADD = libplugins.la libmigrate.la
if HAVE_POD2MAN
man8_MANS += cmd/sxm.8
endif
EXTRA_DIST += cmd/README cmd/sxm.pod
CLEANFILES += cmd/sxm.8
