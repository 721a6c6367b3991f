# The handover as models: every interleaving of small worlds. Needs spin.
TESTS += tests/model/check-model.sh
EXTRA_DIST += tests/model/check-model.sh tests/model/handover.pml tests/model/group.pml
