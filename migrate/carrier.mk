# The ways to other hosts.
libmigrate_la_SOURCES += migrate/carrier-ends.c migrate/carrier-ends.h migrate/carrier-ssh.c migrate/carrier-tty.c migrate/carrier-tty.h \
	migrate/carrier-warden.c migrate/carrier-warden.h migrate/known-hosts.c migrate/known-hosts.h migrate/ssh-config.c \
	migrate/ssh-config.h migrate/ssh-config-load.c
