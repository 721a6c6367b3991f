#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A file is at most 600 lines, a function at most 60, a line at most 130 columns (a TAB is 8; tables in tests may be
# wider).
set -euo pipefail
cd "${SXM_SRCDIR:?start me with ./run}"
find src mirror migrate plugins cmd tests -name '*.[ch]' | sort | xargs awk '
function complain(text) { print FILENAME ":" FNR ": " text; broken = 1 }
FNR == 1 { if (NR > 1 && lines > 600) print last ": " lines " lines"; if (lines > 600) broken = 1; start = 0 }
{ lines = FNR; last = FILENAME }
{ text = $0; while ((i = index(text, "\t")) > 0) text = substr(text, 1, i - 1) substr("        ", 1 + (i - 1) % 8) substr(text, i + 1) }
length(text) > 130 && FILENAME !~ "^tests/(unit|fuzz)/" { complain("more than 130 columns") }
/^{/ { start = FNR }
/^}/ { if (start && FNR - start - 1 > 60) complain("a function of " FNR - start - 1 " lines"); start = 0 }
END { if (lines > 600) { print last ": " lines " lines"; broken = 1 } exit broken }' >&2
