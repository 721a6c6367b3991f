# The ways to other hosts. Only what links libmigrate knows of libssh2: the command sxm.
libmigrate_la_SOURCES += migrate/known-hosts.c migrate/known-hosts.h migrate/ssh-config.c migrate/ssh-config.h migrate/ssh-config-load.c
