# The room alone, for tests that put fakes below it.
noinst_LTLIBRARIES += libvdiroom.la libvdi.la
libvdiroom_la_SOURCES = \
	src/vdi/begin.c \
	src/vdi/budget.c src/vdi/budget-share.c src/vdi/budget.h \
	src/vdi/debt.c src/vdi/debt.h \
	src/vdi/domains.c src/vdi/domains.h \
	src/vdi/figures.c src/vdi/figures.h src/vdi/figures-guest.c src/vdi/figures-guest.h \
	src/vdi/journal.c src/vdi/journal.h \
	src/vdi/revive.c \
	src/vdi/envoy.c \
	src/vdi/far.c src/vdi/far-ask.c src/vdi/far-log.c src/vdi/moved-log.h \
	src/vdi/group.c src/vdi/group-doubt.c \
	src/vdi/guest-device.c \
	src/vdi/handover.c \
	src/vdi/import.c src/vdi/import.h \
	src/vdi/jobs.c \
	src/vdi/life.c \
	src/vdi/linger.c \
	src/vdi/listening.c \
	src/vdi/operation.c \
	src/vdi/owner.c src/vdi/owner.h \
	src/vdi/record.c src/vdi/remember.c \
	src/vdi/settle.c \
	src/vdi/pause.c src/vdi/resize.c src/vdi/snapshot.c \
	src/vdi/source.c src/vdi/source-log.c src/vdi/source-news.c src/vdi/source-prepare.c \
	src/vdi/stack.c \
	src/vdi/take.c \
	src/vdi/tenancy.c src/vdi/tenancy.h \
	src/vdi/tracking.c \
	src/vdi/verification.c \
	src/vdi/vdi.c src/vdi/vdi.h src/vdi/vdi-private.h src/vdi/vdi-steps.h
libvdi_la_SOURCES =
libvdiroom_la_LIBADD = libcbt.la liboverlay.la
libvdi_la_LIBADD = libvdiroom.la libmirror.la libdisk.la libnbdsrv.la libvbd.la libjson.la
EXTRA_DIST += src/vdi/README src/vdi/OWNERSHIP
