# The ways to other hosts. Only what links libmigrate knows of libssh2: the command sxm.
libmigrate_la_SOURCES += migrate/carrier-ends.c migrate/carrier-ends.h migrate/carrier-ssh.c migrate/carrier-tty.c migrate/carrier-tty.h \
	migrate/carrier-warden.c migrate/carrier-warden.h migrate/known-hosts.c migrate/known-hosts.h migrate/ssh-config.c \
	migrate/ssh-config.h migrate/ssh-config-load.c
if HAVE_SSH2
libmigrate_la_SOURCES += migrate/carrier-ssh2.c migrate/carrier-ssh2-private.h migrate/carrier-ssh2-channel.c migrate/carrier-ssh2-child.c \
	migrate/carrier-ssh2-known.c migrate/carrier-ssh2-link.c migrate/carrier-ssh2-login.c
libmigrate_la_LIBADD += $(SSH2_LIBS)
endif
if HAVE_ZSTD
libmigrate_la_LIBADD += $(ZSTD_LIBS)
endif
libmigrate_la_CPPFLAGS = $(AM_CPPFLAGS) $(SSH2_CFLAGS) $(ZSTD_CFLAGS)
