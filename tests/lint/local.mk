# tests/lint: see tests/local.mk
