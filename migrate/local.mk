noinst_LTLIBRARIES += libmigrate.la
libmigrate_la_SOURCES = \
	migrate/carrier-exec.c \
	migrate/carrier.c migrate/carrier.h \
	migrate/journey.c migrate/journey.h migrate/journey-private.h migrate/journey-ask.c migrate/journey-limit.c migrate/journey-look.c migrate/journey-plan.c \
	migrate/journey-record.c migrate/journey-steps.c migrate/journey-switch.c migrate/journey-transport.c migrate/journey-undo.c \
	migrate/journey-vm.c migrate/journey-vm-disks.c migrate/journey-vm.h migrate/journey-whose.c migrate/move-key.c migrate/move-key.h \
	migrate/peer.c migrate/peer.h migrate/plan.c migrate/plan.h \
	migrate/pump.c migrate/pump.h migrate/pump-way.c migrate/pump-way.h migrate/squeeze.c migrate/squeeze.h \
	migrate/qemu.c migrate/qemu.h migrate/qmp.c migrate/qmp.h migrate/vm.c migrate/vm.h \
	migrate/vm-verbs.c migrate/vm-verbs.h \
	migrate/question.c migrate/question.h \
	migrate/relay.c migrate/relay.h \
	migrate/tunnel.c migrate/tunnel.h \
	migrate/way.c migrate/way.h
libmigrate_la_LIBADD = libview.la libjson.la
EXTRA_DIST += migrate/README migrate/PROTOCOL.relay migrate/THEORY-vm
include $(srcdir)/migrate/view.mk
include $(srcdir)/migrate/carrier.mk
