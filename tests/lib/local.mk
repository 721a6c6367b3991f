# tests/lib: see tests/local.mk
