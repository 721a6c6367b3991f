# All of the command but main(), and what stands for xenstore: tests link their own.
sbin_PROGRAMS = sxm
noinst_LTLIBRARIES += libcmd.la libsxmxenstore.la
libcmd_la_SOURCES = \
	cmd/cmd-copy.c \
	cmd/cmd-doctor.c \
	cmd/cmd-epoch.c \
	cmd/cmd-export.c \
	cmd/cmd-fsck.c \
	cmd/cmd-import.c \
	cmd/cmd-ls.c \
	cmd/cmd-migrate.c \
	cmd/cmd-relay.c \
	cmd/cmd-report.c \
	cmd/cmd-serve.c \
	cmd/cmd-snapshot.c \
	cmd/cmd-status.c \
	cmd/cmd-vbd.c \
	cmd/cmd.h \
	cmd/content.c cmd/content.h \
	cmd/find.c cmd/find.h \
	cmd/incoming.c cmd/incoming.h \
	cmd/listing.c cmd/listing.h \
	cmd/live.c cmd/live.h \
	cmd/migrate-options.c cmd/migrate-options.h cmd/migrate-show.c cmd/migrate-show.h \
	cmd/mirrors.c cmd/mirrors.h \
	cmd/moves.c cmd/moves.h \
	cmd/nbd-out.c cmd/nbd-out.h \
	cmd/outgoing.c cmd/outgoing.h \
	cmd/place.c cmd/place.h cmd/place-use.c \
	cmd/plug.c cmd/plug.h \
	cmd/relay-base.c cmd/relay-disk.c cmd/relay-find.c cmd/relay-mark.c cmd/relay-owner.c cmd/relay-verbs.h cmd/relay-vm.c \
	cmd/relay-volume.c cmd/relay-way.c \
	cmd/say.c cmd/say.h \
	cmd/served.c cmd/served.h \
	cmd/signals.c cmd/signals.h \
	cmd/stream-in.c cmd/stream-in.h \
	cmd/stream-progress.c cmd/stream-progress.h \
	cmd/survivor.c cmd/survivor.h \
	cmd/target.c cmd/target.h \
	cmd/transfer.c cmd/transfer.h \
	cmd/xenstore.h
libcmd_la_LIBADD = libplugins.la libmigrate.la
libsxmxenstore_la_CFLAGS = $(AM_CFLAGS) $(XEN_CFLAGS)
if HAVE_XEN
libsxmxenstore_la_SOURCES = cmd/xenstore-lib.c
libsxmxenstore_la_LIBADD = $(XEN_LIBS)
else
libsxmxenstore_la_SOURCES = cmd/xenstore-none.c
endif
sxm_SOURCES = cmd/main-sxm.c
sxm_LDADD = libcmd.la libsxmxenstore.la
if HAVE_POD2MAN
man8_MANS += cmd/sxm.8
endif
EXTRA_DIST += cmd/README cmd/sxm.pod cmd/sxm.bash-completion
# Where bash-completion looks for what it completes: under the command's name.
completiondir = $(datadir)/bash-completion/completions
install-data-local:
	$(MKDIR_P) '$(DESTDIR)$(completiondir)'
	$(INSTALL_DATA) '$(srcdir)/cmd/sxm.bash-completion' '$(DESTDIR)$(completiondir)/sxm'
uninstall-local:
	rm -f '$(DESTDIR)$(completiondir)/sxm'
CLEANFILES += cmd/sxm.8
