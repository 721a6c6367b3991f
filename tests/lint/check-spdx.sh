#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every source says its licence at its head, and a .c or .h file opens with what it is.
set -euo pipefail
cd "${SXM_SRCDIR:?start me with ./run}"
broken=0
complain() { echo "$*" >&2; broken=1; }
while read -r file; do
	head -5 "$file" | grep -q 'SPDX-License-Identifier: LGPL-2.1-or-later' || complain "$file: no licence line in its first five"
done < <(find src mirror migrate plugins cmd tests m4 . -maxdepth 1 -type f \( -name '*.sh' -o -name '*.ac' \) ; \
	find src mirror migrate plugins cmd tests -type f \( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' \))
while read -r file; do
	name=$(basename "$file" | sed 's/\.[ch]$//')
	sed -n '2,4p' "$file" | grep -qE "^ \* ([a-z0-9-]+) - " || complain "$file: its head should begin with \" * $name - what it knows\""
done < <(find src mirror migrate plugins cmd -name '*.[ch]')
exit $broken
