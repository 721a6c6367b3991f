sxmlibexec_PROGRAMS += sxm-datapath
sxm_datapath_SOURCES = src/main-datapath.c src/keeper.c src/keeper.h
sxm_datapath_LDADD = libcontrol.la libxen.la
if HAVE_POD2MAN
man8_MANS += src/sxm-datapath.8
endif
EXTRA_DIST += src/sxm-datapath.pod src/sxm-datapath@.service.in
CLEANFILES += src/sxm-datapath.8 src/sxm-datapath@.service

systemdunitdir = $(prefix)/lib/systemd/system
nodist_systemdunit_DATA = src/sxm-datapath@.service src/sxm-xenbus.service
src/sxm-datapath@.service: src/sxm-datapath@.service.in Makefile
	$(AM_V_at)$(MKDIR_P) $(@D)
	$(AM_V_GEN)$(SED) 's,@''libexecdir@,$(libexecdir),' $(srcdir)/src/sxm-datapath@.service.in >$@
src/sxm-xenbus.service: src/sxm-xenbus.service.in Makefile
	$(AM_V_at)$(MKDIR_P) $(@D)
	$(AM_V_GEN)$(SED) 's,@''libexecdir@,$(libexecdir),' $(srcdir)/src/sxm-xenbus.service.in >$@
