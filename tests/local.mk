# A test is a program or a script, named for the behaviour it defends; exit 77 skips it. One alone:
#       make check TESTS=tests/unit/test-range       ./run tests/e2e/test-demo.sh
TEST_EXTENSIONS = .sh
LOG_COMPILER = $(top_builddir)/run
SH_LOG_COMPILER = $(top_builddir)/run
AM_TESTS_ENVIRONMENT = MALLOC_PERTURB_=$$(( $$(od -An -N1 -tu1 /dev/urandom) % 255 + 1 )); export MALLOC_PERTURB_;

if HAVE_CMOCKA
include $(srcdir)/tests/unit/local.mk
include $(srcdir)/tests/sim/local.mk
include $(srcdir)/tests/fuzz/local.mk
endif
include $(srcdir)/tests/lib/local.mk
include $(srcdir)/tests/model/local.mk
include $(srcdir)/tests/e2e/local.mk
include $(srcdir)/tests/two-host/local.mk
include $(srcdir)/tests/xen/local.mk
include $(srcdir)/tests/lint/local.mk
EXTRA_DIST += tests/README tests/bench/README tests/bench/bench.py tests/bench/carriers.py tests/bench/engines.py tests/bench/far_away.py tests/bench/faults.py \
	tests/bench/migrate.py tests/bench/moment.py tests/bench/moves.py \
	tests/bench/report.py \
	tests/bench/rig.py tests/bench/tls.py tests/run.in tests/functions.sh
