# The handover as a model: every interleaving of a small world. Needs spin.
TESTS += tests/model/check-model.sh
EXTRA_DIST += tests/model/check-model.sh tests/model/handover.pml
