# tests/sim: see tests/local.mk
