# The mirror's core in virtual time: readable traces, random schedules, and bugs planted to see that those find them.
SIM_SOURCES = tests/lib/sim.c tests/lib/sim.h tests/lib/sim-oracle.c tests/sim/schedule.c tests/sim/schedule.h
SIM_TESTS = tests/sim/sim-golden tests/sim/sim-golden-ends tests/sim/sim-golden-links tests/sim/sim-random tests/sim/sim-planted tests/sim/sim-pace
SIM_TESTS += tests/sim/sim-commit
GOLDEN_SOURCES = tests/lib/sim.c tests/lib/sim.h tests/lib/sim-oracle.c tests/sim/golden.c tests/sim/golden.h
tests_sim_sim_golden_SOURCES = tests/sim/sim-golden.c $(GOLDEN_SOURCES)
tests_sim_sim_golden_LDADD = libcore.la
tests_sim_sim_golden_ends_SOURCES = tests/sim/sim-golden-ends.c $(GOLDEN_SOURCES)
tests_sim_sim_golden_ends_LDADD = libcore.la
tests_sim_sim_golden_links_SOURCES = tests/sim/sim-golden-links.c $(GOLDEN_SOURCES)
tests_sim_sim_golden_links_LDADD = libcore.la
tests_sim_sim_random_SOURCES = tests/sim/sim-random.c $(SIM_SOURCES)
tests_sim_sim_random_LDADD = libcore.la
tests_sim_sim_pace_SOURCES = tests/sim/sim-pace.c tests/sim/timed.c tests/sim/timed.h
tests_sim_sim_pace_LDADD = libcore.la
SIM_TESTS += tests/sim/sim-eta
tests_sim_sim_eta_SOURCES = tests/sim/sim-eta.c tests/sim/timed.c tests/sim/timed.h
tests_sim_sim_eta_LDADD = libview.la libcore.la
SIM_TESTS += tests/sim/sim-deadline
tests_sim_sim_deadline_SOURCES = tests/sim/sim-deadline.c tests/sim/timed.c tests/sim/timed.h
tests_sim_sim_deadline_LDADD = libview.la libcore.la
# The core once more, with its planted bugs.
tests_sim_sim_planted_SOURCES = tests/sim/sim-planted.c $(SIM_SOURCES) $(libcore_la_SOURCES)
tests_sim_sim_planted_CPPFLAGS = $(AM_CPPFLAGS) -DPLANT -DCORE_ACTIONS_MAX=4
tests_sim_sim_planted_LDADD = libbase.la
# The handover between two hosts, with the commit's planted bugs.
tests_sim_sim_commit_SOURCES = tests/sim/sim-commit.c tests/sim/handover.c tests/sim/handover.h tests/sim/handover-far.c \
	tests/sim/handover-group.c tests/sim/handover-oracle.c tests/sim/handover-person.c tests/sim/handover-prepare.c tests/sim/handover-source.c \
	tests/sim/handover-turn.c $(libcommit_la_SOURCES)
tests_sim_sim_commit_CPPFLAGS = $(AM_CPPFLAGS) -DPLANT
tests_sim_sim_commit_LDADD = libbase.la
# The lease between hosts, with the tenure's planted bugs.
SIM_TESTS += tests/sim/sim-lease
tests_sim_sim_lease_SOURCES = tests/sim/sim-lease.c src/base/tenure.c src/base/tenure.h src/base/tenure-plant.h
tests_sim_sim_lease_CPPFLAGS = $(AM_CPPFLAGS) -DPLANT
tests_sim_sim_lease_LDADD = libbase.la
check_PROGRAMS += $(SIM_TESTS)
TESTS += $(SIM_TESTS)
EXTRA_DIST += tests/sim/coverage.sh
