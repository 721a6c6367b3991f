#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A few short rounds of stress.py, each time others; what failed is said with its seed. ./check.sh --long plays 200.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
requires_root
requires python3 --version
python3 "$SXM_SRCDIR/tests/e2e/stress.py" --rounds 5 --seconds 2 "$@"
