sxmlibexec_PROGRAMS += sxm-datapath
sxm_datapath_SOURCES = src/main-datapath.c src/keeper.c src/keeper.h
sxm_datapath_LDADD = libcontrol.la
man8_MANS += src/sxm-datapath.8
EXTRA_DIST += src/sxm-datapath.pod src/sxm-datapath@.service.in
CLEANFILES += src/sxm-datapath.8
