# The rules of HACKING.md that a script can check.
LINT_TESTS = \
	tests/lint/check-headers.sh \
	tests/lint/check-includes.sh \
	tests/lint/check-length.sh \
	tests/lint/check-spdx.sh
TESTS += $(LINT_TESTS)
EXTRA_DIST += $(LINT_TESTS)
