# The stage: two hosts and a stand-in for xapi; what it is stands in README there. It is installed whole, for the users' own tests.
stagedir = $(pkgdatadir)/stage
stagesequencesdir = $(stagedir)/sequences
sxmlibexec_PROGRAMS += sxm-stage-guest sxm-stage-launch sxm-stage-pump
sxm_stage_guest_SOURCES = tests/lib/guest.c tests/lib/guest.h tests/lib/guest-verify.c
sxm_stage_guest_CFLAGS = $(AM_CFLAGS) $(NBD_CFLAGS)
sxm_stage_guest_LDADD = libbase.la $(NBD_LIBS)
sxm_stage_launch_SOURCES = tests/two-host/launch.c
sxm_stage_launch_LDADD = libbase.la
sxm_stage_pump_SOURCES = tests/two-host/pump.c
sxm_stage_pump_LDADD = libbase.la

dist_stage_SCRIPTS = tests/two-host/sxm-stage
dist_stage_DATA = tests/two-host/README tests/two-host/actions.py tests/two-host/dom0.py tests/two-host/guest.py tests/two-host/hosts.py tests/two-host/launch.py tests/two-host/measure.py \
	tests/two-host/nbd.py tests/two-host/play.py tests/two-host/relay.py tests/two-host/rrd.py tests/two-host/scene.py tests/two-host/sequence.py tests/two-host/tapdisk.py \
	tests/two-host/verbs.py tests/two-host/metrics.py tests/lib/tapdisk_client.py tests/lib/tapdisk_server.py tests/lib/tapdisk_source.py
dist_stagesequences_DATA = \
	tests/two-host/sequences/d-in.seq tests/two-host/sequences/d-in-cancel.seq tests/two-host/sequences/d-in-copy.seq tests/two-host/sequences/d-in-mirror.seq \
	tests/two-host/sequences/d-in-snapshots.seq tests/two-host/sequences/d-in-start.seq tests/two-host/sequences/d-in-stays.seq tests/two-host/sequences/d-in-switch.seq \
	tests/two-host/sequences/d-out.seq tests/two-host/sequences/d-out-copy.seq tests/two-host/sequences/d-out-move.seq \
	tests/two-host/sequences/d-out-snapshots.seq tests/two-host/sequences/f14.seq tests/two-host/sequences/f14-late.seq \
	tests/two-host/sequences/cbt-backup.seq tests/two-host/sequences/copy.seq tests/two-host/sequences/daemons-die.seq \
	tests/two-host/sequences/dies-here.seq tests/two-host/sequences/dies-there.seq tests/two-host/sequences/doctor.seq \
	tests/two-host/sequences/f1-lost.seq tests/two-host/sequences/f1.seq tests/two-host/sequences/f10.seq \
	tests/two-host/sequences/f11.seq tests/two-host/sequences/f12.seq tests/two-host/sequences/f13.seq \
	tests/two-host/sequences/f2-refused.seq tests/two-host/sequences/f2.seq tests/two-host/sequences/f3.seq \
	tests/two-host/sequences/f4.seq tests/two-host/sequences/f5-lost.seq tests/two-host/sequences/f5.seq \
	tests/two-host/sequences/f6.seq tests/two-host/sequences/f7.seq tests/two-host/sequences/f8.seq \
	tests/two-host/sequences/f9.seq tests/two-host/sequences/graphs.seq tests/two-host/sequences/late-proxy.seq tests/two-host/sequences/life.seq \
	tests/two-host/sequences/local-migrate.seq tests/two-host/sequences/migrate-halted.seq \
	tests/two-host/sequences/migrate-send.seq tests/two-host/sequences/pool-migrate.seq \
	tests/two-host/sequences/pool-move.seq tests/two-host/sequences/reboot.seq \
	tests/two-host/sequences/shutdown-there.seq tests/two-host/sequences/shutdown.seq \
	tests/two-host/sequences/snapshot-live.seq tests/two-host/sequences/snapshot.seq \
	tests/two-host/sequences/start-there.seq tests/two-host/sequences/start.seq tests/two-host/sequences/stays.seq \
	tests/two-host/sequences/sxm-f1.seq tests/two-host/sequences/sxm-f2.seq tests/two-host/sequences/sxm-f3.seq \
	tests/two-host/sequences/sxm-f5.seq tests/two-host/sequences/sxm-f7.seq tests/two-host/sequences/sxm-halted.seq \
	tests/two-host/sequences/sxm-mirror.seq tests/two-host/sequences/sxm-over.seq \
	tests/two-host/sequences/sxm-switch.seq tests/two-host/sequences/sxm.seq tests/two-host/sequences/vdi-copy.seq \
	tests/two-host/sequences/vdi-pool-migrate.seq tests/two-host/sequences/w10.seq \
	tests/two-host/sequences/xapi-restart.seq

# The command: it knows where its tools and the plugins were installed.
bin_SCRIPTS = tests/two-host/command/sxm-stage
CLEANFILES += tests/two-host/command/sxm-stage
tests/two-host/command/sxm-stage: Makefile
	$(AM_V_GEN)$(MKDIR_P) $(@D) && printf '%s\n' '#!/bin/sh' \
		'export SXM_STAGE_TOOLS="$${SXM_STAGE_TOOLS-$(sxmlibexecdir)}" SXM_LIBEXECDIR="$${SXM_LIBEXECDIR-$(libexecdir)}"' \
		'exec python3 "$(stagedir)/sxm-stage" "$$@"' >$@.new && chmod +x $@.new && mv $@.new $@

STAGE_TESTS = tests/two-host/test-stage.py tests/two-host/test-stage-faults.py
TESTS += $(STAGE_TESTS)
EXTRA_DIST += $(STAGE_TESTS) tests/two-host/rows.py
